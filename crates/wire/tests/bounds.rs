//! Decoders that face a peer, a shim, a disk or a person: they never panic and never allocate
//! beyond their limits, whatever the bytes are.

use proptest::prelude::*;
use wire::peer::{JoinRequest, Message, Ticket};
use wire::stream::{Frame, HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _refused = wire::decode::<Message>(&bytes, wire::peer::MESSAGE_BYTES_MAX);
        let _refused = wire::decode::<JoinRequest>(&bytes, wire::peer::JOIN_REQUEST_BYTES_MAX);
        let _refused = wire::decode::<wire::driver::Launch>(&bytes, wire::driver::LAUNCH_BYTES_MAX);
        let _refused = wire::decode::<wire::driver::ShimReport>(&bytes, PAYLOAD_BYTES_MAX);
        let _refused = wire::disk::unseal::<wire::peer::AppRecord>(&bytes);
        let _refused = Frame::decode(&bytes);
        let _refused = Ticket::from_text(&String::from_utf8_lossy(&bytes));
        let _refused = wire::relay::Frame::parse(&bytes);
        let _refused = wire::decode::<wire::relay::LineWelcome>(&bytes, wire::relay::WELCOME_BYTES_MAX);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,80}") {
        let _refused = text.parse::<wire::spec::Constraint>();
        let _refused = wire::spec::parse_amount(&text);
        let _refused = wire::spec::check_name(&text);
        let _refused = text.parse::<wire::id::ObjectId>();
        let _refused = Ticket::from_text(&format!("welkin1-{text}"));
    }

    #[test]
    fn frames_come_out_as_they_went_in(payload in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let frame = Frame::new(Kind::Stdout, &payload);
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes.extend_from_slice(b"and the next");
        let (decoded, taken) = Frame::decode(&bytes).expect("whole").expect("complete");
        prop_assert_eq!(decoded, frame);
        prop_assert_eq!(taken, HEADER_BYTES + payload.len());
    }

    #[test]
    fn a_flipped_bit_on_disk_is_noticed(at in 0_usize..64, bit in 0_u8..8) {
        let state = wire::disk::NodeState {
            cloud: wire::id::CloudId([1; 32]),
            node: wire::id::NodeId([2; 32]),
            boot_reserved: 16,
            name: "a".into(),
            labels: Default::default(),
            availability: wire::fact::Availability::Open,
        };
        let mut sealed = wire::disk::seal(&state).expect("seals");
        let at = at % sealed.len();
        sealed[at] ^= 1 << bit;
        prop_assert!(wire::disk::unseal::<wire::disk::NodeState>(&sealed).is_err());
    }
}

#[test]
fn a_frame_longer_than_its_limit_is_refused_before_it_is_read() {
    let mut bytes = vec![Kind::Stdout as u8];
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    assert!(Frame::decode(&bytes).is_err());
}

#[test]
fn an_incomplete_frame_asks_for_more() {
    let mut bytes = Vec::new();
    Frame::new(Kind::Stderr, b"hello").encode(&mut bytes);
    for length in 0..bytes.len() {
        assert_eq!(Frame::decode(&bytes[..length]), Ok(None), "{length} bytes");
    }
}

#[test]
fn constraints_are_read_as_people_write_them() {
    let check = |text: &str, expect: &str| {
        let read = text.parse::<wire::spec::Constraint>();
        assert_eq!(
            read.map_or_else(|error| error.to_string(), |it| it.to_string()),
            expect
        );
    };
    check("memory>=8G", "memory>=8G");
    check(" arch = x86_64 ", "arch=x86_64");
    check("label.disk!=ssd", "label.disk!=ssd");
    check(
        "memory",
        "`memory` is not a constraint: write for example memory>=8G",
    );
    check(
        "arch>=x",
        "arch is a word: it can only be = or != to another",
    );
    check(
        "memory>=lots",
        "`lots` is not an amount of memory: write for example 0.5 or 8G",
    );
    check(
        "colour=red",
        "no node attribute is called `colour`: use arch, os, platform, name, cpu, memory or \
         label.KEY",
    );
}

#[test]
fn amounts_are_exact_in_thousandths() {
    let check = |text: &str, expect: Option<u128>| {
        assert_eq!(wire::spec::parse_amount(text), expect, "{text}");
    };
    check("0.5", Some(500));
    check("2", Some(2_000));
    check("8G", Some(8_000 << 30));
    check("1.5GiB", Some(1_500 << 30));
    check("128M", Some(128_000 << 20));
    check(".25", Some(250));
    check("-1", None);
    check("1X", None);
    check("", None);
    check("1.2.3", None);
    check("99999999999999999999T", None);
}
