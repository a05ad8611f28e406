//! Encryption and passwords.

use std::{
    error::Error as _,
    fmt::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use annals_core::{Append, Error, ErrorKind, EventStore, ExpectedVersion, Subscribe};
use annals_postgres::{
    PostgresConfig, PostgresStore,
    sqlx::{Row, query},
};
use annals_test_servers::{
    BoxError,
    postgres::{Options, Source},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{
    child::Child,
    common::{Place, Tested, event, everything, id, tests},
};

tests! { "tls":
    Ours a_certificate_is_verified;
    Ours a_password_is_used_and_never_shown;
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer() -> Result<Issuer, BoxError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A server with TLS, and with a certificate for these names.
async fn start(issuer: &Issuer, names: &[&str], options: Options) -> Result<Place, BoxError> {
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(names)?.signed_by(&key, issuer)?;
    let options = options
        .with_setting("ssl", "on")
        .with_file("server.crt", certificate.pem())
        .with_file("server.key", key.serialize_pem());
    Ok(Place::on(Source::find()?.start(options).await?.into()))
}

/// Drops a server, which blocks until it has ended.
async fn stop(place: Place) -> Tested {
    Ok(tokio::task::spawn_blocking(move || drop(place)).await?)
}

fn write(directory: &TempDir, name: &str, issuer: &Issuer) -> Result<PathBuf, BoxError> {
    let path = directory.path().join(name);
    std::fs::write(&path, issuer.pem())?;
    Ok(path)
}

async fn append_and_read(store: &PostgresStore) -> Tested {
    let mut live = store.subscribe(Subscribe::default()).await?;
    store.append(Append::new(id("a-1"), ExpectedVersion::Any, [event(1)])).await?;
    live.next_event().await?;
    everything(store).await?;
    Ok(())
}

async fn a_certificate_is_verified() -> Tested {
    let directory = TempDir::new()?;
    let (right, wrong) = (issuer()?, issuer()?);
    let of_right = write(&directory, "right.pem", &right)?;
    let of_wrong = write(&directory, "wrong.pem", &wrong)?;
    let names = ["127.0.0.1", "localhost"];
    let place = start(&right, &names, Options::default()).await?;
    let elsewhere = start(&right, &["db.example"], Options::default()).await?;
    let cases = [
        (&place, "verify-full", &of_right, Ok(true)),
        (&place, "verify-ca", &of_right, Ok(true)),
        (&place, "require", &of_right, Ok(true)),
        (&place, "prefer", &of_right, Ok(true)),
        (&place, "disable", &of_right, Ok(false)),
        (&place, "verify-full", &of_wrong, Err("certificate")),
        (&place, "verify-ca", &of_wrong, Err("certificate")),
        (&elsewhere, "verify-ca", &of_right, Ok(true)),
        (&elsewhere, "verify-full", &of_right, Err("certificate")),
    ];
    for (place, mode, root, expected) in cases {
        let case = format!("{mode} with {}", root.display());
        let url = format!("{}?sslmode={mode}&sslrootcert={}", place.server.url(), root.display());
        let opened = PostgresStore::open(place.config_at(&url)).await;
        match expected {
            Ok(is_encrypted) => {
                let store = opened?;
                append_and_read(&store).await?;
                let sessions = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                let row = query(sessions).fetch_one(store.pool()).await?;
                assert_eq!(row.get::<bool, _>(0), is_encrypted, "{case}");
            }
            Err(says) => {
                let error = opened.expect_err(&case);
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{case}: {error}");
                assert!(error.to_string().contains("TLS"), "{case}: {error}");
                assert!(all_of(&error).contains(says), "{case}: {}", all_of(&error));
            }
        }
    }
    stop(place).await?;
    stop(elsewhere).await
}

/// The task of the child, which takes the password from its environment and logs everything.
pub(crate) const CHILD: &str = "password";
const ROLE: &str = "shop";
/// The password, and the password as a URL has it.
const RIGHT: (&str, &str) = ("hunter2/äß", "hunter2%2F%C3%A4%C3%9F");
const WRONG: &str = "hunter3";
/// Parts of the passwords.
const SECRETS: [&str; 3] = ["hunter", "2/äß", "%C3%A4"];

async fn a_password_is_used_and_never_shown() -> Tested {
    // The user of the tests has no password on a server on this machine.
    let rules =
        "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n";
    let options = Options::default().with_file("pg_hba.conf", rules);
    let issuer = issuer()?;
    let place = start(&issuer, &["127.0.0.1", "localhost"], options).await?;
    drop(place.open().await?);
    for statement in [
        format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{}'", RIGHT.0),
        format!("GRANT ALL ON SCHEMA {{schema}} TO {ROLE}"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA {{schema}} TO {ROLE}"),
        format!("GRANT ALL ON ALL SEQUENCES IN SCHEMA {{schema}} TO {ROLE}"),
    ] {
        place.execute(&statement).await?;
    }
    let directory = TempDir::new()?;
    let root = write(&directory, "ca.pem", &issuer)?;
    let arguments =
        [place.server.addr().to_string(), place.schema.clone(), root.display().to_string()];
    Child::start(CHILD, &arguments, &[("PGPASSWORD", RIGHT.0)])?.finish().await?;
    stop(place).await
}

/// Opens the store in several ways, and looks for the password in all output.
pub(crate) async fn child(arguments: &[String]) -> Tested {
    let [address, schema, root] = arguments else { return Err("address, schema, root".into()) };
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone())?;
    tracing::trace!("so that an empty log is not taken for a clean one");
    let mut said = String::new();
    let right = RIGHT.1;
    for (user, parameters, is_right) in [
        (format!("{ROLE}:{right}"), String::new(), true),
        (ROLE.to_owned(), String::new(), true),
        (ROLE.to_owned(), format!("&password={right}"), true),
        (format!("{ROLE}:{WRONG}"), String::new(), false),
        (ROLE.to_owned(), format!("&password={WRONG}"), false),
        (format!("nobody:{right}"), String::new(), false),
    ] {
        for mode in ["disable", "prefer", "verify-full"] {
            let url = format!(
                "postgres://{user}@{address}/postgres?schema={schema}&sslmode={mode}\
                 &sslrootcert={root}{parameters}"
            );
            let config = PostgresConfig::from_url(&url)?;
            write!(said, "{config:?} {config:#?}")?;
            match PostgresStore::open(config).await {
                Ok(store) => {
                    assert!(is_right, "a wrong password is taken");
                    append_and_read(&store).await?;
                    write!(said, "{store:?} {store:#?} {:?}", store.pool())?;
                }
                Err(error) => {
                    said += &all_of(&error);
                    assert!(!is_right && error.kind() == ErrorKind::Denied, "{error:?}");
                }
            }
        }
    }
    for rest in [
        "schema=Shop",
        "sslmode=perhaps",
        "no_such=1",
        "sslrootcert=/nowhere/ca.pem&sslmode=require",
    ] {
        let url = format!("postgres://{ROLE}:{right}@{address}/postgres?{rest}");
        let opened = match PostgresConfig::from_url(&url) {
            Ok(config) => PostgresStore::open(config).await.err(),
            Err(error) => Some(error),
        };
        said += &all_of(&opened.ok_or_else(|| format!("{rest} is taken"))?);
    }
    let logged = log.0.lock().map_err(|error| error.to_string())?;
    assert!(logged.contains("a clean one") && said.contains("PostgresStore"));
    for secret in SECRETS {
        assert!(!said.contains(secret), "{said}");
        assert!(!logged.contains(secret), "{logged}");
    }
    Ok(())
}

/// Every text of an error and of its causes.
fn all_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, " {error} {error:?}").unwrap();
        cause = error.source();
    }
    text
}

/// Every log line of the process, at any level, with all its fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
