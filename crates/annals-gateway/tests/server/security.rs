//! Authentication and TLS.

use std::sync::Arc;

use annals_gateway::{GatewayOptions, Security};
use annals_memory::MemoryStore;
use kurrentdb::{AppendToStreamOptions, Error, EventData, ReadStreamOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::common::{Served, client, soon};

fn options() -> GatewayOptions {
    GatewayOptions::default().with_user("admin", "p4ssw0rd")
}

fn event() -> EventData {
    EventData::json("Counted", &1).unwrap()
}

#[tokio::test]
async fn only_the_right_password_is_let_in() {
    let store = Arc::new(MemoryStore::new());
    let served = Served::with(store, options(), Security::Insecure).await;
    let write = async |user: &str| {
        let client = client(&format!("esdb://{user}{}?tls=false", served.address));
        let options = AppendToStreamOptions::default();
        soon("an append", client.append_to_stream("order-1", &options, event())).await
    };
    for stranger in ["", "admin:wrong@", "other:p4ssw0rd@"] {
        let refused = write(stranger).await;
        assert!(matches!(refused, Err(Error::AccessDenied)), "{stranger}: {refused:?}");
    }
    assert_eq!(write("admin:p4ssw0rd@").await.unwrap().next_expected_version, 0);
    let stranger = client(&format!("esdb://{}?tls=false", served.address));
    let read = stranger.read_stream("order-1", &ReadStreamOptions::default()).await;
    assert!(matches!(read, Err(Error::AccessDenied)));
    let info = stranger.get_persistent_subscription_info("order-1", "g", &Default::default()).await;
    assert!(matches!(info, Err(Error::AccessDenied)), "{info:?}");
    served.stop().await;
}

#[tokio::test]
async fn tls_clients_verify_the_certificate() {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let security = Security::Tls { certificates: cert.pem(), key: signing_key.serialize_pem() };
    let served = Served::with(Arc::new(MemoryStore::new()), options(), security).await;
    let port = served.address.port();
    let write = async |parameters: &str| {
        let url =
            format!("esdb://admin:p4ssw0rd@localhost:{port}?maxDiscoverAttempts=2&{parameters}");
        let options = AppendToStreamOptions::default();
        soon("an append", client(&url).append_to_stream("order-1", &options, event())).await
    };
    let trusted = write(&format!("tlsCaFile={}", ca.display())).await;
    assert_eq!(trusted.unwrap().next_expected_version, 0);
    // Without the CA file, the client does not trust the certificate; and the server has no port
    // without TLS.
    for parameters in ["tls=true", "tls=false"] {
        assert!(write(parameters).await.is_err(), "{parameters}");
    }
    served.stop().await;
}
