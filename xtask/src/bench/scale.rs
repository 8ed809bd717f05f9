//! Large clouds of whole kernels in the simulator, with latencies between cities of the world. The
//! figures are of simulated time, so they are the same on every machine.

use std::time::Duration;

use sim::figures::{Cloud, PACKET_HEADER_BYTES};

use super::{Figure, now};

/// Of one seed, so that it makes the same figures every time.
const SEED: u64 = 1;
/// Clouds whose idle traffic is compared.
const SIZES: [usize; 3] = [10, 100, 1_000];
/// The cloud of all other figures.
const LARGE: usize = 1_000;
/// Crashes that are waited for.
const CRASHES: usize = 5;

const MINUTE: Duration = Duration::from_secs(60);

/// What a made-up world is asked takes minutes: once, whatever was asked for.
pub(super) fn measure() -> Vec<Figure> {
    let mut figures = Vec::new();
    for size in SIZES {
        let began = now();
        let mut cloud = Cloud::at_rest(SEED, size);
        figures.push(idle(&mut cloud, size));
        if size == LARGE {
            eprintln!("bench: {size} idle nodes after {:?}", began.elapsed());
            figures.extend(large(&mut cloud));
        }
        eprintln!("bench: {size} nodes took {:?}", began.elapsed());
    }
    figures
}

/// What kernels hand to the network, with the headers of IP and UDP; without those of QUIC.
fn idle(cloud: &mut Cloud, size: usize) -> Figure {
    let traffic = cloud.idle(10 * MINUTE);
    let packets = traffic.datagrams + traffic.messages;
    let bytes =
        traffic.datagram_bytes + traffic.message_bytes + packets * f64::from(PACKET_HEADER_BYTES);
    let figure = Figure::new(format!("{size} nodes idle, each says"), "B/s", vec![bytes]);
    figure.goal("130 B/s, flat", bytes <= 130.0)
}

fn large(cloud: &mut Cloud) -> Vec<Figure> {
    let (mut most, mut all) = (Vec::new(), Vec::new());
    for _ in 0..CRASHES {
        let known = cloud.crash();
        let ninety_nine = known.get((known.len() * 99).div_ceil(100).saturating_sub(1));
        most.extend(ninety_nine.map(Duration::as_secs_f64));
        all.extend(known.last().map(Duration::as_secs_f64));
    }
    let most = Figure::new("1,000 nodes, a crash: known to 99 %", "s", most);
    let in_time = most.worst() <= 8.0;
    let errors = cloud.lossy(60 * MINUTE);
    let count = |number: u64| u32::try_from(number).map_or(f64::INFINITY, f64::from);
    let suspicions = vec![count(errors.suspicions)];
    let losses = Figure::new(
        "the same for an hour at 2 % loss: live nodes held as lost",
        "",
        vec![count(errors.losses)],
    );
    let isolation = cloud.isolation(LARGE / 10, 2 * MINUTE);
    let halves = cloud.halves(10 * MINUTE);
    let seconds = |took: Option<Duration>| took.map_or(f64::INFINITY, |it| it.as_secs_f64());
    let (alone, apart) = (seconds(isolation.took), seconds(halves.took));
    vec![
        most.goal("8 s", in_time),
        Figure::new("1,000 nodes, a crash: known to all", "s", all),
        losses.goal("none", errors.losses == 0),
        Figure::new("the same: live nodes suspected", "", suspicions),
        Figure::new("100 of 1,000 alone for 2 min: one again", "s", vec![alone])
            .goal("55 s", alone <= 55.0),
        Figure::new("1,000 in halves for 10 min: one again", "s", vec![apart])
            .goal("30 s", apart <= 30.0),
        Figure::new(
            "the same: said by each until then",
            "kB",
            vec![halves.bytes / 1e3],
        ),
    ]
}
