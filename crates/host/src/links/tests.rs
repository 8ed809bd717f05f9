use std::net::UdpSocket;

use ed25519_dalek::SigningKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::JOIN_ALPN;
use wire::call::{Problem, ProblemCode};
use wire::id::{CloudId, TicketId, UnixMillis};
use wire::peer::{Door, JoinAnswer, Signature, Ticket, TicketBody};

use super::endpoint::STRANGER_STREAMS_MAX;
use super::*;

struct Node {
    links: Links,
    id: NodeId,
    inputs: mpsc::Receiver<Input>,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Node {
    async fn new(seed: u8) -> Self {
        Self::start(seed, &["127.0.0.1:0"], true).await
    }

    async fn start(seed: u8, listen: &[&str], carries: bool) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let (to_inputs, inputs) = mpsc::channel(64);
        let (to_arrivals, arrivals) = mpsc::channel(8);
        let listen: Vec<_> = listen.iter().map(|it| it.parse().unwrap()).collect();
        let metrics = Metrics::default();
        let links = Links::bind(&key, &listen, to_inputs, to_arrivals, metrics, carries)
            .await
            .unwrap();
        links.serve();
        Self {
            links,
            id: NodeId(key.verifying_key().to_bytes()),
            inputs,
            arrivals,
        }
    }

    fn addresses(&self) -> Vec<String> {
        self.links.bound().iter().map(ToString::to_string).collect()
    }

    fn knows(&self, other: &Self) {
        self.links.admit(other.id, &other.addresses(), &[]);
    }

    /// The next input that is not a measurement.
    async fn hears(&mut self) -> Input {
        loop {
            let input = self.hears_any().await;
            let is_aside = matches!(
                input,
                Input::RoundTrip { .. }
                    | Input::Linked { .. }
                    | Input::Line { .. }
                    | Input::Undialled { .. }
            );
            if !is_aside {
                return input;
            }
        }
    }

    /// The next input of any kind.
    async fn hears_any(&mut self) -> Input {
        let input = timeout(Duration::from_secs(12), self.inputs.recv()).await;
        input.expect("something is heard in time").unwrap()
    }

    async fn hears_message(&mut self, from: NodeId, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        assert_eq!(self.hears().await, Input::Message { from, bytes });
    }
}

/// Waits for what only shows in the state of a node.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let looked = timeout(Duration::from_secs(10), looking).await;
    looked.unwrap_or_else(|_| panic!("{what} in time"));
}

/// How long something is watched that must not happen. On loopback it would within a few
/// milliseconds.
const WATCH: Duration = Duration::from_millis(100);

async fn pair() -> (Node, Node) {
    let (a, b) = tokio::join!(Node::new(1), Node::new(2));
    a.knows(&b);
    b.knows(&a);
    (a, b)
}

#[tokio::test]
async fn messages_and_datagrams_arrive_with_the_key_that_sent_them() {
    let (a, mut b) = pair().await;
    let long = vec![7; 3 * 1024 * 1024];
    a.links.message(b.id, long.clone()).unwrap();
    b.hears_message(a.id, &long).await;
    let datagram = vec![9; DATAGRAM_BYTES_MAX];
    a.links.datagram(b.id, datagram.clone());
    let (from, bytes) = (a.id, datagram);
    assert_eq!(b.hears().await, Input::Datagram { from, bytes });
}

#[tokio::test]
async fn a_datagram_that_waited_for_the_dial_arrives() {
    let (a, mut b) = pair().await;
    a.links.datagram(b.id, vec![1; DATAGRAM_BYTES_MAX]);
    let (from, bytes) = (a.id, vec![1; DATAGRAM_BYTES_MAX]);
    assert_eq!(b.hears().await, Input::Datagram { from, bytes });
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_its_halves_close_apart() {
    let (a, mut b) = pair().await;
    let mut near = a.links.open(b.id).await.unwrap();
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let Some(Arrival::Stream(mut far)) = b.arrivals.recv().await else {
        panic!("a stream was expected");
    };
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    heard.clear();
    near.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "answer");
}

