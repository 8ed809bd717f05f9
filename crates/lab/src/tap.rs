//! One virtual Ethernet device, made and configured with ioctls in the network namespace of the
//! calling thread. It is not a netlink library: it knows just what a lab host needs.

use std::ffi::{CString, c_char};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The name of the device inside every host.
pub(crate) const DEVICE: &str = "eth0";

const FRAME_QUEUE: libc::c_int = 4096;
const MTU_BYTES: libc::c_int = 1500;

/// A host on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub(crate) ethernet: [u8; 6],
    pub(crate) address: Ipv4Addr,
}

/// Makes the device, brings it and `lo` up, and tells the kernel where all `peers` are (so that no
/// ARP crosses the WAN and an unreachable host is silent). The device is non-blocking.
///
/// Behind a router the only neighbour is the router, and the way to everywhere.
pub(crate) fn set_up(
    own: Station,
    peers: &[Station],
    gateway: Option<Station>,
) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let control = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    raise("lo", &control)?;
    let tap = make()?;

    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_hwaddr = hardware(own.ethernet);
    ioctl(
        &control,
        libc::SIOCSIFHWADDR,
        &mut request,
        "set the Ethernet address",
    )?;
    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_mtu = MTU_BYTES;
    ioctl(&control, libc::SIOCSIFMTU, &mut request, "set the MTU")?;
    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_metric = FRAME_QUEUE;
    ioctl(
        &control,
        libc::SIOCSIFTXQLEN,
        &mut request,
        "set the queue length",
    )?;
    assign(own.address, &control)?;
    raise(DEVICE, &control)?;
    route_multicast(&control)?;
    if let Some(gateway) = gateway {
        introduce(gateway, &control)?;
        route_by(gateway.address, &control)?;
    } else {
        for peer in peers {
            introduce(*peer, &control)?;
        }
    }
    Ok(tap)
}

/// Gives the device another address; the old one is gone. For the namespace of the calling thread.
pub(crate) fn readdress(address: Ipv4Addr) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let control = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    assign(address, &control)
}

/// Tells the kernel of the calling thread's namespace where a host is now.
pub(crate) fn meet(peer: Station) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let control = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    introduce(peer, &control)
}

fn assign(address: Ipv4Addr, control: &OwnedFd) -> io::Result<()> {
    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_addr = internet(address);
    ioctl(control, libc::SIOCSIFADDR, &mut request, "set the address")?;
    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_netmask = internet(Ipv4Addr::new(255, 255, 255, 0));
    ioctl(
        control,
        libc::SIOCSIFNETMASK,
        &mut request,
        "set the network mask",
    )
}

fn make() -> io::Result<OwnedFd> {
    let tap: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|error| named("open /dev/net/tun", &error))?;
    let mut request = request_for(DEVICE);
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).expect("both flags are below 0x8000");
    ioctl(&tap, libc::TUNSETIFF, &mut request, "make the TAP device")?;
    Ok(tap.into())
}

fn raise(device: &str, control: &OwnedFd) -> io::Result<()> {
    let mut request = request_for(device);
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("both flags are below 0x8000");
    ioctl(
        control,
        libc::SIOCSIFFLAGS,
        &mut request,
        "bring a device up",
    )
}

/// Multicast goes out of the device, as it would on a machine with a default route.
fn route_multicast(control: &OwnedFd) -> io::Result<()> {
    let device = CString::new(DEVICE).expect("the name has no zero byte");
    let mut route: libc::rtentry = zeroed();
    route.rt_dst = internet(Ipv4Addr::new(224, 0, 0, 0));
    route.rt_genmask = internet(Ipv4Addr::new(240, 0, 0, 0));
    route.rt_flags = libc::RTF_UP;
    route.rt_dev = device.as_ptr().cast_mut();
    ioctl(control, libc::SIOCADDRT, &mut route, "route multicast")
}

/// Everything that is not near goes to the router.
fn route_by(gateway: Ipv4Addr, control: &OwnedFd) -> io::Result<()> {
    let mut route: libc::rtentry = zeroed();
    route.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = internet(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    ioctl(control, libc::SIOCADDRT, &mut route, "route by the gateway")
}

/// A permanent entry in the table of neighbours.
fn introduce(peer: Station, control: &OwnedFd) -> io::Result<()> {
    let mut entry: libc::arpreq = zeroed();
    entry.arp_pa = internet(peer.address);
    entry.arp_ha = hardware(peer.ethernet);
    entry.arp_flags = libc::ATF_PERM | libc::ATF_COM;
    copy_name(DEVICE, &mut entry.arp_dev);
    ioctl(control, libc::SIOCSARP, &mut entry, "name a neighbour")
}

fn request_for(device: &str) -> libc::ifreq {
    let mut request: libc::ifreq = zeroed();
    copy_name(device, &mut request.ifr_name);
    request
}

fn copy_name(name: &str, field: &mut [c_char; 16]) {
    for (slot, byte) in field.iter_mut().take(15).zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
}

fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (slot, byte) in data.iter_mut().skip(2).zip(address.octets()) {
        *slot = byte.cast_signed();
    }
    libc::sockaddr {
        sa_family: family(libc::AF_INET),
        sa_data: data,
    }
}

fn hardware(address: [u8; 6]) -> libc::sockaddr {
    let mut data = [0; 14];
    for (slot, byte) in data.iter_mut().zip(address) {
        *slot = byte.cast_signed();
    }
    libc::sockaddr {
        sa_family: libc::ARPHRD_ETHER,
        sa_data: data,
    }
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("families are small numbers")
}

/// The structures of these ioctls, empty.
trait Empty: Copy {}
impl Empty for libc::ifreq {}
impl Empty for libc::arpreq {}
impl Empty for libc::rtentry {}

#[expect(
    unsafe_code,
    reason = "the structures of the ioctls have no constructors"
)]
fn zeroed<T: Empty>() -> T {
    // SAFETY: `Empty` is private and implemented only for three C structures of integers, arrays of
    // integers and a nullable pointer, for which all zeroes is a value.
    unsafe { std::mem::zeroed() }
}

#[expect(unsafe_code, reason = "nix has no functions for these ioctls")]
fn ioctl<T: Empty>(
    file: &impl AsFd,
    request: libc::Ioctl,
    argument: &mut T,
    what: &str,
) -> io::Result<()> {
    // SAFETY: every caller passes the structure that its request asks for; it lives during the call,
    // and the kernel keeps no pointer into it.
    let result = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            request,
            std::ptr::from_mut(argument),
        )
    };
    if result < 0 {
        return Err(named(what, &io::Error::last_os_error()));
    }
    Ok(())
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}
