//! `schema/` agrees with the adapter: the templates for CloudFormation and Terraform define the
//! table that the adapter creates, and the policies allow the requests that it sends, and no
//! others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use annals_core::{
    Append, CheckpointStore, EventStore, ExpectedVersion, LeaseName, LeaseRecord, LeaseStore,
    NewEvent, Payload, Position, ReadAll, ReadStream, Snapshot, SnapshotStore, StreamId, Subscribe,
    SubscriberId, TryStreamExt, Version,
};
use annals_dynamodb::{
    DynamoDbOptions, DynamoDbStore,
    aws_sdk_dynamodb::{
        Client,
        config::{
            ConfigBag, Intercept, RuntimeComponents,
            interceptors::BeforeTransmitInterceptorContextRef,
        },
        types::TimeToLiveStatus,
    },
};
use annals_test_servers::{
    BoxError,
    dynamodb::{DynamoDb, Source},
};
use serde_json::Value;
use uuid::Uuid;
use yaml_rust2::{Yaml, YamlLoader};

type Tested = Result<(), BoxError>;
type Actions = BTreeSet<String>;

const CLOUDFORMATION: &str = include_str!("../schema/table.yaml");
const TERRAFORM: &str = include_str!("../schema/table.tf");
const USE: &str = include_str!("../schema/policy.json");
const CREATE: &str = include_str!("../schema/policy-create.json");

/// The properties of a table that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Definition {
    /// The names of the keys, by their types HASH and RANGE.
    keys: BTreeMap<String, String>,
    /// The types of all defined attributes, by their names.
    attributes: BTreeMap<String, String>,
    billing: String,
    /// The attribute with time to live, if that is on.
    expires: Option<String>,
}

impl Definition {
    async fn of_table(client: &Client, name: &str) -> Result<Self, BoxError> {
        let table = client.describe_table().table_name(name).send().await?.table.unwrap();
        let keys = table.key_schema().iter();
        let attributes = table.attribute_definitions().iter();
        let ttl = client.describe_time_to_live().table_name(name).send().await?;
        let ttl = ttl.time_to_live_description.unwrap();
        let on = matches!(
            ttl.time_to_live_status(),
            Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
        );
        Ok(Self {
            keys: keys.map(|k| pair(k.key_type().as_str(), k.attribute_name())).collect(),
            attributes: attributes
                .map(|a| pair(a.attribute_name(), a.attribute_type().as_str()))
                .collect(),
            billing: table.billing_mode_summary().unwrap().billing_mode().unwrap().to_string(),
            expires: ttl.attribute_name.filter(|_| on),
        })
    }

    /// The only resource of a template. The parser ignores the tag `!Ref`.
    fn of_cloudformation(template: &str) -> Self {
        let template = YamlLoader::load_from_str(template).unwrap().remove(0);
        let resources = template["Resources"].as_hash().unwrap();
        assert_eq!(resources.len(), 1);
        let table = resources.front().unwrap().1;
        assert_eq!(table["Type"].as_str(), Some("AWS::DynamoDB::Table"));
        let table = &table["Properties"];
        let text = |yaml: &Yaml| yaml.as_str().unwrap().to_owned();
        let pairs = |list: &str, name: &str, value: &str| {
            let list = table[list].as_vec().unwrap().iter();
            list.map(|each| pair(&text(&each[name]), &text(&each[value]))).collect()
        };
        let ttl = &table["TimeToLiveSpecification"];
        let on = ttl["Enabled"].as_bool().unwrap();
        Self {
            keys: pairs("KeySchema", "KeyType", "AttributeName"),
            attributes: pairs("AttributeDefinitions", "AttributeName", "AttributeType"),
            billing: text(&table["BillingMode"]),
            expires: on.then(|| text(&ttl["AttributeName"])),
        }
    }

