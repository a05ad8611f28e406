//! A TCP proxy that harms connections on request.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What a [`Proxy`] needs to know of a protocol, to lose the answer of one request and no other.
pub trait Protocol: Send + Sync + 'static {
    /// Follows a new connection.
    fn conversation(&self) -> Box<dyn Conversation>;
}

/// What is said on one connection, in the pieces that arrive.
pub trait Conversation: Send {
    /// Sees bytes of the client, before they go on to the server. Where a request is among them
    /// whose answer could be lost, it calls [`Losses::claim`] and heeds the result.
    fn request(&mut self, bytes: &[u8], losses: &Losses);

    /// Decides on bytes of the server.
    fn answer(&mut self, bytes: &[u8]) -> Fate;
}

/// What becomes of bytes on their way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How many of them, from the first, reach the client; the others are thrown away.
    pub pass: usize,
    /// Whether an answer has now arrived and is lost as a whole: the connection is then closed.
    pub lost: bool,
}

/// The answers that are to be lost, and those that have been.
#[derive(Debug, Default)]
pub struct Losses {
    armed: AtomicUsize,
    lost: AtomicUsize,
}

impl Losses {
    /// Lets one more answer be lost.
    pub fn arm(&self) {
        self.armed.fetch_add(1, SeqCst);
    }

    /// Whether the answer of this request is to be lost; if so, no other request takes its place.
    pub fn claim(&self) -> bool {
        self.armed.fetch_update(SeqCst, SeqCst, |armed| armed.checked_sub(1)).is_ok()
    }
}

/// A TCP proxy on a port of the loopback interface. It runs on the runtime that started it, until
/// it is dropped, which closes its connections.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: SocketAddr,
    protocol: Option<Box<dyn Protocol>>,
    losses: Losses,
    refusing: AtomicBool,
    stalled: watch::Sender<bool>,
    /// None once the proxy has been dropped.
    present: Mutex<Option<Present>>,
}

/// The connections since the last cut.
struct Present {
    tasks: JoinSet<()>,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy for `target`, which knows nothing of what passes.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::new(target, None).await
    }

    /// Starts a proxy for `target` which understands what passes, and so can lose answers.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn between(target: SocketAddr, protocol: impl Protocol) -> io::Result<Self> {
        Self::new(target, Some(Box::new(protocol))).await
    }

    async fn new(target: SocketAddr, protocol: Option<Box<dyn Protocol>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            protocol,
            losses: Losses::default(),
            refusing: AtomicBool::new(false),
            stalled: watch::Sender::new(false),
            present: Mutex::new(Some(Present::new())),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { addr, shared, accepting })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets all present connections, in both directions, and returns when that is done. New ones
    /// are accepted; one that nothing has passed through yet may count as new.
    pub async fn cut(&self) {
        let cut = {
            let mut present = self.shared.present();
            present.replace(Present::new())
        };
        if let Some(Present { mut tasks, cut }) = cut {
            cut.send_replace(true);
            while tasks.join_next().await.is_some() {}
        }
    }

    /// While on, every new connection is closed at once. Present ones stay.
    pub fn refuse(&self, on: bool) {
        self.shared.refusing.store(on, SeqCst);
    }

    /// While on, nothing that the server sends reaches a client, as if the network hung. It is kept
    /// and delivered afterwards.
    pub fn stall(&self, on: bool) {
        self.shared.stalled.send_replace(on);
    }

    /// Lets the next request that the [`Protocol`] looks for be answered, throws that answer away
    /// whatever it says, and closes the client's connection: what the request did is done, and its
    /// sender does not know. Each call is for one request. Without a protocol, nothing happens.
    pub fn lose_next_answer(&self) {
        self.shared.losses.arm();
    }

    /// How many answers have been lost. It counts before the client can see the connection close.
    pub fn lost(&self) -> usize {
        self.shared.losses.lost.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.present().take();
    }
}

impl Present {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), cut: watch::Sender::new(false) }
    }
}

impl Shared {
    fn present(&self) -> std::sync::MutexGuard<'_, Option<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // An error concerns one connection, or passes when others have been closed.
            tokio::task::yield_now().await;
            continue;
        };
        if shared.refusing.load(SeqCst) {
            reset(&client);
            continue;
        }
        let mut present = shared.present();
        let Some(present) = present.as_mut() else { return };
        while present.tasks.try_join_next().is_some() {}
        present.tasks.spawn(serve(client, shared.clone(), present.cut.subscribe()));
    }
}

/// Makes that the stream, when dropped, looks to the other end as if the network had broken.
fn reset(stream: &TcpStream) {
    // Where it fails, the other end has broken the connection already.
    let _ = stream.set_zero_linger();
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>, mut cut: watch::Receiver<bool>) {
    let connected = tokio::select! {
        connected = TcpStream::connect(shared.target) => connected,
        _ = cut.wait_for(|cut| *cut) => return reset(&client),
    };
    let Ok(mut server) = connected else { return reset(&client) };
    // Small messages pass as they come, or the proxy would make everything slow.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        // An error is the end of a connection; that of the other one follows.
        _ = relay(&mut client, &mut server, &shared) => {}
        _ = cut.wait_for(|cut| *cut) => {
            reset(&client);
            reset(&server);
        }
    }
}

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// Carries bytes both ways until the server has closed, or an answer has been lost.
async fn relay(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let conversation = Mutex::new(shared.protocol.as_ref().map(|p| p.conversation()));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = async {
        carry_requests(from_client, to_server, &conversation, &shared.losses).await?;
        // The client says no more; it may still be waiting for the rest of an answer.
        std::future::pending().await
    };
    tokio::select! {
        end = up => end,
        end = carry_answers(from_server, to_client, &conversation, shared) => end,
    }
}

type Observer = Mutex<Option<Box<dyn Conversation>>>;

async fn carry_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    conversation: &Observer,
    losses: &Losses,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        if let Some(c) = &mut *conversation.lock().unwrap_or_else(PoisonError::into_inner) {
            c.request(bytes, losses);
        }
        to.write_all(bytes).await?;
    }
}

async fn carry_answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    conversation: &Observer,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut stalled = shared.stalled.subscribe();
    loop {
        let length = from.read(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        let fate = match &mut *conversation.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(c) => c.answer(bytes),
            None => Fate { pass: length, lost: false },
        };
        // The sender lives in `shared`, so that this cannot fail.
        let _ = stalled.wait_for(|stalled| !stalled).await;
        to.write_all(bytes.get(..fate.pass).unwrap_or(bytes)).await?;
        if fate.lost {
            shared.losses.lost.fetch_add(1, SeqCst);
        }
        if fate.lost || bytes.is_empty() {
            return to.shutdown().await;
        }
    }
}
