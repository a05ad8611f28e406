//! A TCP proxy that breaks connections on request.

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

/// Tells a [`Proxy`] about the protocol of its connections, so that it can lose the answer to one
/// request and no other.
pub trait Protocol: Send + Sync + 'static {
    /// Starts to follow a new connection.
    fn conversation(&self) -> Box<dyn Conversation>;
}

/// Follows the bytes of one connection, in the pieces in which they arrive.
pub trait Conversation: Send {
    /// Is shown bytes of the client, before they go on to the server. If a request whose answer can
    /// be lost is among them, it calls [`Losses::claim`], which says whether to lose the answer.
    fn request(&mut self, bytes: &[u8], losses: &Losses);

    /// Is shown bytes of the server, and decides what the client gets of them.
    fn answer(&mut self, bytes: &[u8]) -> Fate;
}

/// What the proxy does with bytes on their way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How many of the bytes reach the client. The proxy drops the rest.
    pub pass: usize,
    /// Whether the answer to be lost has now arrived in full. The proxy then closes the connection.
    pub lost: bool,
}

/// Counts the answers to be lost, and those that have been lost.
#[derive(Debug, Default)]
pub struct Losses {
    armed: AtomicUsize,
    lost: AtomicUsize,
}

impl Losses {
    /// Asks for one more answer to be lost.
    pub fn arm(&self) {
        self.armed.fetch_add(1, SeqCst);
    }

    /// Whether the answer to this request is to be lost. Each loss that was asked for is claimed
    /// once.
    pub fn claim(&self) -> bool {
        self.armed.fetch_update(SeqCst, SeqCst, |armed| armed.checked_sub(1)).is_ok()
    }
}

/// A TCP proxy on a port of the loopback interface. It runs on the runtime that started it.
/// Dropping it closes its connections.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    protocol: Option<Box<dyn Protocol>>,
    losses: Losses,
    refusing: AtomicBool,
    stalled: watch::Sender<bool>,
    /// `None` after the proxy was dropped.
    present: Mutex<Option<Present>>,
}

/// The connections since the last cut.
struct Present {
    tasks: JoinSet<()>,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy for `target` that passes bytes on without a protocol.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::new(target, None).await
    }

    /// Starts a proxy for `target` that knows the protocol, and so can lose answers.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn between(target: SocketAddr, protocol: impl Protocol) -> io::Result<Self> {
        Self::new(target, Some(Box::new(protocol))).await
    }

    async fn new(target: SocketAddr, protocol: Option<Box<dyn Protocol>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            protocol,
            losses: Losses::default(),
            refusing: AtomicBool::new(false),
            stalled: watch::Sender::new(false),
            present: Mutex::new(Some(Present::new())),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { addr, shared, accepting })
    }

    /// The address that clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets all open connections, at both ends, and returns when that is done. New connections
    /// are accepted. A connection that has not carried a byte yet may count as new.
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

    /// Leads new connections to another server, as a name does after a fail-over. Open connections
    /// stay.
    pub fn redirect(&self, target: SocketAddr) {
        *self.shared.target() = target;
    }

    /// While this is on, every new connection is closed at once. Open connections stay.
    pub fn refuse(&self, on: bool) {
        self.shared.refusing.store(on, SeqCst);
    }

    /// While this is on, no byte of the server reaches a client, as if the network hung. The bytes
    /// are delivered afterwards.
    pub fn stall(&self, on: bool) {
        self.shared.stalled.send_replace(on);
    }

    /// Loses the answer to the next request that the [`Protocol`] looks for: the server executes
    /// the request, the proxy drops the answer and closes the client's connection. Each call is for
    /// one request. Without a protocol, nothing happens.
    pub fn lose_next_answer(&self) {
        self.shared.losses.arm();
    }

    /// How many answers have been lost. An answer is counted before the client's connection is
    /// closed.
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
    fn target(&self) -> std::sync::MutexGuard<'_, SocketAddr> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Option<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // The error is that of one connection, or a lack of file descriptors that passes.
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

/// Lets the stream send a reset when it is dropped, as a broken network would.
fn reset(stream: &TcpStream) {
    // If this fails, the other end has closed the connection already.
    let _ = stream.set_zero_linger();
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>, mut cut: watch::Receiver<bool>) {
    let target = *shared.target();
    let connected = tokio::select! {
        connected = TcpStream::connect(target) => connected,
        _ = cut.wait_for(|cut| *cut) => return reset(&client),
    };
    let Ok(mut server) = connected else { return reset(&client) };
    // Send small messages at once: delayed messages would make everything slow.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        // An error means that one connection has ended. Returning closes the other one.
        _ = relay(&mut client, &mut server, &shared) => {}
        _ = cut.wait_for(|cut| *cut) => {
            reset(&client);
            reset(&server);
        }
    }
}

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1024;

/// Carries bytes in both directions, until the server closes its connection or an answer is lost.
async fn relay(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let conversation = Mutex::new(shared.protocol.as_ref().map(|p| p.conversation()));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = async {
        carry_requests(from_client, to_server, &conversation, &shared.losses).await?;
        // The client sends no more, but may still wait for the rest of an answer.
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
        // This fails only if the sender is gone, but the sender lives in `shared`.
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
