//! Which tables are opened, and which are refused.

use std::time::Duration;

use annals_core::{Error, ErrorKind, EventStore, EventStoreExt, Payload, Snapshot, SnapshotStore};
use annals_dynamodb::{
    DynamoDbOptions, DynamoDbStore,
    aws_sdk_dynamodb::types::{
        AttributeDefinition,
        AttributeValue::{N, S},
        BillingMode, KeySchemaElement, KeyType, LocalSecondaryIndex, Projection, ProjectionType,
        ScalarAttributeType,
    },
};
use futures::future::join_all;

use crate::common::{Place, TABLE, any, everything, id, key, options};

async fn refused(place: &Place, options: DynamoDbOptions) -> Error {
    let error = place.open_with(options).await.expect_err("the store was opened");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    error
}

fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

async fn create(place: &Place, hash: &str, range: Option<(&str, ScalarAttributeType)>) {
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
    };
    let attribute = |name: &str, kind| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    };
    let mut create = place
        .client()
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key(hash, KeyType::Hash))
        .attribute_definitions(attribute(hash, ScalarAttributeType::S));
    if let Some((name, kind)) = range {
        create = create
            .key_schema(key(name, KeyType::Range))
            .attribute_definitions(attribute(name, kind));
    }
    create.send().await.unwrap();
}

#[tokio::test]
async fn a_table_with_other_keys_is_refused() {
    let place = Place::new().await;
    create(&place, "tenant", Some(("serial", ScalarAttributeType::S))).await;
    says(&refused(&place, options(true)).await, &["`tenant`", "`serial`", "`pk`", "`sk`"]);
    let place = Place::new().await;
    create(&place, "pk", Some(("sk", ScalarAttributeType::S))).await;
    says(&refused(&place, options(true)).await, &["`sk` (RANGE, S)", "`sk` (RANGE, N)"]);
    let place = Place::new().await;
    create(&place, "pk", None).await;
    refused(&place, options(true)).await;
}

#[tokio::test]
async fn a_table_with_a_local_secondary_index_is_refused() {
    let place = Place::new().await;
    let keys = [("pk", KeyType::Hash), ("sk", KeyType::Range), ("at", KeyType::Range)];
    let [hash, range, at] = keys.map(|(name, kind)| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
    });
    let index = LocalSecondaryIndex::builder()
        .index_name("by-time")
        .set_key_schema(Some(vec![hash.clone(), at]))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()
        .unwrap();
    let attributes = [
        ("pk", ScalarAttributeType::S),
        ("sk", ScalarAttributeType::N),
        ("at", ScalarAttributeType::N),
    ];
    let attributes = attributes.map(|(name, kind)| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    });
    let create = place.client().create_table().table_name(TABLE);
    let create = create.billing_mode(BillingMode::PayPerRequest);
    let create = create.set_key_schema(Some(vec![hash, range]));
    let create = create.set_attribute_definitions(Some(attributes.to_vec()));
    create.local_secondary_indexes(index).send().await.unwrap();
    says(&refused(&place, options(true)).await, &["local secondary index", "10 GB"]);
}

/// An import of an export makes a new table, whose items say that they are of another.
#[tokio::test]
async fn a_table_with_the_items_of_another_store_is_refused() {
    let place = Place::new().await;
    place.open(true).await;
    place.open(true).await;
    place.set("meta", 0, "table_id", S("another".to_owned())).await;
    says(&refused(&place, options(true)).await, &["imported", "annals copy"]);
}

#[tokio::test]
async fn a_table_with_other_items_is_refused_and_left_alone() {
    let place = Place::new().await;
    create(&place, "pk", Some(("sk", ScalarAttributeType::N))).await;
    let put = place.client().put_item().table_name(TABLE);
    put.set_item(Some(key("customer", 7))).send().await.unwrap();
    says(&refused(&place, options(true)).await, &["not of annals"]);
    assert_eq!(place.items().await, [key("customer", 7)]);
}

#[tokio::test]
async fn an_empty_table_becomes_a_store() {
    let place = Place::new().await;
    create(&place, "pk", Some(("sk", ScalarAttributeType::N))).await;
    let store = place.open_with(options(true).with_create(false)).await.unwrap();
    store.append(any("a-1", 1)).await.unwrap();
}

