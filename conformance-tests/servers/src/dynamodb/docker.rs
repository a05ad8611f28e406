//! DynamoDB Local in a container.

use std::net::SocketAddr;

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};

use crate::{BoxError, ports, watchdog::Watchdog};

const IMAGE: &str = "amazon/dynamodb-local";
/// `docker-compose.yml` and the workflow have the same version.
const TAG: &str = "3.3.1";
const PORT: u16 = 8000;

/// A container. testcontainers removes it when this value is dropped, and the watchdog if the
/// process ends before that.
pub(super) struct Docker {
    _container: ContainerAsync<GenericImage>,
    _watchdog: Option<Watchdog>,
}

impl Docker {
    pub(super) async fn start() -> Result<(Self, SocketAddr), BoxError> {
        let container = GenericImage::new(IMAGE, TAG)
            .with_wait_for(WaitFor::Nothing)
            .with_exposed_port(PORT.tcp())
            // Use one database for all regions and credentials, so that URLs may differ in them.
            .with_cmd(["-jar", "DynamoDBLocal.jar", "-sharedDb", "-inMemory"])
            .start()
            .await?;
        let watchdog = Watchdog::of_container(container.id());
        let port = container.get_host_port_ipv4(PORT).await?;
        let host = container.get_host().await?;
        let found = ports::resolve(&format!("{host}:{port}")).await;
        let addr = found.ok_or_else(|| format!("Docker's host {host} has no address"))?;
        Ok((Self { _container: container, _watchdog: watchdog }, addr))
    }
}
