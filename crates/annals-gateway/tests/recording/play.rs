//! One scenario being played.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use tokio::time::Instant;
use tonic::{
    metadata::{KeyAndValueRef, MetadataMap},
    transport::Channel,
};
use uuid::Uuid;

use crate::{
    ask::{Ev, Exp, append},
    show::Names,
    wire::{End, Incoming, Wire},
};

/// A subscription counts as quiet if nothing came for so long.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

type Playing<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A named scenario.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) play: Box<dyn for<'a> Fn(&'a mut Play) -> Playing<'a>>,
}

/// The scenarios, in the order in which they are played.
#[derive(Default)]
pub(crate) struct List(pub(crate) Vec<Scenario>);

impl List {
    pub(crate) fn add<F>(&mut self, name: impl Into<String>, play: F)
    where
        F: AsyncFn(&mut Play) + 'static,
    {
        let play: &'static F = Box::leak(Box::new(play));
        let play: Box<dyn for<'a> Fn(&'a mut Play) -> Playing<'a>> =
            Box::new(move |one| Box::pin(play(one)));
        self.0.push(Scenario { name: name.into(), play });
    }
}

/// What a scenario needs to make calls.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) pool: DescriptorPool,
    pub(crate) channel: Channel,
    pub(crate) headers: Vec<(String, String)>,
    /// How long an answer may take.
    pub(crate) deadline: Duration,
}

impl Setting {
    pub(crate) fn new(pool: DescriptorPool, channel: Channel, deadline: Duration) -> Self {
        Self { pool, channel, headers: Vec::new(), deadline }
    }
}

pub(crate) struct Play {
    pub(crate) set: Setting,
    pub(crate) names: Names,
    number: usize,
    streams: usize,
    groups: usize,
    out: Vec<String>,
}

/// An open call.
pub(crate) struct Call {
    pub(crate) wire: Wire,
    pub(crate) method: Option<MethodDescriptor>,
    pub(crate) ended: bool,
}

pub(crate) enum Got {
    Message(DynamicMessage),
    Strange(Bytes),
    Headers(MetadataMap),
    End(Box<End>),
}

/// What a call was answered.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) messages: Vec<DynamicMessage>,
    pub(crate) ok: bool,
}

impl Answers {
    /// The position in the last answer that has one.
    pub(crate) fn position(&self) -> Option<u64> {
        self.messages.iter().rev().find_map(success_position)
    }
}

fn field<'a>(message: &'a DynamicMessage, name: &str) -> Option<std::borrow::Cow<'a, Value>> {
    if message.has_field_by_name(name) { message.get_field_by_name(name) } else { None }
}

/// The value at a path of field names.
pub(crate) fn within(message: &DynamicMessage, path: &[&str]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let value = field(message, first)?.into_owned();
    match rest {
        [] => Some(value),
        _ => within(value.as_message()?, rest),
    }
}

fn success_position(message: &DynamicMessage) -> Option<u64> {
    let position = within(message, &["success", "position"])?;
    position.as_message()?.get_field_by_name("commit_position")?.as_u64()
}

/// Headers that every answer has, whatever the gateway does.
const TRANSPORT: [&str; 11] = [
    "date",
    "server",
    "content-type",
    "content-length",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
    "grpc-accept-encoding",
    "trailer",
    "vary",
];

impl Play {
    pub(crate) fn new(set: Setting, number: usize) -> Self {
        let names = Names::new(set.pool.clone());
        Self { set, names, number, streams: 0, groups: 0, out: Vec::new() }
    }

    /// The text of what was sent and what came back.
    pub(crate) fn text(&self) -> String {
        self.names.settle(&self.out.join("\n"))
    }

    pub(crate) fn say(&mut self, line: impl Into<String>) {
        self.out.push(line.into());
    }

    /// The name of a new stream.
    pub(crate) fn stream(&mut self) -> String {
        self.streams += 1;
        let name = format!("wr0000000-{:03}-{}", self.number, self.streams);
        self.names.label(&name, &format!("S{}", self.streams));
        name
    }

    pub(crate) fn group(&mut self) -> String {
        self.groups += 1;
        let name = format!("gr0000000-{:03}-{}", self.number, self.groups);
        self.names.label(&name, &format!("G{}", self.groups));
        name
    }

    pub(crate) fn method(&self, path: &str) -> Option<(String, MethodDescriptor)> {
        let (service, method) = path.split_once('/')?;
        let full = match service {
            "Streams" => "event_store.client.streams.Streams",
            "Persistent" => "event_store.client.persistent_subscriptions.PersistentSubscriptions",
            "Features" => "event_store.client.server_features.ServerFeatures",
            "Gossip" => "event_store.client.gossip.Gossip",
            other => other,
        };
        let found = self.set.pool.get_service_by_name(full)?;
        let found = found.methods().find(|found| found.name() == method)?;
        Some((format!("/{full}/{method}"), found))
    }

