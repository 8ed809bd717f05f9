//! What programs on hosts see of the network: addresses, delay, loss, rate, cuts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use lab::{Lab, Link, Nat, NetworkError, Wan, Ways};

use crate::{SOON, eventually, now, start};

fn udp(lab: &Lab, host: &str) -> UdpSocket {
    let host = lab.host(host);
    let socket = host
        .in_network(|| UdpSocket::bind((host.address(), 0)))
        .expect("a port is free");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

/// Whether a datagram from one arrives at the other before `limit`.
fn arrives(from: &UdpSocket, to: &UdpSocket, limit: Duration) -> bool {
    to.set_read_timeout(Some(limit)).expect("a timeout");
    from.send_to(b"hello", address(to)).expect("sending works");
    to.recv(&mut [0; 16]).is_ok()
}

/// The shortest of some times that a datagram takes there and back.
pub(crate) fn round_trip(a: &UdpSocket, b: &UdpSocket, probes: usize) -> Duration {
    let mut buffer = [0; 16];
    let mut probe = || {
        let start = now();
        a.send_to(b"there", address(b)).expect("sending works");
        let (length, from) = b.recv_from(&mut buffer).expect("it arrives");
        b.send_to(&buffer[..length], from).expect("sending works");
        a.recv(&mut buffer).expect("it comes back");
        start.elapsed()
    };
    let times = (0..probes).map(|_| probe());
    times.min().expect("there is a probe")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[test]
fn every_host_reaches_every_other_by_its_address() {
    let lab = start(Lab::builder().hosts(4));
    for a in lab.hosts() {
        for b in lab.hosts().iter().filter(|b| b.name() != a.name()) {
            round_trip(&udp(&lab, a.name()), &udp(&lab, b.name()), 1);
        }
    }
    assert_eq!(lab.host("h4").address().to_string(), "10.77.0.4");
}

#[test]
fn a_host_reaches_itself_by_its_address_and_others_cannot_see_its_loopback() {
    let lab = start(Lab::builder().hosts(2));
    round_trip(&udp(&lab, "h1"), &udp(&lab, "h1"), 1);
    let listener = lab
        .host("h1")
        .in_network(|| TcpListener::bind("127.0.0.1:0"))
        .expect("a port is free");
    let loopback = listener.local_addr().expect("it is bound");
    let refused = lab.host("h2").in_network(|| TcpStream::connect(loopback));
    refused.expect_err("the loopback of another host");
}

#[test]
fn bytes_over_tcp_arrive_whole_over_a_bad_link() {
    let lab = start(Lab::builder().hosts(2));
    let link = Link::with_delay(Duration::from_millis(5))
        .jitter(Duration::from_millis(2))
        .loss(0.01);
    lab.link("h1", "h2", link).expect("both exist");
    let server = lab.host("h2");
    let listener = server
        .in_network(|| TcpListener::bind((server.address(), 0)))
        .expect("a port is free");
    let target = listener.local_addr().expect("it is bound");
    let sent: Vec<u8> = (0..1_000_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    let got = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut got = Vec::new();
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.read_to_end(&mut got).expect("it ends well");
            got
        });
        let mut stream = lab
            .host("h1")
            .in_network(|| TcpStream::connect(target))
            .expect("it connects");
        stream.write_all(&sent).expect("it goes");
        drop(stream);
        receiver.join().expect("no panic")
    });
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert!(
        lab.status().counters.lost > 0,
        "the link was to lose frames"
    );
}

#[test]
fn the_round_trip_is_the_delay_there_and_the_delay_back() {
    let lab = start(Lab::builder().hosts(3));
    let link = |ms| Link::with_delay(Duration::from_millis(ms));
    lab.link_one_way("h1", "h2", link(30)).expect("both exist");
    lab.link_one_way("h2", "h1", link(10)).expect("both exist");
    let (h1, h2, h3) = (udp(&lab, "h1"), udp(&lab, "h2"), udp(&lab, "h3"));
    let slow = milliseconds(round_trip(&h1, &h2, 10));
    assert!(
        (40.0..42.0).contains(&slow),
        "40 ms asked, {slow} ms measured"
    );
    let fast = milliseconds(round_trip(&h1, &h3, 20));
    assert!(fast < 2.0, "a perfect link takes {fast} ms");
    // While it runs.
    lab.link("h1", "h2", Link::default()).expect("both exist");
    let now_fast = milliseconds(round_trip(&h1, &h2, 20));
    assert!(now_fast < 2.0, "a link made perfect takes {now_fast} ms");
    assert_eq!(
        lab.link_between("h1", "h3").expect("both exist"),
        Link::default()
    );
}

