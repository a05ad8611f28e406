//! Ctrl-C: the first asks a command to come to a good end, the second ends it at once.

use tokio::sync::watch;

use crate::failure::Code;

/// Whether the user wants the command to end. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Begins to listen: from now on Ctrl-C, and the signal that services are stopped by, are only
    /// noted.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        // Made here, so that no signal is missed that comes before the task has begun.
        let signals = Signals::new();
        tokio::spawn(async move {
            let Ok(mut signals) = signals else { return };
            if signals.next().await {
                sender.send_replace(true);
            }
            if signals.next().await {
                std::process::exit(Code::Interrupted as i32);
            }
        });
        Self(receiver)
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when the user wants the command to end.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|set| *set).await.is_err() {
            // No signal can be heard any more.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal; false where none can be heard any more.
    async fn next(&mut self) -> bool {
        tokio::select! {
            heard = self.interrupt.recv() => heard.is_some(),
            heard = self.terminate.recv() => heard.is_some(),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
