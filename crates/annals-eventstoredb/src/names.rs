//! What streams are called here, and on the server.

use annals_core::{Error, ErrorKind, LeaseName, Result, StreamId, SubscriberId};
use uuid::Uuid;

/// What stands between the namespace and the stream that has a snapshot. Streams of these names are
/// never written to; only their metadata is.
const SNAPSHOT: &str = "annals.snapshot.";
/// The same of the subscriber that has a checkpoint.
const CHECKPOINT: &str = "annals.checkpoint.";
/// The same of a lease.
const LEASE: &str = "annals.lease.";

/// The most bytes of a name that stand in such a name as they are; of a longer one its digest
/// stands there, so that the whole stays a name of moderate length.
const MAX_PLAIN: usize = 128;

/// The names of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The namespace with its `.`, or nothing.
    prefix: String,
}

impl Names {
    pub(crate) fn new(namespace: Option<&str>) -> Self {
        Self { prefix: namespace.map_or_else(String::new, |name| format!("{name}.")) }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What a stream is called on the server. Those of the server itself belong to no namespace.
    pub(crate) fn stream(&self, stream: &StreamId) -> String {
        if stream.is_system() { stream.to_string() } else { format!("{}{stream}", self.prefix) }
    }

    /// What a stream of the server is called here: nothing where it belongs to somebody else, or
    /// has a name that no stream has here.
    pub(crate) fn stream_id(&self, name: &str) -> Option<StreamId> {
        let name = if name.starts_with('$') { name } else { name.strip_prefix(&self.prefix)? };
        StreamId::new(name).ok()
    }

    /// The stream of a stream's metadata.
    pub(crate) fn metadata(&self, stream: &StreamId) -> String {
        format!("$${}", self.stream(stream))
    }

    /// Where the snapshot of a stream is. Metadata keeps one event, is hidden from all, and takes
    /// no rights of an administrator.
    pub(crate) fn snapshot(&self, stream: &StreamId) -> String {
        format!("$${}{SNAPSHOT}{}", self.prefix, short(stream.as_str()))
    }

    /// Where the checkpoint of a subscriber is.
    pub(crate) fn checkpoint(&self, subscriber: &SubscriberId) -> String {
        format!("$${}{CHECKPOINT}{}", self.prefix, short(subscriber.as_str()))
    }

    /// Where the record of a lease is.
    pub(crate) fn lease(&self, name: &LeaseName) -> String {
        format!("$${}{LEASE}{}", self.prefix, short(name.as_str()))
    }
}

fn short(name: &str) -> String {
    if name.len() <= MAX_PLAIN {
        // No digest, which begins with it, is taken for a name.
        let escape = if name.starts_with('#') { "#" } else { "" };
        format!("{escape}{name}")
    } else {
        format!("#.{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }
}

/// Refuses a stream whose metadata is the snapshot of another, a checkpoint or a lease.
pub(crate) fn check(stream: &StreamId) -> Result<()> {
    if [SNAPSHOT, CHECKPOINT, LEASE].iter().any(|reserved| stream.as_str().starts_with(reserved)) {
        let message = "streams whose id begins with `annals.snapshot.`, `annals.checkpoint.` or \
                       `annals.lease.` are where this store keeps those";
        return Err(Error::new(ErrorKind::InvalidInput, message).with_stream(stream));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let id = |name: &str| StreamId::new(name).unwrap();
        for namespace in [None, Some("shop"), Some(" é")] {
            let names = Names::new(namespace);
            for name in ["order-1", "$ce-order", " order ", "日本"] {
                assert_eq!(names.stream_id(&names.stream(&id(name))), Some(id(name)));
            }
        }
        let names = Names::new(Some("shop"));
        assert_eq!(names.stream(&id("order-1")), "shop.order-1");
        assert_eq!(names.stream_id("shopping.order-1"), None);
        assert_eq!(names.stream_id("shop."), None);
        assert_eq!(names.metadata(&id("order-1")), "$$shop.order-1");
    }

    #[test]
    fn what_is_kept_is_kept_apart() {
        let names = Names::default();
        let long = |last: &str| StreamId::new("x".repeat(200) + last).unwrap();
        let all = [
            StreamId::new("order-1").unwrap(),
            StreamId::new("#order-1").unwrap(),
            long("1"),
            long("2"),
            StreamId::new(short(long("1").as_str())).unwrap(),
        ];
        let kept: std::collections::HashSet<_> = all.iter().map(|id| names.snapshot(id)).collect();
        assert_eq!(kept.len(), all.len());
        assert!(kept.iter().all(|name| name.len() < 200));
        for reserved in ["annals.snapshot.order-1", "annals.checkpoint.x", "annals.lease.x"] {
            assert!(check(&StreamId::new(reserved).unwrap()).is_err());
        }
    }
}
