//! The sockets below all links, and how a peer is dialled by them.
//!
//! What it is not: it knows no members. Nothing foreign is ever contacted.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{
    BindOpts, Connection, MtuDiscoveryConfig, PortmapperConfig, QuicTransportConfig, VarInt,
    presets,
};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey};
use tokio::time::timeout;
use wire::id::NodeId;
use wire::{JOIN_ALPN, PEER_ALPN, RELAY_ALPN};

use super::paths;
use super::relay::transport::{self, Transport};

/// How long a dial may take.
pub(super) const DIAL: Duration = Duration::from_millis(4_000);
/// A link on which nothing arrives is dead after this long; probes go out every five seconds.
const SILENT: Duration = Duration::from_secs(12);
/// What a connection may hold here until its peer is known to be a member.
pub(super) const STRANGER_BYTES_MAX: usize = 64 * 1024;
/// Streams that it may have open until then: more than the one of a join or a welcome.
pub(super) const STRANGER_STREAMS_MAX: u32 = 2;
/// Datagrams of a connection that wait to be read; four times as much may wait to be sent, for a
/// line carries whole links.
const DATAGRAM_BYTES_WAITING_MAX: usize = 256 * 1024;
/// What the link of a member may hold here.
pub(super) const MEMBER_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// Why links cannot begin.
#[derive(Debug)]
pub struct BindError {
    listen: Vec<SocketAddr>,
    reason: String,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listen: Vec<_> = self.listen.iter().map(ToString::to_string).collect();
        write!(
            f,
            "cannot listen on {} (UDP): {}; stop what listens there, or choose another address \
             with --listen ADDRESS:PORT",
            listen.join(", "),
            self.reason
        )
    }
}

impl std::error::Error for BindError {}

/// A peer by its own addresses.
pub(super) fn direct(to: NodeId, addresses: Vec<SocketAddr>) -> Result<EndpointAddr, String> {
    if addresses.is_empty() {
        return Err("no address of it is known".to_owned());
    }
    let address = addresses.into_iter();
    Ok(address.fold(address_of(to)?, EndpointAddr::with_ip_addr))
}

/// A peer by its own addresses and by relays, whichever answers.
pub(super) fn any_way(to: NodeId, addresses: Vec<SocketAddr>) -> Result<EndpointAddr, String> {
    let mut address = direct(to, addresses)?;
    address.addrs.insert(transport::address(to));
    Ok(address)
}

fn address_of(node: NodeId) -> Result<EndpointAddr, String> {
    let id = EndpointId::from_bytes(&node.0);
    id.map(EndpointAddr::new)
        .map_err(|_no_key| "its id is not a key".to_owned())
}

pub(super) async fn connect(
    endpoint: &Endpoint,
    address: EndpointAddr,
    alpn: &[u8],
) -> Result<Connection, String> {
    match timeout(DIAL, endpoint.connect(address, alpn)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_elapsed) => Err(format!("it did not answer within {} s", DIAL.as_secs())),
    }
}

/// Opens the sockets. A joiner that only asks does not listen for links, and has no relays.
pub(super) async fn bind(
    key: &ed25519_dalek::SigningKey,
    listen: &[SocketAddr],
    relays: Option<Transport>,
) -> Result<Endpoint, BindError> {
    let serve = relays.is_some();
    let fail = |reason: String| BindError {
        listen: listen.to_vec(),
        reason,
    };
    let alpns = if serve {
        vec![PEER_ALPN.to_vec(), JOIN_ALPN.to_vec(), RELAY_ALPN.to_vec()]
    } else {
        Vec::new()
    };
    let mut builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .secret_key(SecretKey::from_bytes(&key.to_bytes()))
        .alpns(alpns)
        .transport_config(transport(serve).map_err(&fail)?)
        .path_selector(Arc::new(paths::Preference))
        .clear_ip_transports();
    if let Some(transport) = relays {
        builder = builder.add_custom_transport(Arc::new(transport));
    }
    let mut families = [false; 2];
    for address in listen {
        let first = !std::mem::replace(&mut families[usize::from(address.is_ipv6())], true);
        let host_prefix = if address.is_ipv6() { 128 } else { 32 };
        // Of several addresses of one family the first one carries what the others do not reach.
        let prefix = if first { 0 } else { host_prefix };
        // A machine without IPv6 is no reason not to start, when IPv4 is listened on too.
        let is_optional = address.is_ipv6() && address.ip().is_unspecified() && listen.len() > 1;
        let options = BindOpts::default()
            .set_prefix_len(prefix)
            .set_is_default_route(first)
            .set_is_required(!is_optional);
        builder = builder
            .bind_addr_with_opts(*address, options)
            .map_err(|error| fail(format!("{error:#}")))?;
    }
    // The library's future is large.
    let bound = Box::pin(builder.bind()).await;
    bound.map_err(|error| fail(format!("{error:#}")))
}

/// Windows are upper bounds of memory, reached only while bytes flow. Where strangers come they
/// begin small; a joiner has dialled whom its ticket names.
fn transport(serve: bool) -> Result<QuicTransportConfig, String> {
    let bytes_max = if serve {
        u32::try_from(STRANGER_BYTES_MAX).unwrap_or(MEMBER_BYTES_MAX)
    } else {
        MEMBER_BYTES_MAX
    };
    let silent = SILENT
        .try_into()
        .map_err(|_too_long| "the idle timeout is too long".to_owned())?;
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(Some(silent))
        .default_path_max_idle_timeout(SILENT)
        .max_concurrent_uni_streams(VarInt::from_u32(STRANGER_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(2 * 1024 * 1024))
        .receive_window(VarInt::from_u32(bytes_max))
        .send_window(4 * 1024 * 1024)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_WAITING_MAX))
        .datagram_send_buffer_size(4 * DATAGRAM_BYTES_WAITING_MAX)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .build())
}