/// An object that says nothing gives the node no occasion to notice that its caller's node has
/// dropped the stream.
#[tokio::test]
async fn a_stream_that_was_dropped_is_told_from_one_that_only_sends_no_more() {
    let (a, mut b) = pair().await;
    let mut near = a.links.open(b.id).await.unwrap();
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let Some(Arrival::Stream(mut far)) = b.arrivals.recv().await else {
        panic!("a stream was expected");
    };
    // All that it sends is here, the end of it too: nothing is on its way that could still tell.
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    let mut stopped = Box::pin(far.stopped());
    let early = timeout(Duration::ZERO, &mut stopped).await;
    assert!(early.is_err(), "it still reads");
    drop(near);
    timeout(Duration::from_secs(5), stopped).await.unwrap();
}

#[tokio::test]
async fn links_that_both_sides_dial_at_once_lose_nothing() {
    let (mut a, mut b) = pair().await;
    for number in 0..20 {
        a.links.message(b.id, vec![number]).unwrap();
        b.links.message(a.id, vec![number]).unwrap();
    }
    for node in [&mut a, &mut b] {
        let mut heard = Vec::new();
        while heard.len() < 20 {
            let Input::Message { bytes, .. } = node.hears().await else {
                panic!("only messages were sent");
            };
            heard.extend(bytes);
        }
        heard.sort_unstable();
        assert_eq!(heard, (0..20).collect::<Vec<u8>>());
    }
}

#[tokio::test]
async fn a_stranger_is_refused_and_its_message_comes_back() {
    let (mut a, mut b) = tokio::join!(Node::new(1), Node::new(2));
    a.knows(&b);
    a.links.message(b.id, b"let me in".to_vec()).unwrap();
    let (to, bytes) = (b.id, b"let me in".to_vec());
    assert_eq!(a.hears().await, Input::Undelivered { to, bytes });
    assert!(b.inputs.try_recv().is_err());
    // The other way, nobody can even be dialled who is not known.
    assert_eq!(b.links.message(a.id, vec![1]), Err(vec![1]));
    assert_eq!(b.links.open(a.id).await.unwrap_err(), OpenError::Unknown);
}

#[tokio::test]
async fn an_expelled_member_is_cut_off() {
    let (mut a, mut b) = pair().await;
    a.links.message(b.id, b"hello".to_vec()).unwrap();
    b.hears_message(a.id, b"hello").await;
    b.links.expel(a.id);
    a.links.message(b.id, b"still here".to_vec()).unwrap();
    let (to, bytes) = (b.id, b"still here".to_vec());
    assert_eq!(a.hears().await, Input::Undelivered { to, bytes });
    assert!(b.inputs.try_recv().is_err());
}

#[tokio::test]
async fn a_dead_peer_stalls_nobody_and_its_messages_come_back_soon() {
    let (mut a, mut b) = pair().await;
    // It takes packets and never answers.
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = NodeId(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes());
    a.links
        .admit(dead, &[hole.local_addr().unwrap().to_string()], &[]);
    let began = clock::now();
    for number in 0..10 {
        a.links.message(dead, vec![number]).unwrap();
        a.links.datagram(dead, vec![number]);
    }
    a.links.message(b.id, b"you live".to_vec()).unwrap();
    b.hears_message(a.id, b"you live").await;
    assert!(clock::now().since(began) < Duration::from_secs(2));
    for number in 0..10 {
        let (to, bytes) = (dead, vec![number]);
        assert_eq!(a.hears().await, Input::Undelivered { to, bytes });
    }
    assert!(clock::now().since(began) < Duration::from_secs(6));
}

