//! What has to be known of PostgreSQL's protocol, version 3: where messages end, which request
//! uses which statement, and how many requests have been answered.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::proxy::{Conversation, Fate, Losses, Protocol};

/// Recognises the requests whose answers a [`Proxy`](crate::Proxy) can lose: those whose SQL
/// contains a given text. Such a request is a simple query, or each bind of a prepared statement.
/// Its answer ends with the next `ReadyForQuery`. On an encrypted connection no request is
/// recognised.
#[derive(Clone, Debug)]
pub struct Marked(Vec<String>);

impl Marked {
    /// Recognises requests whose SQL contains `marker` in its first 64 KiB.
    pub fn new(marker: impl Into<String>) -> Self {
        Self(vec![marker.into()])
    }

    /// Also recognises requests whose SQL contains this marker.
    pub fn or(mut self, marker: impl Into<String>) -> Self {
        self.0.push(marker.into());
        self
    }
}

impl Protocol for Marked {
    fn conversation(&self) -> Box<dyn Conversation> {
        Box::new(Session {
            markers: self.0.iter().map(|marker| marker.clone().into_bytes()).collect(),
            client: Messages::new(false),
            server: Messages::new(true),
            encryption_asked: false,
            opaque: false,
            statements: HashMap::new(),
            asked: 1,
            answered: 0,
            losing: None,
        })
    }
}

struct Session {
    markers: Vec<Vec<u8>>,
    client: Messages,
    server: Messages,
    /// The client has asked for encryption, and the server has not sent the byte that answers it.
    encryption_asked: bool,
    /// Whether the session is encrypted, or cannot be read for another reason.
    opaque: bool,
    /// Whether each prepared statement contains a marker, by the name of the statement.
    statements: HashMap<Vec<u8>, bool>,
    /// How many `ReadyForQuery` the client has asked for. The start of the session asks for one.
    asked: u64,
    /// How many `ReadyForQuery` the server has sent.
    answered: u64,
    /// The number of the `ReadyForQuery` that ends the answer to be lost.
    losing: Option<u64>,
}

/// The codes that a client can send in place of a protocol version.
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS_ENCRYPTION: u32 = 80_877_104;