    fn encode(&mut self, method: &MethodDescriptor, text: &str, show: bool) -> Bytes {
        let message = match DynamicMessage::parse_text_format(method.input(), text) {
            Ok(message) => message,
            Err(error) => {
                self.say(format!("!! the scenario is wrong: {error}: {text}"));
                return Bytes::new();
            }
        };
        // Ids have their names in the order in which they are sent, shown or not.
        let shown = self.names.message(&message, true);
        if show {
            self.say(format!("   {shown}"));
        }
        message.encode_to_vec().into()
    }

    pub(crate) fn begin(&mut self, path: &str, messages: &[String], show: bool) -> Call {
        let headers = self.set.headers.clone();
        let Some((full, method)) = self.method(path) else {
            self.say(format!("!! no method {path}"));
            let wire = Wire::start(self.set.channel.clone(), path, &headers);
            return Call { wire, method: None, ended: false };
        };
        let encoded: Vec<_> =
            messages.iter().map(|text| self.encode(&method, text, show)).collect();
        let mut wire = Wire::start(self.set.channel.clone(), &full, &headers);
        for message in encoded {
            wire.send(message);
        }
        if !method.is_client_streaming() {
            wire.close();
        }
        Call { wire, method: Some(method), ended: false }
    }

    /// Begins a call, and sends these messages.
    pub(crate) fn open(&mut self, path: &str, messages: &[String]) -> Call {
        self.say(format!("-> {path}"));
        self.begin(path, messages, true)
    }

    /// Sends bytes as they are, to any path.
    pub(crate) fn open_raw(&mut self, path: &str, messages: &[&[u8]]) -> Call {
        self.say(format!("-> {path} {messages:02x?}"));
        let wire = Wire::start(self.set.channel.clone(), path, &self.set.headers);
        for message in messages {
            wire.send(Bytes::copy_from_slice(message));
        }
        Call { wire, method: None, ended: false }
    }

    pub(crate) fn send(&mut self, call: &mut Call, message: &str) {
        self.say("-> (the same call)");
        if let Some(method) = call.method.clone() {
            let message = self.encode(&method, message, true);
            call.wire.send(message);
        }
    }

    pub(crate) fn close(&mut self, call: &mut Call) {
        self.say("-> (no more)");
        call.wire.close();
    }

