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

/// A server on a thread and a runtime of its own, so that it outlives those of tests. It ends when
/// this is dropped.
pub(super) struct Local {
    restarts: mpsc::Sender<Restart>,
}

/// Where the outcome of a restart goes.
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
        let ended = "the server has ended";
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
                // Who asked knows it; who does not ask meets a closed port.
                let _ = restart.send(Err(e));
                return;
            }
        };
        // Nobody may be waiting any more.
        let _ = outcome;
    }
}

/// Serves until a restart is asked for, or never will be.
fn serve(
    data: Database,
    listener: TcpListener,
    restarts: &mut mpsc::Receiver<Restart>,
) -> io::Result<Option<Restart>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // At the end the runtime goes, and with it every connection. Requests are executed without a
    // pause, so that each has been executed or has not.
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