#[tokio::test]
async fn a_missing_table_is_not_created_unasked() {
    let place = Place::new().await;
    says(&refused(&place, options(true).with_create(false)).await, &[TABLE, "create=true"]);
    assert!(place.client().list_tables().send().await.unwrap().table_names().is_empty());
}

#[tokio::test]
async fn options_that_cannot_change_are_refused() {
    let place = Place::new().await;
    let any_order = || {
        let mut options = options(true);
        options.order = None;
        options
    };
    place.open_with(options(true).with_stripes(2)).await.unwrap();
    says(&refused(&place, options(false)).await, &["an order", "without `order`"]);
    says(&refused(&place, options(true).with_stripes(3)).await, &["2 stripes"]);
    let store = place.open_with(any_order()).await.unwrap();
    for n in 0..5 {
        store.append(any("a-1", n)).await.unwrap();
    }
    assert_eq!(everything(&store).await.len(), 5);
    let place = Place::new().await;
    place.open(false).await;
    says(&refused(&place, options(true)).await, &["no order"]);
    assert!(!place.open_with(any_order()).await.unwrap().capabilities().global_order);
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let place = Place::new().await;
    place.open(true).await;
    place.set("meta", 0, "layout", N("1000".to_owned())).await;
    says(&refused(&place, options(true)).await, &["layout 1000", "newer"]);
}

#[tokio::test]
async fn stores_that_open_at_once_share_a_table() {
    for order in [true, false] {
        let place = Place::new().await;
        let ttl = options(order).with_snapshot_ttl(Duration::from_secs(60));
        let opened = join_all((0..10).map(|_| place.open_with(ttl.clone()))).await;
        let stores: Vec<DynamoDbStore> = opened.into_iter().map(Result::unwrap).collect();
        let appends = stores.iter().zip(0..).map(|(store, n)| store.append(any("a-1", n)));
        let appended = join_all(appends).await;
        let mut versions: Vec<_> =
            appended.into_iter().map(|appended| appended.unwrap().last_version.get()).collect();
        versions.sort_unstable();
        assert_eq!(versions, (1..=10).collect::<Vec<_>>());
        assert_eq!(stores[0].load_stream(&id("a-1")).await.unwrap().len(), 10);
    }
}

#[tokio::test]
async fn a_snapshot_expires() {
    let place = Place::new().await;
    let ttl = Duration::from_secs(3_600);
    let store = place.open_with(options(true).with_snapshot_ttl(ttl)).await.unwrap();
    // Opening again works on the table that now has time to live.
    place.open_with(options(true).with_snapshot_ttl(ttl)).await.unwrap();
    let stream = id("a-1");
    let snapshot = Snapshot::new(3, Payload::binary(vec![1]));
    store.save_snapshot(&stream, snapshot.clone()).await.unwrap();
    let expires = place.item("s:a-1", -1).await.unwrap()["expires"].as_n().unwrap().clone();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left = expires.parse::<u64>().unwrap() - now.as_secs();
    assert!((3_500..=3_601).contains(&left), "{left}");
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), Some(snapshot.clone()));
    place.set("s:a-1", -1, "expires", N((now.as_secs() - 1).to_string())).await;
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), None);
    store.save_snapshot(&stream, snapshot.clone()).await.unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), Some(snapshot));
}

/// An expired snapshot that DynamoDB has not deleted yet does not count.
#[tokio::test]
async fn an_expired_snapshot_does_not_keep_out_an_older_one() {
    let place = Place::new().await;
    let ttl = options(true).with_snapshot_ttl(Duration::from_secs(3_600));
    let store = place.open_with(ttl).await.unwrap();
    let stream = id("a-1");
    let snapshot = |version: u64| Snapshot::new(version, Payload::binary(vec![1]));
    store.save_snapshot(&stream, snapshot(3)).await.unwrap();
    place.set("s:a-1", -1, "expires", N("1000".to_owned())).await;
    store.save_snapshot(&stream, snapshot(2)).await.unwrap();
    assert_eq!(store.load_snapshot(&stream).await.unwrap(), Some(snapshot(2)));
}

#[tokio::test]
async fn without_time_to_live_snapshots_cannot_expire() {
    let place = Place::new().await;
    place.open(true).await;
    let ttl = options(true).with_snapshot_ttl(Duration::from_secs(3_600));
    says(&refused(&place, ttl).await, &["snapshot_ttl", "`expires`"]);
}