#[tokio::test]
async fn no_more_waits_for_a_dead_peer_than_the_limit() {
    let a = Node::new(1).await;
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = NodeId(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes());
    a.links
        .admit(dead, &[hole.local_addr().unwrap().to_string()], &[]);
    for _ in 0..MESSAGES_MAX {
        a.links.message(dead, vec![0]).unwrap();
    }
    assert_eq!(a.links.message(dead, vec![1]), Err(vec![1]));
    let b = Node::new(2).await;
    b.links
        .admit(dead, &[hole.local_addr().unwrap().to_string()], &[]);
    b.links
        .message(dead, vec![0; MESSAGE_BYTES_WAITING_MAX])
        .unwrap();
    assert_eq!(b.links.message(dead, vec![1]), Err(vec![1]));
}

#[tokio::test]
async fn a_peer_that_was_restarted_is_heard_on_its_new_link() {
    let (mut a, mut b) = pair().await;
    a.links.message(b.id, b"one".to_vec()).unwrap();
    b.hears_message(a.id, b"one").await;
    // As if it were killed: nobody is told.
    let mut again = Node::new(2).await;
    again.knows(&a);
    again.links.message(a.id, b"two".to_vec()).unwrap();
    a.hears_message(b.id, b"two").await;
    a.links.admit(b.id, &again.addresses(), &[]);
    {
        // Links that began at different times, as they do outside tests.
        let mut peers = a.links.peers();
        let links = &mut peers.get_mut(&b.id).unwrap().links;
        assert_eq!(links.len(), 2);
        Close::Replaced.apply(&links[0].connection);
    }
    a.links.message(b.id, b"three".to_vec()).unwrap();
    again.hears_message(a.id, b"three").await;
}

/// As if all links of this node had been made a while ago.
fn age(node: &Node) {
    for peer in node.links.peers().values_mut() {
        for link in &mut peer.links {
            link.opened = link.opened - twice::OVERLAP - Duration::from_secs(1);
        }
    }
}

/// A copied state directory made two machines one node, and nobody noticed.
#[tokio::test]
async fn the_second_of_two_processes_with_one_key_is_refused_and_both_are_named() {
    let (mut a, mut b) = pair().await;
    a.links.message(b.id, b"one".to_vec()).unwrap();
    b.hears_message(a.id, b"one").await;
    age(&a);
    let mut copy = Node::new(2).await;
    copy.knows(&a);
    copy.links.message(a.id, b"two".to_vec()).unwrap();
    let (first, second) = (b.addresses().remove(0), copy.addresses().remove(0));
    let twice = Input::Twice {
        node: b.id,
        first,
        second,
    };
    assert_eq!(a.hears().await, twice, "who refuses it knows both");
    assert_eq!(copy.hears().await, twice, "so does who was refused");
    let (to, bytes) = (a.id, b"two".to_vec());
    assert_eq!(copy.hears().await, Input::Undelivered { to, bytes });
    a.links.message(b.id, b"three".to_vec()).unwrap();
    b.hears_message(a.id, b"three").await;
    assert!(copy.inputs.try_recv().is_err(), "the first one is the node");
}

/// The two took each other's links away in turn when both were young, and neither was refused.
#[tokio::test]
async fn a_twin_is_refused_at_once_where_the_first_one_dialled() {
    let (mut a, mut b) = pair().await;
    b.links.message(a.id, b"one".to_vec()).unwrap();
    a.hears_message(b.id, b"one").await;
    let mut copy = Node::new(2).await;
    copy.knows(&a);
    copy.links.message(a.id, b"two".to_vec()).unwrap();
    assert!(matches!(a.hears().await, Input::Twice { node, .. } if node == b.id));
    assert!(matches!(copy.hears().await, Input::Twice { node, .. } if node == b.id));
    a.links.message(b.id, b"three".to_vec()).unwrap();
    b.hears_message(a.id, b"three").await;
}

#[tokio::test]
async fn a_peer_that_died_and_came_back_elsewhere_is_no_twin() {
    let mut a = Node::new(1).await;
    // The power of `b` goes: whatever runs there ends at once, and says nothing.
    let machine = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut b = machine.spawn(Node::new(2)).await.unwrap();
    a.knows(&b);
    b.knows(&a);
    a.links.message(b.id, b"one".to_vec()).unwrap();
    b.hears_message(a.id, b"one").await;
    age(&a);
    machine.shutdown_background();
    let again = Node::new(2).await;
    again.knows(&a);
    again.links.message(a.id, b"two".to_vec()).unwrap();
    a.hears_message(b.id, b"two").await;
}

