use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::{decode, encode};
use crate::DecodeError;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Older {
    name: String,
    wish: Choice,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newer {
    name: String,
    wish: NewerChoice,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default = "seven")]
    often: u32,
}

fn seven() -> u32 {
    7
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Choice {
    Nothing,
    Some { of: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum NewerChoice {
    Nothing,
    Some {
        of: u16,
        #[serde(default)]
        with: Option<u8>,
    },
    Other(i32),
}

fn through<A: Serialize, B: for<'de> Deserialize<'de>>(value: &A) -> Result<B, DecodeError> {
    decode(&encode(value).expect("encodes"), usize::MAX)
}

#[test]
fn a_newer_reader_takes_defaults_for_what_an_older_writer_did_not_know() {
    let older = vec![
        Older {
            name: "a".to_string(),
            wish: Choice::Some { of: 300 },
        },
        Older {
            name: "b".to_string(),
            wish: Choice::Nothing,
        },
    ];
    let newer: Vec<Newer> = through(&older).expect("a newer program reads it");
    let expected = [
        (
            "a",
            NewerChoice::Some {
                of: 300,
                with: None,
            },
        ),
        ("b", NewerChoice::Nothing),
    ]
    .map(|(name, wish)| Newer {
        name: name.to_string(),
        wish,
        after: vec![],
        often: 7,
    });
    assert_eq!(newer, expected);
}

#[test]
fn an_older_reader_leaves_out_what_it_does_not_know() {
    let newer = |wish| Newer {
        name: "a".to_string(),
        wish,
        after: vec!["db".to_string(); 60],
        often: 1,
    };
    let several = vec![
        newer(NewerChoice::Nothing),
        newer(NewerChoice::Some {
            of: 300,
            with: Some(1),
        }),
    ];
    let older: Vec<Older> = through(&several).expect("an older program reads it");
    assert_eq!(older[0].wish, Choice::Nothing);
    assert_eq!(older[1].wish, Choice::Some { of: 300 });
    let unknown: Result<Older, _> = through(&newer(NewerChoice::Other(-1)));
    let unknown = unknown
        .expect_err("a choice that means nothing here")
        .to_string();
    assert!(unknown.contains("this version does not know"), "{unknown}");
}

fn comes_back<T: Debug + PartialEq + Serialize + for<'de> Deserialize<'de>>(value: T, hex: &str) {
    let bytes = encode(&value).expect("encodes");
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), hex, "{value:?}");
    assert_eq!(decode::<T>(&bytes, usize::MAX), Ok(value));
    for length in 0..bytes.len() {
        assert!(
            decode::<T>(&bytes[..length], usize::MAX).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn every_form() {
    comes_back(true, "01");
    comes_back(200_u8, "c8");
    comes_back(-1_i8, "ff");
    comes_back(u16::MAX, "ffff03");
    comes_back(u32::MAX, "ffffffff0f");
    comes_back(u64::MAX, "ffffffffffffffffff01");
    comes_back(i16::MIN, "ffff03");
    comes_back(-2_i32, "03");
    comes_back(i64::MIN, "ffffffffffffffffff01");
    comes_back(i64::MAX, "feffffffffffffffff01");
    comes_back("ä".to_string(), "02c3a4");
    comes_back(vec![1_u16, 300], "0201ac02");
    comes_back(BTreeMap::from([(1_u8, false), (2, true)]), "0201000201");
    comes_back(Some((1_u8, [2_u8, 3])), "01010203");
    comes_back(None::<u8>, "00");
    comes_back(NewerChoice::Other(2), "0204");
    comes_back(Choice::Some { of: 1 }, "010101");
    let long = Older {
        name: "x".repeat(200),
        wish: Choice::Nothing,
    };
    comes_back(long, &["cb01c801", &"78".repeat(200), "00"].concat());
}

#[test]
fn what_is_no_encoding_is_refused_with_what_is_wrong() {
    fn refused<T: Debug + for<'de> Deserialize<'de>>(bytes: &[u8], why: &str) {
        let error = decode::<T>(bytes, 64).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
    refused::<bool>(&[2], "expected type");
    refused::<Option<u8>>(&[2, 1], "expected type");
    refused::<u16>(&[0xff, 0xff, 0x04], "too large");
    refused::<u64>(&[0xff; 11], "too large");
    refused::<u64>(
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        "too large",
    );
    refused::<String>(&[1, 0xff], "UTF-8");
    refused::<Vec<u8>>(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1], "more elements");
    refused::<Older>(&[9, 1, 97], "too early");
    refused::<Older>(&[2, 1, 97], "expected type");
    refused::<u8>(&[1, 2], "follow the end");
    refused::<u8>(&[0; 65], "at most 64");
}
