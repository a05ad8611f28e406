//! A server in this process.

use std::{
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    thread,
};

use dynoxide::{Database, server::serve_with_shutdown};
use tokio::sync::{mpsc, oneshot};

use crate::{BoxError, ports};

/// A server on a thread and a runtime of its own, so that it outlives the runtimes of tests. It
/// ends when this value is dropped.
pub(super) struct Local {
    restarts: mpsc::Sender<Restart>,
}

/// A request to restart: the sender for its outcome.
type Restart = oneshot::Sender<io::Result<()>>;

impl Local {
    pub(super) fn start() -> Result<(Self, SocketAddr), BoxError> {
        let data = Database::memory()?;
        let listener = ports::listen()?;
        let addr = listener.local_addr()?;
        let (restarts, asked) = mpsc::channel(1);
        let thread = thread::Builder::new().name("dynamodb".to_owned());
        thread.spawn(move || run(&data, addr, listener, asked))?;
        Ok((Self { restarts }, addr))
    }

    /// Closes all connections, and listens again.
    pub(super) async fn restart(&self) -> Result<(), BoxError> {
        let (outcome, done) = oneshot::channel();
        let ended = "the thread of the server has ended";
        self.restarts.send(outcome).await.map_err(|_| ended)?;
        Ok(done.await.map_err(|_| ended)??)
    }
}

fn run(
    data: &Database,
    addr: SocketAddr,
    mut listener: TcpListener,
    mut restarts: mpsc::Receiver<Restart>,
) {
    while let Ok(Some(restart)) = serve(data.clone(), listener, &mut restarts) {
        let outcome = match TcpListener::bind(addr) {
            Ok(next) => {
                listener = next;
                restart.send(Ok(()))
            }
            Err(e) => {
                // The caller of the restart gets the error; other clients find the port closed.
                let _ = restart.send(Err(e));
                return;
            }
        };
        // A dropped receiver means that the caller no longer waits for the restart.
        let _ = outcome;
    }
}

/// Serves until a restart is asked for. `None` means that the server was dropped.
fn serve(
    data: Database,
    listener: TcpListener,
    restarts: &mut mpsc::Receiver<Restart>,
) -> io::Result<Option<Restart>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Dropping the runtime closes every connection. Dynoxide executes a request without awaiting,
    // so that a request was executed as a whole or not at all.
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::select! {
            end = serve_with_shutdown(listener, data, pending()) => {
                Err(io::Error::other(end.err().unwrap_or_default()))
            }
            restart = restarts.recv() => Ok(restart),
        }
    })
}
