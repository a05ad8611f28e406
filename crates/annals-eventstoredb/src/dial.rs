//! Opens a connection to a node, and says why it cannot.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::settings::{Address, Settings};

/// How long it may take until a connection is open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the answer to one call the server may send before it is read. A subscriber that is
/// slow costs this much memory.
const CALL_WINDOW: u32 = 2 * 1024 * 1024;
/// The same for all calls of a connection. It is so large that calls whose answers are not read do not
/// hold up the others.
const CONNECTION_WINDOW: u32 = 1 << 30;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A channel to a node. It connects when it is used, and again after its connection was lost. `at` is
/// the node's address if the name was resolved already.
pub(crate) fn channel(
    settings: &Settings,
    address: &Address,
    at: Option<SocketAddr>,
) -> Result<Channel, ConnectError> {
    let failed = |cause| ConnectError { address: address.clone(), cause };
    let invalid = |_| failed(Cause::Other("this is no valid address".to_owned()));
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    // TLS is done here and not by tonic, which names no causes. So tonic sees a connection without.
    let endpoint = Endpoint::from(address.uri("http").map_err(invalid)?)
        .origin(address.uri(scheme).map_err(invalid)?)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let endpoint = match settings.keep_alive {
        Some((interval, timeout)) => endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true),
        None => endpoint,
    };
    let (tls, address) = (settings.tls.clone(), address.clone());
    let connector = tower::service_fn(move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move { dial(&address, at, tls).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn dial(
    address: &Address,
    at: Option<SocketAddr>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Io>, ConnectError> {
    let failed = |cause| ConnectError { address: address.clone(), cause };
    let connected = async {
        let tcp = tcp(address, at).await.map_err(failed)?;
        let Some(config) = tls else { return Ok(Box::new(tcp) as Box<dyn Io>) };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| failed(Cause::Other("this is no name of a host".to_owned())))?;
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        Ok(Box::new(tls.map_err(|error| failed(Cause::of_tls(&error)))?) as Box<dyn Io>)
    };
    timeout(CONNECT_TIMEOUT, connected).await.unwrap_or_else(|_| Err(failed(Cause::TimedOut)))
}

/// A connection whose small messages are sent at once. Otherwise the system would keep the second part
/// of each request until the first is acknowledged, for up to 40 ms.
async fn tcp(address: &Address, at: Option<SocketAddr>) -> Result<TcpStream, Cause> {
    let addresses = match at {
        Some(at) => vec![at],
        None => resolve(address).await?,
    };
    let mut cause = Cause::Name("the name has no address".to_owned());
    // An address that does not answer leaves time for the others.
    let each = CONNECT_TIMEOUT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for at in addresses {
        let connected = timeout(each, TcpStream::connect(at)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|e| Cause::Other(e.to_string()))?;
                return Ok(stream);
            }
            Err(error) => cause = Cause::of_tcp(&error),
        }
    }
    Err(cause)
}

/// The addresses that the host has.
pub(crate) async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Cause> {
    let found = lookup_host((address.host.as_str(), address.port)).await;
    Ok(found.map_err(|e| Cause::Name(e.to_string()))?.collect())
}

/// Why a node cannot be reached. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectError {
    pub(crate) address: Address,
    pub(crate) cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The host's name cannot be resolved.
    Name(String),
    Refused,
    TimedOut,
    /// The server's certificate is not accepted.
    Certificate(CertificateCause),
    /// The answer to a greeting of TLS was something else.
    NotTls,
    /// The server did not accept the certificate that was shown to it, or another part of TLS.
    Tls(String),
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateCause {
    Authority,
    Name,
    Time,
    Other(String),
}

impl Cause {
    fn of_tcp(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }

    fn of_tls(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                // A server without TLS closes the connection at the first message.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::NotTls,
                _ => Self::Other(error.to_string()),
            };
        };
        match tls {
            rustls::Error::InvalidCertificate(error) => Self::Certificate(match error {
                CertificateError::UnknownIssuer => CertificateCause::Authority,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => CertificateCause::Name,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => CertificateCause::Time,
                other => CertificateCause::Other(other.to_string()),
            }),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Tls(other.to_string()),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to {}: ", self.address)?;
        match &self.cause {
            Cause::Name(error) => write!(f, "the host's name cannot be resolved ({error})"),
            Cause::Refused => f.write_str("the connection was refused; no server listens there"),
            Cause::TimedOut => f.write_str("it was not open in time"),
            Cause::Certificate(cause) => match cause {
                CertificateCause::Authority => f.write_str(
                    "no trusted authority issued the server's certificate; name the authority \
                     with `tlsCAFile`",
                ),
                CertificateCause::Name => f.write_str(
                    "the server's certificate is for another name; use a host that it names",
                ),
                CertificateCause::Time => {
                    f.write_str("the server's certificate has expired, or is not valid yet")
                }
                CertificateCause::Other(error) => {
                    write!(f, "the server's certificate is not accepted ({error})")
                }
            },
            Cause::NotTls => f.write_str(
                "the server does not speak TLS there; for a server without, set `tls=false`",
            ),
            Cause::Tls(error) => write!(f, "TLS failed ({error})"),
            Cause::Other(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// With Nagle's algorithm, each append would wait 40 ms for an acknowledgement.
    #[tokio::test]
    async fn small_messages_are_sent_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        let stream = tcp(&address, None).await.unwrap();
        assert!(stream.nodelay().unwrap(), "TCP_NODELAY is not set");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        drop(listener);
        assert_eq!(tcp(&address, None).await.unwrap_err(), Cause::Refused);
    }
}
