//! Behind PgBouncer a store works if PgBouncer pools sessions, and refuses to open if it pools
//! transactions.

use std::{
    env,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use annals_core::{
    Append, CheckpointStore, ErrorKind, EventStore, ExpectedVersion, Subscribe, SubscriberId,
};
use annals_postgres::{PostgresConfig, PostgresStore, sqlx::postgres::PgPoolOptions};
use annals_test_servers::{BoxError, until};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    beside::Listener,
    common::{PATIENCE, Place, Tested, event, everything, id, tests},
};

tests! { "pooler":
    Pooler one_that_pools_transactions_is_found_out;
    Pooler a_store_works_behind_one_that_pools_sessions;
}

/// The first version of PgBouncer that keeps prepared statements.
const KEEPS_STATEMENTS: [u32; 2] = [1, 21];

/// The path of PgBouncer on this machine.
pub(crate) fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into()]);
    places.map(|place| place.join("pgbouncer")).find(|program| program.is_file())
}

fn version(program: &Path) -> Result<Vec<u32>, BoxError> {
    let output = Command::new(program).arg("--version").output()?.stdout;
    let text = String::from_utf8(output)?;
    let words = text.lines().next().and_then(|line| line.split(' ').nth(1));
    Ok(words.ok_or("no version")?.split('.').map_while(|number| number.parse().ok()).collect())
}

/// A PgBouncer between a store and its server. It ends when this is dropped, or with this process.
struct PgBouncer {
    addr: SocketAddr,
    shell: Child,
}

/// Runs PgBouncer until the input ends, which happens however this process ends. SIGKILL, because
/// PgBouncer 1.23 and newer take their time for any other signal.
const SHELL: &str = "program=$1 directory=$2; shift 2
    \"$program\" -q \"$@\" \"$directory/pgbouncer.ini\" </dev/null >/dev/null 2>&1 &
    cat
    kill -KILL $!; wait $!; rm -rf \"$directory\"";

impl PgBouncer {
    async fn start(place: &Place, mode: &str) -> Result<Self, BoxError> {
        let program = program().ok_or("there is no PgBouncer")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let directory =
            env::temp_dir().join(format!("annals-pgbouncer-{}-{port}", std::process::id()));
        std::fs::create_dir(&directory)?;
        let keeps = version(&program)? >= KEEPS_STATEMENTS.to_vec();
        let server = place.server.addr();
        let mut ini = std::fs::File::create(directory.join("pgbouncer.ini"))?;
        let user = place.config().connect.get_username().to_owned();
        let (host, server_port) = (server.ip(), server.port());
        writeln!(ini, "[databases]\n* = host={host} port={server_port} user={user}")?;
        writeln!(ini, "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}")?;
        writeln!(ini, "unix_socket_dir =\nauth_type = any\npool_mode = {mode}")?;
        writeln!(ini, "ignore_startup_parameters = extra_float_digits\ndefault_pool_size = 30")?;
        if keeps {
            writeln!(ini, "max_prepared_statements = 100")?;
        }
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "annals-pgbouncer"]).arg(program).arg(directory);
        // PgBouncer refuses to run as root.
        if Command::new("id").arg("-u").output()?.stdout == b"0\n" {
            command.args(["-u", "nobody"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = command.spawn()?;
        let bouncer = Self { addr, shell };
        until("PgBouncer lets clients in", PATIENCE, || async {
            TcpStream::connect(addr).await.is_ok()
        })
        .await?;
        Ok(bouncer)
    }

    fn config(&self, place: &Place) -> PostgresConfig {
        place.config_at(&place.server.url_at(self.addr))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

async fn one_that_pools_transactions_is_found_out() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place, "transaction").await?;
    let config = bouncer.config(&place);
    place.open().await?;
    let handed = PgPoolOptions::new().max_connections(5).connect_lazy_with(config.connect.clone());
    // In later attempts, statements that earlier clients prepared are still there.
    for attempt in 0..5 {
        let opened = [
            PostgresStore::open(config.clone()).await,
            PostgresStore::with_pool(handed.clone(), config.options.clone()).await,
        ];
        for opened in opened {
            let error = opened.err().ok_or("was not refused")?;
            assert_eq!(error.kind(), ErrorKind::Incompatible, "attempt {attempt}: {error:?}");
            assert!(error.to_string().contains("set it to pool sessions"), "{error}");
        }
    }
    drop(bouncer);
    place.remove().await
}

async fn a_store_works_behind_one_that_pools_sessions() -> Tested {
    let place = Place::shared().await?;
    let bouncer = PgBouncer::start(&place, "session").await?;
    works(&PostgresStore::open(bouncer.config(&place)).await?).await?;
    drop(bouncer);
    place.remove().await
}

async fn works(store: &PostgresStore) -> Tested {
    const WRITERS: u64 = 8;
    const APPENDS: u64 = 20;
    let mut live = Listener::on(store, Subscribe::default()).await?;
    let before = everything(store).await?.len();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for number in 0..APPENDS {
                let stream = format!("a-{writer}-{}", number % 3);
                let append = Append::new(id(&stream), ExpectedVersion::Any, [event(number)]);
                insist(|| store.append(append.clone())).await?;
                insist(|| store.stream_info(&append.stream)).await?;
                let subscriber = SubscriberId::new(&stream)?;
                insist(|| store.save_checkpoint(&subscriber, number.into())).await?;
                let kept = insist(|| store.load_checkpoint(&subscriber)).await?;
                assert_eq!(kept, Some(number.into()));
            }
            Ok::<_, BoxError>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let events = everything(store).await?;
    assert_eq!(events.len() - before, usize::try_from(WRITERS * APPENDS)?);
    for event in events {
        assert_eq!(live.next().await?, event.position.get());
    }
    Ok(())
}

/// Tries again as an application would: PgBouncer closes a client's connection if it cannot get one
/// to the server.
async fn insist<T, F>(mut call: impl FnMut() -> F) -> annals_core::Result<T>
where
    F: Future<Output = annals_core::Result<T>>,
{
    loop {
        match call().await {
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            done => return done,
        }
    }
}
