//! Faults that the real service and the network have at times.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, SharedHttpClient, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use fastrand::Rng;
use lru::LruCache;
use serde_json::{Map, Value, json};

use super::layer::{self, Answer, Layer};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// The request is refused because the table, the partition or the account has too many. Nothing
    /// is done.
    Throttled,
    /// A single write or a transaction is refused because another transaction is writing the same
    /// item. Nothing is done.
    Conflict,
    /// The service fails. Nothing is done.
    ErrorBefore,
    /// The service fails after it has executed the request.
    ErrorAfter,
    /// The request does not reach the service.
    LostRequest,
    /// The request is executed, and its answer does not reach the client.
    LostAnswer,
    /// An eventually consistent read gives an earlier answer again, or answers as if nothing had
    /// been written.
    Stale,
    /// A part of a batch is executed, and the rest is returned as unprocessed.
    Partial,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 8] = [
        Self::Throttled,
        Self::Conflict,
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::LostRequest,
        Self::LostAnswer,
        Self::Stale,
        Self::Partial,
    ];

    /// The name of the fault in [`Faults::counts`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::ErrorBefore => "error before",
            Self::ErrorAfter => "error after",
            Self::LostRequest => "lost request",
            Self::LostAnswer => "lost answer",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }

    /// Whether the fault can happen to a request.
    fn suits(self, operation: &str, body: &Value) -> bool {
        match self {
            Self::Conflict => {
                SINGLE_WRITES.contains(&operation) || TRANSACTIONS.contains(&operation)
            }
            Self::Stale => may_be_stale(operation, body),
            Self::Partial => entries(body) > 1,
            _ => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The probability of each fault, from 0 to 1, for a request to which it can happen. At most one
/// fault happens to a request: if several are drawn, the first in the order of [`Fault::ALL`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates(BTreeMap<Fault, f64>);

impl Rates {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// All faults, with the same probability.
    pub fn all(probability: f64) -> Self {
        Fault::ALL.into_iter().fold(Self::none(), |rates, fault| rates.with(fault, probability))
    }

    /// The same rates, except for one fault.
    pub fn with(mut self, fault: Fault, probability: f64) -> Self {
        self.0.insert(fault, probability);
        self
    }

    fn of(&self, fault: Fault) -> f64 {
        self.0.get(&fault).copied().unwrap_or_default()
    }
}

/// Makes faults happen to the requests of HTTP clients that read and write items. Requests that
/// manage tables pass. The choice depends only on a seed and the requests before.
///
/// [`Fault::Partial`] changes the body of a batch, so that the signature no longer matches: it
/// works with servers that do not check signatures.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    rng: Rng,
    rates: Rates,
    counts: BTreeMap<Fault, u64>,
    /// The last answers to eventually consistent reads, which may be given again.
    answers: LruCache<Read, Bytes>,
}

/// A read: its operation and its parameters.
type Read = (String, Value);

/// How many answers are remembered: more than a test has different reads, and at up to 1 MB each
/// few enough for its memory.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

impl Faults {
    /// Faults that a seed determines.
    pub fn new(seed: u64, rates: Rates) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            rates,
            counts: BTreeMap::new(),
            answers: LruCache::new(REMEMBERED),
        };
        Self(Arc::new(Shared(Mutex::new(state))))
    }

    /// An HTTP client without TLS to whose requests the faults happen.
    pub fn http_client(&self) -> SharedHttpClient {
        self.around(layer::plain_http())
    }

    /// Like [`http_client`](Self::http_client), around another HTTP client.
    pub fn around(&self, inner: SharedHttpClient) -> SharedHttpClient {
        layer::around(&self.0, inner)
    }

    /// Sets other rates, such as [`Rates::none`] while a test prepares or checks.
    pub fn set_rates(&self, rates: Rates) {
        self.0.state().rates = rates;
    }

    /// How often each fault has happened, by its [`name`](Fault::name); 0 for one that has not.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let state = self.0.state();
        let count = |fault| state.counts.get(fault).copied().unwrap_or_default();
        Fault::ALL.iter().map(|fault| (fault.name(), count(fault))).collect()
    }
}

