//! Free ports, for servers that cannot report which port the system gave them; and host names.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
};

/// These ports are below those that systems give to outgoing connections (from 32768 on Linux, from
/// 49152 elsewhere). While a test keeps its server down, a client could be given such a port for an
/// outgoing connection: even a client of that server, which would then be connected to itself.
const PORTS: Range<u16> = 15_000..32_000;

/// How many ports are tried before giving up.
const ATTEMPTS: usize = 100;

/// Finds a port on the loopback interface that no process listens on. Another process may take it
/// before the caller does; the caller then has to ask again.
pub(crate) fn free() -> io::Result<u16> {
    Ok(listen()?.local_addr()?.port())
}

/// Listens on a free port.
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

/// Resolves a host and port to an address. An IPv4 address comes first, since test servers listen
/// on one.
pub(crate) async fn resolve(authority: &str) -> Option<SocketAddr> {
    tokio::net::lookup_host(authority).await.ok()?.min_by_key(SocketAddr::is_ipv6)
}
