//! What `connect` and `Backend::of` answer, in a build with any set of features. A test of the
//! command, `existing` in annals-cli, opens what is missing on the stores that need a server.

#![allow(clippy::expect_used)]

use annals::{Backend, Error, ErrorKind, StoreUrl, connect};
#[cfg(any(feature = "memory", feature = "sqlite"))]
use annals::{OpenMode, connect_with};

async fn refused(url: &str) -> Error {
    connect(url).await.expect_err(url)
}

#[tokio::test]
async fn unknown_schemes_are_told_the_known_ones() {
    let error = refused("mysql://root:hunter2@db/shop").await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    // The same list in every build: a feature may only add.
    for part in ["connect", "`mysql:`", "`memory:`", "`sqlite:`", "`postgres:`", "`kurrentdb:`"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn known_backends_that_are_not_built_in_name_their_feature() {
    let lacking = [
        ("memory:", "memory", cfg!(feature = "memory")),
        ("sqlite://shop.db", "sqlite", cfg!(feature = "sqlite")),
        ("postgres://shop:hunter2@db/shop", "postgres", cfg!(feature = "postgres")),
        ("postgresql://shop:hunter2@db/shop", "postgres", cfg!(feature = "postgres")),
        ("marten://shop:hunter2@db/shop", "marten", cfg!(feature = "marten")),
        ("dynamodb://events", "dynamodb", cfg!(feature = "dynamodb")),
        ("esdb://admin:hunter2@node:2113", "eventstoredb", cfg!(feature = "eventstoredb")),
        ("esdb+discover://admin:hunter2@node", "eventstoredb", cfg!(feature = "eventstoredb")),
        ("kurrentdb://node", "eventstoredb", cfg!(feature = "eventstoredb")),
        ("KurrentDB+discover://node", "eventstoredb", cfg!(feature = "eventstoredb")),
    ];
    for (url, feature, _) in lacking.iter().filter(|(_, _, built_in)| !built_in) {
        let error = refused(url).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}");
        assert_eq!(error.backend(), Some(*feature));
        let words = format!("is known, but this build lacks the feature `{feature}`");
        assert!(error.to_string().contains(&words), "{error}");
    }
}

#[test]
fn the_backend_of_a_url_is_known_in_every_build() {
    for (url, backend, name, enabled) in [
        ("memory:", Backend::Memory, "memory", cfg!(feature = "memory")),
        ("sqlite::memory:", Backend::Sqlite, "sqlite", cfg!(feature = "sqlite")),
        ("postgresql://h/d", Backend::Postgres, "postgres", cfg!(feature = "postgres")),
        ("marten://h/d", Backend::Marten, "marten", cfg!(feature = "marten")),
        ("dynamodb://shop", Backend::DynamoDb, "dynamodb", cfg!(feature = "dynamodb")),
        ("KurrentDB://h", Backend::EventStoreDb, "eventstoredb", cfg!(feature = "eventstoredb")),
    ] {
        assert_eq!(Backend::of(url).unwrap(), backend);
        assert_eq!((backend.name(), backend.feature()), (name, Some(name)));
        assert_eq!(backend.is_enabled(), enabled, "{name}");
        let checked = StoreUrl::parse(url).unwrap().check().map_err(|error| error.kind());
        assert_eq!(checked, if enabled { Ok(()) } else { Err(ErrorKind::Unsupported) }, "{url}");
        assert!(Backend::ALL.contains(&backend));
    }
    let error = Backend::of("mysql://root:hunter2@db/shop").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn without_a_scheme_there_is_a_hint() {
    for (url, hint) in [
        ("shop.db", "did you mean sqlite://shop.db?"),
        ("data/my shop.db", "did you mean sqlite://data/my shop.db?"),
        (":memory:", "`memory:`"),
        ("", "did you mean sqlite://"),
        ("C:\\shop.db", "did you mean sqlite://"),
    ] {
        let error = refused(url).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn memory_takes_no_options() {
    for url in ["memory:", "memory://", "MEMORY:"] {
        assert_eq!(connect(url).await.unwrap().capabilities().backend, "memory");
    }
    for url in ["memory:?size=1", "memory://shop", "memory:shop"] {
        let error = refused(url).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        assert!(error.to_string().contains("takes no options"), "{error}");
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_keeps_what_was_written() {
    use annals::{EventStoreExt, ExpectedVersion, NewEvent, Position};

    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("shop.db").display());
    let event = NewEvent::json("Opened", &()).unwrap();
    let store = connect(&url).await.unwrap();
    store.append_to("shop-1", ExpectedVersion::NoStream, [event]).await.unwrap();
    drop(store);
    let again = connect(&url).await.unwrap();
    assert!(again.last_position().await.unwrap() > Position::START);
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn no_store_in_memory_exists_before_it_is_opened() {
    let error = connect_with("memory:", OpenMode::Existing).await.expect_err("memory:");
    assert_eq!((error.kind(), error.backend()), (ErrorKind::InvalidInput, Some("memory")));
    assert!(error.to_string().contains("no existing one"), "{error}");
    connect_with("memory:", OpenMode::Create).await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_existing_file_is_opened_and_none_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let url = |name: &str| format!("sqlite://{}", path(name).display());
    let existing = async |url: String| connect_with(&url, OpenMode::Existing).await;

    let error = existing(url("a.db")).await.expect_err("a.db");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("does not exist"), "{error}");
    // A file without tables: SQLite takes an empty one for a database.
    std::fs::write(path("empty.db"), "").unwrap();
    let error = existing(url("empty.db")).await.expect_err("empty.db");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("has no tables `annals_"), "{error}");
    assert_eq!(std::fs::metadata(path("empty.db")).unwrap().len(), 0);
    let error = existing("sqlite::memory:".to_owned()).await.expect_err("in memory");
    assert!(error.to_string().contains("no existing one"), "{error}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);

    drop(connect(&url("a.db")).await.unwrap());
    drop(existing(url("a.db")).await.unwrap());
    // The file is that of another store.
    let other = format!("{}?prefix=other", url("a.db"));
    let error = existing(other.clone()).await.expect_err(&other);
    assert!(error.to_string().contains("has no tables `other_"), "{error}");
    let error = existing(other.clone()).await.expect_err("the tables were created");
    assert!(error.to_string().contains("has no tables `other_"), "{error}");
    drop(connect_with(&other, OpenMode::Create).await.unwrap());
    existing(other).await.unwrap();
}

/// A backend of another crate, whose one store is missing unless it may be created.
struct Other;

#[async_trait::async_trait]
impl annals::Opener for Other {
    fn name(&self) -> &'static str {
        "other"
    }

    fn schemes(&self) -> &'static [&'static str] {
        &["other", "other+tls"]
    }

    async fn open(
        &self,
        url: &str,
        mode: annals::OpenMode,
    ) -> annals::Result<std::sync::Arc<dyn annals::Store>> {
        Err(Error::new(ErrorKind::Unavailable, format!("{url} {mode:?}")))
    }

    fn check(&self, url: &str) -> annals::Result<()> {
        let is_bad = url.ends_with("bad");
        if is_bad { Err(Error::new(ErrorKind::InvalidInput, "bad")) } else { Ok(()) }
    }

    fn sibling(&self, _: &str, name: &str) -> annals::Result<String> {
        Ok(format!("other+tls://{name}"))
    }
}

/// A backend that would take the scheme of another one.
struct Thief(&'static str, &'static [&'static str]);

#[async_trait::async_trait]
impl annals::Opener for Thief {
    fn name(&self) -> &'static str {
        self.0
    }

    fn schemes(&self) -> &'static [&'static str] {
        self.1
    }

    async fn open(
        &self,
        _: &str,
        _: annals::OpenMode,
    ) -> annals::Result<std::sync::Arc<dyn annals::Store>> {
        Err(Error::new(ErrorKind::Internal, "not reached"))
    }
}

#[tokio::test]
async fn a_registered_backend_is_opened_by_its_schemes() {
    assert!(Backend::of("other+x://u:hunter2@h").is_err());
    annals::register(Other).unwrap();
    let url = StoreUrl::parse("OTHER://u:hunter2@h/x?schema=a&password=hunter2").unwrap();
    assert_eq!((url.backend().name(), url.backend().feature()), ("other", None));
    assert!(url.backend().is_enabled());
    assert_eq!(url.to_string(), "other://h/x?schema=a");
    assert_eq!(url.sibling("tmp").unwrap().as_str(), "other+tls://tmp");
    let error = refused("Other://h").await;
    assert_eq!((error.kind(), error.backend()), (ErrorKind::Unavailable, Some("other")));
    assert!(error.to_string().contains("other://h Create"), "{error}");
    assert_eq!(refused("other://bad").await.kind(), ErrorKind::InvalidInput);
    assert!(refused("mysql://h").await.to_string().contains("`other+tls:`"));

    let thieves: [(_, &[_]); 5] = [
        ("other", &["more"]),
        ("sqlite", &["more"]),
        ("more", &["esdb"]),
        ("more", &["other+tls"]),
        ("more", &["More"]),
    ];
    for (name, schemes) in thieves {
        let error = annals::register(Thief(name, schemes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} {schemes:?}");
    }
    assert!(Backend::of("more://h").is_err());
}
