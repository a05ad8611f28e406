//! One store, verified.

use annals::{EventStore, ExpectedVersion, Version};
use annals_test_stores::{Fresh, Kind};

use crate::command::{fill, ok};

pub(crate) async fn a_store_is_verified_alone(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    ok(&["verify", &fresh.url]).await;
    fill(&fresh.store, 0, 60).await;
    let id = |text: &str| text.try_into().unwrap();
    fresh.store.truncate(&id("order-1"), Version::new(3)).await.unwrap();
    fresh.store.delete(&id("order-2"), ExpectedVersion::Any).await.unwrap();
    let said = ok(&["verify", &fresh.url]).await;
    assert!(said.contains("the contract is kept"), "{said}");
    let json = ok(&["verify", &fresh.url, "--json", "--digests"]).await;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    let store = &report["stores"][0];
    assert_eq!(
        store["digests"].as_object().unwrap().len() as u64,
        store["streams"].as_u64().unwrap()
    );
    assert!(!json.contains('\u{1b}'));
    // Every event was read in the read of all, and in its stream.
    assert_eq!(report["events_read"].as_u64().unwrap(), 2 * store["events"].as_u64().unwrap());
}
