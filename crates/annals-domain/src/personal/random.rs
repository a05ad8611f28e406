//! Random bytes for keys and nonces.

use annals_core::{Error, ErrorKind, Result};
use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| {
        Error::new(ErrorKind::Internal, "the operating system returned no random numbers")
    })?;
    Ok(bytes)
}
