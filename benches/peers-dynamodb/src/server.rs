//! An empty emulator in this process, and its tables.

use std::time::Duration;

use annals_test_servers::dynamodb::{DynamoDb, Meter, Source};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{AsyncSleep, Sleep};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ScalarAttributeType,
};

pub struct Server(DynamoDb);

/// The name and type of a key's attribute.
pub type Key = (&'static str, ScalarAttributeType);

impl Server {
    pub async fn start() -> Self {
        Self(Source::InProcess.start().await.unwrap())
    }

    /// A client for a peer, and a meter of what it consumes.
    pub fn metered_client(&self) -> (Client, Meter) {
        let meter = Meter::new();
        let config =
            self.0.config().to_builder().http_client(meter.http_client()).sleep_impl(Tokio);
        (Client::from_conf(config.build()), meter)
    }

    /// Creates a table. `index` is the name and the range key of an index with the same hash key,
    /// which holds only keys.
    pub async fn create_table(&self, name: &str, keys: &[Key], index: Option<(&str, Key)>) {
        let schema = |keys: &[Key]| -> Vec<_> {
            let kinds = [KeyType::Hash, KeyType::Range];
            let element = |(key, kind): (&Key, KeyType)| {
                KeySchemaElement::builder().attribute_name(key.0).key_type(kind).build().unwrap()
            };
            keys.iter().zip(kinds).map(element).collect()
        };
        let mut attributes = keys.to_vec();
        attributes.extend(index.iter().map(|(_, key)| key.clone()));
        let attributes = attributes.into_iter().map(|(name, kind)| {
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(kind)
                .build()
                .unwrap()
        });
        let indexes: Vec<_> = index
            .into_iter()
            .map(|(name, key)| {
                GlobalSecondaryIndex::builder()
                    .index_name(name)
                    .set_key_schema(Some(schema(&[keys[0].clone(), key])))
                    .projection(
                        Projection::builder().projection_type(ProjectionType::KeysOnly).build(),
                    )
                    .build()
                    .unwrap()
            })
            .collect();
        let create = self
            .0
            .client()
            .create_table()
            .table_name(name)
            .billing_mode(BillingMode::PayPerRequest);
        create
            .set_attribute_definitions(Some(attributes.collect()))
            .set_key_schema(Some(schema(keys)))
            .set_global_secondary_indexes((!indexes.is_empty()).then_some(indexes))
            .send()
            .await
            .unwrap();
    }

    /// Fails unless all events of an aggregate were stored with this many bytes of data. Returns
    /// what an item has besides: names, keys and the peer's own attributes.
    pub async fn check_stored(
        &self,
        table: &str,
        id: (&str, &str),
        data: &str,
        bytes: usize,
    ) -> Stored {
        let pages = self
            .0
            .client()
            .query()
            .table_name(table)
            .key_condition_expression("#id = :id")
            .expression_attribute_names("#id", id.0)
            .expression_attribute_values(":id", AttributeValue::S(id.1.to_owned()))
            .into_paginator()
            .items()
            .send();
        let items = pages.try_collect().await.unwrap();
        let mut overhead = 0;
        for item in &items {
            let stored = item[data].as_b().unwrap().as_ref();
            assert_eq!(stored.len(), bytes, "in {table}");
            let size = |(name, value): (&String, &AttributeValue)| {
                name.len()
                    + match value {
                        AttributeValue::S(text) => text.len(),
                        AttributeValue::B(bytes) => bytes.as_ref().len(),
                        // DynamoDB counts one byte for two digits, and one more byte.
                        AttributeValue::N(digits) => {
                            digits.trim_end_matches('0').len().div_ceil(2) + 1
                        }
                        other => panic!("{name} is {other:?}"),
                    }
            };
            overhead = overhead.max(item.iter().map(size).sum::<usize>() - bytes);
        }
        Stored { events: items.len(), overhead }
    }
}

/// `event-store-adapter-rs` needs this to open a store: it does not see the SDK's own one.
#[derive(Debug)]
struct Tokio;

impl AsyncSleep for Tokio {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(tokio::time::sleep(duration))
    }
}

/// What was found in a table.
pub struct Stored {
    pub events: usize,
    /// The most bytes of an item besides the event's data.
    pub overhead: usize,
}
