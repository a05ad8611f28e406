//! The services `ServerFeatures` and `Gossip`: which calls the gateway serves, and at which
//! address.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    proto::{
        gossip::{
            ClusterInfo, EndPoint, MemberInfo, gossip_server::Gossip, member_info::VNodeState,
        },
        server_features::{
            SupportedMethod, SupportedMethods, server_features_server::ServerFeatures,
        },
        shared::Empty,
    },
    wire::IdFormat,
};

/// The version of EventStoreDB that the gateway reports to clients.
const VERSION: &str = "24.10.0";

/// The name of a call, and those of its features that only newer servers have.
type Method = (&'static str, &'static [&'static str]);

/// The calls of each service, all names in lower case.
const METHODS: &[(&str, &[Method])] = &[
    (
        "event_store.client.streams.streams",
        &[
            ("read", &["position", "events"]),
            ("append", &[]),
            ("delete", &[]),
            ("tombstone", &[]),
            ("batchappend", &["deadline_duration"]),
        ],
    ),
    (
        "event_store.client.persistent_subscriptions.persistentsubscriptions",
        &[
            ("create", &["stream", "all"]),
            ("update", &["stream", "all"]),
            ("delete", &["stream", "all"]),
            ("read", &["stream", "all"]),
            ("getinfo", &["stream", "all"]),
            ("replayparked", &["stream", "all"]),
            ("list", &["stream", "all"]),
            ("restartsubsystem", &[]),
        ],
    ),
    (
        "event_store.client.projections.projections",
        &[("statistics", &[]), ("enable", &[]), ("reset", &[]), ("restartsubsystem", &[])],
    ),
    ("event_store.client.gossip.gossip", &[("read", &[])]),
    ("event_store.client.server_features.serverfeatures", &[("getsupportedmethods", &[])]),
];

/// A cluster of one node, which is the leader.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    id: Uuid,
    host: String,
    port: u16,
}

impl Cluster {
    /// A node that clients are told to find at this host and port.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        if is_unspecified(host) {
            tracing::warn!(
                host,
                port,
                "clients that discover the cluster cannot connect to this address; advertise one \
                 that they can reach (annals-gateway --advertise HOST:PORT)"
            );
        }
        // Clients put the host before `:port` in a URL, so an IPv6 address needs brackets.
        let host = match host.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => host.to_owned(),
        };
        Self { id: Uuid::now_v7(), host, port }
    }

    /// A node that clients are told to find at the address on which the server listens.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::new(&address.ip().to_string(), address.port())
    }
}

/// Whether a host stands for all addresses of the server's own machine, and so for none on another.
fn is_unspecified(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

#[tonic::async_trait]
impl ServerFeatures for Cluster {
    async fn get_supported_methods(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        let method = |service: &str, (name, features): &Method| SupportedMethod {
            method_name: (*name).to_owned(),
            service_name: service.to_owned(),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
        };
        let methods = METHODS
            .iter()
            .flat_map(|(service, methods)| methods.iter().map(move |entry| method(service, entry)));
        Ok(Response::new(SupportedMethods {
            methods: methods.collect(),
            event_store_server_version: VERSION.to_owned(),
        }))
    }
}

#[tonic::async_trait]
impl Gossip for Cluster {
    async fn read(&self, _: Request<Empty>) -> Result<Response<ClusterInfo>, Status> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let member = MemberInfo {
            instance_id: Some(IdFormat::Structured.write(self.id)),
            time_stamp: i64::try_from(now.as_nanos() / 100).unwrap_or_default(),
            state: VNodeState::Leader.into(),
            is_alive: true,
            http_end_point: Some(EndPoint { address: self.host.clone(), port: self.port.into() }),
        };
        Ok(Response::new(ClusterInfo { members: vec![member] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_have_brackets() {
        for (host, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("db.example.com", "db.example.com"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(Cluster::new(host, 2113).host, expected);
        }
        assert_eq!(Cluster::at("[::1]:2113".parse().unwrap()).host, "[::1]");
    }

    #[test]
    fn addresses_that_mean_this_machine_are_known() {
        for host in ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0"] {
            assert!(is_unspecified(host), "{host}");
        }
        for host in ["127.0.0.1", "::1", "[::1]", "10.0.0.0", "db.example.com", "0", ""] {
            assert!(!is_unspecified(host), "{host}");
        }
    }
}
