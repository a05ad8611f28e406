//! Ports for servers that cannot be asked which port they got, and addresses of others.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
};

/// Below the ports that systems give to outgoing connections (32768 on Linux, 49152 elsewhere). A
/// port from among those could be taken by any client while a test keeps the server down, even by
/// one that tries to connect to it and so reaches itself.
const PORTS: Range<u16> = 15_000..32_000;

/// How many ports are tried; that as many are taken in a row means that none can be had.
const ATTEMPTS: usize = 100;

/// A port on the loopback interface that nobody listens on. Somebody else may take it before the
/// caller does, who then asks again.
pub(crate) fn free() -> io::Result<u16> {
    Ok(listen()?.local_addr()?.port())
}

/// Listens on such a port.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS))) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// The address of a host and port. Where there are several, IPv4 is what servers for tests use.
pub(crate) async fn resolve(authority: &str) -> Option<SocketAddr> {
    tokio::net::lookup_host(authority).await.ok()?.min_by_key(SocketAddr::is_ipv6)
}
