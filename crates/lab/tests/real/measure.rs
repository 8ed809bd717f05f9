//! How fast the switch is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lab::Lab;

use crate::{now, start};

/// What a TCP connection carries, in Mbit/s, as its receiver sees it.
pub(crate) fn tcp_megabits(lab: &Lab, from: &str, to: &str, time: Duration) -> f64 {
    let to = lab.host(to);
    let listener = to
        .in_network(|| TcpListener::bind((to.address(), 0)))
        .expect("a port is free");
    let target = listener.local_addr().expect("it is bound");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let connected = lab.host(from).in_network(|| TcpStream::connect(target));
            let mut stream = connected.expect("it connects");
            // Ends when the receiver has had enough.
            while stream.write_all(&[7; 65_536]).is_ok() {}
        });
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = vec![0; 1 << 20];
        let (begin, mut bytes) = (now(), 0_u32);
        while begin.elapsed() < time {
            let count = stream.read(&mut buffer).expect("more comes");
            bytes += u32::try_from(count).expect("at most the buffer");
        }
        f64::from(bytes) * 8.0 / 1e6 / begin.elapsed().as_secs_f64()
    })
}

#[test]
fn a_perfect_link_carries_hundreds_of_megabits() {
    let lab = start(Lab::builder().hosts(2));
    let megabits = tcp_megabits(&lab, "h1", "h2", Duration::from_millis(700));
    // Far below what it does on an idle machine, for this runs beside other tests.
    assert!(megabits > 100.0, "{megabits} Mbit/s");
}
