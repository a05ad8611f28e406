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

/// Adds up what the requests of HTTP clients cost, in DynamoDB's capacity units. The meter changes
/// every request to ask the server for its units, so that the signature no longer matches: it works
/// with servers that do not check signatures, and not with the real service.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums(Mutex<Usage>);

/// Requests, and what they cost.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// How many requests were sent, including those that the SDK repeated.
    pub requests: u64,
    /// How many of them got no answer or an error. An error does not say what the request cost,
    /// although a write whose condition does not hold costs as much as the write.
    pub failed: u64,
    /// Read units: one is a strongly consistent read of 4 KB, or an eventually consistent one of
    /// 8 KB.
    pub read_units: f64,
    /// Write units: one is a write of 1 KB, or of half of that in a transaction, where condition
    /// checks count as writes.
    pub write_units: f64,
    /// The requests by operation, such as `PutItem`.
    pub by_operation: BTreeMap<String, u64>,
    /// The bytes in the bodies of requests, without what the meter added.
    pub bytes_sent: u64,
    /// The bytes in the bodies of answers, including what the meter asked for.
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

    /// Like [`http_client`](Self::http_client), around another HTTP client.
    pub fn around(&self, inner: SharedHttpClient) -> SharedHttpClient {
        layer::around(&self.0, inner)
    }

    /// What was used since the last call. A request counts when it has been answered.
    pub fn take(&self) -> Usage {
        std::mem::take(&mut *self.0.usage())
    }
}

/// The operations that are counted. Unless the answer says which units it means, those of writes
/// are write units. It says so for a transaction that is repeated with its token: that only reads.
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

/// What the meter keeps of an answer.
struct Answered {
    success: bool,
    length: usize,
    /// The consumed capacity of each table.
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

/// Changes a request so that its answer reports the consumed capacity.
fn ask(request: &mut HttpRequest) {
    const PARAMETER: &str = "ReturnConsumedCapacity";
    let mut body = layer::body(request);
    let Some(parameters) = body.as_object_mut() else { return };
    // The caller may have asked for this, or for more.
    if !matches!(parameters.get(PARAMETER).and_then(Value::as_str), Some("INDEXES" | "TOTAL")) {
        parameters.insert(PARAMETER.to_owned(), "INDEXES".into());
        layer::set_body(request, &body);
    }
}

/// The consumed capacity in an answer, one value for each table.
fn capacity(answer: &[u8]) -> Vec<Value> {
    let mut answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    match answer.get_mut("ConsumedCapacity").map(Value::take) {
        Some(Value::Array(tables)) => tables,
        Some(table) => vec![table],
        None => Vec::new(),
    }
}