#[tokio::test]
async fn a_link_that_nobody_uses_is_closed() {
    let (a, mut b) = pair().await;
    a.links.message(b.id, b"one".to_vec()).unwrap();
    b.hears_message(a.id, b"one").await;
    let open = |node: &Node| {
        node.links
            .peers()
            .values()
            .map(|peer| peer.links.len())
            .sum::<usize>()
    };
    a.links.sweep_once(clock::now());
    assert_eq!(open(&a), 1);
    a.links.sweep_once(clock::now() + UNUSED + UNUSED);
    a.links.sweep_once(clock::now());
    assert_eq!(open(&a), 0);
}

fn ticket(doors: Vec<Door>) -> Ticket {
    let body = TicketBody {
        cloud: CloudId([5; 32]),
        id: TicketId([6; 16]),
        issuer: NodeId([7; 32]),
        uses: 1,
        not_after: UnixMillis(u64::MAX),
        labels: [].into(),
        doors,
    };
    let signature = Signature([0; 64]);
    Ticket { body, signature }
}

#[tokio::test]
async fn a_machine_that_is_no_member_can_ask_to_join() {
    let mut door = Node::new(1).await;
    let key = SigningKey::from_bytes(&[8; 32]);
    let joiner = NodeId(key.verifying_key().to_bytes());
    let asker = join::Asker::bind(&key, &["127.0.0.1:0".parse().unwrap()])
        .await
        .unwrap();
    let at = Door {
        node: door.id,
        addresses: door.addresses(),
    };
    let request = JoinRequest {
        ticket: ticket(vec![at.clone()]),
        name: "new".to_owned(),
    };
    let refusal = JoinAnswer::Refused(Problem::new(ProblemCode::BadTicket, "no"));
    let asking = asker.ask(&at, &request);
    let answering = async {
        let Some(Arrival::Join {
            node,
            request,
            answer,
        }) = door.arrivals.recv().await
        else {
            panic!("a join was expected");
        };
        assert_eq!((node, request.name.as_str()), (joiner, "new"));
        answer.send(refusal.clone()).unwrap();
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer, Ok(refusal.clone()));
}

/// An end that speaks QUIC and keeps no rules.
async fn stranger(seed: u8) -> Endpoint {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let listen = ["127.0.0.1:0".parse().unwrap()];
    bind(&key, &listen, None).await.unwrap()
}

async fn dial(from: &Endpoint, to: &Node, alpn: &[u8]) -> Connection {
    let address = direct(to.id, to.links.bound()).unwrap();
    connect(from, address, alpn).await.unwrap()
}

/// A stranger that asked to join could make the node hold megabytes before it was known.
#[tokio::test]
async fn a_stranger_has_little_room_and_a_member_has_much() {
    let door = Node::new(1).await;
    let endpoint = stranger(8).await;
    let connection = dial(&endpoint, &door, JOIN_ALPN).await;
    let mut streams = Vec::new();
    for _ in 0..STRANGER_STREAMS_MAX {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[0; 1024]).await.unwrap();
        streams.push(stream);
    }
    assert!(timeout(WATCH, connection.open_uni()).await.is_err());
    let mut written = streams.len() * 1024;
    while written < STRANGER_BYTES_MAX {
        let room = vec![0; STRANGER_BYTES_MAX - written];
        written += streams[0].write(&room).await.unwrap();
    }
    assert!(timeout(WATCH, streams[0].write(&[0])).await.is_err());
    // Members need far more streams at a time than strangers have.
    let (a, mut b) = pair().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(a.links.open(b.id).await.unwrap());
        held.last_mut().unwrap().write_all(b"x").await.unwrap();
        let arrived = timeout(Duration::from_secs(2), b.arrivals.recv()).await;
        assert!(matches!(arrived, Ok(Some(Arrival::Stream(_)))));
    }
}

