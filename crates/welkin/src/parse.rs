//! What people write on command lines, read: amounts, lists, times, signals.
//!
//! Each function takes the text of one value and returns the value or a sentence that says what
//! was expected, with an example.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use wire::health::{Check, CheckError};
use wire::spec::{Constraint, OnPartition, Restart, TAKEOVER_MS, parse_amount};

use crate::clock;

/// `ADDRESS:PORT`.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_no_address| "write ADDRESS:PORT, for example 0.0.0.0:7117".to_owned())
}

/// The name of an app.
pub(crate) fn app_name(text: &str) -> Result<String, String> {
    wire::spec::check_name(text).map_err(|error| format!("{error}; write for example web-1"))?;
    Ok(text.to_owned())
}

/// `KEY=VALUE`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE, for example disk=ssd".to_owned()),
    }
}

/// `KEY=VALUE`, or `KEY` for the value that this shell has.
pub(crate) fn environment(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return key_value(text)
            .map_err(|_no_key| "write KEY=VALUE, for example MODE=test".to_owned());
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_owned(), value)),
        Err(_unset) => Err(format!("{text} is not set here: write {text}=VALUE")),
    }
}

/// `KEY=VALUE` to set a label, `KEY-` to remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelEdit {
    /// Give the label this value.
    Set(String, String),
    /// Take the label away.
    Remove(String),
}

/// See [`LabelEdit`].
pub(crate) fn label_edit(text: &str) -> Result<LabelEdit, String> {
    if let Ok((key, value)) = key_value(text) {
        return Ok(LabelEdit::Set(key, value));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() && !key.contains('=') => Ok(LabelEdit::Remove(key.to_owned())),
        Some(_) | None => Err(
            "write KEY=VALUE to set a label and KEY- to remove one, for example disk=ssd arch-"
                .to_owned(),
        ),
    }
}

/// Cores as thousandths: `0.5` and `500m` are 500.
pub(crate) fn cores(text: &str) -> Result<u32, String> {
    let wrong = || "write a number of cores, for example 0.5 or 2".to_owned();
    let text = text.trim();
    if let Some(thousandths) = text.strip_suffix('m') {
        return thousandths.parse().map_err(|_not_a_number| wrong());
    }
    let plain = text.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    let thousandths = parse_amount(text).filter(|_| plain).ok_or_else(wrong)?;
    u32::try_from(thousandths).map_err(|_too_many| wrong())
}

/// Bytes: `128M`, `1.5GiB`, `1048576`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    parse_amount(text)
        .and_then(|thousandths| u64::try_from(thousandths / 1000).ok())
        .ok_or_else(|| "write an amount of memory, for example 128M or 2G".to_owned())
}

/// `NAME=NUMBER`.
pub(crate) fn port(text: &str) -> Result<(String, u16), String> {
    let wrong = || "write NAME=NUMBER, for example http=8080".to_owned();
    let (name, number) = text.split_once('=').ok_or_else(wrong)?;
    wire::spec::check_name(name).map_err(|error| error.to_string())?;
    let number: u16 = number.parse().map_err(|_not_a_port| wrong())?;
    if number == 0 {
        return Err(wrong());
    }
    Ok((name.to_owned(), number))
}

/// `no`, `always`, `on-failure` or `on-failure:N`.
pub(crate) fn restart(text: &str) -> Result<Restart, String> {
    let wrong = || "write no, always, on-failure or on-failure:5".to_owned();
    match text {
        "no" => Ok(Restart::No),
        // What docker calls it; an app that was stopped stays stopped either way.
        "always" | "unless-stopped" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure { retries_max: None }),
        _ => {
            let retries = text.strip_prefix("on-failure:").ok_or_else(wrong)?;
            let retries = retries.parse().map_err(|_not_a_number| wrong())?;
            Ok(Restart::OnFailure {
                retries_max: Some(retries),
            })
        }
    }
}

/// `available`, `once` or `once:30s`.
pub(crate) fn on_partition(text: &str) -> Result<OnPartition, String> {
    let wrong = || "write available, once or once:30s".to_owned();
    match text {
        "available" => Ok(OnPartition::Available),
        "once" => Ok(OnPartition::Once {
            takeover_ms: TAKEOVER_MS,
        }),
        _ => {
            let takeover = text.strip_prefix("once:").ok_or_else(wrong)?;
            let takeover = duration(takeover)?;
            let takeover_ms = u32::try_from(takeover.as_millis()).map_err(|_large| wrong())?;
            Ok(OnPartition::Once { takeover_ms })
        }
    }
}

/// A health check as a flag: none when there is to be none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthFlag(pub(crate) Option<Check>);

