//! The names of streams in this store and on the server.

use annals_core::{Error, ErrorKind, LeaseName, Result, StreamId, SubscriberId};
use uuid::Uuid;

/// The snapshot of `order-1` is in the metadata of a stream `annals.snapshot.order-1`, after the
/// prefix of the namespace. The stream itself is never written to; only its metadata is.
const SNAPSHOT: &str = "annals.snapshot.";
/// The same for the checkpoint of a subscriber.
const CHECKPOINT: &str = "annals.checkpoint.";
/// The same for a lease.
const LEASE: &str = "annals.lease.";

/// The types of the records in such metadata.
pub(crate) const SNAPSHOT_TYPE: &str = "annals-snapshot";
pub(crate) const CHECKPOINT_TYPE: &str = "annals-checkpoint";
pub(crate) const LEASE_TYPE: &str = "annals-lease";
pub(crate) const RECORD_TYPES: [&str; 3] = [SNAPSHOT_TYPE, CHECKPOINT_TYPE, LEASE_TYPE];

/// A name of at most this many bytes follows `annals.snapshot.` and the like as it is. A longer
/// name is replaced by its digest, which keeps the name on the server short.
const MAX_PLAIN: usize = 128;

/// Maps the names of one store to names on the server, and back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The namespace, in which a `.` is escaped, and a `.`; empty without a namespace. So no prefix
    /// begins with another one, and the streams of `acme.eu` are none of `acme`.
    prefix: String,
}

impl Names {
    pub(crate) fn new(namespace: Option<&str>) -> Self {
        let escaped = |name: &str| name.replace('%', "%25").replace('.', "%2E");
        Self { prefix: namespace.map_or_else(String::new, |name| escaped(name) + ".") }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The stream's name on the server. System streams belong to no namespace.
    pub(crate) fn stream(&self, stream: &StreamId) -> String {
        if stream.is_system() { stream.to_string() } else { format!("{}{stream}", self.prefix) }
    }

    /// The stream that has this name on the server. `None` if the stream is in another namespace,
    /// or if its name is not a valid stream id.
    pub(crate) fn stream_id(&self, name: &str) -> Option<StreamId> {
        let name = if name.starts_with('$') { name } else { name.strip_prefix(&self.prefix)? };
        StreamId::new(name).ok()
    }

    /// The name, on the server, of the stream that holds a stream's metadata.
    pub(crate) fn metadata(&self, stream: &StreamId) -> String {
        format!("$${}", self.stream(stream))
    }

    /// Where a stream's snapshot is stored: in a metadata stream. The server keeps only the last
    /// event of those, hides them from reads of all, and users need no administrator
    /// rights to write them.
    pub(crate) fn snapshot(&self, stream: &StreamId) -> String {
        format!("$${}{SNAPSHOT}{}", self.prefix, short(stream.as_str()))
    }

    /// Where a subscriber's checkpoint is stored.
    pub(crate) fn checkpoint(&self, subscriber: &SubscriberId) -> String {
        format!("$${}{CHECKPOINT}{}", self.prefix, short(subscriber.as_str()))
    }

    /// Where the record of a lease is stored.
    pub(crate) fn lease(&self, name: &LeaseName) -> String {
        format!("$${}{LEASE}{}", self.prefix, short(name.as_str()))
    }
}

fn short(name: &str) -> String {
    if name.len() <= MAX_PLAIN {
        // Digests begin with `#`. Escape a name that does, so that it cannot equal a digest.
        let escape = if name.starts_with('#') { "#" } else { "" };
        format!("{escape}{name}")
    } else {
        format!("#.{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }
}

/// True if this store uses the metadata of such a stream for a snapshot, a checkpoint or a lease.
pub(crate) fn is_reserved(stream: &str) -> bool {
    [SNAPSHOT, CHECKPOINT, LEASE].iter().any(|reserved| stream.starts_with(reserved))
}

/// Refuses a stream whose metadata this store uses for a snapshot, a checkpoint or a lease.
pub(crate) fn check_not_reserved(stream: &StreamId) -> Result<()> {
    if is_reserved(stream.as_str()) {
        let message = "ids that begin with `annals.snapshot.`, `annals.checkpoint.` or \
                       `annals.lease.` are reserved for the data that this store keeps there";
        return Err(Error::new(ErrorKind::InvalidInput, message).with_stream(stream));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_to_the_server_and_back() {
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
    fn namespaces_are_disjoint_whatever_their_names_are() {
        let namespaces = [
            "acme",
            "acme.",
            "acme.eu",
            "acme.eu.",
            ".acme",
            ".",
            "..",
            "acme%2E",
            "acme%2Eeu",
            "acme%",
            "%",
            "%2E",
            "%25",
            "%252E",
            "ACME",
            "acm",
            "acme-eu",
            "acme eu",
        ];
        let streams =
            ["s-1", "eu.s-1", ".s-1", "eu..s-1", ".eu.s-1", "2E.s-1", "%2E.s", "acme.s", "."];
        for one in namespaces {
            for other in namespaces {
                for stream in streams {
                    let stream = StreamId::new(stream).unwrap();
                    let name = Names::new(Some(one)).stream(&stream);
                    let found = Names::new(Some(other)).stream_id(&name);
                    assert_eq!(found, (one == other).then_some(stream), "{one} {other} {name}");
                }
            }
        }
    }

    #[test]
    fn snapshots_have_distinct_short_names_that_no_stream_can_have() {
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
            assert!(check_not_reserved(&StreamId::new(reserved).unwrap()).is_err());
        }
    }
}
