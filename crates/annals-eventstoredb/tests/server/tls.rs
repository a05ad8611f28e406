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
    let untrusted = open("tls=true".to_owned()).await.unwrap_err();
    assert!(untrusted.to_string().contains("no trusted authority"), "{untrusted}");
    assert!(untrusted.to_string().contains("tlsCAFile"), "{untrusted}");
    open("tlsVerifyCert=false".to_owned()).await.unwrap();
    serving.abort();
}

/// The error names the cause, since each has another remedy.
#[tokio::test]
async fn the_cause_of_a_connection_that_fails_is_named() {
    let made = generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    let CertifiedKey { cert, signing_key } = made;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let key = signing_key.serialize_pem();
    let serve = async |security| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = Gateway::new(Arc::new(MemoryStore::new()), GatewayOptions::default());
        (port, tokio::spawn(gateway.serve(listener, security, std::future::pending())))
    };
    let (with, serving) = serve(Security::Tls { certificates: cert.pem(), key }).await;
    let (without, also_serving) = serve(Security::Insecure).await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let ca = format!("tlsCAFile={}", ca.display());
    for (at, parameters, says) in [
        (format!("localhost:{with}"), ca.as_str(), "for another name"),
        (format!("localhost:{with}"), "tls=true", "no trusted authority"),
        (format!("localhost:{without}"), "tls=true", "does not speak TLS"),
        (format!("localhost:{nobody}"), "tls=true", "was refused"),
        ("name.invalid:1".to_owned(), "tls=false", "cannot be resolved"),
    ] {
        let config = EventStoreDbConfig::from_url(&format!("esdb://{at}?{parameters}")).unwrap();
        let options = EventStoreDbOptions::default().with_retry_for(Duration::ZERO);
        let opened = EventStoreDbStore::open(config.with_options(options));
        let error = within("an error", opened).await.unwrap_err();
        assert_eq!(error.kind(), annals_core::ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains(says), "{at}?{parameters}: {error}");
        assert!(error.to_string().contains(&at), "{error}");
    }
    serving.abort();
    also_serving.abort();
}