    /// The only resource of a module.
    fn of_terraform(module: &str) -> Self {
        let module: Value = hcl::from_str(module).unwrap();
        let resources = module["resource"].as_object().unwrap();
        let tables = resources["aws_dynamodb_table"].as_object().unwrap();
        assert_eq!((resources.len(), tables.len()), (1, 1));
        let table = tables.values().next().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let attributes = table["attribute"].as_array().unwrap().iter();
        let ttl = &table["ttl"];
        Self {
            keys: [("HASH", "hash_key"), ("RANGE", "range_key")]
                .map(|(kind, name)| pair(kind, &text(&table[name])))
                .into(),
            attributes: attributes.map(|a| pair(&text(&a["name"]), &text(&a["type"]))).collect(),
            billing: text(&table["billing_mode"]),
            expires: ttl["enabled"].as_bool().unwrap().then(|| text(&ttl["attribute_name"])),
        }
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

fn options() -> DynamoDbOptions {
    DynamoDbOptions::default().with_poll_interval(Duration::from_millis(10))
}

fn with_ttl() -> DynamoDbOptions {
    options().with_snapshot_ttl(Duration::from_secs(3_600))
}

#[tokio::test]
async fn table_definitions_are_what_the_adapter_creates() -> Tested {
    let server = Source::InProcess.start().await?;
    let client = server.client();
    DynamoDbStore::with_client(&client, "expiring", with_ttl()).await?;
    let created = Definition::of_table(&client, "expiring").await?;
    assert_eq!(Definition::of_cloudformation(CLOUDFORMATION), created);
    assert_eq!(Definition::of_terraform(TERRAFORM), created);

    DynamoDbStore::with_client(&client, "lasting", options()).await?;
    let lasting = Definition { expires: None, ..created };
    assert_eq!(Definition::of_table(&client, "lasting").await?, lasting);
    Ok(())
}

/// Proves that the test above compares every property.
#[test]
fn every_difference_of_a_definition_is_seen() {
    let cloudformation = Definition::of_cloudformation(CLOUDFORMATION);
    for (old, new) in [
        ("pk", "id"),
        ("AttributeType: N", "AttributeType: S"),
        ("KeyType: RANGE", "KeyType: HASH"),
        ("PAY_PER_REQUEST", "PROVISIONED"),
        ("AttributeName: expires", "AttributeName: ttl"),
        (" Enabled: true", " Enabled: false"),
    ] {
        let other = CLOUDFORMATION.replace(old, new);
        assert_ne!(Definition::of_cloudformation(&other), cloudformation, "{old}");
    }
    let terraform = Definition::of_terraform(TERRAFORM);
    for (old, new) in [
        ("\"pk\"", "\"id\""),
        ("type = \"N\"", "type = \"S\""),
        ("range_key    = \"sk\"", "range_key    = \"pk\""),
        ("PAY_PER_REQUEST", "PROVISIONED"),
        ("\"expires\"", "\"ttl\""),
        ("enabled        = true", "enabled        = false"),
    ] {
        let other = TERRAFORM.replace(old, new);
        assert_ne!(Definition::of_terraform(&other), terraform, "{old}");
    }
}

/// Records which actions IAM has to allow for the requests of a client.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Actions>>);

impl Recorder {
    fn client(&self, server: &DynamoDb) -> Client {
        Client::from_conf(server.config().to_builder().interceptor(self.clone()).build())
    }

    fn take(&self) -> Actions {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Intercept for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let target = request.headers().get("x-amz-target").unwrap();
        let operation = target.rsplit('.').next().unwrap();
        let mut actions = self.0.lock().unwrap();
        if operation != "TransactWriteItems" {
            actions.insert(operation.to_owned());
            return Ok(());
        }
        // IAM has no action of this name. Each item needs the action of the single operation that
        // does the same (AWS, "Using IAM with DynamoDB transactions").
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap())?;
        for item in body["TransactItems"].as_array().unwrap() {
            for kind in item.as_object().unwrap().keys() {
                actions.insert(format!("{kind}Item"));
            }
        }
        Ok(())
    }
}

/// The actions of each statement of a policy, by its id.
fn policy(text: &str) -> BTreeMap<String, Actions> {
    let policy: Value = serde_json::from_str(text).unwrap();
    let mut statements = BTreeMap::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let actions = match &statement["Action"] {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        };
        let plain = |a: &Value| a.as_str().unwrap().strip_prefix("dynamodb:").unwrap().to_owned();
        let id = statement["Sid"].as_str().unwrap().to_owned();
        let known = statements.insert(id, actions.iter().map(plain).collect());
        assert!(known.is_none(), "two statements have one id");
    }
    statements
}

fn event(data: impl Into<Vec<u8>>) -> Result<NewEvent, BoxError> {
    Ok(NewEvent::binary("Happened", data.into())?)
}