    pub(crate) async fn next(&mut self, call: &mut Call, wait: Duration) -> Option<Got> {
        if call.ended {
            return None;
        }
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let got = match call.wire.next(left).await? {
                Incoming::Headers(headers) => Got::Headers(headers),
                Incoming::End(end) => {
                    call.ended = true;
                    Got::End(end)
                }
                Incoming::Message(bytes) => {
                    let output = call.method.as_ref().map(MethodDescriptor::output);
                    let message = output.map(|kind| DynamicMessage::decode(kind, bytes.clone()));
                    match message {
                        Some(Ok(message)) => Got::Message(message),
                        _ => Got::Strange(bytes),
                    }
                }
            };
            if let Got::Message(message) = &got {
                if let Some(position) = success_position(message) {
                    self.names.know(position);
                }
                if self.foreign(message) {
                    continue;
                }
            }
            return Some(got);
        }
    }

    /// True if a message has an event of a stream that is not the scenario's.
    fn foreign(&self, message: &DynamicMessage) -> bool {
        let Some(event) = within(message, &["event"]) else { return false };
        let Some(event) = event.as_message() else { return false };
        let name = |part: &str| {
            let name = within(event, &[part, "stream_identifier", "stream_name"])?;
            Some(String::from_utf8_lossy(name.as_bytes()?).into_owned())
        };
        let name = name("link").or_else(|| name("event")).unwrap_or_default();
        !self.names.ours(&name)
    }

    fn show(&mut self, got: &Got) {
        match got {
            Got::Message(message) => {
                let shown = self.names.message(message, false);
                self.say(format!("<- {shown}"));
            }
            Got::Strange(bytes) => {
                let shown = self.names.bytes(bytes);
                self.say(format!("<- BYTES {shown}"));
            }
            Got::Headers(headers) => self.metadata(headers, "header"),
            Got::End(end) => {
                let message = self.names.quoted(&end.message);
                let code = format!("{:?}", end.code);
                match end.message.is_empty() {
                    true => self.say(format!("<- {code}")),
                    false => self.say(format!("<- {code} {message}")),
                }
                self.metadata(&end.metadata, "trailer");
                if !end.details.is_empty() {
                    let details = self.names.details(&end.details);
                    self.say(format!("     details: {details}"));
                }
            }
        }
    }

    fn metadata(&mut self, metadata: &MetadataMap, what: &str) {
        let mut lines: Vec<(String, String)> = metadata
            .iter()
            .map(|entry| match entry {
                KeyAndValueRef::Ascii(name, value) => {
                    let value = String::from_utf8_lossy(value.as_encoded_bytes()).into_owned();
                    (name.to_string(), value)
                }
                KeyAndValueRef::Binary(name, value) => {
                    let bytes = value.to_bytes().unwrap_or_default();
                    (name.to_string(), format!("{bytes:02x?}"))
                }
            })
            .filter(|(name, _)| !TRANSPORT.contains(&name.as_str()))
            .collect();
        lines.sort();
        for (name, value) in lines {
            let value = self.names.quoted(&value);
            self.say(format!("     {what} {name}: {value}"));
        }
    }

    /// Takes up to so many messages, each within the deadline.
    pub(crate) async fn take(&mut self, call: &mut Call, count: usize) -> Vec<DynamicMessage> {
        self.take_within(call, count, self.set.deadline).await
    }

    pub(crate) async fn take_within(
        &mut self,
        call: &mut Call,
        count: usize,
        wait: Duration,
    ) -> Vec<DynamicMessage> {
        let mut messages = Vec::new();
        while messages.len() < count && !call.ended {
            let Some(got) = self.next(call, wait).await else {
                self.say(format!("<- DEADLINE after {} ms", wait.as_millis()));
                break;
            };
            self.show(&got);
            if let Got::Message(message) = got {
                messages.push(message);
            }
        }
        messages
    }

    /// Takes all messages until the call is quiet.
    pub(crate) async fn drain(&mut self, call: &mut Call) -> Vec<DynamicMessage> {
        self.drain_most(call, 200).await
    }

    pub(crate) async fn drain_most(&mut self, call: &mut Call, most: usize) -> Vec<DynamicMessage> {
        let mut messages = Vec::new();
        while !call.ended {
            if messages.len() >= most {
                self.say(format!("<- … {most} messages, and more"));
                break;
            }
            let Some(got) = self.next(call, QUIET).await else {
                self.say("<- (quiet)");
                break;
            };
            self.show(&got);
            if let Got::Message(message) = got {
                messages.push(message);
            }
        }
        messages
    }

    /// Closes the side of the client, and waits for the end of the call.
    pub(crate) async fn finish(&mut self, call: &mut Call) -> Answers {
        call.wire.close();
        let mut answers = Answers::default();
        while !call.ended {
            let Some(got) = self.next(call, self.set.deadline).await else {
                self.say(format!("<- DEADLINE after {} ms", self.set.deadline.as_millis()));
                break;
            };
            self.show(&got);
            match got {
                Got::Message(message) => answers.messages.push(message),
                Got::End(end) => answers.ok = end.code == tonic::Code::Ok,
                _ => {}
            }
        }
        answers
    }

    pub(crate) async fn call(&mut self, path: &str, messages: &[String]) -> Answers {
        let mut call = self.open(path, messages);
        self.finish(&mut call).await
    }

    /// Makes a call that only prepares a scenario. It takes one line of the text, unless it fails.
    pub(crate) async fn aside(&mut self, what: &str, path: &str, messages: &[String]) -> Answers {
        let mut call = self.begin(path, messages, false);
        call.wire.close();
        let (mut answers, mut all) = (Answers::default(), Vec::new());
        while !call.ended {
            let Some(got) = self.next(&mut call, self.set.deadline).await else { break };
            match &got {
                Got::Message(message) => answers.messages.push(message.clone()),
                Got::End(end) => answers.ok = end.code == tonic::Code::Ok,
                _ => {}
            }
            all.push(got);
        }
        let what = self.names.text(what);
        let refused = answers.messages.iter().any(|answer| {
            within(answer, &["wrong_expected_version"]).is_some()
                || within(answer, &["error"]).is_some()
        });
        if answers.ok && !refused {
            self.say(format!("given {what}"));
        } else {
            self.say(format!("given {what}: FAILED"));
            for got in &all {
                self.show(got);
            }
        }
        answers
    }

    pub(crate) async fn append(&mut self, stream: &str, expected: Exp, events: &[Ev]) -> Answers {
        self.call("Streams/Append", &append(stream, expected, events)).await
    }

    pub(crate) async fn read(&mut self, read: crate::ask::Read) -> Answers {
        self.call("Streams/Read", &[read.text()]).await
    }

    /// Reads the stream as it is now.
    pub(crate) async fn see(&mut self, stream: &str) {
        self.read(crate::ask::read(stream)).await;
    }

    pub(crate) async fn pause(&mut self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// An id that no other scenario has.
pub(crate) fn new_id() -> Uuid {
    Uuid::now_v7()
}