/// `none`, or what [`check`] reads.
pub(crate) fn health(text: &str) -> Result<HealthFlag, String> {
    match text {
        "none" => Ok(HealthFlag(None)),
        _ => check(text).map(|check| HealthFlag(Some(check))),
    }
}

/// `http:8080/path`, `tcp:8080` or a command.
pub(crate) fn check(text: &str) -> Result<Check, String> {
    text.parse().map_err(|error: CheckError| error.to_string())
}

/// Constraints with commas between them: `arch=x86_64, memory>=8G`.
pub(crate) fn constraints(text: &str) -> Result<Vec<Constraint>, String> {
    let parts = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let parsed: Result<Vec<Constraint>, String> = parts
        .map(|part| {
            part.parse()
                .map_err(|e: wire::spec::ConstraintError| e.to_string())
        })
        .collect();
    match parsed {
        Ok(none) if none.is_empty() => Err("write a condition, for example memory>=8G".to_owned()),
        other => other,
    }
}

/// `APP=COUNT`.
pub(crate) fn scale(text: &str) -> Result<(String, u32), String> {
    let wrong = || "write APP=COUNT, for example web=5".to_owned();
    let (app, count) = text.split_once('=').ok_or_else(wrong)?;
    let count = count.parse().map_err(|_not_a_number| wrong())?;
    if app.is_empty() {
        return Err(wrong());
    }
    Ok((app.to_owned(), count))
}

/// The number of a signal: `9`, `KILL`, `SIGKILL`, `kill`.
pub(crate) fn signal(text: &str) -> Result<u8, String> {
    let wrong = || format!("`{text}` is no signal: write for example HUP, SIGTERM or 9");
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64)
            .contains(&number)
            .then_some(number)
            .ok_or_else(wrong);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    let signal: Signal = name.parse().map_err(|_unknown| wrong())?;
    u8::try_from(signal as i32).map_err(|_too_large| wrong())
}

/// How long: seconds (`10`, `2.5`) or a duration (`1d`, `10m`, `1h30m`).
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write seconds or a duration, for example 30, 10m or 1d".to_owned();
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_negative| wrong()),
        Err(_not_a_number) => humantime::parse_duration(text).map_err(|_unit| wrong()),
    }
}

/// A grace period; one that is longer than seven weeks is seven weeks.
pub(crate) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// A moment in milliseconds since 1970: how long ago (`10m`), or when (`2026-03-01T12:00:00Z`,
/// `2026-03-01 12:00`, `2026-03-01`, seconds since 1970 after `@`).
pub(crate) fn since(text: &str) -> Result<u64, String> {
    since_at(text, clock::now().0)
}

fn since_at(text: &str, now_ms: u64) -> Result<u64, String> {
    let wrong = || "write how long ago or when, for example 10m or 2026-03-01T12:00:00Z".to_owned();
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds: u64 = seconds.parse().map_err(|_not_a_number| wrong())?;
        return seconds.checked_mul(1000).ok_or_else(wrong);
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago_ms = u64::try_from(ago.as_millis()).map_err(|_too_long| wrong())?;
        return Ok(now_ms.saturating_sub(ago_ms));
    }
    let timestamp = text.parse::<jiff::Timestamp>().or_else(|_no_offset| {
        let local: jiff::civil::DateTime = text.parse()?;
        let zoned = local.to_zoned(jiff::tz::TimeZone::system())?;
        Ok::<_, jiff::Error>(zoned.timestamp())
    });
    let timestamp = timestamp.map_err(|_not_a_time| wrong())?;
    u64::try_from(timestamp.as_millisecond()).map_err(|_before_1970| wrong())
}