#[test]
fn a_wan_matrix_gives_every_pair_its_round_trip() {
    let wan = Wan::builtin();
    let lab = start(
        Lab::builder()
            .hosts(3)
            .wan(wan)
            .sites(["virginia", "oregon"]),
    );
    assert_eq!(lab.host("h3").site(), Some("virginia"));
    let (h1, h2, h3) = (udp(&lab, "h1"), udp(&lab, "h2"), udp(&lab, "h3"));
    let far = milliseconds(round_trip(&h1, &h2, 5));
    assert!(
        (66.0..68.0).contains(&far),
        "66 ms asked, {far} ms measured"
    );
    let near = milliseconds(round_trip(&h1, &h3, 20));
    assert!(
        (0.6..2.6).contains(&near),
        "0.6 ms asked, {near} ms measured"
    );
    lab.link("h1", "h2", Link::default()).expect("both exist");
    lab.reset_links().expect("there is a network");
    let far = milliseconds(round_trip(&h1, &h2, 5));
    assert!(
        (66.0..68.0).contains(&far),
        "66 ms asked, {far} ms measured"
    );
}

#[test]
fn jitter_spreads_the_delay_within_its_bounds() {
    let lab = start(Lab::builder().hosts(2));
    let link = Link::with_delay(Duration::from_millis(10)).jitter(Duration::from_millis(8));
    lab.link("h1", "h2", link).expect("both exist");
    let (h1, h2) = (udp(&lab, "h1"), udp(&lab, "h2"));
    let times: Vec<f64> = (0..40)
        .map(|_| milliseconds(round_trip(&h1, &h2, 1)))
        .collect();
    let least = times.iter().copied().fold(f64::MAX, f64::min);
    let most = times.iter().copied().fold(0.0, f64::max);
    assert!((4.0..20.0).contains(&least), "{least} ms");
    assert!((20.0..60.0).contains(&most), "{most} ms");
    assert!(most - least > 5.0, "from {least} to {most} ms");
}

#[test]
fn a_lossy_link_loses_about_the_asked_share() {
    let lab = start(Lab::builder().hosts(2));
    let link = Link::default().loss(0.2);
    lab.link_one_way("h1", "h2", link).expect("both exist");
    let (h1, h2) = (udp(&lab, "h1"), udp(&lab, "h2"));
    h2.set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    let (mut sent, mut got) = (0, 0);
    // In small batches, so that no socket buffer adds a loss of its own.
    for _ in 0..40 {
        for _ in 0..50 {
            h1.send_to(b"x", address(&h2)).expect("sending works");
            sent += 1;
        }
        while h2.recv(&mut [0; 4]).is_ok() {
            got += 1;
        }
    }
    let share = f64::from(sent - got) / f64::from(sent);
    assert!((0.16..0.24).contains(&share), "20% asked, {share} measured");
    assert!(
        (0..5).all(|_| arrives(&h2, &h1, SOON)),
        "the way back is not lossy"
    );
}

#[test]
fn a_rate_limits_what_a_link_carries() {
    let lab = start(Lab::builder().hosts(2));
    let link = Link::default().rate(20_000_000);
    lab.link("h1", "h2", link).expect("both exist");
    let megabits = crate::measure::tcp_megabits(&lab, "h1", "h2", Duration::from_secs(2));
    assert!(
        (16.0..=20.5).contains(&megabits),
        "20 Mbit/s asked, {megabits} measured"
    );
}

#[test]
fn a_cut_can_be_one_way_and_heals() {
    let lab = start(Lab::builder().hosts(3));
    let (h1, h2, h3) = (udp(&lab, "h1"), udp(&lab, "h2"), udp(&lab, "h3"));
    let moment = Duration::from_millis(100);
    lab.cut(&["h1"], &["h2"], Ways::LeftToRight)
        .expect("both exist");
    assert!(!arrives(&h1, &h2, moment), "the cut way");
    assert!(arrives(&h2, &h1, SOON), "the way back");
    assert!(arrives(&h1, &h3, SOON), "another link");
    lab.cut(&["h1", "h2"], &["h3"], Ways::Both)
        .expect("all exist");
    assert!(!arrives(&h3, &h1, moment) && !arrives(&h2, &h3, moment));
    lab.heal().expect("there is a network");
    for (from, to) in [(&h1, &h2), (&h2, &h1), (&h3, &h1), (&h2, &h3)] {
        assert!(arrives(from, to, SOON), "after healing");
    }
}