/// Calls every method of a store, on streams with this prefix.
async fn use_all(store: &DynamoDbStore, prefix: &str) -> Tested {
    use ExpectedVersion::{Any, NoStream};
    let stream = |name: &str| StreamId::new(format!("{prefix}-{name}"));
    let (one, large, other) = (stream("one")?, stream("large")?, stream("other")?);
    let mut random = fastrand::Rng::with_seed(1);
    let mut bytes = |length| std::iter::repeat_with(|| random.u8(..)).take(length).collect();

    store.append(Append::new(one.clone(), NoStream, [event("a")?])).await?;
    store.append(Append::new(one.clone(), Any, [event("b")?])).await?;
    // An append of several items, which are too large for the log.
    let parts: [Vec<u8>; 3] = [bytes(300_000), bytes(300_000), bytes(300_000)];
    let parts = parts.into_iter().map(event).collect::<Result<Vec<_>, _>>()?;
    store.append(Append::new(large.clone(), NoStream, parts)).await?;
    let several = [&one, &other].map(|stream| (stream.clone(), event("c")));
    let several = several.into_iter().map(|(stream, e)| Ok(Append::new(stream, Any, [e?])));
    store.append_multi(several.collect::<Result<_, BoxError>>()?).await?;

    let read = store.read_stream(&large, ReadStream::default()).try_collect::<Vec<_>>().await?;
    assert_eq!(read.len(), 3);
    let mut subscription = store.subscribe(Subscribe::to(one.clone())).await?;
    for _ in 0..3 {
        subscription.next_event().await?;
    }
    if store.capabilities().global_order {
        let all = store.read_all(ReadAll::default()).try_collect::<Vec<_>>().await?;
        assert!(all.len() >= 7);
        let mut subscription = store.subscribe(Subscribe::default()).await?;
        for _ in 0..7 {
            subscription.next_event().await?;
        }
        store.append(Append::new(other.clone(), Any, [event("live")?])).await?;
        subscription.next_event().await?;
    }

    let snapshot = Snapshot::new(2, Payload::binary("state".as_bytes()));
    store.save_snapshot(&one, snapshot).await?;
    assert!(store.load_snapshot(&one).await?.is_some());
    store.delete_snapshot(&one).await?;
    let subscriber = SubscriberId::new(prefix)?;
    store.save_checkpoint(&subscriber, Position::new(5_000)).await?;
    assert!(store.load_checkpoint(&subscriber).await?.is_some());
    store.reset_checkpoint(&subscriber, Some(Position::new(4_000))).await?;
    store.reset_checkpoint(&subscriber, None).await?;
    let lease = LeaseName::new(prefix)?;
    for revision in [1, 2] {
        let record = LeaseRecord::new(revision, 1, Uuid::nil(), Duration::from_secs(1));
        assert!(store.swap_lease(&lease, &record).await?);
        assert_eq!(store.load_lease(&lease).await?, Some(record));
    }

    store.truncate(&large, Version::new(2)).await?;
    store.delete(&one, Any).await?;
    store.append(Append::new(one.clone(), Any, [event("again")?])).await?;
    store.tombstone(&one, Any).await?;
    assert!(!store.stream_info(&one).await?.exists());
    Ok(())
}

#[tokio::test]
async fn policies_allow_what_the_adapter_sends_and_no_more() -> Tested {
    let (using, creating) = (policy(USE), policy(CREATE));
    let server = Source::InProcess.start().await?;
    let recorder = Recorder::default();
    let client = recorder.client(&server);
    let open = async |table: &str, options| {
        DynamoDbStore::with_client(&client, table, options).await.map_err(BoxError::from)
    };

    // Create tables. Dynoxide has no backups and refuses the request, which proves that it was
    // sent.
    open("created", with_ttl()).await?;
    open("unordered", options().with_order(false)).await?;
    let refused = open("recovered", options().with_point_in_time_recovery(true)).await;
    assert!(refused.is_err_and(|e| format!("{e:?}").contains("UnknownOperation")));
    let created = recorder.take();

    // Use tables that are stores already.
    use_all(&open("created", options()).await?, "a").await?;
    use_all(&open("unordered", options()).await?, "b").await?;
    let used = recorder.take();
    assert_eq!(used, using["UseAStoreTransactionsIncluded"]);
    use_all(&open("created", with_ttl()).await?, "c").await?;
    let used_with_ttl = recorder.take();
    let only = &used_with_ttl - &used;
    assert_eq!(only, using["OnlyWithSnapshotTtl"]);

    // Use a table for the first time: `recovered` was created, and then its opening failed.
    open("recovered", options().with_create(false)).await?;
    let first = &recorder.take() - &used;
    assert_eq!(first, creating["OnlyWhenATableIsFirstUsed"]);
    let only = &(&created - &used) - &first;
    assert_eq!(only, creating["OnlyToCreateTheTable"]);
    assert_eq!((using.len(), creating.len()), (2, 2), "statements that nothing needs");
    Ok(())
}
