//! Opening a store: with a client of its own, or with one of the application.

use std::{path::Path, sync::Arc};

use annals_core::{Error, ErrorKind, Result, adapter::context};
use kurrentdb::{Client, ClientSettings};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tonic::transport::Endpoint;

use crate::{
    config::{EventStoreDbConfig, EventStoreDbOptions},
    server::{BACKEND, Server},
    store::EventStoreDbStore,
};

impl EventStoreDbStore {
    /// Opens a store that creates its own client. Nothing is created on the server; opening only
    /// checks that the server answers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the options cannot work;
    /// [`ErrorKind::Denied`] if the credentials are wrong;
    /// [`ErrorKind::Unavailable`] if no server can be reached.
    pub async fn open(config: EventStoreDbConfig) -> Result<Self> {
        let EventStoreDbConfig { settings, credentials, options } = config;
        let client = options.check().and_then(|()| new_client(&settings));
        let client = client.map_err(context(BACKEND, "open"))?;
        Self::connected(Server::new(client, credentials, options)).await
    }

    /// Opens a store with a client of the application, its settings and its credentials. If that
    /// client gives up, the store goes on with a new one of its own.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn with_client(client: Client, options: EventStoreDbOptions) -> Result<Self> {
        options.check().map_err(context(BACKEND, "open"))?;
        let credentials = client.settings().default_authenticated_user().clone();
        Self::connected(Server::new(client, credentials, options)).await
    }

    async fn connected(server: Server) -> Result<Self> {
        server.check_access().await.map_err(context(BACKEND, "open"))?;
        Ok(Self { server: Arc::new(server) })
    }
}

/// Creates a client. Settings that would make the client panic are refused.
fn new_client(settings: &ClientSettings) -> Result<Client> {
    for host in settings.hosts() {
        let uri = format!("http://{}:{}", host.host, host.port);
        Endpoint::from_shared(uri).map_err(|e| {
            let message = format!("{:?} with port {} is not a valid host", host.host, host.port);
            Error::new(ErrorKind::InvalidInput, message).with_source(e)
        })?;
    }
    if let Some(file) = settings.tls_ca_file() {
        check_certificates(Path::new(file))?;
    }
    Client::new(settings.clone()).map_err(|e| {
        let message =
            "the client cannot be created with these settings; check the certificate files";
        Error::new(ErrorKind::InvalidInput, message).with_source(e.to_string())
    })
}

fn check_certificates(file: &Path) -> Result<()> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<std::result::Result<Vec<_>, _>>();
    let message = || format!("`tlsCAFile` {} is not a file of PEM certificates", file.display());
    match read() {
        Ok(found) if !found.is_empty() => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::InvalidInput, message())),
        Err(e) => Err(Error::new(ErrorKind::InvalidInput, message()).with_source(e.to_string())),
    }
}