impl Conversation for Session {
    fn request(&mut self, mut bytes: &[u8], losses: &Losses) {
        while !self.opaque {
            match self.client.next(&mut bytes) {
                Next::Message(0, body) => self.start(&body),
                Next::Message(kind, body) => self.message(kind, &body, losses),
                Next::Incomplete => return,
                Next::Nonsense => self.opaque = true,
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) -> Fate {
        let mut rest = bytes;
        if self.encryption_asked
            && let Some((answer, after)) = rest.split_first()
        {
            self.encryption_asked = false;
            self.opaque = *answer != b'N';
            rest = after;
        }
        let mut pass = if self.is_losing_next() { 0 } else { bytes.len() };
        while !self.opaque {
            match self.server.next(&mut rest) {
                Next::Message(b'Z', _) => {
                    self.answered += 1;
                    if self.losing == Some(self.answered) {
                        return Fate { pass, lost: true };
                    }
                    if self.is_losing_next() {
                        pass = bytes.len() - rest.len();
                    }
                }
                Next::Message(..) => {}
                Next::Incomplete => break,
                Next::Nonsense => self.opaque = true,
            }
        }
        Fate { pass, lost: false }
    }
}

impl Session {
    /// Whether the next answer is the one to be lost.
    fn is_losing_next(&self) -> bool {
        self.losing == Some(self.answered + 1)
    }

    /// Takes a message from before the session begins, which has a code instead of a type.
    fn start(&mut self, body: &[u8]) {
        match body.first_chunk().copied().map(u32::from_be_bytes) {
            Some(SSL | GSS_ENCRYPTION) => self.encryption_asked = true,
            Some(CANCEL) | None => self.opaque = true,
            Some(_) => self.client.typed = true,
        }
    }

    fn message(&mut self, kind: u8, body: &[u8], losses: &Losses) {
        let mut strings = body.split(|byte| *byte == 0);
        let mut string = || strings.next().unwrap_or_default();
        match kind {
            // Parse: statement, SQL.
            b'P' => {
                let (name, sql) = (string().to_vec(), string());
                let marked = self.is_marked(sql);
                self.statements.insert(name, marked);
            }
            // Bind: portal, statement. Answered up to the Sync that follows.
            b'B' => {
                let (_, name) = (string(), string());
                let marked = self.statements.get(name).copied().unwrap_or_default();
                self.claim(marked, self.asked + 1, losses);
            }
            // Close, of a statement.
            b'C' => {
                if let Some(name) = string().strip_prefix(b"S") {
                    self.statements.remove(name);
                }
            }
            // Simple query.
            b'Q' => {
                self.asked += 1;
                let marked = self.is_marked(string());
                self.claim(marked, self.asked, losses);
            }
            // Sync and FunctionCall.
            b'S' | b'F' => self.asked += 1,
            _ => {}
        }
    }

    fn is_marked(&self, sql: &[u8]) -> bool {
        let has = |marker: &Vec<u8>| {
            sql.windows(marker.len().max(1)).any(|window| window == marker.as_slice())
        };
        self.markers.iter().any(has)
    }

    fn claim(&mut self, marked: bool, answer: u64, losses: &Losses) {
        if marked && self.losing.is_none() && losses.claim() {
            self.losing = Some(answer);
        }
    }
}

/// How many bytes of a message's body are kept. Only messages with data are longer.
const KEPT: usize = 64 * 1024;
/// The longest message at the start of a session; PostgreSQL has the same limit.
const LONGEST_START: usize = 10_000;

/// Cuts a stream of bytes, which arrives in pieces of any size, into messages.
struct Messages {
    /// Whether messages begin with a type, as all do except for the first of a client.
    typed: bool,
    header: Vec<u8>,
    body: Vec<u8>,
    /// How many bytes of the body are still missing; `None` until the header is complete.
    missing: Option<usize>,
}

enum Next {
    /// The type, or 0 if the message has none, and the first part of the body.
    Message(u8, Vec<u8>),
    Incomplete,
    /// The bytes are not messages; they may be encrypted.
    Nonsense,
}

impl Messages {
    fn new(typed: bool) -> Self {
        Self { typed, header: Vec::new(), body: Vec::new(), missing: None }
    }

    /// Removes the next message from the front of the bytes.
    fn next(&mut self, bytes: &mut &[u8]) -> Next {
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                let length = if self.typed { 5 } else { 4 };
                self.header.extend_from_slice(take(bytes, length - self.header.len()));
                if self.header.len() < length {
                    return Next::Incomplete;
                }
                let length = self.header.last_chunk().copied().map_or(0, u32::from_be_bytes);
                // The length counts itself.
                match usize::try_from(length).ok().and_then(|length| length.checked_sub(4)) {
                    Some(missing) if self.typed || missing <= LONGEST_START => missing,
                    _ => return Next::Nonsense,
                }
            }
        };
        let piece = take(bytes, missing);
        missing -= piece.len();
        self.missing = Some(missing);
        let room = KEPT.saturating_sub(self.body.len());
        self.body.extend_from_slice(piece.get(..room).unwrap_or(piece));
        if missing > 0 {
            return Next::Incomplete;
        }
        let kind = if self.typed { self.header.first().copied().unwrap_or(0) } else { 0 };
        self.header.clear();
        self.missing = None;
        Next::Message(kind, std::mem::take(&mut self.body))
    }
}

/// Removes up to `count` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
    *bytes = rest;
    front
}

