//! Runs the scripts in `tests/clients`, which use clients written by others, against the gateway
//! over each kind of store. If a client is not installed, or a store has no server, its trials are
//! ignored with the reason; if `ANNALS_REQUIRE` names the client or the store, they fail.
#![allow(clippy::unwrap_used)]

use std::{
    env,
    ffi::OsString,
    io::{Read, Seek},
    path::Path,
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use annals_core::Store;
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_postgres::{
    PostgresConfig,
    sqlx::{AssertSqlSafe, ConnectOptions, query},
};
use annals_test_servers::{BoxError, postgres};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::Command,
    runtime::Runtime,
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// The environment variable with the clients and stores that must not be ignored, separated by
/// commas.
const REQUIRE: &str = "ANNALS_REQUIRE";
/// The environment variable with the path of a Python that has the client.
const PYTHON: &str = "ANNALS_PYTHON";
/// The environment variable with the directory whose `node_modules` has the client.
const NODE_MODULES: &str = "ANNALS_NODE_MODULES";
/// How long a script may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// The language of a script, which decides the client that the script needs.
#[derive(Clone, Copy, PartialEq)]
enum Language {
    Python,
    Node,
}

/// The name of the trial, the script, and its language.
const SCRIPTS: [(&str, &str, Language); 3] = [
    ("kurrentdbclient", "sync.py", Language::Python),
    ("kurrentdbclient-aio", "aio.py", Language::Python),
    ("kurrentdb-client", "node.mjs", Language::Node),
];

impl Language {
    /// The name of the client, also in `ANNALS_REQUIRE`.
    fn client(self) -> &'static str {
        match self {
            Self::Python => "kurrentdbclient",
            Self::Node => "kurrentdb-client",
        }
    }

    fn program(self) -> OsString {
        match self {
            Self::Python => env::var_os(PYTHON).unwrap_or_else(|| "python3".into()),
            Self::Node => "node".into(),
        }
    }

    /// Why scripts in this language cannot run here. `None` if they can.
    fn missing(self) -> Option<String> {
        let (arguments, how) = match self {
            Self::Python => (
                ["-c", "import kurrentdbclient"],
                format!("run `pip install kurrentdbclient`, and set {PYTHON} to that Python"),
            ),
            Self::Node => (
                [
                    "-e",
                    "const from = process.env.ANNALS_NODE_MODULES ?? '.';\
                     const file = require('path').resolve(from, 'package.json');\
                     require('module').createRequire(file).resolve('@kurrent/kurrentdb-client')",
                ],
                format!(
                    "run `npm install @kurrent/kurrentdb-client`, and set {NODE_MODULES} to the \
                     directory where you ran it"
                ),
            ),
        };
        let program = self.program();
        let output = std::process::Command::new(&program).args(arguments).output();
        let why = match output {
            Ok(output) if output.status.success() => return None,
            Ok(_) => format!("{} cannot load the client", program.display()),
            Err(error) => format!("{}: {error}", program.display()),
        };
        Some(format!("{why}: {how}"))
    }
}

/// A kind of store.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    fn missing(self) -> Option<String> {
        if self == Self::Postgres { postgres::Source::find().err() } else { None }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Arc::new(Runtime::new().unwrap());
    let languages =
        [Language::Python, Language::Node].map(|language| (language, language.missing()));
    let mut trials = Vec::new();
    for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
        let no_store = kind.missing().map(|reason| (kind.name(), reason));
        for (name, script, language) in SCRIPTS {
            let no_client = languages.iter().find(|(other, _)| *other == language);
            let no_client = no_client.and_then(|(_, reason)| reason.clone());
            let no_client = no_client.map(|reason| (language.client(), reason));
            let missing = no_client.into_iter().chain(no_store.clone()).collect::<Vec<_>>();
            // `cargo nextest` learns only from the list that a trial is ignored.
            let list_as_ignored = arguments.list && !missing.is_empty();
            let runtime = runtime.clone();
            let name = format!("clients::{}::{name}", kind.name());
            let trial = Trial::ignorable_test(name, move || {
                if let Some((what, reason)) = missing.iter().find(|(what, _)| is_required(what)) {
                    return Err(Failed::from(format!("{reason} (and {REQUIRE} names {what})")));
                }
                if let Some((_, reason)) = missing.first() {
                    return Ok(Completion::ignored_with(reason));
                }
                let run = runtime.block_on(run(kind, script, language));
                run.map(|()| Completion::Completed).map_err(|error| Failed::from(error.to_string()))
            });
            trials.push(trial.with_ignored_flag(list_as_ignored));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn is_required(what: &str) -> bool {
    let required = env::var(REQUIRE).unwrap_or_default();
    required.split(',').any(|name| name.trim() == what)
}

/// Runs a script against a gateway over a new store.
async fn run(kind: Kind, script: &str, language: Language) -> Result<(), BoxError> {
    let place = Place::new(kind).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("esdb://{}?tls=false", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let gateway = Gateway::new(place.open().await?, GatewayOptions::default());
    let serving = tokio::spawn(gateway.serve(listener, Security::Insecure, async {
        // The sender is dropped to stop the gateway, and also if the test fails.
        let _ = stopped.await;
    }));
    let ran = child(script, language, &url).await;
    drop(stop);
    let served = serving.await;
    place.clean_up().await?;
    ran?;
    Ok(served??)
}

/// Runs a script. Kills it when its time is up, or when this future is dropped.
async fn child(script: &str, language: Language, url: &str) -> Result<(), BoxError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    // A file, so that the output can be read also if the script was killed.
    let mut output = tempfile::tempfile()?;
    let mut child = Command::new(language.program())
        .arg(&script)
        .arg(url)
        // Do not write `__pycache__` into the sources.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .kill_on_drop(true)
        .spawn()?;
    let ended = timeout_at(Instant::now() + DEADLINE, child.wait()).await;
    let how = match ended {
        Ok(status) => match status? {
            status if status.success() => return Ok(()),
            status => status.to_string(),
        },
        Err(_) => {
            child.kill().await?;
            format!("the script did not end within {DEADLINE:?}")
        }
    };
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    Err(format!("{}: {how}\n{}", script.display(), String::from_utf8_lossy(&text)).into())
}

/// The place of a new store, which no other test uses.
struct Place {
    kind: Kind,
    url: String,
    schema: String,
    _directory: TempDir,
}

impl Place {
    async fn new(kind: Kind) -> Result<Self, BoxError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir()?;
        let schema = format!("clients_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let url = match kind {
            Kind::Memory => "memory:".to_owned(),
            Kind::Sqlite => format!("sqlite://{}", directory.path().join("events.db").display()),
            Kind::Postgres => {
                let url = postgres::shared().await?.url();
                let separator = if url.contains('?') { '&' } else { '?' };
                format!("{url}{separator}schema={schema}")
            }
        };
        Ok(Self { kind, url, schema, _directory: directory })
    }

    async fn open(&self) -> Result<Arc<dyn Store>, BoxError> {
        Ok(annals::connect(&self.url).await?)
    }

    async fn clean_up(&self) -> Result<(), BoxError> {
        if self.kind == Kind::Postgres {
            let url = postgres::shared().await?.url();
            let mut connection = PostgresConfig::from_url(&url)?.connect.connect().await?;
            let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
            query(AssertSqlSafe(drop)).execute(&mut connection).await?;
        }
        // Files of other stores are removed with the directory.
        Ok(())
    }
}
