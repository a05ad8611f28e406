//! What `connect` answers, in a build with any set of features.

#![allow(clippy::expect_used)]

use annals::{Error, ErrorKind, connect};

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
