//! TCP connections: how many there may be, how long one may say nothing, and that each acknowledges what
//! it receives at once (`TCP_QUICKACK`).
//!
//! A client that uses Nagle's algorithm sends the second small packet of a request only when the
//! first one was acknowledged, and Linux delays acknowledgements by 40 ms. The official Rust client
//! is such a client.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_stream::stream;
use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

/// How long the server accepts no connection after an error, such as that it has no file left.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, of which at most `max` are open. A client that asks for nothing within `silence`
/// is disconnected.
pub(crate) fn accept(
    listener: TcpListener,
    max: usize,
    silence: Duration,
) -> impl Stream<Item = io::Result<Socket>> + Send {
    let places = Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS)));
    stream! {
        // The semaphore is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => yield Ok(Socket::new(stream, place, silence)),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A connection to a client.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    info: ConnectionInfo,
    /// Until when the client has to ask for something.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// What the requests of a connection know of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionInfo {
    requested: Arc<AtomicBool>,
}

impl ConnectionInfo {
    /// Notes that the client has asked for something.
    pub(crate) fn note_request(&self) {
        self.requested.store(true, Relaxed);
    }
}

impl Socket {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, silence: Duration) -> Self {
        // Without the option, the connection works, but is slower.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let silence = Some(Box::pin(sleep(silence)));
        Self { stream, info: ConnectionInfo::default(), silence, _place: place }
    }

    /// An error if the client has asked for nothing for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(silence) = &mut self.silence else { return Ok(()) };
        if self.info.requested.load(Relaxed) {
            self.silence = None;
        } else if silence.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client asks for nothing"));
        }
        Ok(())
    }
}

impl Connected for Socket {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_silence(cx)?;
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // The kernel clears the option by itself, so set it after every read.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if read.is_ready()
            && let Err(error) = self.stream.set_quickack(true)
        {
            tracing::trace!(%error, "could not set TCP_QUICKACK");
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