const SINGLE_WRITES: [&str; 3] = ["PutItem", "UpdateItem", "DeleteItem"];
const TRANSACTIONS: [&str; 2] = ["TransactWriteItems", "TransactGetItems"];
const READS: [&str; 4] = ["GetItem", "Query", "Scan", "BatchGetItem"];
const BATCH_WRITE: &str = "BatchWriteItem";

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault of the next request, and random numbers for its details. Every request draws the
    /// same amount of random numbers, whatever its fault.
    fn choose(&self, operation: &str, body: &Value) -> (Option<Fault>, Rng) {
        let mut state = self.state();
        let State { rng, rates, .. } = &mut *state;
        let drawn: Vec<Fault> =
            Fault::ALL.into_iter().filter(|fault| rng.f64() < rates.of(*fault)).collect();
        let chosen = drawn.into_iter().find(|fault| fault.suits(operation, body));
        (chosen, state.rng.fork())
    }

    fn count(&self, fault: Fault) {
        *self.state().counts.entry(fault).or_default() += 1;
    }

    /// Sends a request, and remembers its answer if that may be given again.
    async fn send(
        &self,
        request: HttpRequest,
        next: &SharedHttpConnector,
        operation: &str,
        body: Value,
    ) -> Answer {
        let answer = next.call(request).await?;
        if !may_be_stale(operation, &body) || !answer.status().is_success() {
            return Ok(answer);
        }
        let (answer, bytes) = layer::read(answer).await?;
        self.state().answers.put((operation.to_owned(), body), bytes);
        Ok(answer)
    }

    /// The last answer to the same read, or the answer before anything was written.
    fn stale(&self, operation: &str, body: Value) -> Answer {
        let nothing = nothing(operation, &body);
        let remembered = self.state().answers.get(&(operation.to_owned(), body)).cloned();
        respond(200, remembered.unwrap_or_else(|| nothing.to_string().into()))
    }
}

impl Layer for Shared {
    async fn call(self: Arc<Self>, request: HttpRequest, next: SharedHttpConnector) -> Answer {
        let operation = layer::operation(&request);
        let operation = operation.as_str();
        let is_data = [&SINGLE_WRITES[..], &TRANSACTIONS, &READS, &[BATCH_WRITE]]
            .iter()
            .any(|operations| operations.contains(&operation));
        if !is_data {
            return next.call(request).await;
        }
        let body = layer::body(&request);
        let (fault, mut rng) = self.choose(operation, &body);
        let Some(fault) = fault else {
            return self.send(request, &next, operation, body).await;
        };
        let answer = match fault {
            Fault::Throttled => throttled(&mut rng),
            Fault::Conflict if TRANSACTIONS.contains(&operation) => cancelled(&body, &mut rng),
            Fault::Conflict => error(
                400,
                "TransactionConflictException",
                json!({"message": "Transaction is ongoing for the item"}),
            ),
            Fault::ErrorBefore => internal(),
            Fault::ErrorAfter => {
                self.send(request, &next, operation, body).await?;
                internal()
            }
            Fault::LostRequest => Err(lost(&mut rng)),
            Fault::LostAnswer => {
                self.send(request, &next, operation, body).await?;
                Err(lost(&mut rng))
            }
            Fault::Stale => self.stale(operation, body),
            Fault::Partial => partly(request, &next, body, &mut rng).await,
        };
        self.count(fault);
        answer
    }
}

fn respond(status: u16, body: impl Into<SdkBody>) -> Answer {
    let status = StatusCode::try_from(status).map_err(|e| ConnectorError::user(e.into()))?;
    let mut answer = HttpResponse::new(status, body.into());
    answer.headers_mut().insert("content-type", "application/x-amz-json-1.0");
    Ok(answer)
}

fn error(status: u16, kind: &str, mut body: Value) -> Answer {
    if let Some(body) = body.as_object_mut() {
        body.insert("__type".to_owned(), format!("com.amazonaws.dynamodb.v20120810#{kind}").into());
    }
    respond(status, body.to_string())
}

fn internal() -> Answer {
    error(500, "InternalServerError", json!({"message": "Internal server error"}))
}

fn throttled(rng: &mut Rng) -> Answer {
    let (kind, message) = match rng.u8(0..3) {
        0 => (
            "ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded. Consider \
             increasing your provisioning level with the UpdateTable API.",
        ),
        1 => (
            "ThrottlingException",
            "Throughput exceeds the current capacity of your table or index. DynamoDB is \
             automatically scaling your table or index so please try again shortly.",
        ),
        _ => (
            "RequestLimitExceeded",
            "Throughput exceeds the current throughput limit for your account. Please contact AWS \
             Support to request a limit increase.",
        ),
    };
    error(400, kind, json!({"message": message}))
}

/// The answer to a transaction that is cancelled for one of its items.
fn cancelled(body: &Value, rng: &mut Rng) -> Answer {
    let items = body.get("TransactItems").and_then(Value::as_array).map_or(0, Vec::len);
    let one = rng.usize(..items.max(1));
    let codes: Vec<&str> =
        (0..items).map(|n| if n == one { "TransactionConflict" } else { "None" }).collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let reason = |code: &str| match code {
        "None" => json!({"Code": code}),
        _ => json!({"Code": code, "Message": "Transaction is ongoing for the item"}),
    };
    let reasons: Vec<Value> = codes.into_iter().map(reason).collect();
    let body = json!({"CancellationReasons": reasons, "Message": message});
    error(400, "TransactionCanceledException", body)
}

