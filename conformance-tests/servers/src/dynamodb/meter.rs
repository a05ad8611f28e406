//! What requests cost.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, SharedHttpClient, SharedHttpConnector},
    orchestrator::HttpRequest,
};
use serde_json::Value;

use super::layer::{self, Answer, Layer};

/// Adds up what the requests of HTTP clients cost, in DynamoDB's capacity units. It asks the server
/// for them in every request, which the signature of the request does not cover: for servers that
/// check none, and so not for the real service.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums(Mutex<Usage>);

/// What was sent, and what it cost.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// How many requests were sent, with those that the SDK repeated.
    pub requests: u64,
    /// How many of them were not answered, or with an error. Such answers do not say what they
    /// cost, though a condition that does not hold costs what the write would have.
    pub failed: u64,
    /// The units of reads: one is 4 KB read consistently, or 8 KB eventually.
    pub read_units: f64,
    /// The units of writes: one is 1 KB, or half of it in a transaction, where conditions without
    /// a write count too.
    pub write_units: f64,
    /// The requests by operation, such as `PutItem`.
    pub by_operation: BTreeMap<String, u64>,
    /// How long the bodies of the requests were, without what the meter added.
    pub bytes_sent: u64,
    /// How long the bodies of the answers were, with what the meter asked for.
    pub bytes_received: u64,
}

impl Meter {
    /// A meter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// An HTTP client without TLS whose requests are counted here.
    pub fn http_client(&self) -> SharedHttpClient {
        self.around(layer::plain_http())
    }

    /// The same around another HTTP client.
    pub fn around(&self, inner: SharedHttpClient) -> SharedHttpClient {
        layer::around(&self.0, inner)
    }

    /// What has been used since the last call. A request counts once it has been answered.
    pub fn take(&self) -> Usage {
        std::mem::take(&mut *self.0.usage())
    }
}

/// The operations whose units are those of reads, or of writes, unless the answer says which they
/// are: a transaction that is repeated with its token is read.
const READS: [&str; 5] = ["GetItem", "Query", "Scan", "BatchGetItem", "TransactGetItems"];
const WRITES: [&str; 5] =
    ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"];

impl Sums {
    fn usage(&self) -> std::sync::MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, operation: &str, sent: u64, answer: &Option<Answered>) {
        let mut usage = self.usage();
        usage.requests += 1;
        *usage.by_operation.entry(operation.to_owned()).or_default() += 1;
        usage.bytes_sent += sent;
        let Some(answer) = answer else {
            usage.failed += 1;
            return;
        };
        usage.bytes_received += answer.length as u64;
        usage.failed += u64::from(!answer.success);
        for table in &answer.capacity {
            let units = |name| table.get(name).and_then(Value::as_f64);
            match (units("ReadCapacityUnits"), units("WriteCapacityUnits")) {
                (None, None) => {
                    let is_write = WRITES.contains(&operation);
                    let sum = if is_write { &mut usage.write_units } else { &mut usage.read_units };
                    *sum += units("CapacityUnits").unwrap_or_default();
                }
                (read, write) => {
                    usage.read_units += read.unwrap_or_default();
                    usage.write_units += write.unwrap_or_default();
                }
            }
        }
    }
}

/// What matters of an answer.
struct Answered {
    success: bool,
    length: usize,
    /// What it tells of each table.
    capacity: Vec<Value>,
}

impl Layer for Sums {
    async fn call(self: Arc<Self>, mut request: HttpRequest, next: SharedHttpConnector) -> Answer {
        let operation = layer::operation(&request);
        let sent = request.body().content_length().unwrap_or_default();
        if READS.contains(&operation.as_str()) || WRITES.contains(&operation.as_str()) {
            ask(&mut request);
        }
        let answer = match next.call(request).await {
            Ok(answer) => layer::read(answer).await,
            Err(e) => Err(e),
        };
        let answered = answer.as_ref().ok().map(|(answer, bytes)| Answered {
            success: answer.status().is_success(),
            length: bytes.len(),
            capacity: capacity(bytes),
        });
        self.count(&operation, sent, &answered);
        answer.map(|(answer, _)| answer)
    }
}

/// Makes that the answer tells its units.
fn ask(request: &mut HttpRequest) {
    const PARAMETER: &str = "ReturnConsumedCapacity";
    let mut body = layer::body(request);
    let Some(parameters) = body.as_object_mut() else { return };
    // Somebody else may want to know as well, and perhaps more.
    if !matches!(parameters.get(PARAMETER).and_then(Value::as_str), Some("INDEXES" | "TOTAL")) {
        parameters.insert(PARAMETER.to_owned(), "INDEXES".into());
        layer::set_body(request, &body);
    }
}

/// What an answer tells of each table it concerns.
fn capacity(answer: &[u8]) -> Vec<Value> {
    let mut answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    match answer.get_mut("ConsumedCapacity").map(Value::take) {
        Some(Value::Array(tables)) => tables,
        Some(table) => vec![table],
        None => Vec::new(),
    }
}
