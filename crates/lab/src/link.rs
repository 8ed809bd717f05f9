//! What one direction of a path between two hosts does to the frames that cross it, and how people
//! write that. It does not move frames; [`crate::Lab::link`] applies it.
//!
//! | text | meaning |
//! | --- | --- |
//! | `40ms`, `250us`, `1.5s`, `0` | a duration |
//! | `1%`, `0.01` | a share of the frames |
//! | `100M`, `2.5Gbit`, `64k`, `unlimited` | bits per second, in powers of ten |

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest delay or jitter of a link.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// One direction of a path between two hosts. The default is a perfect link: no delay, no loss, as
/// fast as this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "LinkRecord", into = "LinkRecord")]
pub struct Link {
    /// How long every frame takes, one way.
    pub delay: Duration,
    /// Each frame takes up to this much less or more than `delay`, uniformly. Frames never overtake
    /// each other, so in dense traffic the mean delay lies above `delay`.
    pub jitter: Duration,
    /// The share of frames that are lost, from 0 to 1, each independently.
    pub loss: f64,
    /// Bits per second; `None` is as fast as this machine.
    pub rate: Option<u64>,
}

impl Link {
    /// A link with this one-way delay and nothing else.
    pub fn with_delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// The same link that loses this share of frames, from 0 to 1.
    pub fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same link with this jitter.
    pub fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// The same link with this many bits per second.
    pub fn rate(self, bits_per_second: u64) -> Self {
        Self {
            rate: Some(bits_per_second),
            ..self
        }
    }

    /// What is wrong with the values, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.loss) {
            return Err(format!("a loss of {} is not from 0 to 1", self.loss));
        }
        if self.delay > DELAY_MAX || self.jitter > DELAY_MAX {
            return Err(format!("a delay above {} s", DELAY_MAX.as_secs()));
        }
        if self.rate == Some(0) {
            return Err("a rate of 0 would carry nothing: cut the link instead".to_owned());
        }
        Ok(())
    }
}

/// Changes to a link; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkChange {
    /// New one-way delay.
    pub delay: Option<Duration>,
    /// New jitter.
    pub jitter: Option<Duration>,
    /// New share of lost frames, from 0 to 1.
    pub loss: Option<f64>,
    /// New rate; `Some(None)` takes the limit away.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub rate: Option<Option<u64>>,
}

impl LinkChange {
    /// `link` with the changes applied.
    pub fn applied_to(&self, link: Link) -> Link {
        Link {
            delay: self.delay.unwrap_or(link.delay),
            jitter: self.jitter.unwrap_or(link.jitter),
            loss: self.loss.unwrap_or(link.loss),
            rate: self.rate.unwrap_or(link.rate),
        }
    }
}

/// Tells `null`, which takes a limit away, from a field that is absent.
fn present<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(source).map(Some)
}

/// The shape of a link in JSON: numbers with their units in the names.
#[derive(Serialize, Deserialize)]
struct LinkRecord {
    delay_ms: f64,
    jitter_ms: f64,
    loss: f64,
    rate_bits_per_second: Option<u64>,
}

impl From<LinkRecord> for Link {
    fn from(record: LinkRecord) -> Self {
        let duration = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::ZERO);
        Self {
            delay: duration(record.delay_ms),
            jitter: duration(record.jitter_ms),
            loss: record.loss,
            rate: record.rate_bits_per_second,
        }
    }
}

impl From<Link> for LinkRecord {
    fn from(link: Link) -> Self {
        Self {
            delay_ms: link.delay.as_secs_f64() * 1000.0,
            jitter_ms: link.jitter.as_secs_f64() * 1000.0,
            loss: link.loss,
            rate_bits_per_second: link.rate,
        }
    }
}

/// Reads a duration such as `40ms`. The error is a sentence for the person who typed it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "" if text.trim() == "0" => 0.0,
        _ => return Err(format!("'{text}' needs a unit: us, ms or s")),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= DELAY_MAX => Ok(duration),
        Ok(_) | Err(_) => Err(format!(
            "'{text}' is not from 0 to {} s",
            DELAY_MAX.as_secs()
        )),
    }
}

/// Reads a share such as `1%` or `0.01`, as a number from 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, unit) = split_unit(text)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return Err(format!("'{text}' is neither a percentage nor a number")),
    };
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(format!("'{text}' is not from 0% to 100%"))
    }
}

/// Reads a rate such as `100M`, in bits per second; `unlimited` is `None`.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" {
        return Ok(None);
    }
    let (number, unit) = split_unit(text)?;
    let unit = unit.strip_suffix("bit").unwrap_or(unit);
    let bits = match unit {
        "" => number,
        "k" | "K" => number * 1e3,
        "m" | "M" => number * 1e6,
        "g" | "G" => number * 1e9,
        _ => {
            return Err(format!(
                "'{text}' needs a unit: k, M or G (bits per second)"
            ));
        }
    };
    if (1.0..=1e12).contains(&bits) {
        Ok(Some(whole(bits)))
    } else {
        Err(format!("'{text}' is not from 1 bit to 1000G a second"))
    }
}

/// The whole part of a number that is known to be from 0 to 1e18.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers have checked the range, and the fraction is meant to go"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

fn split_unit(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    match digits.parse() {
        Ok(number) => Ok((number, unit.trim())),
        Err(_) => Err(format!("'{text}' does not begin with a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["40", "ms", "-1ms", "3 weeks", "61s", ""] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_percentages_or_numbers_up_to_one() {
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0.5"), Ok(0.5));
        for bad in ["101%", "2", "x", "1ms", "-1%"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_bits_per_second_in_powers_of_ten() {
        assert_eq!(parse_rate("100M"), Ok(Some(100_000_000)));
        assert_eq!(parse_rate("2.5Gbit"), Ok(Some(2_500_000_000)));
        assert_eq!(parse_rate("64k"), Ok(Some(64_000)));
        assert_eq!(parse_rate("unlimited"), Ok(None));
        for bad in ["0", "fast", "10X", "9999G"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_leaves_the_rest_of_the_link_alone() {
        let link = Link::with_delay(Duration::from_millis(10)).rate(5);
        let change = LinkChange {
            loss: Some(0.5),
            rate: Some(None),
            ..LinkChange::default()
        };
        let expect = Link::with_delay(Duration::from_millis(10)).loss(0.5);
        assert_eq!(change.applied_to(link), expect);
        for change in [change, LinkChange::default()] {
            let text = serde_json::to_string(&change).expect("plain data");
            assert_eq!(
                serde_json::from_str::<LinkChange>(&text).expect("its text"),
                change
            );
        }
    }
}