/// Whether a server lets clients in at this address. It is not enough that the port is open: a
/// server listens while it recovers, and Docker listens before the server does.
pub(crate) async fn accepts(addr: SocketAddr) -> bool {
    /// The field of an error message that has the code `cannot_connect_now`.
    const NOT_YET: &[u8] = b"C57P03";
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        // The length, the version 3.0, and the only parameter that is required: the user.
        stream.write_all(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0").await?;
        let kind = stream.read_u8().await?;
        let mut body = vec![
            0;
            usize::try_from(stream.read_u32().await?)
                .map_or(0, |l| l.min(KEPT).saturating_sub(4))
        ];
        stream.read_exact(&mut body).await?;
        // Every other answer, even a refusal of this user, comes from a server that lets clients
        // in.
        std::io::Result::Ok(
            kind != b'E' || !body.split(|byte| *byte == 0).any(|field| field == NOT_YET),
        )
    };
    ask.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn start(body: &[u8]) -> Vec<u8> {
        message(0, body)[1..].to_vec()
    }

    fn armed() -> Losses {
        let losses = Losses::default();
        losses.arm();
        losses
    }

    /// Two prepared statements that are used in a pipeline, the one with the marker last.
    fn pipeline() -> Vec<u8> {
        [
            start(b"\0\x03\0\0user\0me\0\0"),
            message(b'P', b"read\0SELECT 1\0\0\0"),
            message(b'P', b"write\0SELECT s.append($1)\0\0\0"),
            message(b'S', b""),
            message(b'B', b"\0read\0\0\0\0\0\0\0"),
            message(b'S', b""),
            message(b'B', b"\0write\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ]
        .concat()
    }

    #[test]
    fn only_the_marked_answer_is_lost_however_the_bytes_are_cut() {
        let kept = [message(b'R', b"\0\0\0\0"), message(b'Z', b"I")].concat();
        let kept =
            [&kept[..], &message(b'Z', b"I"), &message(b'2', b""), &message(b'Z', b"I")].concat();
        let lost = [message(b'2', b""), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
        let all = [kept.clone(), lost].concat();
        for size in 1..=all.len() {
            let (mut session, losses) = (Marked::new(".append(").conversation(), armed());
            pipeline().chunks(size).for_each(|bytes| session.request(bytes, &losses));
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
    fn a_simple_query_is_recognised_after_a_refusal_to_encrypt() {
        let (mut session, losses) = (Marked::new("COMMIT").conversation(), armed());
        session.request(&start(&SSL.to_be_bytes()), &losses);
        assert_eq!(session.answer(b"N"), Fate { pass: 1, lost: false });
        session.request(&start(b"\0\x03\0\0user\0me\0\0"), &losses);
        session.answer(&message(b'Z', b"I"));
        session.request(&message(b'Q', b"COMMIT\0"), &losses);
        let answer = [message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat();
        assert_eq!(session.answer(&answer), Fate { pass: 0, lost: true });
    }

    #[test]
    fn a_closed_or_replaced_statement_is_forgotten() {
        let (mut session, losses) = (Marked::new("append").conversation(), armed());
        let start = start(b"\0\x03\0\0user\0me\0\0");
        let marked = message(b'P', b"\0append\0\0\0");
        let replaced = message(b'P', b"\0SELECT 1\0\0\0");
        let named = message(b'P', b"a\0append\0\0\0");
        let closed = message(b'C', b"Sa\0");
        let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
        let bind_named = message(b'B', b"\0a\0\0\0\0\0\0\0");
        let all = [start, marked, replaced, named, closed, bind, bind_named].concat();
        session.request(&all, &losses);
        assert!(losses.claim(), "nothing has been recognised");
    }

    #[test]
    fn what_is_encrypted_passes() {
        let (mut session, losses) = (Marked::new("append").conversation(), armed());
        session.request(&start(&SSL.to_be_bytes()), &losses);
        session.answer(b"S");
        session.request(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], &losses);
        assert_eq!(session.answer(&[0x16, 3, 1]), Fate { pass: 3, lost: false });
    }

    #[test]
    fn data_longer_than_what_is_kept_is_skipped() {
        let (mut session, losses) = (Marked::new("append").conversation(), armed());
        let data = [&b"\0a\0"[..], &vec![b'Q'; 3 * KEPT]].concat();
        let start = start(b"\0\x03\0\0user\0me\0\0");
        let parse = message(b'P', b"a\0append\0\0\0");
        let all = [start, parse, message(b'd', &data), message(b'B', &data)].concat();
        all.chunks(CHUNK).for_each(|bytes| session.request(bytes, &losses));
        assert!(!losses.claim());
    }

    const CHUNK: usize = 1000;
}
