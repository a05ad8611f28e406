//! A relay between clients and the server that acknowledges what it receives at once.
//!
//! The client leaves Nagle's algorithm on (kurrentdb 1.2 does not set `TCP_NODELAY`): the second
//! part of each request waits until the first is acknowledged, which Linux delays by 40 ms.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};

pub(crate) struct Front {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Front {
    pub(crate) async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        Ok(Self { addr, accepting: tokio::spawn(accept(listener, target)) })
    }
}

async fn accept(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(async move {
            // An error ends one connection, and with it the other.
            let _ = relay(client, target).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        end = carry(from_client, to_server) => end,
        end = carry(from_server, to_client) => end,
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Linux forgets this option, so set it before every read.
        #[cfg(target_os = "linux")]
        from.as_ref().set_quickack(true)?;
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).await?,
        }
    }
}