#[test]
fn a_cut_stops_what_is_in_flight() {
    let lab = start(Lab::builder().hosts(2));
    let delay = Duration::from_millis(200);
    lab.link("h1", "h2", Link::with_delay(delay))
        .expect("both exist");
    let (h1, h2) = (udp(&lab, "h1"), udp(&lab, "h2"));
    let before = lab.status().counters;
    h1.send_to(b"x", address(&h2)).expect("sending works");
    lab.cut(&["h1"], &["h2"], Ways::Both).expect("both exist");
    lab.heal().expect("there is a network");
    h2.set_read_timeout(Some(2 * delay)).expect("a timeout");
    h2.recv(&mut [0; 4]).expect_err("it was cut off");
    eventually("the frame is counted", || {
        lab.status().counters.cut > before.cut
    });
}

#[test]
fn names_and_values_that_make_no_sense_are_refused() {
    let lab = start(Lab::builder().hosts(2));
    let unknown = lab.cut(&["h1"], &["h7"], Ways::Both);
    assert!(matches!(unknown, Err(NetworkError::NoSuchHost(name)) if name == "h7"));
    let same = lab.link("h1", "h1", Link::default());
    assert!(matches!(same, Err(NetworkError::SameHost)));
    for link in [Link::default().loss(1.5), Link::default().rate(0)] {
        let bad = lab.link("h1", "h2", link);
        assert!(matches!(bad, Err(NetworkError::BadLink(_))), "{link:?}");
    }
}

#[test]
fn multicast_reaches_all_hosts() {
    let lab = start(Lab::builder().hosts(3));
    let group = Ipv4Addr::new(239, 7, 7, 7);
    let member = |name: &str| {
        let host = lab.host(name);
        let made = host.in_network(|| {
            let socket = UdpSocket::bind((group, 7777))?;
            socket.join_multicast_v4(&group, &host.address())?;
            socket.set_read_timeout(Some(SOON))?;
            Ok(socket)
        });
        made.expect("a member of the group")
    };
    let members = [member("h2"), member("h3")];
    udp(&lab, "h1")
        .send_to(b"all", (group, 7777))
        .expect("sending works");
    for socket in &members {
        assert_eq!(socket.recv(&mut [0; 16]).expect("it arrives"), 3);
    }
}

#[test]
fn behind_a_router_a_host_is_reached_only_where_it_has_sent_to() {
    let lab = start(Lab::builder().hosts(3).behind("h2", Nat::Cone));
    let inside = lab
        .host("h2")
        .in_network(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("a port is free");
    inside.set_read_timeout(Some(SOON)).expect("a timeout");
    let (friend, stranger) = (udp(&lab, "h1"), udp(&lab, "h3"));
    inside
        .send_to(b"there", address(&friend))
        .expect("it sends");
    let mut buffer = [0; 16];
    let (_, seen) = friend.recv_from(&mut buffer).expect("it arrives");
    assert_eq!(seen.ip(), lab.host("h2").address(), "its router's address");
    stranger.send_to(b"unasked", seen).expect("it sends");
    friend.send_to(b"back", seen).expect("it sends");
    let (length, from) = inside.recv_from(&mut buffer).expect("it arrives");
    assert_eq!(
        &buffer[..length],
        b"back",
        "and nothing that was not asked for"
    );
    assert_eq!(from, address(&friend));
}

#[test]
fn a_host_that_moves_is_reached_at_its_new_address_and_not_at_the_old_one() {
    let lab = start(Lab::builder().hosts(3).behind("h3", Nat::Cone));
    let old = udp(&lab, "h2");
    for (host, last) in [("h2", 102), ("h3", 103)] {
        let place = Ipv4Addr::new(10, 77, 0, last);
        lab.host(host).move_to(place).expect("it is up");
        assert_eq!(lab.host(host).address(), place);
    }
    let inside = lab
        .host("h3")
        .in_network(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("a port is free");
    // From behind the router to the one that moved, and back.
    let there = udp(&lab, "h2");
    inside.send_to(b"there", address(&there)).expect("it sends");
    let (_, seen) = there.recv_from(&mut [0; 16]).expect("it arrives");
    assert_eq!(seen.ip(), lab.host("h3").address());
    round_trip(&udp(&lab, "h1"), &there, 1);
    let nobody = arrives(&udp(&lab, "h1"), &old, Duration::from_millis(100));
    assert!(!nobody, "nobody is at the old address");
}