/// How many lines from the end: a number, or `all`.
pub(crate) fn tail(text: &str) -> Result<u64, String> {
    if text == "all" {
        return Ok(u64::MAX);
    }
    text.parse()
        .map_err(|_not_a_number| "write a number of lines, or all".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::Operator;

    #[test]
    fn amounts_are_what_people_mean() {
        assert_eq!(bytes("128M"), Ok(128 << 20));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert!(bytes("much").is_err());
        assert!(bytes("-1").is_err());
        assert_eq!(cores("0.5"), Ok(500));
        assert_eq!(cores("2"), Ok(2000));
        assert_eq!(cores("250m"), Ok(250));
        assert!(cores("2G").is_err());
        assert!(cores("a lot").is_err());
    }

    #[test]
    fn constraints_may_be_listed_with_or_without_blanks() {
        let list = constraints("arch=x86_64, label.disk=ssd,memory>=8G").unwrap();
        let words: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["arch=x86_64", "label.disk=ssd", "memory>=8G"]);
        assert_eq!(list[2].operator, Operator::AtLeast);
        assert!(constraints("colour=red").unwrap_err().contains("colour"));
        assert!(constraints("memory").unwrap_err().contains("memory>=8G"));
        assert!(constraints(" , ").is_err());
    }

    #[test]
    fn ports_have_a_name_and_a_number() {
        assert_eq!(port("http=8080"), Ok(("http".to_owned(), 8080)));
        assert!(port("8080").unwrap_err().contains("http=8080"));
        assert!(port("http=0").is_err());
        assert!(port("http=70000").is_err());
        assert!(port("HTTP=80").is_err());
    }

    #[test]
    fn labels_are_set_and_removed() {
        let set = LabelEdit::Set("disk".to_owned(), "ssd".to_owned());
        assert_eq!(label_edit("disk=ssd"), Ok(set));
        let empty = LabelEdit::Set("disk".to_owned(), String::new());
        assert_eq!(label_edit("disk="), Ok(empty));
        let dash = LabelEdit::Set("zone".to_owned(), "b-".to_owned());
        assert_eq!(label_edit("zone=b-"), Ok(dash));
        assert_eq!(
            label_edit("arch-"),
            Ok(LabelEdit::Remove("arch".to_owned()))
        );
        assert!(label_edit("disk").is_err());
        assert!(label_edit("=x").is_err());
        assert!(label_edit("-").is_err());
    }

    #[test]
    fn addresses_have_a_port_and_names_small_letters() {
        assert_eq!(listen("0.0.0.0:7117"), Ok(SocketAddr::from(([0; 4], 7117))));
        assert!(listen("[::]:0").is_ok());
        assert!(listen("7117").unwrap_err().contains("0.0.0.0:7117"));
        assert!(listen("localhost:1").is_err());
        assert_eq!(app_name("web"), Ok("web".to_owned()));
        assert!(app_name("Web!").unwrap_err().contains("web-1"));
    }

    #[test]
    fn scales_have_an_app_and_a_count() {
        assert_eq!(scale("web=5"), Ok(("web".to_owned(), 5)));
        assert!(scale("web").is_err());
        assert!(scale("=5").is_err());
        assert!(scale("web=many").is_err());
    }

    #[test]
    fn restart_policies_have_an_optional_limit() {
        assert_eq!(restart("always"), Ok(Restart::Always));
        assert_eq!(restart("no"), Ok(Restart::No));
        let limited = Restart::OnFailure {
            retries_max: Some(3),
        };
        assert_eq!(restart("on-failure:3"), Ok(limited));
        assert!(restart("on-failure:").is_err());
        assert!(restart("sometimes").is_err());
    }

    #[test]
    fn partition_policies_have_an_optional_time() {
        assert_eq!(on_partition("available"), Ok(OnPartition::Available));
        let once = |takeover_ms| Ok(OnPartition::Once { takeover_ms });
        assert_eq!(on_partition("once"), once(15_000));
        assert_eq!(on_partition("once:1m"), once(60_000));
        assert!(on_partition("once:").is_err());
        assert!(on_partition("twice").is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal("9"), Ok(9));
        assert_eq!(signal("KILL"), Ok(9));
        assert_eq!(signal("SIGTERM"), Ok(15));
        assert_eq!(signal("hup"), Ok(1));
        assert!(signal("0").is_err());
        assert!(signal("NOPE").is_err());
    }

    #[test]
    fn moments_are_relative_or_absolute() {
        let now_ms = 1_800_000_000_000;
        assert_eq!(since_at("10m", now_ms), Ok(now_ms - 600_000));
        assert_eq!(since_at("@1000", now_ms), Ok(1_000_000));
        assert_eq!(since_at("1970-01-01T00:00:01Z", now_ms), Ok(1000));
        assert_eq!(since_at("1970-01-01T01:00:01+01:00", now_ms), Ok(1000));
        assert!(since_at("2026-03-01", now_ms).is_ok());
        assert!(since_at("yesterday", now_ms).is_err());
    }

    #[test]
    fn durations_are_seconds_unless_they_say_otherwise() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        assert!(duration("-3").is_err());
        assert!(duration("soon").is_err());
    }

    #[test]
    fn a_check_can_be_taken_away() {
        assert_eq!(health("none"), Ok(HealthFlag(None)));
        let tcp = HealthFlag(Some(Check::Tcp { port: 80 }));
        assert_eq!(health("tcp:80"), Ok(tcp));
        assert!(health("tcp:web").is_err());
    }

    #[test]
    fn tails_are_numbers_or_everything() {
        assert_eq!(tail("10"), Ok(10));
        assert_eq!(tail("all"), Ok(u64::MAX));
        assert!(tail("some").is_err());
    }
}
