//! Nodes that know no address of each other that answers, and a third that both reach.

use kernel::world::LineState;

use super::*;

/// Two nodes that only find each other by others: they share no family of addresses.
struct Trio {
    a: Node,
    b: Node,
    relays: Vec<Node>,
}

const BOTH: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

impl Trio {
    async fn new(relays: u8) -> Self {
        let mut trio = Self::with(relays, true).await;
        for _ in &trio.relays {
            assert!(trio.b.hears_line().await.1);
        }
        trio
    }

    async fn with(relays: u8, carries: bool) -> Self {
        let (a, b) = (["[::1]:0"], ["127.0.0.1:0"]);
        let (a, b) = tokio::join!(Node::start(1, &a, true), Node::start(2, &b, true));
        let mut all = Vec::new();
        for seed in 0..relays {
            let relay = Node::start(seed + 3, &BOTH, carries).await;
            for node in [&a, &b] {
                node.knows(&relay);
                relay.knows(node);
            }
            all.push(relay);
        }
        let ids: Vec<NodeId> = all.iter().map(|relay| relay.id).collect();
        a.links.admit(b.id, &b.addresses(), &ids);
        b.links.admit(a.id, &a.addresses(), &ids);
        b.links.hold_lines(ids);
        Self { a, b, relays: all }
    }
}

impl Node {
    /// The next line that is open: where it is seen, and whether it carries.
    async fn hears_line(&mut self) -> (String, bool) {
        loop {
            if let Input::Line {
                state: LineState::Open { seen, carries },
                ..
            } = self.hears_any().await
            {
                return (seen, carries);
            }
        }
    }

    /// The next word about the way of a link.
    async fn hears_way(&mut self) -> Option<NodeId> {
        loop {
            if let Input::Linked { via, .. } = self.hears_any().await {
                return via;
            }
        }
    }
}

#[tokio::test]
async fn what_is_sent_to_a_node_that_cannot_be_dialled_comes_by_a_third() {
    let mut trio = Trio::new(1).await;
    let (a, b) = (&mut trio.a, &mut trio.b);
    a.links.message(b.id, b"first".to_vec()).unwrap();
    assert_eq!(a.hears_way().await, Some(trio.relays[0].id));
    b.hears_message(a.id, b"first").await;
    let long = vec![7; 3 * 1024 * 1024];
    a.links.message(b.id, long.clone()).unwrap();
    b.hears_message(a.id, &long).await;
    a.links.datagram(b.id, vec![9; DATAGRAM_BYTES_MAX]);
    let (from, bytes) = (a.id, vec![9; DATAGRAM_BYTES_MAX]);
    assert_eq!(b.hears().await, Input::Datagram { from, bytes });
    b.links.message(a.id, b"and back".to_vec()).unwrap();
    a.hears_message(b.id, b"and back").await;
    // What it carries is no secret that it could tell: nothing came to its own kernel.
    let relay = &mut trio.relays[0];
    while let Ok(input) = relay.inputs.try_recv() {
        assert!(!matches!(
            input,
            Input::Message { .. } | Input::Datagram { .. }
        ));
    }
}

#[tokio::test]
async fn a_relay_tells_where_it_sees_a_node() {
    let (mut a, relay) = pair().await;
    a.links.hold_lines(vec![relay.id]);
    assert_eq!(a.hears_line().await, (a.addresses()[0].clone(), true));
}

#[tokio::test]
async fn when_a_relay_dies_packets_go_by_another_within_seconds() {
    let mut trio = Trio::new(2).await;
    let (a, b) = (&mut trio.a, &mut trio.b);
    a.links.message(b.id, b"first".to_vec()).unwrap();
    b.hears_message(a.id, b"first").await;
    let via = a.hears_way().await.expect("it is relayed");
    let at = trio.relays.iter().position(|it| it.id == via);
    let dead = trio.relays.remove(at.expect("one of them"));
    // It takes packets and does nothing with them any more.
    dead.links.shared.stop.cancel();
    let began = clock::now();
    a.links.message(b.id, b"second".to_vec()).unwrap();
    b.hears_message(a.id, b"second").await;
    let took = clock::now().since(began);
    assert!(took < Duration::from_secs(4), "{took:?}");
    // It is the same link: nothing was undelivered on the way.
    assert_eq!(a.links.peers()[&b.id].links.len(), 1);
}

#[tokio::test]
async fn a_stranger_gets_no_line_and_nobody_is_reached_without_one() {
    let mut trio = Trio::new(1).await;
    let mut stranger = Node::new(9).await;
    let relay = &trio.relays[0];
    stranger.knows(relay);
    stranger.links.hold_lines(vec![relay.id]);
    let closed = Input::Line {
        relay: relay.id,
        state: LineState::Closed,
    };
    while stranger.hears_any().await != closed {}
    // The one that holds no line is a member, and cannot be sent to.
    let (to, bytes) = (trio.a.id, b"hello".to_vec());
    trio.b.links.message(to, bytes.clone()).unwrap();
    assert_eq!(trio.b.hears().await, Input::Undelivered { to, bytes });
}

#[tokio::test]
async fn a_node_that_does_not_carry_says_so_and_carries_nothing() {
    let Trio {
        mut a,
        mut b,
        relays: _relays,
    } = Trio::with(1, false).await;
    assert!(!b.hears_line().await.1);
    a.links.message(b.id, b"hello".to_vec()).unwrap();
    let (to, bytes) = (b.id, b"hello".to_vec());
    assert_eq!(a.hears().await, Input::Undelivered { to, bytes });
}

/// The longest messages arrive whole, by a relay as without one. How fast, it says: `cargo test -p
/// host --release --lib -- --nocapture longest_messages`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "it is what is measured")]
async fn the_longest_messages_go_through_a_relay() {
    let mut trio = Trio::new(1).await;
    for (way, to) in [("relayed", trio.b.id), ("direct", trio.relays[0].id)] {
        let bytes = vec![7; 7 * 1024 * 1024];
        trio.a.links.message(to, vec![1]).unwrap();
        let hearer = match way {
            "relayed" => &mut trio.b,
            _ => &mut trio.relays[0],
        };
        hearer.hears_message(trio.a.id, &[1]).await;
        let began = clock::now();
        for _ in 0..2 {
            trio.a.links.message(to, bytes.clone()).unwrap();
            hearer.hears_message(trio.a.id, &bytes).await;
        }
        let took = clock::now().since(began);
        let rate = 14.0 / took.as_secs_f64();
        let began = clock::now();
        for _ in 0..200 {
            trio.a.links.message(to, vec![2]).unwrap();
            hearer.hears_message(trio.a.id, &[2]).await;
        }
        let each = clock::now().since(began) / 200;
        eprintln!("{way}: {rate:.1} MiB/s, a short message arrives after {each:?}");
    }
}
