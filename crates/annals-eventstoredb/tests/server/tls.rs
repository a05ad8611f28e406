//! TLS, which a URL turns on unless it says `tls=false`.

use std::{sync::Arc, time::Duration};

use annals_core::{EventStore, EventStoreExt, ExpectedVersion, Subscribe};
use annals_eventstoredb::{EventStoreDbConfig, EventStoreDbOptions, EventStoreDbStore};
use annals_gateway::{Gateway, GatewayOptions, Security};
use annals_memory::MemoryStore;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;

use crate::tools::{event, next, within};

#[tokio::test]
async fn requests_and_wake_ups_are_encrypted_and_verified() {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = GatewayOptions::default().with_user("admin", "secret");
    let security = Security::Tls { certificates: cert.pem(), key: signing_key.serialize_pem() };
    let gateway = Gateway::new(Arc::new(MemoryStore::new()), options);
    let serving = tokio::spawn(gateway.serve(listener, security, std::future::pending()));
    let open = async |parameters: String| {
        let url = format!("esdb://admin:secret@localhost:{port}?{parameters}");
        // Polls so rarely that an event comes in time only if the server wakes the subscriber.
        let options = EventStoreDbOptions::default()
            .with_poll_interval(Duration::from_secs(3600))
            .with_retry_for(Duration::from_millis(200));
        let config = EventStoreDbConfig::from_url(&url).unwrap().with_options(options);
        within("an answer", EventStoreDbStore::open(config)).await
    };
    let store = open(format!("tlsCAFile={}", ca.display())).await.unwrap();
    let mut live = store.subscribe(Subscribe::default()).await.unwrap();
    for number in 0..3 {
        store.append_to("order-1", ExpectedVersion::Any, [event(number)]).await.unwrap();
        assert_eq!(next(&mut live).await, number);
    }
    // No authority that the system trusts has signed the server's certificate.
    assert!(open("tls=true".to_owned()).await.is_err());
    serving.abort();
}
