//! Moto, a server in Python.

use std::{env, net::SocketAddr};

use tokio::task::spawn_blocking;

use crate::{BoxError, watchdog::Watchdog};

/// The environment variable with the Python interpreter for which moto is installed.
const PYTHON: &str = "ANNALS_PYTHON";

/// A server process, which ends when its standard input ends, and so with this process.
pub(super) struct Moto {
    _process: Watchdog,
}

impl Moto {
    pub(super) async fn start() -> Result<(Self, SocketAddr), BoxError> {
        const RUN: &str =
            "command -v \"$1\" >/dev/null || echo failed not found; exec \"$1\" -c \"$2\"";
        let python = env::var_os(PYTHON).unwrap_or_else(|| "python3".into());
        let (process, port) = spawn_blocking(move || {
            let arguments = [python.as_os_str(), include_str!("serve_moto.py").as_ref()];
            let mut process = Watchdog::start(RUN, arguments, None)?;
            let port =
                process.answer().map_err(|e| format!("moto in {}: {e}", python.display()))?;
            Ok::<_, BoxError>((process, port.parse()?))
        })
        .await??;
        Ok((Self { _process: process }, SocketAddr::from(([127, 0, 0, 1], port))))
    }
}
