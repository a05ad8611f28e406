//! The requests of scenarios, in the text format of protocol buffers. `play` parses them by the
//! description of the protocol.

use std::fmt::Write;

use uuid::Uuid;

/// A text in quotes. Bytes that are not printable ASCII are escaped.
pub(crate) fn quote(bytes: impl AsRef<[u8]>) -> String {
    let mut out = String::from("\"");
    for byte in bytes.as_ref() {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\' | b'\'') => out.push(char::from(*byte)),
            other => {
                let _ = write!(out, "\\{other:03o}");
            }
        }
    }
    out.push('"');
    out
}

pub(crate) fn ident(stream: impl AsRef<[u8]>) -> String {
    format!("stream_identifier {{ stream_name: {} }}", quote(stream))
}

/// The expected version of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exp {
    Any,
    NoStream,
    Exists,
    Rev(u64),
    /// The request does not say.
    Unset,
}
pub(crate) use Exp::{Any, Exists, NoStream, Rev, Unset};

impl Exp {
    pub(crate) fn text(self, batch: bool) -> String {
        let _ = batch;
        match self {
            Any => "any {}".to_owned(),
            NoStream => "no_stream {}".to_owned(),
            Exists => "stream_exists {}".to_owned(),
            Rev(revision) => format!("revision: {revision}"),
            Unset => String::new(),
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Any => "any".to_owned(),
            NoStream => "no_stream".to_owned(),
            Exists => "exists".to_owned(),
            Rev(revision) => format!("rev{revision}"),
            Unset => "unset".to_owned(),
        }
    }
}

/// The options of an append, a deletion or a tombstone.
pub(crate) fn options(stream: impl AsRef<[u8]>, expected: Exp) -> String {
    format!("options {{ {} {} }}", ident(stream), expected.text(false))
}

/// An event to append.
#[derive(Clone, Debug)]
pub(crate) struct Ev {
    pub(crate) id: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) meta: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn ev(kind: &str, data: &str) -> Ev {
    let headers = [("type", kind), ("content-type", "application/json")];
    Ev {
        id: Some(string_id(Uuid::now_v7())),
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        meta: Vec::new(),
        data: data.as_bytes().to_vec(),
    }
}

pub(crate) fn string_id(id: Uuid) -> String {
    format!("string: {}", quote(id.to_string()))
}

pub(crate) fn structured_id(id: Uuid) -> String {
    let (most, least) = id.as_u64_pair();
    format!(
        "structured {{ most_significant_bits: {} least_significant_bits: {} }}",
        most.cast_signed(),
        least.cast_signed()
    )
}

impl Ev {
    pub(crate) fn id(mut self, id: Uuid) -> Self {
        self.id = Some(string_id(id));
        self
    }

    pub(crate) fn id_text(mut self, text: &str) -> Self {
        self.id = Some(text.to_owned());
        self
    }

    pub(crate) fn without_id(mut self) -> Self {
        self.id = None;
        self
    }

    pub(crate) fn meta(mut self, meta: impl AsRef<[u8]>) -> Self {
        self.meta = meta.as_ref().to_vec();
        self
    }

    pub(crate) fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = data.as_ref().to_vec();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    pub(crate) fn binary(self) -> Self {
        self.header("content-type", "application/octet-stream")
    }

    fn body(&self) -> String {
        let mut out = String::new();
        if let Some(id) = &self.id {
            let _ = write!(out, "id {{ {id} }} ");
        }
        for (key, value) in &self.headers {
            let _ = write!(out, "metadata {{ key: {} value: {} }} ", quote(key), quote(value));
        }
        if !self.meta.is_empty() {
            let _ = write!(out, "custom_metadata: {} ", quote(&self.meta));
        }
        if !self.data.is_empty() {
            let _ = write!(out, "data: {} ", quote(&self.data));
        }
        out
    }

    pub(crate) fn proposed(&self) -> String {
        format!("proposed_message {{ {} }}", self.body())
    }

    pub(crate) fn in_batch(&self) -> String {
        format!("proposed_messages {{ {} }}", self.body())
    }
}

/// Events `t0`, `t1`, ….
pub(crate) fn evs(count: usize) -> Vec<Ev> {
    (0..count).map(|n| ev(&format!("t{n}"), &format!("{{\"n\":{n}}}"))).collect()
}

pub(crate) fn append(stream: impl AsRef<[u8]>, expected: Exp, events: &[Ev]) -> Vec<String> {
    let mut all = vec![options(stream, expected)];
    all.extend(events.iter().map(Ev::proposed));
    all
}