#[tokio::test]
async fn a_request_to_join_that_is_too_long_is_refused() {
    let door = Node::new(1).await;
    let endpoint = stranger(8).await;
    let connection = dial(&endpoint, &door, JOIN_ALPN).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let length = u32::try_from(wire::peer::JOIN_REQUEST_BYTES_MAX + 1).unwrap();
    send.write_u32(length).await.unwrap();
    let closed = timeout(Duration::from_secs(2), connection.closed()).await;
    let reason = closed.unwrap().to_string();
    assert!(reason.contains("protocol was not kept"), "{reason}");
}

/// A machine that asks and says nothing kept one of 32 places for twenty seconds.
#[tokio::test]
async fn machines_that_ask_and_say_nothing_keep_nobody_out() {
    let mut door = Node::new(1).await;
    let endpoint = stranger(8).await;
    let mut silent = Vec::new();
    for _ in 0..accept::JOINS_MAX {
        silent.push(dial(&endpoint, &door, JOIN_ALPN).await);
    }
    let key = SigningKey::from_bytes(&[9; 32]);
    let asker = join::Asker::bind(&key, &["127.0.0.1:0".parse().unwrap()])
        .await
        .unwrap();
    let at = Door {
        node: door.id,
        addresses: door.addresses(),
    };
    let request = JoinRequest {
        ticket: ticket(vec![at.clone()]),
        name: "new".to_owned(),
    };
    let refusal = JoinAnswer::Refused(Problem::new(ProblemCode::BadTicket, "no"));
    let answering = async {
        let Some(Arrival::Join { answer, .. }) = door.arrivals.recv().await else {
            panic!("a join was expected");
        };
        answer.send(refusal.clone()).unwrap();
    };
    let (answer, ()) = tokio::join!(asker.ask(&at, &request), answering);
    assert_eq!(answer, Ok(refusal.clone()));
    // And they are sent away soon.
    let closed = timeout(Duration::from_secs(5), silent[0].closed()).await;
    assert!(closed.is_ok());
}

fn tokio_socket(socket: UdpSocket) -> tokio::net::UdpSocket {
    socket.set_nonblocking(true).unwrap();
    tokio::net::UdpSocket::from_std(socket).unwrap()
}

/// Half of the places for handshakes are taken by packets whose senders are made up: whoever
/// comes then must prove its address, and does so without noticing.
#[tokio::test]
async fn a_crowd_of_strangers_does_not_keep_a_member_out() {
    let (a, mut b) = pair().await;
    let handshakes = Arc::clone(&b.links.shared.handshakes);
    let crowd = u32::try_from(accept::HANDSHAKES_MAX / 2 + 1).unwrap();
    let _crowd = handshakes.acquire_many(crowd).await.unwrap();
    a.links.message(b.id, b"hello".to_vec()).unwrap();
    b.hears_message(a.id, b"hello").await;
    // Somebody who never answers takes no place any more.
    let free = b.links.shared.handshakes.available_permits();
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let eavesdropper = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = stranger(8).await;
    let address = eavesdropper.local_addr().unwrap();
    let dialling = connect(&endpoint, direct(b.id, vec![address]).unwrap(), PEER_ALPN);
    let relaying = async {
        let eavesdropper = tokio_socket(eavesdropper);
        let mut packet = [0; 2048];
        let (length, _) = eavesdropper.recv_from(&mut packet).await.unwrap();
        let deaf = tokio_socket(deaf);
        deaf.send_to(&packet[..length], b.links.bound()[0])
            .await
            .unwrap();
        // What it is answered, with or without a place, is there once the place is taken or not.
        deaf.recv_from(&mut packet).await.unwrap();
    };
    tokio::select! {
        _ = dialling => panic!("nobody answers it"),
        relayed = timeout(Duration::from_secs(5), relaying) => relayed.unwrap(),
    }
    assert_eq!(b.links.shared.handshakes.available_permits(), free);
}

