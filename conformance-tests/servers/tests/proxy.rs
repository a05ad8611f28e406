//! Tests of the proxy, in front of servers of a few lines each.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Error, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use annals_test_servers::{Conversation, Fate, Losses, Protocol, Proxy, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a server that sends back what it receives.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    addr
}

async fn say(stream: &mut TcpStream, text: &str) -> Result<String, Error> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn much_passes_in_both_directions_and_the_end_too() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut received = Vec::new();
    let (mut from, mut to) = stream.split();
    let write = async {
        to.write_all(&sent).await?;
        to.shutdown().await
    };
    let (written, read) = tokio::join!(write, from.read_to_end(&mut received));
    written.unwrap();
    read.unwrap();
    assert!(sent == received);
}

#[tokio::test]
async fn a_cut_is_a_reset_and_new_connections_pass() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut stream, "a").await.unwrap();
    proxy.cut().await;
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut stream, "b").await.unwrap(), "b");
}

#[tokio::test]
async fn new_connections_are_refused_and_present_ones_stay() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut present = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut present, "a").await.unwrap();
    proxy.refuse(true);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(say(&mut new, "b").await.is_err());
    assert_eq!(say(&mut present, "c").await.unwrap(), "c");
}

#[tokio::test]
async fn what_is_held_back_is_delivered_later() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut stream, "a").await.unwrap();
    proxy.stall(true);
    stream.write_all(b"b").await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
    assert!(nothing.is_err());
    proxy.stall(false);
    assert_eq!(stream.read_u8().await.unwrap(), b'b');
}

#[tokio::test]
async fn a_cut_ends_a_stalled_connection() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut stream, "a").await.unwrap();
    proxy.stall(true);
    stream.write_all(b"b").await.unwrap();
    proxy.cut().await;
    assert!(stream.read_u8().await.is_err());
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections_and_its_port() {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let addr = proxy.addr();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    say(&mut stream, "a").await.unwrap();
    drop(proxy);
    assert!(stream.read_u8().await.is_err());
    let closed = || async { TcpStream::connect(addr).await.is_err() };
    until("the port is closed", PATIENCE, closed).await.unwrap();
}

#[tokio::test]
async fn a_target_that_is_not_there_resets() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(gone).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(stream.read_u8().await.is_err());
}

/// A protocol in which each byte is a request, and is answered by a byte.
struct Bytes;

struct Conversed {
    losing: bool,
}

impl Protocol for Bytes {
    fn conversation(&self) -> Box<dyn Conversation> {
        Box::new(Conversed { losing: false })
    }
}

impl Conversation for Conversed {
    fn request(&mut self, bytes: &[u8], losses: &Losses) {
        self.losing |= bytes == b"!" && losses.claim();
    }

    fn answer(&mut self, bytes: &[u8]) -> Fate {
        Fate { pass: if self.losing { 0 } else { bytes.len() }, lost: self.losing }
    }
}

#[tokio::test]
async fn one_answer_is_lost_each_time_it_is_asked_for() {
    let proxy = Proxy::between(echo().await, Bytes).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut stream, "!").await.unwrap(), "!");
    for lost in 1..=2 {
        proxy.lose_next_answer();
        assert_eq!(say(&mut stream, "a").await.unwrap(), "a");
        assert_eq!(say(&mut stream, "!").await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(proxy.lost(), lost);
        stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(say(&mut stream, "!").await.unwrap(), "!");
    }
}
