//! Messages as text that is the same for two servers that did the same: ids, positions and times have
//! names in the order in which they appear.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, ReflectMessage, Value};
use uuid::Uuid;

/// Stands around each position until the scenario is over. Then all positions are known, and have names.
const MARK: char = '\u{1}';

/// The names of a scenario.
#[derive(Debug)]
pub(crate) struct Names {
    pool: DescriptorPool,
    /// Those that were sent are `id1`, `id2`, …; those that the server made are `x1`, `x2`, ….
    ids: HashMap<Uuid, String>,
    sent: usize,
    sending: bool,
    /// What stands for which text, the longest text first.
    labels: Vec<(String, String)>,
    /// Positions that an append was answered with.
    known: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    /// What a position is called in a request.
    asked: HashMap<u64, String>,
}

/// Messages of these are shown with each field on a line of its own.
const BROKEN: [&str; 8] = [
    "event_store.client.ReadEvent",
    "event_store.client.persistent_subscriptions.SubscriptionInfo",
    "event_store.client.persistent_subscriptions.GetInfoResp",
    "event_store.client.persistent_subscriptions.ListResp",
    "event_store.client.server_features.SupportedMethods",
    "event_store.client.gossip.ClusterInfo",
    "event_store.client.gossip.MemberInfo",
    "event_store.client.streams.AppendResp.WrongExpectedVersion",
];

/// What depends on when somebody asks.
const VOLATILE: [&str; 4] = [
    "average_per_second",
    "average_items_per_second",
    "count_since_last_measurement",
    "observed_measurements",
];

impl Names {
    pub(crate) fn new(pool: DescriptorPool) -> Self {
        Self {
            pool,
            ids: HashMap::new(),
            sent: 0,
            sending: false,
            labels: Vec::new(),
            known: BTreeSet::new(),
            seen: BTreeSet::new(),
            asked: HashMap::new(),
        }
    }

    pub(crate) fn label(&mut self, text: &str, label: &str) {
        self.labels.push((text.to_owned(), label.to_owned()));
        self.labels.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// Whether it has the name of something that belongs to the scenario.
    pub(crate) fn ours(&self, text: &str) -> bool {
        self.labels.iter().any(|(name, _)| text.contains(name.as_str()))
    }

    pub(crate) fn know(&mut self, position: u64) {
        if position > 0 && position < i64::MAX as u64 {
            self.known.insert(position);
        }
    }

    pub(crate) fn call_it(&mut self, position: u64, name: &str) {
        self.asked.insert(position, name.to_owned());
    }

    fn id(&mut self, id: Uuid) -> String {
        if id.is_nil() {
            return "nil".to_owned();
        }
        if let Some(name) = self.ids.get(&id) {
            return name.clone();
        }
        let name = if self.sending {
            self.sent += 1;
            format!("id{}", self.sent)
        } else {
            format!("x{}", self.ids.len() - self.sent + 1)
        };
        self.ids.insert(id, name.clone());
        name
    }

    fn position(&mut self, position: u64, request: bool) -> String {
        if request && let Some(name) = self.asked.get(&position) {
            return name.clone();
        }
        match position {
            0 => "0".to_owned(),
            u64::MAX => "MAX".to_owned(),
            _ if position == i64::MAX as u64 => "I64MAX".to_owned(),
            _ => {
                self.seen.insert(position);
                format!("{MARK}{position}{MARK}")
            }
        }
    }

    /// Puts in names for what stands in a text.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut text = text.replace(MARK, "<01>");
        for (name, label) in &self.labels {
            text = text.replace(name.as_str(), label);
        }
        let text = self.ids_in(&text);
        let text = times(&addresses(&text));
        self.positions_in(&text)
    }

