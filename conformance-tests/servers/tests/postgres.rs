//! Servers that are started, killed and cut off from their clients. Ignored, with the reason, where
//! no server can be had, unless `ANNALS_REQUIRE` names `postgres`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    ffi::OsString,
    fs::{Permissions, set_permissions},
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use annals_test_servers::{
    BoxError, Proxy,
    postgres::{self, Marked, Options, Postgres, Source},
    until,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

type Tested = Result<(), BoxError>;

/// How long a test waits for what has to happen soon.
const PATIENCE: Duration = Duration::from_secs(30);

/// Set in a process that is to be killed, to the directory in which it starts a server.
const VICTIM: &str = "ANNALS_TEST_SERVERS_VICTIM";

fn main() -> ExitCode {
    if let Some(parent) = std::env::var_os(VICTIM) {
        return block_on(be_killed(parent)).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let source = Source::find();
    macro_rules! trials {
        ($($needs:ident: $($test:ident)*;)*) => {
            vec![$($(trial(&source, Needs::$needs, stringify!($test), $test)),*),*]
        };
    }
    let trials = trials! {
        Any: lets_clients_in is_shared;
        Ours: keeps_data_when_killed has_its_settings_and_files;
        Local: ends_when_dropped quotes_the_log outlives_its_runtime
            killed_process_leaves_nothing killed_while_it_creates_leaves_nothing;
        Any: proxy_cuts proxy_loses_answers_of_statements proxy_loses_answers_of_queries
            proxy_stalls;
    };
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Any,
    /// A server that may be restarted.
    Ours,
    /// One whose directory can be looked at.
    Local,
}

fn trial<F>(
    source: &Result<Source, String>,
    needs: Needs,
    name: &str,
    test: fn(Source) -> F,
) -> Trial
where
    F: Future<Output = Tested> + 'static,
{
    let source = source.clone();
    Trial::ignorable_test(name, move || {
        let source = match source {
            Ok(source) => source,
            Err(reason) if is_required() => return Err(Failed::from(reason)),
            Err(reason) => return Ok(Completion::ignored_with(reason)),
        };
        let suits = match needs {
            Needs::Any => true,
            Needs::Ours => source.is_ours(),
            Needs::Local => matches!(source, Source::Local(_)),
        };
        if !suits {
            return Ok(Completion::ignored_with(format!("not possible with {source}")));
        }
        block_on(test(source))?;
        Ok(Completion::Completed)
    })
}

fn is_required() -> bool {
    let required = std::env::var("ANNALS_REQUIRE").unwrap_or_default();
    required.split(',').any(|name| name.trim() == "postgres")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(future)
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn single(client: &Client, sql: &str) -> Result<String, BoxError> {
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

/// The server for tests that only use a schema of it.
async fn with_table(table: &str) -> Result<(std::sync::Arc<Postgres>, Client), BoxError> {
    let server = postgres::shared().await?;
    let client = connect(&server.url()).await?;
    let sql = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (n int)");
    client.batch_execute(&sql).await?;
    Ok((server, client))
}

async fn count(client: &Client, table: &str) -> Result<String, BoxError> {
    single(client, &format!("SELECT count(*)::text FROM {table}")).await
}

async fn lets_clients_in(source: Source) -> Tested {
    let server = source.start(Options::default()).await?;
    let client = connect(&server.url()).await?;
    assert_eq!(single(&client, "SELECT 'up'").await?, "up");
    assert_eq!(server.is_ours(), source.is_ours());
    Ok(())
}

async fn is_shared(_: Source) -> Tested {
    let (one, other) = tokio::try_join!(postgres::shared(), postgres::shared())?;
    assert_eq!(one.url(), other.url());
    Ok(())
}

async fn keeps_data_when_killed(source: Source) -> Tested {
    let server = source.start(Options::default().with_durability()).await?;
    let client = connect(&server.url()).await?;
    client.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await?;
    server.kill().await?;
    until("the client notices", PATIENCE, || async { client.is_closed() }).await?;
    assert!(connect(&server.url()).await.is_err(), "the server is down");
    server.start_again().await?;
    assert_eq!(count(&connect(&server.url()).await?, "t").await?, "1");
    server.kill_and_restart().await?;
    assert_eq!(count(&connect(&server.url()).await?, "t").await?, "1");
    Ok(())
}

async fn has_its_settings_and_files(source: Source) -> Tested {
    let options = Options::default()
        .with_setting("application_name", r"it's \ here")
        .with_file("server.key", "secret");
    let server = source.start(options).await?;
    let client = connect(&server.url()).await?;
    assert_eq!(
        single(&client, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'")
            .await?,
        r"it's \ here"
    );
    assert_eq!(single(&client, "SELECT pg_read_file('server.key')").await?, "secret");
    assert_eq!(single(&client, "SHOW fsync").await?, "off");
    if let Some(data) = server.data_directory() {
        assert_eq!(data.join("server.key").metadata()?.mode() & 0o777, 0o600);
    }
    for bad in
        [Options::default().with_file("../x", ""), Options::default().with_setting("a", "b\nc")]
    {
        assert!(source.start(bad).await.is_err());
    }
    Ok(())
}

async fn ends_when_dropped(source: Source) -> Tested {
    let server = source.start(Options::default()).await?;
    let (addr, data) = (server.addr(), server.data_directory().unwrap().to_owned());
    assert!(TcpStream::connect(addr).is_ok() && data.exists());
    drop(server);
    assert!(TcpStream::connect(addr).is_err());
    assert!(!data.parent().unwrap().exists());
    Ok(())
}

async fn quotes_the_log(source: Source) -> Tested {
    let options = Options::default().with_setting("no_such_setting", "1");
    let Err(e) = source.start(options).await else { panic!("that cannot be set") };
    assert!(e.to_string().contains("no_such_setting"), "{e}");
    Ok(())
}

/// `#[tokio::test]` gives each test a runtime, and they may share a server.
async fn outlives_its_runtime(source: Source) -> Tested {
    let start = move || block_on(source.start(Options::default()));
    let server = tokio::task::spawn_blocking(start).await??;
    server.kill_and_restart().await?;
    connect(&server.url()).await?;
    Ok(())
}

/// Starts a server in this directory, says where, and waits for its death.
async fn be_killed(parent: OsString) -> Tested {
    let server = Source::find()?.start(Options::default().with_parent(parent)).await?;
    println!("{}", server.addr());
    std::future::pending().await
}

/// A directory that the server's user can write to, and a process that starts a server in it.
fn victim() -> Result<(TempDir, Child), BoxError> {
    let parent = TempDir::new()?;
    set_permissions(parent.path(), Permissions::from_mode(0o777))?;
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.env(VICTIM, parent.path()).stdout(Stdio::piped()).spawn()?;
    Ok((parent, child))
}

fn is_empty(directory: &Path) -> bool {
    directory.read_dir().unwrap().next().is_none()
}

async fn killed_process_leaves_nothing(_: Source) -> Tested {
    let (parent, mut victim) = victim()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line)?;
    let addr: SocketAddr = line.trim().parse()?;
    assert!(TcpStream::connect(addr).is_ok() && !is_empty(parent.path()));
    victim.kill()?;
    victim.wait()?;
    until("the server and its directory are gone", PATIENCE, || async {
        TcpStream::connect(addr).is_err() && is_empty(parent.path())
    })
    .await
}

async fn killed_while_it_creates_leaves_nothing(_: Source) -> Tested {
    let (parent, mut victim) = victim()?;
    let begun = || async { !is_empty(parent.path()) };
    until("the directory is there", PATIENCE, begun).await?;
    victim.kill()?;
    victim.wait()?;
    until("the directory is gone", PATIENCE, || async { is_empty(parent.path()) }).await
}

async fn proxy_cuts(_: Source) -> Tested {
    let server = postgres::shared().await?;
    let proxy = Proxy::start(server.addr()).await?;
    let url = server.url_at(proxy.addr());
    let (first, second) = tokio::try_join!(connect(&url), connect(&url))?;
    assert_eq!(single(&first, "SELECT 'through'").await?, "through");
    proxy.cut().await;
    for client in [first, second] {
        assert!(single(&client, "SELECT 'through'").await.is_err());
    }
    assert_eq!(single(&connect(&url).await?, "SELECT 'again'").await?, "again");
    proxy.refuse(true);
    assert!(connect(&url).await.is_err());
    proxy.refuse(false);
    connect(&url).await?;
    Ok(())
}

async fn proxy_loses_answers_of_statements(_: Source) -> Tested {
    let (server, direct) = with_table("lost_statements").await?;
    let proxy = Proxy::between(server.addr(), Marked::new("INSERT INTO lost_statements")).await?;
    let url = server.url_at(proxy.addr());
    let insert = "INSERT INTO lost_statements VALUES ($1)";
    let client = connect(&url).await?;
    let statement = client.prepare(insert).await?;
    client.execute(&statement, &[&1]).await?;

    proxy.lose_next_answer();
    // Other requests are not concerned, preparing the statement is none.
    assert_eq!(count(&client, "lost_statements").await?, "1");
    client.prepare(insert).await?;
    assert_eq!(proxy.lost(), 0);
    let lost = client.execute(&statement, &[&2]).await;
    assert!(lost.unwrap_err().is_closed());
    assert_eq!(proxy.lost(), 1);
    assert_eq!(count(&direct, "lost_statements").await?, "2", "it was committed");

    // Only one was lost.
    connect(&url).await?.execute(insert, &[&3]).await?;
    assert_eq!(proxy.lost(), 1);
    assert_eq!(count(&direct, "lost_statements").await?, "3");
    Ok(())
}

async fn proxy_loses_answers_of_queries(_: Source) -> Tested {
    let (server, direct) = with_table("lost_queries").await?;
    let proxy = Proxy::between(server.addr(), Marked::new("COMMIT")).await?;
    let mut client = connect(&server.url_at(proxy.addr())).await?;
    proxy.lose_next_answer();
    let transaction = client.transaction().await?;
    transaction.execute("INSERT INTO lost_queries VALUES (1)", &[]).await?;
    assert!(transaction.commit().await.is_err());
    assert_eq!(proxy.lost(), 1);
    assert_eq!(count(&direct, "lost_queries").await?, "1", "it was committed");
    Ok(())
}

async fn proxy_stalls(_: Source) -> Tested {
    let (server, direct) = with_table("stalled").await?;
    let proxy = Proxy::start(server.addr()).await?;
    let client = connect(&server.url_at(proxy.addr())).await?;
    let statement = client.prepare("INSERT INTO stalled VALUES (1)").await?;
    proxy.stall(true);
    let insert = tokio::spawn(async move { client.execute(&statement, &[]).await });
    let written = || async { count(&direct, "stalled").await.unwrap() == "1" };
    until("the request passes", PATIENCE, written).await?;
    assert!(!insert.is_finished(), "the answer does not");
    proxy.stall(false);
    assert_eq!(insert.await??, 1);
    Ok(())
}