/// Sixteen long messages that never ended held all places, and so everybody else's.
#[tokio::test]
async fn one_peer_with_slow_long_messages_holds_up_nobody_else() {
    let (a, mut b) = pair().await;
    let c = Node::new(3).await;
    c.knows(&b);
    b.knows(&c);
    a.links.message(b.id, b"hello".to_vec()).unwrap();
    b.hears_message(a.id, b"hello").await;
    let link = a.links.peers().get_mut(&b.id).unwrap().link(a.id).unwrap();
    let mut unfinished = Vec::new();
    for _ in 0..2 * accept::LARGE_MESSAGES_MAX {
        let mut stream = link.connection.open_uni().await.unwrap();
        stream.write_all(&[1; 80 * 1024]).await.unwrap();
        unfinished.push(stream);
    }
    let held = {
        let of_peer = Arc::clone(&b.links.peers()[&a.id].links[0].large);
        let of_all = Arc::clone(&b.links.shared.large);
        move || {
            (
                of_peer.available_permits(),
                accept::LARGE_MESSAGES_MAX - of_all.available_permits(),
            )
        }
    };
    let all_of_its_own = (0, accept::LARGE_MESSAGES_OF_PEER_MAX);
    until("it holds all of its own places", || {
        held() == all_of_its_own
    })
    .await;
    let long = vec![7; 1024 * 1024];
    c.links.message(b.id, long.clone()).unwrap();
    let heard = timeout(Duration::from_secs(10), b.hears_message(c.id, &long)).await;
    heard.expect("the places of one peer are few");
    until("it holds no others", || held() == all_of_its_own).await;
}

/// Carries packets between a node and whoever dials it; tells when the first one was carried.
async fn carry(between: &tokio::net::UdpSocket, node: SocketAddr, first: oneshot::Sender<()>) {
    let (mut caller, mut first) = (None, Some(first));
    let mut packet = [0; 2048];
    loop {
        let (length, from) = between.recv_from(&mut packet).await.unwrap();
        let to = if from == node {
            caller
        } else {
            caller = Some(from);
            Some(node)
        };
        if let Some(to) = to {
            between.send_to(&packet[..length], to).await.unwrap();
        }
        first.take().map(|first| first.send(()));
    }
}

/// Members that dialled during a start were refused as strangers: who belongs to the cloud was
/// not known yet.
#[tokio::test]
async fn a_member_that_comes_before_members_are_known_waits() {
    let mut a = Node::new(1).await;
    let key = SigningKey::from_bytes(&[2; 32]);
    let (to_inputs, mut inputs) = mpsc::channel(64);
    let (to_arrivals, _arrivals) = mpsc::channel(8);
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let links = Links::bind(
        &key,
        &listen,
        to_inputs,
        to_arrivals,
        Metrics::default(),
        true,
    );
    let links = links.await.unwrap();
    let id = NodeId(key.verifying_key().to_bytes());
    let between = tokio_socket(UdpSocket::bind("127.0.0.1:0").unwrap());
    a.links
        .admit(id, &[between.local_addr().unwrap().to_string()], &[]);
    a.links.message(id, b"early".to_vec()).unwrap();
    let (dialled, dial) = oneshot::channel();
    let waiting = async {
        dial.await.unwrap();
        let refused = timeout(WATCH, a.inputs.recv()).await;
        assert!(refused.is_err(), "{refused:?}");
        links.admit(a.id, &a.addresses(), &[]);
        links.serve();
        let (from, bytes) = (a.id, b"early".to_vec());
        let message = Some(Input::Message { from, bytes });
        let linked = Input::Linked {
            node: a.id,
            via: None,
        };
        assert_eq!(inputs.recv().await, Some(linked));
        assert_eq!(inputs.recv().await, message);
    };
    tokio::select! {
        waited = timeout(Duration::from_secs(10), waiting) => waited.expect("it is heard in time"),
        () = carry(&between, links.bound()[0], dialled) => unreachable!("it carries for ever"),
    }
}

mod relayed;