/// An append in a batch, as one message.
pub(crate) fn batch(
    correlation: Uuid,
    stream: impl AsRef<[u8]>,
    expected: Exp,
    events: &[Ev],
) -> String {
    chunk(Some(correlation), Some((stream.as_ref(), expected)), events, true, "")
}

pub(crate) fn chunk(
    correlation: Option<Uuid>,
    options: Option<(&[u8], Exp)>,
    events: &[Ev],
    last: bool,
    more_options: &str,
) -> String {
    let mut out = String::new();
    if let Some(id) = correlation {
        let _ = write!(out, "correlation_id {{ {} }} ", string_id(id));
    }
    if let Some((stream, expected)) = options {
        let (stream, expected) = (ident(stream), expected.text(true));
        let _ = write!(out, "options {{ {stream} {expected} {more_options} }} ");
    }
    for event in events {
        out.push_str(&event.in_batch());
        out.push(' ');
    }
    if last {
        out.push_str("is_final: true");
    }
    out
}

/// A read, or a subscription.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    stream: Option<Vec<u8>>,
    from: String,
    backwards: bool,
    links: bool,
    count: String,
    filter: String,
    ids: String,
    control: String,
}

pub(crate) fn read(stream: impl AsRef<[u8]>) -> Read {
    Read { stream: Some(stream.as_ref().to_vec()), ..read_all() }
}

pub(crate) fn read_all() -> Read {
    Read {
        stream: None,
        from: "start {}".to_owned(),
        backwards: false,
        links: false,
        count: "count: 100".to_owned(),
        filter: "no_filter {}".to_owned(),
        ids: "uuid_option { string {} }".to_owned(),
        control: String::new(),
    }
}

pub(crate) fn subscribe(stream: impl AsRef<[u8]>) -> Read {
    read(stream).count_text("subscription {}")
}

pub(crate) fn subscribe_all() -> Read {
    read_all().count_text("subscription {}")
}

impl Read {
    pub(crate) fn from(mut self, text: &str) -> Self {
        self.from = text.to_owned();
        self
    }

    pub(crate) fn end(self) -> Self {
        self.from("end {}")
    }

    pub(crate) fn rev(self, revision: u64) -> Self {
        self.from(&format!("revision: {revision}"))
    }

    pub(crate) fn at(self, commit: u64, prepare: u64) -> Self {
        self.from(&format!("position {{ commit_position: {commit} prepare_position: {prepare} }}"))
    }

    pub(crate) fn back(mut self) -> Self {
        self.backwards = true;
        self
    }

    pub(crate) fn links(mut self) -> Self {
        self.links = true;
        self
    }

    pub(crate) fn count(self, count: u64) -> Self {
        self.count_text(&format!("count: {count}"))
    }

    pub(crate) fn count_text(mut self, text: &str) -> Self {
        self.count = text.to_owned();
        self
    }

    /// `on` is `stream_identifier` or `event_type`.
    pub(crate) fn filter(self, on: &str, expression: &str, window: &str, multiplier: u32) -> Self {
        self.filter_text(&format!(
            "filter {{ {on} {{ {expression} }} {window} checkpointIntervalMultiplier: {multiplier} }}"
        ))
    }

    pub(crate) fn filter_text(mut self, text: &str) -> Self {
        self.filter = text.to_owned();
        self
    }

    pub(crate) fn ids(mut self, text: &str) -> Self {
        self.ids = text.to_owned();
        self
    }

    pub(crate) fn compatibility(mut self, level: u32) -> Self {
        self.control = format!("control_option {{ compatibility: {level} }}");
        self
    }

    pub(crate) fn text(&self) -> String {
        let place = match &self.stream {
            Some(stream) => format!("stream {{ {} {} }}", ident(stream), self.from),
            None => format!("all {{ {} }}", self.from),
        };
        let direction = if self.backwards { "read_direction: Backwards" } else { "" };
        let links = if self.links { "resolve_links: true" } else { "" };
        let Self { count, filter, ids, control, .. } = self;
        format!("options {{ {place} {direction} {links} {count} {filter} {ids} {control} }}")
    }
}

pub(crate) fn prefix(prefixes: &[&str]) -> String {
    prefixes.iter().map(|prefix| format!("prefix: {} ", quote(prefix))).collect()
}

pub(crate) fn regex(regex: &str) -> String {
    format!("regex: {}", quote(regex))
}