    fn ids_in(&mut self, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while !rest.is_empty() {
            if let Some(start) = rest.get(..36)
                && start.as_bytes()[8] == b'-'
                && let Ok(id) = Uuid::try_parse(start)
            {
                out.push_str(&self.id(id));
                rest = &rest[36..];
            } else {
                let first = rest.chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..first]);
                rest = &rest[first..];
            }
        }
        out
    }

    /// `C:1/P:1`.
    fn positions_in(&mut self, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find("C:") {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
            let commit = digits(&rest[2..]);
            let after = &rest[2 + commit..];
            let found = after.strip_prefix("/P:").map(|p| (p, digits(p)));
            match found {
                Some((p, prepare)) if commit > 0 && prepare > 0 => {
                    let c = rest[2..2 + commit].parse().unwrap_or(u64::MAX);
                    let p_value = p[..prepare].parse().unwrap_or(u64::MAX);
                    let (c, p_shown) = (self.position(c, false), self.position(p_value, false));
                    out.push_str(&format!("C:{c}/P:{p_shown}"));
                    rest = &p[prepare..];
                }
                _ => {
                    out.push_str("C:");
                    rest = &rest[2..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// Names for the positions, now that all are known.
    pub(crate) fn settle(&self, text: &str) -> String {
        let known: Vec<u64> = self.known.iter().copied().collect();
        let mut names: BTreeMap<u64, String> = BTreeMap::new();
        let mut between: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (index, position) in known.iter().enumerate() {
            names.insert(*position, format!("p{}", index + 1));
        }
        for position in self.seen.difference(&self.known) {
            let before = known.partition_point(|known| known < position);
            between.entry(before).or_default().push(*position);
        }
        for (before, positions) in between {
            let only = positions.len() == 1;
            for (index, position) in positions.iter().enumerate() {
                let letter = match (only, u8::try_from(index)) {
                    (true, _) => String::new(),
                    (false, Ok(index)) if index < 26 => char::from(b'a' + index).to_string(),
                    _ => (index + 1).to_string(),
                };
                names.insert(*position, format!("p{before}+{letter}"));
            }
        }
        let mut out = String::new();
        for (index, part) in text.split(MARK).enumerate() {
            match part.parse::<u64>() {
                Ok(position) if index % 2 == 1 => {
                    out.push_str(names.get(&position).map_or("p?", String::as_str));
                }
                _ => out.push_str(part),
            }
        }
        out
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.quoted(text),
            Err(_) if bytes.len() > 600 => {
                format!("<{} bytes, {:016x}>", bytes.len(), hash(bytes))
            }
            Err(_) => {
                let mut out = String::new();
                for chunk in bytes.utf8_chunks() {
                    if !chunk.valid().is_empty() {
                        out.push_str(&self.quoted(chunk.valid()));
                    }
                    for byte in chunk.invalid() {
                        out.push_str(&format!("\\x{byte:02x}"));
                    }
                }
                out
            }
        }
    }

    pub(crate) fn quoted(&mut self, text: &str) -> String {
        if text.len() > 600 {
            let size = text.len();
            let labelled = self
                .labels
                .iter()
                .fold(text.to_owned(), |text, (name, label)| text.replace(name.as_str(), label));
            // A long error is to be read.
            let begin: String = labelled.chars().take(60).collect();
            let hash = hash(labelled.as_bytes());
            return format!("<{size} bytes, {hash:016x}, {}…>", self.quoted(&begin));
        }
        let text = self.text(text);
        let mut out = String::from("\"");
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                MARK => out.push(c),
                c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
                c => out.push(c),
            }
        }
        out.push('"');
        out
    }

    pub(crate) fn message(&mut self, message: &DynamicMessage, request: bool) -> String {
        self.sending = request;
        let shown = self.nested(message, request, 1);
        self.sending = false;
        shown
    }

    fn nested(&mut self, message: &DynamicMessage, request: bool, depth: usize) -> String {
        let descriptor = message.descriptor();
        match descriptor.full_name() {
            "event_store.client.UUID" => return self.uuid(message),
            "event_store.client.StreamIdentifier" => {
                let name = message.get_field_by_name("stream_name");
                let name = name.as_deref().and_then(Value::as_bytes).cloned().unwrap_or_default();
                return self.bytes(&name);
            }
            "event_store.client.Empty" => return "{}".to_owned(),
            "google.protobuf.Timestamp" => return timestamp(message),
            "google.protobuf.Any" => return self.any(message, depth),
            "event_store.client.AllStreamPosition" => {
                let part = |name| {
                    message.get_field_by_name(name).and_then(|v| v.as_u64()).unwrap_or_default()
                };
                let (commit, prepare) = (part("commit_position"), part("prepare_position"));
                let commit = self.position(commit, request);
                return format!("{commit}/{}", self.position(prepare, request));
            }
            _ => {}
        }
        let mut parts = Vec::new();
        let mut fields: Vec<_> = descriptor.fields().collect();
        fields.sort_by_key(|field| field.number());
        for field in fields {
            let counts = field.supports_presence() || field.is_list() || field.is_map();
            if counts && !message.has_field(&field) {
                continue;
            }
            // What is left out in a request says nothing.
            if request && !counts && !message.has_field(&field) {
                continue;
            }
            let value = message.get_field(&field);
            let shown = if VOLATILE.contains(&field.name()) {
                "~".to_owned()
            } else {
                self.value(field.name(), field.kind().as_enum(), &value, request, depth + 1)
            };
            parts.push(format!("{}: {shown}", field.name()));
        }
        for unknown in message.unknown_fields() {
            parts.push(format!("UNKNOWN FIELD {}", unknown.number()));
        }
        if parts.is_empty() {
            return "{}".to_owned();
        }
        if BROKEN.contains(&descriptor.full_name()) && !request {
            let indent = "    ".repeat(depth);
            let lines: Vec<_> = parts.iter().map(|part| format!("\n{indent}{part}")).collect();
            return format!("{{{}\n{}}}", lines.join(""), "    ".repeat(depth - 1));
        }
        format!("{{ {} }}", parts.join(", "))
    }

    fn value(
        &mut self,
        name: &str,
        kind: Option<&prost_reflect::EnumDescriptor>,
        value: &Value,
        request: bool,
        depth: usize,
    ) -> String {
        match value {
            Value::U64(position) if name.ends_with("_position") && !name.contains("stream") => {
                self.position(*position, request)
            }
            Value::U64(revision) => match *revision {
                u64::MAX => "U64MAX".to_owned(),
                revision if revision == i64::MAX as u64 => "I64MAX".to_owned(),
                revision => revision.to_string(),
            },
            Value::I64(time) if name == "time_stamp" && plausible(*time) => "T".to_owned(),
            Value::Bool(v) => v.to_string(),
            Value::I32(v) => v.to_string(),
            Value::I64(v) => v.to_string(),
            Value::U32(v) if name == "port" => format!("PORT({})", u32::from(*v > 0)),
            Value::U32(v) => v.to_string(),
            Value::F32(v) => v.to_string(),
            Value::F64(v) => v.to_string(),
            Value::EnumNumber(number) => {
                let found = kind.and_then(|kind| kind.get_value(*number));
                found.map_or_else(|| number.to_string(), |value| value.name().to_owned())
            }
            Value::String(text) => self.quoted(text),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::Message(message) => self.nested(message, request, depth),
            Value::List(list) => {
                // Groups of other scenarios are none of this one's.
                let list: Vec<&Value> =
                    list.iter().filter(|v| name != "subscriptions" || self.of_ours(v)).collect();
                let broken = list.iter().any(|value| matches!(value, Value::Message(_)));
                let items: Vec<_> = list
                    .into_iter()
                    .map(|value| self.value(name, kind, value, request, depth + 1))
                    .collect();
                if broken && items.len() > 1 && !request {
                    let indent = "    ".repeat(depth);
                    let lines: Vec<_> =
                        items.iter().map(|item| format!("\n{indent}{item}")).collect();
                    return format!("[{}\n{}]", lines.join(""), "    ".repeat(depth - 1));
                }
                format!("[{}]", items.join(", "))
            }
            Value::Map(map) => {
                let sorted: BTreeMap<String, &Value> = map
                    .iter()
                    .map(|(key, value)| match key {
                        MapKey::String(key) => (key.clone(), value),
                        other => (format!("{other:?}"), value),
                    })
                    .collect();
                let entries: Vec<_> = sorted
                    .into_iter()
                    .map(|(key, value)| {
                        let time = value.as_str().and_then(|text| text.parse::<i64>().ok());
                        if key == "created" && time.is_some_and(plausible) {
                            return format!("{key}: T");
                        }
                        format!("{key}: {}", self.value(name, None, value, request, depth + 1))
                    })
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn of_ours(&self, info: &Value) -> bool {
        let part = |name| {
            let text = info.as_message().and_then(|info| info.get_field_by_name(name))?;
            Some(text.as_str()?.to_owned())
        };
        let ours = |name| part(name).is_some_and(|text| self.ours(&text));
        ours("event_source") || ours("group_name")
    }

    fn uuid(&mut self, message: &DynamicMessage) -> String {
        if let Some(text) = message.get_field_by_name("string")
            && message.has_field_by_name("string")
        {
            let text = text.as_str().unwrap_or_default().to_owned();
            return match Uuid::try_parse(&text) {
                Ok(id) => format!("string:{}", self.id(id)),
                Err(_) => format!("string:{text:?}"),
            };
        }
        if !message.has_field_by_name("structured") {
            return "unset".to_owned();
        }
        let structured = message.get_field_by_name("structured");
        let structured = structured.as_deref().and_then(Value::as_message);
        let part = |name| {
            let value = structured.and_then(|s| s.get_field_by_name(name)).and_then(|v| v.as_i64());
            value.unwrap_or_default().cast_unsigned()
        };
        let id = Uuid::from_u64_pair(part("most_significant_bits"), part("least_significant_bits"));
        format!("structured:{}", self.id(id))
    }

    fn any(&mut self, message: &DynamicMessage, depth: usize) -> String {
        let url = message.get_field_by_name("type_url");
        let url = url.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned();
        let value = message.get_field_by_name("value");
        let value = value.as_deref().and_then(Value::as_bytes).cloned().unwrap_or_default();
        let name = url.rsplit('/').next().unwrap_or_default();
        let decoded = self.pool.get_message_by_name(name);
        let decoded = decoded.and_then(|found| DynamicMessage::decode(found, value.clone()).ok());
        match decoded {
            Some(decoded) => format!("[{url}] {}", self.nested(&decoded, false, depth)),
            None => format!("[{url}] {}", self.bytes(&value)),
        }
    }

    /// The details of a status.
    pub(crate) fn details(&mut self, bytes: &[u8]) -> String {
        let found = self.pool.get_message_by_name("google.rpc.Status");
        match found.and_then(|found| DynamicMessage::decode(found, bytes).ok()) {
            Some(status) => self.nested(&status, false, 2),
            None => self.bytes(bytes),
        }
    }
}

/// 100 ns since 1970.
fn plausible(time: i64) -> bool {
    (16_000_000_000_000_000..30_000_000_000_000_000).contains(&time)
}

fn timestamp(message: &DynamicMessage) -> String {
    let seconds = message.get_field_by_name("seconds").and_then(|v| v.as_i64()).unwrap_or_default();
    match seconds {
        1_600_000_000..3_000_000_000 => "T".to_owned(),
        other => format!("{{ seconds: {other} }}"),
    }
}

/// `127.0.0.1:1234`.
fn addresses(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("127.0.0.1:") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 10..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        out.push_str("ADDRESS");
        rest = &after[digits..];
    }
    out.push_str(rest);
    out
}

/// `2024-01-02T03:04:05.678Z`.
fn times(text: &str) -> String {
    const FORM: &[u8; 19] = b"0000-00-00T00:00:00";
    let (mut out, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let fits = rest.len() >= FORM.len()
            && rest.bytes().zip(FORM).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                other => byte == *other,
            });
        if fits {
            let tail = &rest.as_bytes()[FORM.len()..];
            let more = tail
                .iter()
                .take_while(|byte| byte.is_ascii_digit() || b".Z+:".contains(byte))
                .count();
            out.push_str("TIME");
            rest = &rest[FORM.len() + more..];
        } else {
            let first = rest.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..first]);
            rest = &rest[first..];
        }
    }
    out
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
