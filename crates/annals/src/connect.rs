//! From a URL to a store.

use std::sync::Arc;

use annals_core::{Error, ErrorKind, Result, Store};

/// A backend that annals has, whether or not this build has it.
struct Backend {
    name: &'static str,
    schemes: &'static [&'static str],
    /// The feature of this crate that brings it.
    feature: &'static str,
}

/// Every backend there is. A new one takes a line here and an arm in [`open`].
const BACKENDS: &[Backend] = &[
    Backend { name: "memory", schemes: &["memory"], feature: "memory" },
    Backend { name: "sqlite", schemes: &["sqlite"], feature: "sqlite" },
    Backend { name: "postgres", schemes: &["postgres", "postgresql"], feature: "postgres" },
    Backend { name: "dynamodb", schemes: &["dynamodb"], feature: "dynamodb" },
    Backend {
        name: "eventstoredb",
        schemes: &["esdb", "esdb+discover", "kurrentdb", "kurrentdb+discover"],
        feature: "eventstoredb",
    },
];

/// Opens the store that a URL names, and creates in it what it needs.
///
/// | URL | backend |
/// |---|---|
/// | `memory:` | a store in memory, a new one with every call |
/// | `sqlite://shop.db`, `sqlite:///var/lib/shop.db` | a SQLite file: the module `sqlite` has its options |
/// | `postgres://user:password@host/database?schema=shop` | a schema in PostgreSQL: the module `postgres` has its options |
/// | `dynamodb://shop?region=eu-west-1` | a table in DynamoDB: the module `dynamodb` has its options |
/// | `esdb://user:password@host:2113?namespace=shop`, `kurrentdb://`, each with `+discover` | EventStoreDB or KurrentDB: the module `eventstoredb` has its options |
///
/// The scheme picks the backend; the rest, and its options, is for the backend's own `from_url`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a scheme that annals does not know, and for a URL that the
/// backend cannot read; [`ErrorKind::Unsupported`] for a backend that annals knows but this build
/// lacks, with the feature to enable; else whatever keeps the backend from opening. No error shows
/// a password of the URL.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let error = annals::connect("shop.db").await.unwrap_err();
/// assert!(error.to_string().contains("did you mean sqlite://shop.db?"));
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Arc<dyn Store>> {
    match find(url) {
        Ok((backend, url)) => open(backend, &url).await.map_err(|e| e.with_backend(backend.name)),
        Err(error) => Err(error),
    }
    .map_err(|e| e.with_operation("connect"))
}

async fn open(backend: &Backend, url: &str) -> Result<Arc<dyn Store>> {
    let _ = url; // A build without any backend has no other use for it.
    match backend.name {
        #[cfg(feature = "memory")]
        "memory" => match url {
            "memory:" | "memory://" => Ok(Arc::new(annals_memory::MemoryStore::new())),
            _ => Err(invalid("a store in memory takes no options; its URL is `memory:`")),
        },
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let config = annals_sqlite::SqliteConfig::from_url(url)?;
            Ok(Arc::new(annals_sqlite::SqliteStore::open(config).await?))
        }
        #[cfg(feature = "postgres")]
        "postgres" => {
            let config = annals_postgres::PostgresConfig::from_url(url)?;
            Ok(Arc::new(annals_postgres::PostgresStore::open(config).await?))
        }
        #[cfg(feature = "dynamodb")]
        "dynamodb" => {
            let config = annals_dynamodb::DynamoDbConfig::from_url(url)?;
            Ok(Arc::new(annals_dynamodb::DynamoDbStore::open(config).await?))
        }
        #[cfg(feature = "eventstoredb")]
        "eventstoredb" => {
            let config = annals_eventstoredb::EventStoreDbConfig::from_url(url)?;
            Ok(Arc::new(annals_eventstoredb::EventStoreDbStore::open(config).await?))
        }
        name => {
            let feature = backend.feature;
            let message = format!(
                "the backend `{name}` is known, but this build lacks the feature `{feature}`; \
                 enable it for the crate `annals` in Cargo.toml"
            );
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// The backend of a URL, and the URL with its scheme in lower case, since schemes have no case.
fn find(url: &str) -> Result<(&'static Backend, String)> {
    let Some((scheme, rest)) = split_scheme(url) else { return Err(no_scheme(url)) };
    let scheme = scheme.to_ascii_lowercase();
    match BACKENDS.iter().find(|backend| backend.schemes.contains(&scheme.as_str())) {
        Some(backend) => Ok((backend, format!("{scheme}:{rest}"))),
        None => {
            let known = known_schemes();
            Err(invalid(format!("annals knows no URLs that begin with `{scheme}:`, only {known}")))
        }
    }
}

fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    // One letter is a drive, as in `C:\shop.db`.
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(legal);
    is_scheme.then_some((scheme, rest))
}

fn no_scheme(url: &str) -> Error {
    // Anything but a plain path may hold a password, and is not repeated.
    let plain = |c: char| c.is_alphanumeric() || "./_- ".contains(c);
    let path = if !url.is_empty() && url.chars().all(plain) { url } else { "shop.db" };
    let known = known_schemes();
    invalid(format!(
        "the URL of a store begins with its scheme: did you mean sqlite://{path}? (known are {known})"
    ))
}

fn known_schemes() -> String {
    let schemes = BACKENDS.iter().flat_map(|backend| backend.schemes);
    schemes.map(|scheme| format!("`{scheme}:`")).collect::<Vec<_>>().join(", ")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_belongs_to_one_backend() {
        let mut schemes: Vec<_> = BACKENDS.iter().flat_map(|backend| backend.schemes).collect();
        let count = schemes.len();
        schemes.sort_unstable();
        schemes.dedup();
        assert_eq!(schemes.len(), count);
        assert!(schemes.iter().all(|scheme| **scheme == scheme.to_ascii_lowercase()));
    }

    #[test]
    fn schemes_have_no_case_and_drives_are_none() {
        let found = |url: &str| find(url).map(|(backend, url)| (backend.name, url)).ok();
        assert_eq!(found("SQLite://Shop.db"), Some(("sqlite", "sqlite://Shop.db".to_owned())));
        assert_eq!(found("esdb+Discover://h").map(|f| f.0), Some("eventstoredb"));
        for url in ["C:\\shop.db", "c:shop.db", ":memory:", "", "1x:y", "a b:c", "mysql://h/d"] {
            assert_eq!(found(url), None, "{url}");
        }
    }
}
