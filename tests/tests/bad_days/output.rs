//! Programs that write more than anybody can read.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use end_to_end::{LoopbackCloud, until, words};

use crate::rest;

/// How long the flood lasts while others are looked at.
const FLOOD: Duration = Duration::from_secs(4);
/// How long a call may take beside it.
const CALL_MAX: Duration = Duration::from_secs(3);
/// What of its output may be kept: the bound of a log and the segment that is being written.
const KEPT_BYTES_MAX: u64 = 24 << 20;

/// One program writes as fast as it can: what is kept of it is bounded, and the program beside it
/// loses no line and waits for nobody, nor do callers.
#[test]
fn a_flood_of_output_delays_nobody_else() {
    let cloud = LoopbackCloud::new(1, None);
    let mut beat = words("run -d --name beat --restart always -- sh -c");
    let script = "i=0; while :; do echo $i $(date +%s%3N); i=$((i+1)); sleep 0.05; done";
    beat.push(script.to_string());
    let _beat = cloud.welkin_with(0, &beat, b"").ok();
    let flood =
        "run -d --name flood --restart always -- yes a-line-of-some-forty-characters-of-text";
    let _flood = cloud.welkin(0, flood).ok();
    #[expect(clippy::disallowed_methods, reason = "what is measured is time")]
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < FLOOD {
        let before = began.elapsed();
        let _listed = cloud.welkin(0, "ps").ok();
        let _last = cloud.welkin(0, "logs --tail 10 flood").ok();
        slowest = slowest.max(began.elapsed() - before);
        rest(Duration::from_millis(100));
    }
    assert!(slowest < CALL_MAX * 2, "two calls took {slowest:?}");
    let log = until("the beat is there", CALL_MAX, || {
        let log = cloud.welkin(0, "logs beat").ok();
        (log.lines().count() > 20).then_some(log)
    });
    let beats: Vec<(u64, u64)> = log
        .lines()
        .map(|line| {
            let mut words = line
                .split_whitespace()
                .rev()
                .map(|word| word.parse().expect("a number"));
            let at = words.next().expect("the time");
            (words.next().expect("the count"), at)
        })
        .collect();
    for (number, pair) in beats.windows(2).enumerate() {
        assert_eq!(pair[1].0, number as u64 + 1, "no line is lost");
        assert!(pair[1].1 - pair[0].1 < 1500, "it waited: {pair:?}");
    }
    let kept = bytes_below(&cloud.state_dir(0).join("objects"));
    assert!(kept < KEPT_BYTES_MAX, "{kept} bytes are kept");
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(it) if it.is_dir() => bytes_below(&entry.path()),
        Ok(it) => it.len(),
        Err(_gone) => 0,
    });
    bytes.sum()
}
