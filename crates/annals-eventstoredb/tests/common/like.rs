//! A server that behaves as EventStoreDB 23.10, behind a proxy.

use std::{net::SocketAddr, sync::Arc};

use annals_gateway::like_eventstoredb::Cluster;
use annals_test_servers::{BoxError, Proxy};
use tokio::{net::TcpListener, task::JoinHandle};

/// A server by itself.
pub(crate) struct LikeServer {
    cluster: Cluster,
    addr: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
    proxy: Arc<Proxy>,
}

impl Drop for LikeServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[allow(dead_code, reason = "not every test program uses all")]
impl LikeServer {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let cluster = Cluster::new(1);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let proxy = Arc::new(Proxy::start(addr).await?);
        cluster.set_address(0, &proxy.addr().ip().to_string(), proxy.addr().port());
        let serving = tokio::spawn(cluster.node(0).serve(listener));
        Ok(Self { cluster, addr, serving, proxy })
    }

    pub(crate) fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.proxy.addr())
    }

    pub(crate) fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops the server without telling its clients, and starts it again with what it had.
    pub(crate) async fn restart(&mut self) -> Result<(), BoxError> {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        // Also close the connections that clients had.
        self.proxy.cut().await;
        let listener = TcpListener::bind(self.addr).await?;
        self.serving = tokio::spawn(self.cluster.node(0).serve(listener));
        Ok(())
    }

    /// Writes the next append, and cuts the connections before the answer.
    pub(crate) fn lose_next_answer(&self) {
        let (written, proxy) = (self.cluster.lose_next_answer(), self.proxy.clone());
        tokio::spawn(async move {
            if written.await.is_ok() {
                proxy.cut().await;
            }
        });
    }
}
