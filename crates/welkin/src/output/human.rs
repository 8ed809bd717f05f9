//! Amounts and times as people read them.

use std::time::Duration;

use wire::fact::{ExitReason, ObjectFacts, Phase};
use wire::health::Health;
use wire::id::UnixMillis;
use wire::spec::{OnPartition, Restart, TAKEOVER_MS};

const UNITS: [(&str, u64); 5] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// What stands where nothing is known.
pub(crate) const NOTHING: &str = "-";

/// `7.8GiB`, `128MiB`, `12B`.
pub(crate) fn bytes(amount: u64) -> String {
    let Some((unit, size)) = UNITS.iter().find(|(_, size)| amount >= *size) else {
        return format!("{amount}B");
    };
    let tenths = (u128::from(amount) * 10 + u128::from(size / 2)) / u128::from(*size);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{unit}"),
        (whole, tenth) => format!("{whole}.{tenth}{unit}"),
    }
}

/// Bytes that are a limit; 0 is none.
pub(crate) fn bytes_limit(amount: u64) -> String {
    if amount == 0 {
        NOTHING.to_owned()
    } else {
        bytes(amount)
    }
}

/// `4`, `0.5`, `0.25`.
pub(crate) fn cores(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Cores that are busy: `0.1`, `1.9`.
pub(crate) fn cores_busy(millis: u32) -> String {
    cores(millis.saturating_add(50) / 100 * 100)
}

/// `12s`, `3m`, `2h`, `5d`: how long, in its largest unit.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        172_800..63_072_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

/// How long before `now`; a clock that is behind says 0.
pub(crate) fn ago(then: UnixMillis, now: UnixMillis) -> String {
    span(now.0.saturating_sub(then.0))
}

/// `0.4ms`, `42ms`, `1.2s`.
pub(crate) fn round_trip(micros: u64) -> String {
    match micros {
        0 => "0ms".to_owned(),
        1..10_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{}ms", micros / 1000),
        _ => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// `2026-03-01T12:00:00.250Z`.
pub(crate) fn timestamp(micros: u64) -> String {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => format!("{time:.3}"),
        Err(_out_of_range) => NOTHING.to_owned(),
    }
}

/// A moment, for descriptions.
pub(crate) fn moment(at: UnixMillis) -> String {
    timestamp(at.0.saturating_mul(1000))
}

/// `12.5%` of one core.
pub(crate) fn percent(tenths: u64) -> String {
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// Why a program ended, in a word or two.
pub(crate) fn exit(reason: &ExitReason) -> String {
    match reason {
        ExitReason::Code(code) => code.to_string(),
        ExitReason::Signal(number) => signal(*number),
        ExitReason::OutOfMemory => "out of memory".to_owned(),
        ExitReason::NotStarted { code, .. } => format!("not started, {code}"),
        ExitReason::Lost => "lost".to_owned(),
        ExitReason::Lapsed => "cut off".to_owned(),
        ExitReason::Unhealthy(_) => "unhealthy".to_owned(),
        ExitReason::Overdue => "overdue".to_owned(),
    }
}

/// `SIGTERM`.
pub(crate) fn signal(number: u8) -> String {
    nix::sys::signal::Signal::try_from(i32::from(number)).map_or_else(
        |_realtime| format!("signal {number}"),
        |it| it.as_str().to_owned(),
    )
}

/// What an object does, and how its program ended if that is why.
pub(crate) fn state(object: &ObjectFacts) -> String {
    let word = if object.halted && object.phase == Phase::Ended {
        "stopped"
    } else {
        object.phase.word()
    };
    if let (Phase::Running, Some(health)) = (object.phase, &object.health) {
        return format!("{word} ({})", health.word());
    }
    match (object.phase, &object.last_exit) {
        (Phase::Waiting | Phase::Ended | Phase::Failed, Some(last)) => {
            format!("{word} ({})", exit(&last.reason))
        }
        (Phase::Waiting | Phase::Ended | Phase::Failed, None)
        | (Phase::Starting | Phase::Running | Phase::Stopping, _) => word.to_owned(),
    }
}

/// Since when the object is in that state.
pub(crate) fn since(object: &ObjectFacts) -> UnixMillis {
    let ended = object.last_exit.as_ref().map(|it| it.at);
    let moment = match object.phase {
        Phase::Running | Phase::Stopping => object.started,
        Phase::Waiting | Phase::Ended | Phase::Failed => ended,
        Phase::Starting => None,
    };
    moment.unwrap_or(object.created)
}

/// What an app does when the network is cut, as it is written.
pub(crate) fn on_partition(policy: OnPartition) -> String {
    match policy {
        OnPartition::Available => "available".to_owned(),
        OnPartition::Once { takeover_ms } if takeover_ms == TAKEOVER_MS => "once".to_owned(),
        OnPartition::Once { takeover_ms } => {
            let takeover = Duration::from_millis(takeover_ms.into());
            format!("once:{}", humantime::format_duration(takeover))
        }
    }
}

/// How the health of objects is found out, in one line; empty when it is not.
pub(crate) fn health(health: Option<&Health>) -> String {
    let Some(health) = health else {
        return String::new();
    };
    let of = |millis: u32| humantime::format_duration(Duration::from_millis(millis.into()));
    format!(
        "{}, every {}, {} failures in a row, each within {}, none in the first {}",
        health.check,
        of(health.interval_ms),
        health.retries,
        of(health.timeout_ms),
        of(health.start_period_ms),
    )
}

/// A restart policy as it is written.
pub(crate) fn restart(policy: Restart) -> String {
    match policy {
        Restart::No => "no".to_owned(),
        Restart::Always => "always".to_owned(),
        Restart::OnFailure { retries_max: None } => "on-failure".to_owned(),
        Restart::OnFailure {
            retries_max: Some(retries),
        } => format!("on-failure:{retries}"),
    }
}

/// An id, whole or its beginning.
pub(crate) fn id(id: &impl std::fmt::Display, short: String, whole: bool) -> String {
    if whole { id.to_string() } else { short }
}

/// A command as one would type it.
pub(crate) fn command(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| quote(argument));
    quoted.collect::<Vec<_>>().join(" ")
}

fn quote(argument: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(safe) {
        argument.to_owned()
    } else if argument.chars().any(char::is_control) {
        // Only there the backslash has a meaning (bash(1), zsh(1): "QUOTING").
        let visible = argument.chars().flat_map(|c| -> Vec<char> {
            match c {
                '\'' | '\\' => vec!['\\', c],
                c if c.is_control() => escaped(c).chars().collect(),
                c => vec![c],
            }
        });
        format!("$'{}'", visible.collect::<String>())
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// A control character inside `$'…'`.
fn escaped(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_ascii() => format!("\\x{:02x}", u32::from(c)),
        c => format!("\\u{:04x}", u32::from(c)),
    }
}

/// At most so many characters, the last one a mark when something is missing.
pub(crate) fn shorten(text: &str, characters_max: usize) -> String {
    if text.chars().count() <= characters_max {
        return text.to_owned();
    }
    let kept = characters_max.saturating_sub(1);
    text.chars().take(kept).chain(['…']).collect()
}

/// `a=1,b=2`.
pub(crate) fn pairs<V: std::fmt::Display>(
    map: &std::collections::BTreeMap<String, V>,
    between: char,
) -> String {
    let pairs = map
        .iter()
        .map(|(key, value)| format!("{key}{between}{value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// The text, or a dash.
pub(crate) fn or_nothing(text: String) -> String {
    if text.is_empty() {
        NOTHING.to_owned()
    } else {
        text
    }
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_largest_unit() {
        let seen = [0, 12, 1024, 1536, 128 << 20, (78 << 30) / 10, u64::MAX].map(bytes);
        let expected = [
            "0B", "12B", "1KiB", "1.5KiB", "128MiB", "7.8GiB", "16384PiB",
        ];
        assert_eq!(seen, expected);
        assert_eq!(
            [4000, 500, 250, 0, 1125].map(cores),
            ["4", "0.5", "0.25", "0", "1.125"]
        );
    }

    #[test]
    fn times_have_their_largest_unit() {
        let hour = 3_600_000;
        let seen = [0, 59_999, 180_000, 2 * hour, 47 * hour, 120 * hour].map(span);
        assert_eq!(seen, ["0s", "59s", "3m", "2h", "47h", "5d"]);
        let seen = [0, 400, 4_200, 42_000, 1_250_000].map(round_trip);
        assert_eq!(seen, ["0ms", "0.4ms", "4.2ms", "42ms", "1.2s"]);
        assert_eq!(ago(UnixMillis(5000), UnixMillis(0)), "0s");
        assert_eq!(timestamp(1_000_250_000), "1970-01-01T00:16:40.250Z");
        assert_eq!(timestamp(u64::MAX), "-");
    }

    #[test]
    fn commands_are_quoted_as_a_shell_needs_it() {
        let arguments = ["sh", "-c", "echo \"it's\" done\n", ""].map(str::to_owned);
        assert_eq!(command(&arguments), r#"sh -c $'echo "it\'s" done\n' ''"#);
        let arguments = ["grep", r"\d+\.", "it's", "a\\b\u{1b}\u{85}"].map(str::to_owned);
        assert_eq!(
            command(&arguments),
            r"grep '\d+\.' 'it'\''s' $'a\\b\x1b\u0085'"
        );
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(exit(&ExitReason::Signal(9)), "SIGKILL");
        assert_eq!(exit(&ExitReason::Signal(40)), "signal 40");
        assert_eq!(count(1_u32, "node"), "1 node");
        assert_eq!(count(2_u32, "node"), "2 nodes");
    }
}
