//! Ctrl-C: the first asks a command to end cleanly, the second kills it.

use tokio::sync::watch;

use crate::failure::Code;

/// Whether the user wants the command to end. All clones see the same signal.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Starts to listen: from now on SIGINT (Ctrl-C) and SIGTERM no longer end the process, unless
    /// they come twice.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = watch::channel(false);
        // Created before the task is spawned, so that a signal that comes before its first poll
        // is not missed.
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

    /// An interrupt that a test makes.
    #[cfg(test)]
    pub(crate) fn of(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the user wants the command to end.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|set| *set).await.is_err() {
            // The task has ended, so that no signal can arrive any more.
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

    /// Waits for a signal; `false` means that no signal can arrive any more.
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
