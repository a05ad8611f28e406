//! As much of HTTP/1.1 as is needed to lose the answer of a write: where messages end, which
//! requests write, and how many were answered.

use super::layer::TARGET;
use crate::proxy::{Conversation, Fate, Losses, Protocol};

/// The requests whose answers a [`Proxy`](crate::Proxy) can lose: `TransactWriteItems` and
/// `PutItem` whose body contains certain bytes. On an encrypted connection no request is
/// recognised.
#[derive(Clone, Debug)]
pub struct Writes(Vec<u8>);

impl Writes {
    /// Writes whose body contains `marker`, such as the key of an item; all writes if it is empty.
    pub fn new(marker: impl Into<Vec<u8>>) -> Self {
        Self(marker.into())
    }

    fn include(&self, request: &Message) -> bool {
        let target = request.header("x-amz-target").unwrap_or_default();
        let writes = ["TransactWriteItems", "PutItem"];
        let body = &request.body;
        target.strip_prefix(TARGET).is_some_and(|operation| writes.contains(&operation))
            && (self.0.is_empty() || body.windows(self.0.len()).any(|window| window == self.0))
    }
}

impl Protocol for Writes {
    fn conversation(&self) -> Box<dyn Conversation> {
        Box::new(Session {
            writes: self.clone(),
            client: Messages::new(Some(0)),
            server: Messages::new(None),
            opaque: false,
            asked: 0,
            answered: 0,
            losing: None,
        })
    }
}

struct Session {
    writes: Writes,
    client: Messages,
    server: Messages,
    /// Whether the bytes can no longer be read as messages.
    opaque: bool,
    /// How many requests the client has sent.
    asked: u64,
    /// How many of them have been answered.
    answered: u64,
    /// The number of the answer to lose.
    losing: Option<u64>,
}

impl Conversation for Session {
    fn request(&mut self, mut bytes: &[u8], losses: &Losses) {
        while !self.opaque {
            match self.client.next(&mut bytes) {
                Next::Message(message) => {
                    self.asked += 1;
                    if self.losing.is_none() && self.writes.include(&message) && losses.claim() {
                        self.losing = Some(self.asked);
                    }
                }
                Next::Incomplete => return,
                Next::Nonsense => self.opaque = true,
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) -> Fate {
        let mut rest = bytes;
        let mut pass = if self.is_losing_next() { 0 } else { bytes.len() };
        while !self.opaque {
            match self.server.next(&mut rest) {
                Next::Message(_) => {
                    self.answered += 1;
                    if self.losing == Some(self.answered) {
                        return Fate { pass, lost: true };
                    }
                    if self.is_losing_next() {
                        pass = bytes.len() - rest.len();
                    }
                }
                Next::Incomplete => break,
                Next::Nonsense => self.opaque = true,
            }
        }
        Fate { pass, lost: false }
    }
}

impl Session {
    /// Whether the next answer is the one to lose.
    fn is_losing_next(&self) -> bool {
        self.losing == Some(self.answered + 1)
    }
}

/// The longest head that is read as one. Servers refuse shorter heads already.
const LONGEST_HEAD: usize = 64 * 1024;

/// Cuts a stream of bytes, which arrives in pieces of any size, into messages.
struct Messages {
    head: Vec<u8>,
    body: Vec<u8>,
    /// How many bytes of the body are missing, once the head is complete.
    missing: Option<usize>,
    /// The length of a body whose head does not tell it; `None` if it cannot be known.
    untold: Option<usize>,
}

struct Message {
    head: String,
    body: Vec<u8>,
}

enum Next {
    Message(Message),
    Incomplete,
    /// The bytes are no message, perhaps encrypted, or a message whose length is not told.
    Nonsense,
}

impl Messages {
    fn new(untold: Option<usize>) -> Self {
        Self { head: Vec::new(), body: Vec::new(), missing: None, untold }
    }

    /// The next message, whose bytes are removed from the front of `bytes`.
    fn next(&mut self, bytes: &mut &[u8]) -> Next {
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                while !self.head.ends_with(b"\r\n\r\n") {
                    let Some((first, rest)) = bytes.split_first() else {
                        return Next::Incomplete;
                    };
                    if self.head.len() == LONGEST_HEAD {
                        return Next::Nonsense;
                    }
                    self.head.push(*first);
                    *bytes = rest;
                }
                match self.length() {
                    Some(length) => length,
                    None => return Next::Nonsense,
                }
            }
        };
        let (piece, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        missing -= piece.len();
        self.missing = Some(missing);
        self.body.extend_from_slice(piece);
        *bytes = rest;
        if missing > 0 {
            return Next::Incomplete;
        }
        self.missing = None;
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
        Next::Message(Message { head, body: std::mem::take(&mut self.body) })
    }

    /// The length of the body after the head.
    fn length(&self) -> Option<usize> {
        let head = String::from_utf8_lossy(&self.head);
        if header(&head, "transfer-encoding").is_some() {
            return None;
        }
        match header(&head, "content-length") {
            Some(length) => length.parse().ok(),
            None => self.untold,
        }
    }
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!(
            "POST / HTTP/1.1\r\nX-Amz-Target: {TARGET}{operation}\r\ncontent-length: \
             {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn armed() -> Losses {
        let losses = Losses::default();
        losses.arm();
        losses
    }

    #[test]
    fn only_the_marked_answer_is_lost_however_the_bytes_are_cut() {
        let asked = [
            request("PutItem", "{\"a\": 1}"),
            request("GetItem", "{\"b\": 1}"),
            request("TransactWriteItems", "{\"b\": 1}"),
        ]
        .concat();
        let kept = [answer("{}"), answer("")].concat();
        let all = [kept.clone(), answer("{\"c\": 1}")].concat();
        for size in 1..=all.len() {
            let (mut session, losses) = (Writes::new("\"b\"").conversation(), armed());
            asked.chunks(size).for_each(|bytes| session.request(bytes, &losses));
            assert!(!losses.claim(), "the request has been recognised");
            let mut passed = Vec::new();
            let mut fates = Vec::new();
            for bytes in all.chunks(size) {
                let fate = session.answer(bytes);
                passed.extend_from_slice(&bytes[..fate.pass]);
                fates.push(fate.lost);
            }
            assert_eq!(passed, kept, "in pieces of {size}");
            assert_eq!(fates.iter().position(|lost| *lost), Some(fates.len() - 1));
        }
    }

    #[test]
    fn without_a_marker_every_write_is_meant_and_nothing_else() {
        let losses = armed();
        let mut session = Writes::new("").conversation();
        session.request(&request("GetItem", "{}"), &losses);
        session.request(&request("DescribeTable", "{}"), &losses);
        session.request(b"GET / HTTP/1.1\r\n\r\n", &losses);
        session.request(&request("PutItem", "{}"), &losses);
        assert!(!losses.claim());
    }

    #[test]
    fn what_is_encrypted_passes() {
        let losses = armed();
        let mut session = Writes::new("").conversation();
        session.request(&[0x16; LONGEST_HEAD + 1], &losses);
        let answer = [0x16; LONGEST_HEAD + 1];
        assert_eq!(session.answer(&answer), Fate { pass: answer.len(), lost: false });
        assert!(losses.claim());
    }
}
