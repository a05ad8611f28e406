//! Servers, and the HTTP clients that measure, disturb and stop requests to them. Tests with moto
//! are ignored if it is not installed, unless `ANNALS_REQUIRE` names `moto`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use annals_test_servers::{
    BoxError, Proxy,
    dynamodb::{self, Dying, DynamoDb, Fault, Faults, Meter, Rates, Source, Usage, Writes},
    until,
};
use aws_sdk_dynamodb::{
    Client,
    config::{http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{
        AttributeDefinition, AttributeValue, BillingMode, ConditionCheck, KeySchemaElement,
        KeyType, KeysAndAttributes, Put, PutRequest, ReturnConsumedCapacity, ScalarAttributeType,
        TransactWriteItem, WriteRequest,
    },
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

type Tested = Result<(), BoxError>;
type Item = HashMap<String, AttributeValue>;

/// How long a test waits for what has to happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// Set in the environment of a process that is killed while it has a server.
const VICTIM: &str = "ANNALS_TEST_SERVERS_VICTIM";

fn main() -> ExitCode {
    if std::env::var_os(VICTIM).is_some() {
        return block_on(be_killed()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    macro_rules! trials {
        ($($source:expr => $($test:ident)*;)*) => {
            vec![$($(trial($source, stringify!($test), $test)),*),*]
        };
    }
    let trials = trials! {
        Source::find() => answers is_shared;
        Ok(Source::InProcess) => restarts_over_the_same_data outlives_its_runtime
            ends_when_dropped given_server_is_used_with_a_prefix
            meter_counts_what_the_server_tells meter_counts_what_fails
            refusals_do_nothing errors_and_losses_may_have_done_it transactions_conflict
            stale_reads_are_old batches_are_done_in_part tables_are_left_alone
            same_seed_has_same_faults all_faults_happen_and_retries_help dies_before_a_request
            dies_after_a_request proxy_loses_answers_of_writes;
        Ok(Source::Moto) => answers ends_when_dropped killed_process_leaves_nothing;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<F>(source: Result<Source, String>, name: &str, test: fn(DynamoDb) -> F) -> Trial
where
    F: Future<Output = Tested> + 'static,
{
    let of = source.as_ref().map_or_else(Clone::clone, ToString::to_string);
    Trial::ignorable_test(format!("{name} ({of})"), move || {
        let source = source?;
        let started = async {
            // Start a server even for a test that does not use it, to know whether it is installed.
            match source.start().await {
                Ok(server) => test(server).await.map(|()| Completion::Completed),
                Err(e) if source == Source::Moto && !is_required("moto") => {
                    Ok(Completion::ignored_with(e.to_string()))
                }
                Err(e) => Err(e),
            }
        };
        block_on(started).map_err(|e| Failed::from(format!("{e:?}")))
    })
}

fn is_required(server: &str) -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == server)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(future)
}

/// A client without retries, which shows every error.
fn client(server: &DynamoDb, http: SharedHttpClient) -> Client {
    let config = server.config().to_builder().retry_config(RetryConfig::disabled());
    Client::from_conf(config.http_client(http).build())
}

/// Creates a table of the test's own, and returns its name.
async fn create_table(server: &DynamoDb, name: &str) -> Result<String, BoxError> {
    let name = server.table(&format!("{name}{:x}", fastrand::u32(..)));
    let client = server.client();
    let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let attribute = |name, kind| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
    };
    client
        .create_table()
        .table_name(&name)
        .key_schema(key("pk", KeyType::Hash)?)
        .key_schema(key("sk", KeyType::Range)?)
        .attribute_definitions(attribute("pk", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("sk", ScalarAttributeType::N)?)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    until("the table is there", PATIENCE, || async {
        let answer = client.describe_table().table_name(&name).send().await;
        let table = answer.ok().and_then(|answer| answer.table);
        table.and_then(|table| table.table_status).is_some_and(|status| status.as_str() == "ACTIVE")
    })
    .await?;
    Ok(name)
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: u32) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn key(pk: &str, sk: u32) -> Item {
    HashMap::from([("pk".to_owned(), s(pk)), ("sk".to_owned(), n(sk))])
}

async fn put(client: &Client, table: &str, pk: &str, sk: u32) -> Tested {
    client.put_item().table_name(table).set_item(Some(key(pk, sk))).send().await?;
    Ok(())
}

async fn count(client: &Client, table: &str, pk: &str) -> Result<i32, BoxError> {
    let query = client.query().table_name(table).key_condition_expression("pk = :pk");
    let query = query.expression_attribute_values(":pk", s(pk)).consistent_read(true);
    Ok(query.send().await?.count())
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> (u16, String) {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    (status, error.code().unwrap_or_default().to_owned())
}

async fn answers(server: DynamoDb) -> Tested {
    let (client, one) = (server.client(), create_table(&server, "one").await?);
    let two = create_table(&server, "two").await?;
    put(&client, &one, "a", 1).await?;
    assert_eq!(count(&client, &one, "a").await?, 1);
    assert_eq!(count(&client, &two, "a").await?, 0);
    if server.is_ours() {
        let endpoint = format!("http://{}", server.addr().unwrap());
        assert_eq!(server.endpoint(), Some(endpoint.clone()));
        let url = format!("dynamodb://t?region=us-east-1&endpoint={endpoint}");
        assert_eq!(server.url("t"), url);
        let addr = ([127, 0, 0, 1], 9).into();
        let url = "dynamodb://t?region=us-east-1&endpoint=http://127.0.0.1:9";
        assert_eq!(server.url_at(addr, "t"), url);
    } else {
        client.delete_table().table_name(one).send().await?;
        client.delete_table().table_name(two).send().await?;
    }
    Ok(())
}

async fn is_shared(_: DynamoDb) -> Tested {
    let (one, other) = (dynamodb::shared().await?, dynamodb::shared().await?);
    assert_eq!(one.url("t"), other.url("t"));
    one.client().list_tables().send().await?;
    Ok(())
}

async fn restarts_over_the_same_data(server: DynamoDb) -> Tested {
    let (client, table) =
        (client(&server, dynamodb::plain_http()), create_table(&server, "t").await?);
    let addr = server.addr().unwrap();
    for sk in 0..10 {
        put(&client, &table, "a", sk).await?;
        let idle = tokio::net::TcpStream::connect(addr).await?;
        // Any answer proves that the server has accepted the connection.
        idle.writable().await?;
        idle.try_write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
        idle.readable().await?;
        server.restart().await?;
        let closed = || async {
            let mut buffer = [0; 1024];
            idle.readable().await.is_ok() && matches!(idle.try_read(&mut buffer), Ok(0) | Err(_))
        };
        tokio::time::timeout(PATIENCE, async { while !closed().await {} }).await?;
        // The client may still try a pooled connection that the server has closed.
        let back = || async { count(&client, &table, "a").await.is_ok() };
        until("the server is back", PATIENCE, back).await?;
        assert_eq!(count(&client, &table, "a").await?, i32::try_from(sk)? + 1);
    }
    assert_eq!(server.addr(), Some(addr));
    Ok(())
}

async fn outlives_its_runtime(_: DynamoDb) -> Tested {
    std::thread::spawn(|| {
        let server = block_on(Source::InProcess.start())?;
        for _ in 0..2 {
            block_on(server.client().list_tables().send())?;
            block_on(server.restart())?;
        }
        Ok(())
    })
    .join()
    .unwrap()
}

async fn ends_when_dropped(server: DynamoDb) -> Tested {
    let addr = server.addr().unwrap();
    drop(server);
    until("the port is closed", PATIENCE, || async { TcpStream::connect(addr).is_err() }).await
}

async fn given_server_is_used_with_a_prefix(server: DynamoDb) -> Tested {
    let endpoint = server.endpoint().unwrap();
    let given = Source::Given(format!("dynamodb://mine?region=eu-west-1&endpoint={endpoint}"));
    let given = given.start().await?;
    assert!(!given.is_ours() && given.restart().await.is_err());
    assert_eq!((given.addr(), given.endpoint()), (server.addr(), Some(endpoint.clone())));
    let url = format!("dynamodb://mine_t?region=eu-west-1&endpoint={endpoint}");
    assert_eq!(given.url("t"), url);
    let table = create_table(&given, "t").await?;
    assert!(table.starts_with("mine_t"));
    put(&given.client(), &table, "a", 1).await?;
    assert_eq!(count(&server.client(), &table, "a").await?, 1);

    drop(server);
    let addr = given.addr().unwrap();
    until("the port is closed", PATIENCE, || async { TcpStream::connect(addr).is_err() }).await?;
    assert!(Source::Given(url).start().await.is_err());
    Ok(())
}

/// Runs a server until this process is killed.
async fn be_killed() -> Tested {
    let server = Source::Moto.start().await?;
    println!("{}", server.addr().unwrap());
    std::future::pending().await
}

async fn killed_process_leaves_nothing(_: DynamoDb) -> Tested {
    let mut victim: Child =
        Command::new(std::env::current_exe()?).env(VICTIM, "").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line)?;
    let addr: std::net::SocketAddr = line.trim().parse()?;
    TcpStream::connect(addr)?;
    victim.kill()?;
    victim.wait()?;
    until("the port is closed", PATIENCE, || async { TcpStream::connect(addr).is_err() }).await
}

async fn meter_counts_what_the_server_tells(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    let meter = Meter::new();
    let metered = client(&server, meter.http_client());
    let big = s(&"x".repeat(3000));
    let item = |sk| {
        let mut item = key("a", sk);
        item.insert("data".to_owned(), big.clone());
        item
    };
    let total = ReturnConsumedCapacity::Total;
    let told = |capacity: Option<aws_sdk_dynamodb::types::ConsumedCapacity>| {
        capacity.and_then(|capacity| capacity.capacity_units).unwrap()
    };

    let put = |client: &Client, sk| client.put_item().table_name(&table).set_item(Some(item(sk)));
    put(&metered, 1).send().await?;
    let answer = put(&plain, 2).return_consumed_capacity(total.clone()).send().await?;
    let expected = told(answer.consumed_capacity);
    assert!(expected >= 3.0);
    let usage = meter.take();
    assert_eq!((usage.requests, usage.failed), (1, 0));
    assert_eq!((usage.write_units, usage.read_units), (expected, 0.0));
    assert_eq!(usage.by_operation, BTreeMap::from([("PutItem".to_owned(), 1)]));
    assert!(usage.bytes_sent > 3000 && usage.bytes_received > 0);
    assert_eq!(meter.take(), Usage::default());

    let query = |client: &Client| {
        let query = client.query().table_name(&table).key_condition_expression("pk = :pk");
        query.expression_attribute_values(":pk", s("a")).consistent_read(true)
    };
    query(&metered).send().await?;
    let expected =
        told(query(&plain).return_consumed_capacity(total.clone()).send().await?.consumed_capacity);
    assert!(expected >= 2.0);
    // A caller that asks for the units itself gets them, and they are counted, too.
    let asked = query(&metered).return_consumed_capacity(total.clone()).send().await?;
    assert_eq!(told(asked.consumed_capacity), expected);
    let usage = meter.take();
    assert_eq!((usage.write_units, usage.read_units), (0.0, 2.0 * expected));

    let transact = |client: &Client, sk| {
        let put = Put::builder().table_name(&table).set_item(Some(item(sk))).build().unwrap();
        let check = ConditionCheck::builder().table_name(&table).set_key(Some(key("b", 1)));
        let check = check.condition_expression("attribute_not_exists(pk)").build().unwrap();
        let client = client.transact_write_items();
        client
            .transact_items(TransactWriteItem::builder().put(put).build())
            .transact_items(TransactWriteItem::builder().condition_check(check).build())
    };
    transact(&metered, 3).send().await?;
    let answer = transact(&plain, 4).return_consumed_capacity(total).send().await?;
    let expected = answer.consumed_capacity.unwrap().into_iter().map(|c| told(Some(c))).sum();
    let usage = meter.take();
    assert_eq!((usage.write_units, usage.read_units), (expected, 0.0));
    assert!(expected >= 8.0, "{expected} units");

    // A transaction that is repeated with its token costs a read only.
    for (read, write) in [(0.0, 4.0), (4.0, 0.0)] {
        transaction(&metered, &table, "c", 2).client_request_token("token").send().await?;
        let usage = meter.take();
        assert_eq!((usage.read_units, usage.write_units), (read, write));
    }

    let keys = KeysAndAttributes::builder().keys(key("a", 1)).keys(key("a", 2)).build()?;
    metered.batch_get_item().request_items(&table, keys).send().await?;
    metered.describe_table().table_name(&table).send().await?;
    let usage = meter.take();
    assert_eq!((usage.requests, usage.read_units), (2, 1.0));
    Ok(())
}

async fn meter_counts_what_fails(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    put(&plain, &table, "a", 1).await?;
    let meter = Meter::new();
    let faults = Faults::new(1, Rates::none());
    let client = client(&server, meter.around(faults.http_client()));
    let refused = client
        .put_item()
        .table_name(&table)
        .set_item(Some(key("a", 1)))
        .condition_expression("attribute_not_exists(pk)");
    let error = refused.send().await.unwrap_err();
    assert_eq!(code(&error), (400, "ConditionalCheckFailedException".to_owned()));
    faults.set_rates(Rates::none().with(Fault::LostRequest, 1.0));
    put(&client, &table, "a", 1).await.unwrap_err();
    let usage = meter.take();
    assert_eq!((usage.requests, usage.failed, usage.write_units), (2, 2, 0.0));
    Ok(())
}

async fn refusals_do_nothing(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    for (fault, expected) in [
        (
            Fault::Throttled,
            &[
                (400, "ProvisionedThroughputExceededException"),
                (400, "RequestLimitExceeded"),
                (400, "ThrottlingException"),
            ][..],
        ),
        (Fault::Conflict, &[(400, "TransactionConflictException")]),
        (Fault::ErrorBefore, &[(500, "InternalServerError")]),
        (Fault::LostRequest, &[(0, "")]),
    ] {
        let faults = Faults::new(1, Rates::none().with(fault, 1.0));
        let client = client(&server, faults.http_client());
        let mut seen = Vec::new();
        let (mut timeouts, mut closed) = (0, 0);
        for sk in 0..20 {
            let put = client.put_item().table_name(&table).set_item(Some(key("a", sk)));
            let error = put.send().await.unwrap_err();
            if let SdkError::DispatchFailure(failure) = &error {
                timeouts += u32::from(failure.is_timeout());
                closed += u32::from(failure.is_io());
            }
            seen.push(code(&error));
        }
        seen.sort();
        seen.dedup();
        let seen: Vec<_> = seen.iter().map(|(status, code)| (*status, code.as_str())).collect();
        assert_eq!(seen, expected);
        assert_eq!(faults.counts()[fault.name()], 20);
        if fault == Fault::LostRequest {
            assert!(timeouts > 0 && closed > 0 && timeouts + closed == 20);
        }
        assert_eq!(count(&plain, &table, "a").await?, 0, "{fault}");
    }
    Ok(())
}

async fn errors_and_losses_may_have_done_it(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    for (fault, expected) in [
        (Fault::ErrorAfter, (500, "InternalServerError".to_owned())),
        (Fault::LostAnswer, (0, String::new())),
    ] {
        let faults = Faults::new(1, Rates::none().with(fault, 1.0));
        let client = client(&server, faults.http_client());
        let put = client.put_item().table_name(&table).set_item(Some(key(fault.name(), 1)));
        assert_eq!(code(&put.send().await.unwrap_err()), expected);
        assert_eq!(count(&plain, &table, fault.name()).await?, 1, "{fault}");
    }
    Ok(())
}

fn transaction(client: &Client, table: &str, pk: &str, items: u32) -> TransactWrite {
    let put = |sk| Put::builder().table_name(table).set_item(Some(key(pk, sk))).build().unwrap();
    let item = |sk| TransactWriteItem::builder().put(put(sk)).build();
    client.transact_write_items().set_transact_items(Some((0..items).map(item).collect()))
}

type TransactWrite =
    aws_sdk_dynamodb::operation::transact_write_items::builders::TransactWriteItemsFluentBuilder;

async fn transactions_conflict(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    let faults = Faults::new(1, Rates::none().with(Fault::Conflict, 1.0));
    let client = client(&server, faults.http_client());
    let mut blamed = [false; 3];
    for _ in 0..20 {
        let error = transaction(&client, &table, "a", 3).send().await.unwrap_err();
        let error = error.into_service_error();
        let message = error.message().unwrap_or_default();
        assert!(message.starts_with("Transaction cancelled"), "{message}");
        let TransactError::TransactionCanceledException(cancelled) = error else {
            return Err(error.into());
        };
        let codes: Vec<_> =
            cancelled.cancellation_reasons().iter().map(|reason| reason.code().unwrap()).collect();
        let one = codes.iter().position(|code| *code == "TransactionConflict").unwrap();
        assert_eq!(codes.iter().filter(|code| **code == "None").count(), 2);
        blamed[one] = true;
    }
    assert_eq!(blamed, [true; 3]);
    assert_eq!(count(&plain, &table, "a").await?, 0);
    // A plain read has no conflicts.
    let read = client.get_item().table_name(&table).set_key(Some(key("a", 1)));
    assert!(read.send().await?.item.is_none());
    Ok(())
}

type TransactError = aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;

async fn stale_reads_are_old(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    put(&plain, &table, "a", 1).await?;
    let (fresh, stale) = (Rates::none(), Rates::none().with(Fault::Stale, 1.0));
    let faults = Faults::new(1, stale.clone());
    let client = client(&server, faults.http_client());
    let get = |consistent| {
        let get = client.get_item().table_name(&table).set_key(Some(key("a", 1)));
        get.consistent_read(consistent).send()
    };
    let query = |consistent| {
        // The order of the two values in the request is random: an answer is found again all the
        // same.
        let query = client.query().table_name(&table);
        let query = query.key_condition_expression("pk = :pk AND sk < :many");
        let query = query.expression_attribute_values(":pk", s("a"));
        let query = query.expression_attribute_values(":many", n(9));
        query.consistent_read(consistent).send()
    };
    let batch = |consistent| {
        let keys = KeysAndAttributes::builder().keys(key("a", 1)).keys(key("a", 2));
        let keys = keys.consistent_read(consistent).build().unwrap();
        client.batch_get_item().request_items(&table, keys).send()
    };
    let found = async |consistent| {
        let answer = batch(consistent).await?;
        assert!(answer.unprocessed_keys.unwrap().is_empty());
        Ok::<_, BoxError>(answer.responses.unwrap()[&table].len())
    };

    // The first stale answer is the one before anything was written.
    assert!(get(false).await?.item.is_none());
    assert!(get(true).await?.item.is_some());
    assert_eq!((query(false).await?.count(), query(true).await?.count()), (0, 1));
    assert_eq!((found(false).await?, found(true).await?), (0, 1));
    assert_eq!(faults.counts()["stale"], 3);

    // A later stale answer is the last one that was read.
    faults.set_rates(fresh);
    assert_eq!((query(false).await?.count(), found(false).await?), (1, 1));
    put(&plain, &table, "a", 2).await?;
    faults.set_rates(stale);
    for _ in 0..5 {
        assert_eq!((query(false).await?.count(), query(true).await?.count()), (1, 2));
        assert_eq!((found(false).await?, found(true).await?), (1, 2));
    }
    Ok(())
}

async fn batches_are_done_in_part(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    let faults = Faults::new(1, Rates::none().with(Fault::Partial, 1.0));
    let client = client(&server, faults.http_client());
    let write = |sk| {
        let put = PutRequest::builder().set_item(Some(key("a", sk))).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    let mut rest = HashMap::from([(table.clone(), (0..10).map(write).collect::<Vec<_>>())]);
    let mut rounds = 0;
    while !rest.is_empty() {
        let asked = rest[&table].len();
        let answer = client.batch_write_item().set_request_items(Some(rest)).send().await?;
        rest = answer.unprocessed_items.unwrap();
        let left = rest.get(&table).map_or(0, Vec::len);
        assert!(left < asked && (left > 0 || asked == 1));
        assert_eq!(count(&plain, &table, "a").await?, i32::try_from(10 - left)?);
        rounds += 1;
    }
    assert!(rounds > 1);

    let keys = KeysAndAttributes::builder().set_keys(Some((0..10).map(|n| key("a", n)).collect()));
    let keys = keys.consistent_read(true).projection_expression("sk").build()?;
    let mut rest = HashMap::from([(table.clone(), keys)]);
    let mut read = Vec::new();
    while !rest.is_empty() {
        let asked = rest[&table].keys().len();
        let answer = client.batch_get_item().set_request_items(Some(rest)).send().await?;
        let found = answer.responses.unwrap().remove(&table).unwrap();
        rest = answer.unprocessed_keys.unwrap();
        assert_eq!(found.len() + rest.get(&table).map_or(0, |keys| keys.keys().len()), asked);
        if let Some(keys) = rest.get(&table) {
            // The rest is to be read as all was.
            assert_eq!(keys.consistent_read(), Some(true));
            assert_eq!(keys.projection_expression(), Some("sk"));
        }
        read.extend(
            found.into_iter().map(|item| item["sk"].as_n().unwrap().parse::<u32>().unwrap()),
        );
    }
    read.sort();
    assert_eq!(read, (0..10).collect::<Vec<_>>());
    assert!(faults.counts()["partial"] > 2);
    Ok(())
}

async fn tables_are_left_alone(server: DynamoDb) -> Tested {
    let table = create_table(&server, "t").await?;
    let faults = Faults::new(1, Rates::all(1.0));
    let client = client(&server, faults.http_client());
    client.describe_table().table_name(table).send().await?;
    assert!(faults.counts().values().all(|count| *count == 0));
    Ok(())
}

async fn same_seed_has_same_faults(server: DynamoDb) -> Tested {
    let table = create_table(&server, "t").await?;
    let outcomes = async |seed| {
        let faults = Faults::new(seed, Rates::all(0.1));
        let client = client(&server, faults.http_client());
        let mut all = Vec::new();
        for sk in 0..100 {
            let error = |error: BoxError| {
                format!(
                    "{:?}",
                    error.downcast::<SdkPut>().map(|e| {
                        (
                            code(&e),
                            e.to_string(),
                            std::error::Error::source(&*e).map(ToString::to_string),
                        )
                    })
                )
            };
            all.push(put(&client, &table, "a", sk).await.map_err(error));
        }
        (all, faults.counts())
    };
    let (one, same, other) = (outcomes(1).await, outcomes(1).await, outcomes(2).await);
    assert!(one.0.iter().any(Result::is_ok) && one.0.iter().any(Result::is_err));
    assert_eq!(one, same);
    assert_ne!(one, other);
    Ok(())
}

type SdkPut = SdkError<aws_sdk_dynamodb::operation::put_item::PutItemError, HttpResponse>;

async fn all_faults_happen_and_retries_help(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    let faults = Faults::new(7, Rates::all(0.05));
    let client = client(&server, faults.http_client());
    let happened = || faults.counts().values().all(|count| *count > 0);
    let mut sk = 0;
    while !happened() && sk < 1000 {
        sk += 1;
        while put(&client, &table, "a", sk).await.is_err() {}
        while transaction(&client, &table, "b", 2).send().await.is_err() {}
        let keys = KeysAndAttributes::builder().keys(key("a", 1)).keys(key("a", sk + 1)).build()?;
        while client.batch_get_item().request_items(&table, keys.clone()).send().await.is_err() {}
    }
    assert!(happened(), "{:?}", faults.counts());
    assert_eq!(count(&plain, &table, "a").await?, i32::try_from(sk)?);
    Ok(())
}

async fn dies_before_a_request(server: DynamoDb) -> Tested {
    dies(&server, Dying::before(2), 2).await
}

async fn dies_after_a_request(server: DynamoDb) -> Tested {
    dies(&server, Dying::after(2), 3).await
}

/// A process dies while it writes, and leaves this many items.
async fn dies(server: &DynamoDb, dying: Dying, left: u32) -> Tested {
    let (plain, table) = (server.client(), create_table(server, "t").await?);
    let client = client(server, dying.http_client());
    let write = async {
        for sk in 0..10 {
            put(&client, &table, "a", sk).await?;
        }
        Ok::<_, BoxError>(())
    };
    tokio::select! {
        end = write => return Err(format!("it lives: {end:?}").into()),
        () = dying.died() => {}
    }
    assert!(dying.is_dead());
    assert_eq!(dying.requests(), u64::from(left));
    assert_eq!(count(&plain, &table, "a").await?, i32::try_from(left)?);
    let later = put(&client, &table, "a", 99);
    assert!(tokio::time::timeout(Duration::from_millis(50), later).await.is_err());
    assert_eq!((dying.requests(), count(&plain, &table, "a").await?), (left.into(), left as i32));
    Ok(())
}

async fn proxy_loses_answers_of_writes(server: DynamoDb) -> Tested {
    let (plain, table) = (server.client(), create_table(&server, "t").await?);
    let proxy = Proxy::between(server.addr().unwrap(), Writes::new("marked")).await?;
    let config = server.config().to_builder().endpoint_url(format!("http://{}", proxy.addr()));
    let client = Client::from_conf(config.retry_config(RetryConfig::disabled()).build());
    put(&client, &table, "marked", 0).await?;
    for lost in 1..=3 {
        proxy.lose_next_answer();
        put(&client, &table, "other", 0).await?;
        assert_eq!(count(&client, &table, "marked").await?, lost);
        let sk = u32::try_from(lost)?;
        if lost == 2 {
            let transaction = transaction(&client, &table, "marked", 3).send().await;
            assert!(matches!(transaction.unwrap_err(), SdkError::DispatchFailure(_)));
        } else {
            put(&client, &table, "marked", sk).await.unwrap_err();
        }
        assert_eq!(proxy.lost(), usize::try_from(lost)?);
        assert_eq!(count(&plain, &table, "marked").await?, lost + 1);
        put(&client, &table, "marked", 0).await?;
    }
    Ok(())
}
