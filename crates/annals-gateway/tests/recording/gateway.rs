//! A gateway and a client in one thread, connected in memory.

use std::sync::Arc;

use annals_core::Store;
use annals_gateway::{Gateway, GatewayOptions};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::transport::{Channel, Endpoint};

/// How many bytes may be on the way in each direction.
const BUFFER: usize = 1024 * 1024;

/// Serves the store until the runtime ends, and connects a client.
pub(crate) async fn connect(store: Arc<dyn Store>) -> Channel {
    let (sender, accepted) = mpsc::unbounded_channel::<DuplexStream>();
    let incoming = UnboundedReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
    let address = "127.0.0.1:2113".parse().unwrap();
    let gateway = Gateway::new(store, GatewayOptions::default());
    tokio::spawn(gateway.serve_connections(incoming, address));
    let connector = tower::service_fn(move |_| {
        let (client, server) = tokio::io::duplex(BUFFER);
        let sent = sender.send(server).map_err(std::io::Error::other);
        async move { sent.map(|()| TokioIo::new(client)) }
    });
    let endpoint = Endpoint::from_static("http://127.0.0.1:2113");
    endpoint.connect_with_connector(connector).await.unwrap()
}
