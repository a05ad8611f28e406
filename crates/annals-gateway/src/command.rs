//! The command `annals-gateway`: its arguments, and what it does with them.

use std::{
    error::Error,
    ffi::OsString,
    fs,
    io::{IsTerminal, Write},
    net::Ipv6Addr,
    process::ExitCode,
};

use annals::adapter::url::without_credentials;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::{Gateway, GatewayOptions, Security};

const HELP: &str = "\
Serves an annals store over the gRPC protocol of EventStoreDB and KurrentDB.

    annals-gateway --store sqlite://shop.db --insecure

Clients then connect to esdb://127.0.0.1:2113?tls=false.

Usage: annals-gateway --store URL (--insecure | --tls-certificate FILE --tls-key FILE) [options]

  --store URL              the store: sqlite://shop.db, postgres://…, marten://…, dynamodb://… or memory:
                           (set ANNALS_GATEWAY_STORE instead if the URL holds a password)
  --listen HOST:PORT       the address to listen on [127.0.0.1:2113]
  --advertise HOST:PORT    the address that clients of a cluster are told [as --listen]; needed if
                           --listen is 0.0.0.0 or [::]
  --insecure               serve without TLS: others on the network can read and change messages
  --tls-certificate FILE   PEM file with the chain of certificates, the server's own first
  --tls-key FILE           PEM file with the private key of the server's certificate
  --user NAME              let in only this user, with the password in ANNALS_GATEWAY_PASSWORD
                           [everybody is let in]
  --max-append-size BYTES  the most data in one append [1048576]
  --max-open COUNT         how many reads and subscriptions may be open at the same time [10000]
  --max-connections COUNT  how many clients may be connected at the same time [10000]
  --max-request-memory BYTES  how much memory messages take that have not arrived whole [268435456]
  --help                   print this text

On SIGINT or SIGTERM the server ends subscriptions at once, waits up to 10 seconds for other calls,
and exits. GET /health/live answers 204 if the store answers, else 503. RUST_LOG sets what is
logged [info].
";

/// Runs the server that the arguments of this process ask for. `annals-gateway --help` lists them.
///
/// A program that serves stores of a backend of its own calls [`annals::register`] first.
#[must_use]
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// Does what [`main`] does, with these arguments, of which the first is the name of the program.
#[must_use]
pub fn main_with(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.skip(1).collect();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    let parsed = match Arguments::parse(arguments.iter().cloned()) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            return match std::io::stdout().write_all(HELP.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Err(error) => {
            // The error may repeat an argument, which may be a URL in the wrong place.
            let arguments =
                arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
            let error = without_credentials(&error.to_string(), arguments);
            eprintln!("annals-gateway: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("annals-gateway: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(parsed)) {
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
        SecurityFiles::Insecure => Security::Insecure,
        SecurityFiles::Tls { certificates, key } => {
            Security::Tls { certificates: read(&certificates)?, key: read(&key)? }
        }
    };
    let store = annals::connect(&store).await?;
    let listener = TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}; see --listen"))?;
    Gateway::new(store, options).serve(listener, security, shutdown_signal()).await?;
    Ok(())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Completes when the process gets SIGINT or SIGTERM.
async fn shutdown_signal() {
    let interrupt = async {
        // If no handler could be installed, the signal ends the process, so wait for ever.
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
    security: SecurityFiles,
    options: GatewayOptions,
}

enum SecurityFiles {
    Insecure,
    Tls { certificates: String, key: String },
}

impl Arguments {
    /// `None` if `--help` is among the arguments.
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
                    let (host, port) = host_and_port(&parser.value()?.string()?)?;
                    options = options.with_advertise(host, port);
                }
                Long("insecure") => insecure = true,
                Long("tls-certificate") => certificates = Some(parser.value()?.string()?),
                Long("tls-key") => key = Some(parser.value()?.string()?),
                Long("user") => user = Some(parser.value()?.string()?),
                Long("max-append-size") => {
                    options = options.with_max_append_bytes(parser.value()?.parse()?);
                }
                Long("max-open") => options = options.with_max_open(parser.value()?.parse()?),
                Long("max-connections") => {
                    options = options.with_max_connections(parser.value()?.parse()?);
                }
                Long("max-request-memory") => {
                    options = options.with_max_request_memory(parser.value()?.parse()?);
                }
                Long("help") => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if let Some(user) = user {
            let password = std::env::var("ANNALS_GATEWAY_PASSWORD")
                .map_err(|_| "--user needs the user's password in ANNALS_GATEWAY_PASSWORD")?;
            options = options.with_user(&user, &password);
        }
        let security = match (insecure, certificates, key) {
            (true, None, None) => SecurityFiles::Insecure,
            (false, Some(certificates), Some(key)) => SecurityFiles::Tls { certificates, key },
            _ => {
                let error = "set --tls-certificate and --tls-key, or --insecure";
                return Err(error.into());
            }
        };
        let store = store.ok_or("--store is missing, such as --store sqlite://shop.db")?;
        Ok(Some(Self { store, listen, security, options }))
    }
}

/// The host and the port of an address. An IPv6 address must be in brackets, since its end could be
/// taken for the port.
fn host_and_port(address: &str) -> Result<(String, u16), String> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match inner {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '[', ']', '/', '@']),
        };
        Some((host.to_owned(), port.parse().ok()?)).filter(|_| is_host)
    });
    let what =
        "--advertise takes HOST:PORT, such as db.example.com:2113, 10.0.0.7:2113 or [fd00::7]:2113";
    parts.ok_or_else(|| what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_advertise_is_a_host_and_a_port() {
        for (address, host) in
            [("db:2113", "db"), ("10.0.0.7:2113", "10.0.0.7"), ("[::1]:2113", "[::1]")]
        {
            assert_eq!(host_and_port(address), Ok((host.to_owned(), 2113)));
        }
        for address in [
            "",
            "db",
            ":2113",
            "::1",
            "::1:2113",
            "[::1",
            "[::1]",
            "[::1:2113",
            "[db]:1",
            "db:x",
            "db:70000",
            "db:-1",
            "http://db:2113",
            "u:p@db:2113",
        ] {
            let error = host_and_port(address).unwrap_err();
            assert!(error.contains("HOST:PORT") && !error.contains("p@db"), "{address}: {error}");
        }
    }
}