fn lost(rng: &mut Rng) -> ConnectorError {
    if rng.bool() {
        ConnectorError::timeout("a fault: the answer takes too long".into())
    } else {
        ConnectorError::io("a fault: the connection is closed".into())
    }
}

/// Whether a read is eventually consistent, so that its answer may be old.
fn may_be_stale(operation: &str, body: &Value) -> bool {
    let is_consistent = |read: &Value| read.get("ConsistentRead") == Some(&Value::Bool(true));
    let tables = body.get("RequestItems").and_then(Value::as_object);
    READS.contains(&operation)
        && !is_consistent(body)
        && !tables.is_some_and(|tables| tables.values().any(is_consistent))
}

/// The answer to a read before anything was written.
fn nothing(operation: &str, body: &Value) -> Value {
    match operation {
        "GetItem" => json!({}),
        "BatchGetItem" => {
            let tables = body.get("RequestItems").and_then(Value::as_object);
            let tables = tables.into_iter().flatten().map(|(name, _)| (name.clone(), json!([])));
            json!({"Responses": tables.collect::<Map<_, _>>(), "UnprocessedKeys": {}})
        }
        _ => json!({"Items": [], "Count": 0, "ScannedCount": 0}),
    }
}

/// The entries of a batch for one table: the keys of a read, or the writes.
fn entries_of(table: &Value) -> Option<&Vec<Value>> {
    table.as_array().or_else(|| table.get("Keys")?.as_array())
}

/// How many entries a batch has; 0 if the request is not a batch.
fn entries(body: &Value) -> usize {
    let tables = body.get("RequestItems").and_then(Value::as_object);
    let tables = tables.into_iter().flat_map(Map::values);
    tables.filter_map(entries_of).map(Vec::len).sum()
}

/// The part of a batch for one table, with other entries.
fn with_entries(table: &Value, entries: Vec<Value>) -> Value {
    let mut table = table.clone();
    match table.get_mut("Keys") {
        Some(keys) => *keys = entries.into(),
        None => table = entries.into(),
    }
    table
}

/// Sends a part of a batch, and returns the rest as unprocessed.
async fn partly(
    mut request: HttpRequest,
    next: &SharedHttpConnector,
    mut body: Value,
    rng: &mut Rng,
) -> Answer {
    let held = hold_back(&mut body, rng);
    layer::set_body(&mut request, &body);
    let (mut answer, bytes) = layer::read(next.call(request).await?).await?;
    if !answer.status().is_success() {
        return Ok(answer);
    }
    let mut told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    for name in ["UnprocessedKeys", "UnprocessedItems"] {
        let Some(unprocessed) = told.get_mut(name).and_then(Value::as_object_mut) else { continue };
        for (table, held) in &held {
            let more = unprocessed.get(table).and_then(entries_of).cloned().unwrap_or_default();
            let all = entries_of(held).into_iter().flatten().cloned().chain(more).collect();
            unprocessed.insert(table.clone(), with_entries(held, all));
        }
    }
    let bytes = told.to_string().into_bytes();
    answer.headers_mut().insert("content-length", bytes.len().to_string());
    // The checksum is that of the answer before the change.
    answer.headers_mut().remove("x-amz-crc32");
    *answer.body_mut() = SdkBody::from(bytes);
    Ok(answer)
}

/// Takes at least one entry out of a batch, and leaves at least one.
fn hold_back(body: &mut Value, rng: &mut Rng) -> Map<String, Value> {
    let total = entries(body);
    let count = rng.usize(1..total.max(2));
    let mut is_held: Vec<bool> = (0..total).map(|n| n < count).collect();
    rng.shuffle(&mut is_held);
    let mut is_held = is_held.into_iter();
    let (mut sent, mut held) = (Map::new(), Map::new());
    let tables = body.get("RequestItems").and_then(Value::as_object);
    for (name, table) in tables.into_iter().flatten() {
        let entries = entries_of(table).cloned().unwrap_or_default().into_iter();
        let (back, on): (Vec<_>, Vec<_>) = entries.partition(|_| is_held.next() == Some(true));
        for (part, entries) in [(&mut held, back), (&mut sent, on)] {
            if !entries.is_empty() {
                part.insert(name.clone(), with_entries(table, entries));
            }
        }
    }
    if let Some(body) = body.as_object_mut() {
        body.insert("RequestItems".to_owned(), sent.into());
    }
    held
}
