//! Calls of which a scenario shows nothing, or only what came of them.

use std::time::Duration;

use bytes::Bytes;
use prost_reflect::DynamicMessage;

use crate::{
    play::{Answers, Call, Got, Play, QUIET},
    wire::Wire,
};

impl Play {
    /// Begins a call of which nothing is printed.
    pub(crate) fn open_unseen(&mut self, path: &str, message: &str) -> Call {
        self.begin(path, &[message.to_owned()], false)
    }

    /// Whether anything came, which is not printed.
    pub(crate) async fn heard(&mut self, call: &mut Call) -> bool {
        self.next(call, Duration::from_millis(1)).await.is_some()
    }

    pub(crate) fn open_all_unseen(&mut self, path: &str, messages: &[String]) -> Call {
        self.begin(path, messages, false)
    }

    pub(crate) fn open_raw_unseen(&mut self, path: &str, messages: &[&[u8]]) -> Call {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let method = self.method(&format!("{service}/{method}")).map(|(_, method)| method);
        let wire = Wire::start(self.set.channel.clone(), path, &self.set.headers);
        for message in messages {
            wire.send(Bytes::copy_from_slice(message));
        }
        Call { wire, method, ended: false }
    }

    /// What a call came to, in one line.
    pub(crate) async fn result_unseen(&mut self, call: &mut Call) -> String {
        call.wire.close();
        let mut out = String::new();
        while !call.ended {
            match self.next(call, self.set.deadline).await {
                None => return format!("{out}DEADLINE"),
                Some(Got::Message(message)) => out = self.names.message(&message, false) + " ",
                Some(Got::End(end)) => {
                    let message = self.names.quoted(&end.message);
                    out.push_str(&format!("{:?} {message}", end.code));
                }
                Some(_) => {}
            }
        }
        out
    }

    /// The messages until it is quiet.
    pub(crate) async fn collect_unseen(&mut self, call: &mut Call) -> Vec<DynamicMessage> {
        let mut messages = Vec::new();
        while let Some(got) = self.next(call, QUIET).await {
            if let Got::Message(message) = got {
                messages.push(message);
            }
        }
        messages
    }

    /// A call of which nothing is printed.
    pub(crate) async fn unseen(&mut self, path: &str, messages: &[String]) -> Answers {
        let mut call = self.begin(path, messages, false);
        call.wire.close();
        let mut answers = Answers::default();
        while let Some(got) = self.next(&mut call, self.set.deadline).await {
            match got {
                Got::Message(message) => answers.messages.push(message),
                Got::End(end) => answers.ok = end.code == tonic::Code::Ok,
                _ => {}
            }
        }
        answers
    }
}
