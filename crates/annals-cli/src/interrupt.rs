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
        tokio::spawn(async move {
            if signal().await {
                sender.send_replace(true);
            }
            if signal().await {
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

/// Waits for a signal; false where none can be heard.
#[cfg(unix)]
async fn signal() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return tokio::signal::ctrl_c().await.is_ok();
    };
    tokio::select! {
        heard = tokio::signal::ctrl_c() => heard.is_ok(),
        heard = terminate.recv() => heard.is_some(),
    }
}

#[cfg(not(unix))]
async fn signal() -> bool {
    tokio::signal::ctrl_c().await.is_ok()
}
