//! Lines as a transport: what the library sees of relays. A peer is one address here, whichever
//! relays lead to it.

use std::io::{self, IoSliceMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use iroh::TransportAddr;
use iroh::endpoint::transports::{
    CustomEndpoint, CustomSender, CustomTransport, RecvInfo, Transmit,
};
use iroh_base::CustomAddr;
use n0_watcher::{Direct, Watchable};
use noq_udp::RecvMeta;
use tokio::sync::mpsc;
use wire::id::NodeId;

/// The library's number of this transport: `welkin`.
const TRANSPORT: u64 = 0x77_65_6c_6b_69_6e;

/// A packet of a link on its way by relays.
#[derive(Debug)]
pub(in crate::links) struct Packet {
    /// The other end of the link.
    pub(super) node: NodeId,
    pub(super) bytes: Vec<u8>,
}

/// Makes the one endpoint that there is.
#[derive(Debug)]
pub(in crate::links) struct Transport {
    here: NodeId,
    sent: mpsc::Sender<Packet>,
    arrived: Mutex<Option<mpsc::Receiver<Packet>>>,
}

impl Transport {
    pub(super) fn new(
        here: NodeId,
        sent: mpsc::Sender<Packet>,
        arrived: mpsc::Receiver<Packet>,
    ) -> Self {
        let arrived = Mutex::new(Some(arrived));
        Self {
            here,
            sent,
            arrived,
        }
    }
}

/// The address of a peer by way of relays.
pub(in crate::links) fn address(node: NodeId) -> TransportAddr {
    TransportAddr::Custom(custom(node))
}

fn custom(node: NodeId) -> CustomAddr {
    CustomAddr::from_parts(TRANSPORT, &node.0)
}

impl CustomTransport for Transport {
    fn bind(&self) -> io::Result<Box<dyn CustomEndpoint>> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = arrived.take().ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Box::new(End {
            own: Watchable::new(Vec::from([custom(self.here)])),
            sent: self.sent.clone(),
            arrived,
        }))
    }
}

#[derive(Debug)]
struct End {
    own: Watchable<Vec<CustomAddr>>,
    sent: mpsc::Sender<Packet>,
    arrived: mpsc::Receiver<Packet>,
}

impl CustomEndpoint for End {
    fn watch_local_addrs(&self) -> Direct<Vec<CustomAddr>> {
        self.own.watch()
    }

    fn create_sender(&self) -> Arc<dyn CustomSender> {
        Arc::new(Sender(self.sent.clone()))
    }

    fn poll_recv(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        infos: &mut [RecvInfo],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        let slots = buffers.iter_mut().zip(metas).zip(infos);
        for ((buffer, meta), info) in slots {
            let packet = loop {
                match self.arrived.poll_recv(context) {
                    Poll::Ready(Some(packet)) if packet.bytes.len() > buffer.len() => {}
                    Poll::Ready(Some(packet)) => break Some(packet),
                    Poll::Ready(None) if count == 0 => {
                        return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                    }
                    Poll::Ready(None) | Poll::Pending => break None,
                }
            };
            let Some(Packet { node, bytes }) = packet else {
                break;
            };
            buffer[..bytes.len()].copy_from_slice(&bytes);
            meta.len = bytes.len();
            meta.stride = bytes.len();
            *info = RecvInfo::new(custom(node), None);
            count += 1;
        }
        match count {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }
}

#[derive(Debug)]
struct Sender(mpsc::Sender<Packet>);

impl CustomSender for Sender {
    fn is_valid_send_addr(&self, address: &CustomAddr) -> bool {
        address.id() == TRANSPORT
    }

    fn poll_send(
        &self,
        _context: &mut Context<'_>,
        to: &CustomAddr,
        _from: Option<&CustomAddr>,
        transmit: &Transmit<'_>,
    ) -> Poll<io::Result<()>> {
        let Ok(to) = to.data().try_into() else {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        };
        let length = transmit.segment_size.unwrap_or(transmit.contents.len());
        for packet in transmit.contents.chunks(length.max(1)) {
            let bytes = packet.to_vec();
            let node = NodeId(to);
            // What finds no room is lost, as on any path that is full.
            if self.0.try_send(Packet { node, bytes }).is_err() {
                tracing::trace!(to = %node.short(), "a packet was sent too fast");
            }
        }
        Poll::Ready(Ok(()))
    }
}
