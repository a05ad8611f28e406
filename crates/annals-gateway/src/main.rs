//! Serves a store: see `annals-gateway --help`.

use std::{error::Error, ffi::OsString, fs, io::IsTerminal, process::ExitCode};

use annals_gateway::{Gateway, GatewayOptions, Security};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

const HELP: &str = "\
Puts an annals store behind the gRPC protocol of EventStoreDB and KurrentDB.

    annals-gateway --store sqlite://shop.db --insecure
    esdb://127.0.0.1:2113?tls=false

Usage: annals-gateway --store URL (--insecure | --tls-certificate FILE --tls-key FILE) [options]

  --store URL              the store: sqlite://shop.db, postgres://…, dynamodb://…, memory:
                           (or ANNALS_GATEWAY_STORE, where it holds a password)
  --listen HOST:PORT       where to listen [127.0.0.1:2113]
  --advertise HOST:PORT    where clients are told to connect [what it listens on]
  --insecure               no TLS: anybody on the way can read and change what is sent
  --tls-certificate FILE   the certificates, as PEM, the server's own first
  --tls-key FILE           their private key, as PEM
  --user NAME              lets in only this user, with the password in ANNALS_GATEWAY_PASSWORD;
                           everybody, unless set
  --max-append-size BYTES  the most bytes of one append [1048576]
  --max-open COUNT         the most reads and subscriptions open at a time [10000]
  --help                   this text

SIGINT and SIGTERM end it: subscriptions at once, other calls when they are done, at the latest
after 10 seconds. GET /health/live answers 204 while the store does. RUST_LOG sets what is logged
[info].
";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("annals-gateway: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("annals-gateway: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("annals-gateway: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { store, listen, security, options } = arguments;
    let security = match security {
        Files::None => Security::Insecure,
        Files::Tls { certificates, key } => {
            Security::Tls { certificates: read(&certificates)?, key: read(&key)? }
        }
    };
    let store = annals::connect(&store).await?;
    let listener = TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}; see --listen"))?;
    Gateway::new(store, options).serve(listener, security, stopped()).await?;
    Ok(())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Waits until the process is told to end.
async fn stopped() {
    let interrupt = async {
        // Without a handler, the signal ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    interrupt.await;
}

struct Arguments {
    store: String,
    listen: String,
    security: Files,
    options: GatewayOptions,
}

enum Files {
    None,
    Tls { certificates: String, key: String },
}

impl Arguments {
    /// None where only help is wanted.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, Box<dyn Error>> {
        use lexopt::prelude::{Long, ValueExt};
        let (mut store, mut user) = (std::env::var("ANNALS_GATEWAY_STORE").ok(), None);
        let mut listen = "127.0.0.1:2113".to_owned();
        let (mut insecure, mut certificates, mut key) = (false, None, None);
        let mut options = GatewayOptions::default();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("store") => store = Some(parser.value()?.string()?),
                Long("listen") => listen = parser.value()?.string()?,
                Long("advertise") => {
                    let value = parser.value()?.string()?;
                    let (host, port) =
                        value.rsplit_once(':').ok_or("--advertise takes HOST:PORT")?;
                    options = options.with_advertise(host, port.parse()?);
                }
                Long("insecure") => insecure = true,
                Long("tls-certificate") => certificates = Some(parser.value()?.string()?),
                Long("tls-key") => key = Some(parser.value()?.string()?),
                Long("user") => user = Some(parser.value()?.string()?),
                Long("max-append-size") => {
                    options = options.with_max_append_bytes(parser.value()?.parse()?);
                }
                Long("max-open") => options = options.with_max_open(parser.value()?.parse()?),
                Long("help") => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if let Some(user) = user {
            let password = std::env::var("ANNALS_GATEWAY_PASSWORD")
                .map_err(|_| "--user needs the password in ANNALS_GATEWAY_PASSWORD")?;
            options = options.with_user(&user, &password);
        }
        let security = match (insecure, certificates, key) {
            (true, None, None) => Files::None,
            (false, Some(certificates), Some(key)) => Files::Tls { certificates, key },
            _ => {
                let needs = "it needs --tls-certificate and --tls-key, or --insecure";
                return Err(needs.into());
            }
        };
        let store = store.ok_or("it needs --store, such as --store sqlite://shop.db")?;
        Ok(Some(Self { store, listen, security, options }))
    }
}
