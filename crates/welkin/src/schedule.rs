//! When apps run, as people write and read it.

use std::time::Duration;

use clap::Args;
use wire::id::UnixMillis;
use wire::job::{Attempt, EVERY_MS_RANGE, Run, Schedule};
use wire::spec::{AppSpec, DEADLINE_MS_RANGE};

use crate::context::NodeNames;
use crate::output::human;
use crate::output::style::Style;
use crate::output::table::{Column, Table};
use crate::{clock, parse};

/// Times: flags of `run` and `update`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Times {
    /// Run once, then: 2026-03-01T03:00:00Z, '2026-03-01 03:00' or 03:00 by the clock of this
    /// machine, or +10m from now.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with_all = ["every", "cron"])]
    at: Option<UnixMillis>,
    /// Run again and again, first after so long: 10m, 1d; one run at a time.
    #[arg(long, value_name = "DURATION", value_parser = interval, conflicts_with = "cron")]
    every: Option<u64>,
    /// Run at every minute that fits, in UTC: minute, hour, day of the month, month, day of the
    /// week, as in '30 3 * * mon-fri', or @hourly, @daily, @weekly, @monthly, @yearly.
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Ask a program to end that runs longer than this; it has failed then. Without limit when
    /// absent.
    #[arg(long, value_name = "DURATION", value_parser = deadline)]
    deadline: Option<u64>,
}

impl Times {
    /// The schedule that the flags say, if they say one.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        one_of(self.at, self.every, self.cron.clone())
    }

    /// Makes the specification what the flags say; what they do not speak of stays.
    pub(crate) fn edit(&self, spec: &mut AppSpec) {
        if let Some(schedule) = self.schedule() {
            spec.schedule = Some(schedule);
        }
        spec.deadline_ms = self.deadline.or(spec.deadline_ms);
    }
}

/// The first of these that is there.
pub(crate) fn one_of(
    at: Option<UnixMillis>,
    every_ms: Option<u64>,
    cron: Option<String>,
) -> Option<Schedule> {
    let at = at.map(|at| Schedule::At { at });
    let every = every_ms.map(|interval_ms| Schedule::Every { interval_ms });
    let cron = cron.map(|expression| Schedule::Cron { expression });
    at.or(every).or(cron)
}

/// How long from one run to the next, in milliseconds.
pub(crate) fn interval(text: &str) -> Result<u64, String> {
    let interval_ms = parse::duration(text)?.as_millis();
    match u64::try_from(interval_ms) {
        Ok(interval_ms) if EVERY_MS_RANGE.contains(&interval_ms) => Ok(interval_ms),
        Ok(interval_ms) if interval_ms < *EVERY_MS_RANGE.start() => Err(
            "an app runs at most once a second; write 1s or more, or --restart always for what is \
             to run all the time"
                .to_owned(),
        ),
        Ok(_) | Err(_) => Err("an app runs at least once in 366 days; write for example 1d".into()),
    }
}

/// How long a program may run, in milliseconds.
pub(crate) fn deadline(text: &str) -> Result<u64, String> {
    let deadline_ms = u64::try_from(parse::duration(text)?.as_millis());
    let within = deadline_ms.ok().filter(|it| DEADLINE_MS_RANGE.contains(it));
    within.ok_or_else(|| "a deadline is 1 s to 366 days; write for example 30s or 1h".to_owned())
}

/// A moment to come.
fn moment(text: &str) -> Result<UnixMillis, String> {
    moment_at(text, clock::now(), &jiff::tz::TimeZone::system())
}

fn moment_at(text: &str, now: UnixMillis, zone: &jiff::tz::TimeZone) -> Result<UnixMillis, String> {
    let wrong = || "write for example 2026-03-01T03:00:00Z, 03:00 or +10m".to_owned();
    if let Some(span) = text.strip_prefix('+') {
        let span = parse::duration(span).map_err(|_no_span| wrong())?;
        let span_ms = u64::try_from(span.as_millis()).map_err(|_too_long| wrong())?;
        return Ok(UnixMillis(now.0.saturating_add(span_ms)));
    }
    let at = match text.parse::<jiff::civil::Time>() {
        Ok(time) => next_day_time(time, now, zone),
        Err(_no_time_of_a_day) => parse::since(text).ok().filter(|_| is_date(text)),
    };
    match at {
        Some(at) if at < now.0 => Err(format!(
            "that was {} ago; write a time to come, or +10m",
            human::ago(UnixMillis(at), now)
        )),
        Some(at) => Ok(UnixMillis(at)),
        None => Err(wrong()),
    }
}

/// Whether it begins with a year: not how long ago something was.
fn is_date(text: &str) -> bool {
    text.starts_with('@') || text.get(4..5) == Some("-")
}

/// When the clocks of this zone show that next.
fn next_day_time(
    time: jiff::civil::Time,
    now: UnixMillis,
    zone: &jiff::tz::TimeZone,
) -> Option<u64> {
    let now_ms = i64::try_from(now.0).ok()?;
    let today = jiff::Timestamp::from_millisecond(now_ms).ok()?;
    let today = today.to_zoned(zone.clone()).date();
    let on = |day: jiff::civil::Date| {
        let at = day.to_datetime(time).to_zoned(zone.clone()).ok()?;
        u64::try_from(at.timestamp().as_millisecond()).ok()
    };
    on(today)
        .filter(|at| *at > now.0)
        .or_else(|| on(today.tomorrow().ok()?))
}

/// A moment as a file has it: the same wherever and whenever the file is read.
pub(crate) fn fixed_moment(text: &str) -> Result<UnixMillis, String> {
    let at = text.parse::<jiff::Timestamp>().ok();
    let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    at.map(UnixMillis)
        .ok_or_else(|| "write a time with its offset, for example 2026-03-01T03:00:00Z".to_owned())
}

/// The word of a schedule in a file, and what stands there.
pub(crate) fn word(schedule: &Schedule) -> (&'static str, String) {
    match schedule {
        Schedule::At { at } => ("at", exact_moment(*at)),
        Schedule::Every { interval_ms } => ("every", span(*interval_ms)),
        Schedule::Cron { expression } => ("cron", expression.clone()),
    }
}

/// `1m 30s`.
pub(crate) fn span(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

/// `2026-03-01T03:00:00Z`, with as many digits as there are.
fn exact_moment(at: UnixMillis) -> String {
    let at = i64::try_from(at.0)
        .ok()
        .map(jiff::Timestamp::from_millisecond);
    at.and_then(Result::ok)
        .map_or_else(String::new, |at| at.to_string())
}

/// A schedule in one line; empty when there is none.
pub(crate) fn text(schedule: Option<&Schedule>) -> String {
    let Some(schedule) = schedule else {
        return String::new();
    };
    match (schedule, word(schedule)) {
        (Schedule::Cron { .. }, (word, value)) => format!("{word} {value} (UTC)"),
        (Schedule::At { .. } | Schedule::Every { .. }, (word, value)) => format!("{word} {value}"),
    }
}

/// `next in 4m`; `due` when that moment has passed.
pub(crate) fn until(next: UnixMillis, now: UnixMillis) -> String {
    if next <= now {
        return "due".to_owned();
    }
    // What is left of a second is one, or people see `next in 0s` for so long.
    let left_ms = (next.0 - now.0).next_multiple_of(1000);
    format!("next in {}", human::span(left_ms))
}

/// The same with the moment itself.
pub(crate) fn next_run(next: Option<UnixMillis>, now: UnixMillis) -> String {
    next.map_or_else(String::new, |next| {
        let until = until(next, now);
        format!(
            "{}, at {}",
            until.trim_start_matches("next "),
            exact_moment(next)
        )
    })
}

/// The runs that are remembered of an app.
pub(crate) fn runs_table(runs: &[Run], nodes: &NodeNames, now: UnixMillis) -> Table {
    let mut table = Table::new(&[
        Column::number("RUN"),
        Column::text("DUE"),
        Column::text("NODE"),
        Column::text("STATE"),
        Column::number("SINCE"),
        Column::number("SKIPPED"),
    ]);
    for (at, run) in runs.iter().enumerate() {
        let (state, since, style) = state(run, at == 0);
        let node = run.attempt.as_ref().map(|it| nodes.get(it.node));
        let cells = vec![
            run.number.to_string(),
            exact_moment(run.due),
            human::or_nothing(node.unwrap_or_default()),
            state,
            human::ago(since, now),
            run.skipped.to_string(),
        ];
        table.row(style, cells);
    }
    table
}

/// What has become of a run, and since when. Only the last one can go on.
pub(crate) fn state(run: &Run, is_last: bool) -> (String, UnixMillis, Style) {
    match &run.attempt {
        Some(Attempt {
            exit: Some(exit), ..
        }) => {
            let style = if exit.reason.is_success() {
                Style::Dim
            } else {
                Style::Bad
            };
            let state = format!("ended ({})", human::exit(&exit.reason));
            (state, exit.at, style)
        }
        Some(Attempt { started, .. }) if is_last => (
            "running".to_owned(),
            started.unwrap_or(run.due),
            Style::Plain,
        ),
        Some(Attempt { started, .. }) => {
            ("lost".to_owned(), started.unwrap_or(run.due), Style::Bad)
        }
        None if is_last => ("due".to_owned(), run.due, Style::Warning),
        None => ("never placed".to_owned(), run.due, Style::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table::Drawing;
    use crate::verb::node::list::tests::node;
    use expect_test::expect;
    use wire::call::NodeState;
    use wire::fact::{Exit, ExitReason};
    use wire::id::{NodeId, ObjectId};

    /// 2026-03-01T12:00:00Z.
    const NOON: UnixMillis = UnixMillis(1_772_366_400_000);

    fn at(text: &str) -> Result<String, String> {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
        moment_at(text, NOON, &zone).map(exact_moment)
    }

    #[test]
    fn moments_to_come_are_read() {
        let read = |text: &str| at(text).unwrap();
        assert_eq!(read("+10m"), "2026-03-01T12:10:00Z");
        assert_eq!(read("+1.5"), "2026-03-01T12:00:01.5Z");
        assert_eq!(read("2026-03-02T03:00:00Z"), "2026-03-02T03:00:00Z");
        // The clocks of this zone show 13:00.
        assert_eq!(read("13:30"), "2026-03-01T12:30:00Z");
        assert_eq!(read("13:00"), "2026-03-02T12:00:00Z");
        assert_eq!(read("03:00"), "2026-03-02T02:00:00Z");
    }

    #[test]
    fn other_moments_are_refused_with_what_to_write() {
        for text in ["10m", "soon", "+", "+x", "25:00", "", "-1"] {
            assert!(at(text).unwrap_err().contains("+10m"), "{text}");
        }
        let past = at("2026-03-01T11:59:00Z").unwrap_err();
        assert_eq!(past, "that was 1m ago; write a time to come, or +10m");
        assert!(fixed_moment("03:00").unwrap_err().contains("offset"));
        assert!(interval("0.5").unwrap_err().contains("--restart always"));
        assert!(
            deadline("0.5")
                .unwrap_err()
                .contains("write for example 30s")
        );
        assert!(interval("2y").unwrap_err().contains("366 days"));
        assert_eq!(interval("1h30m"), Ok(5_400_000));
    }

    #[test]
    fn a_schedule_is_one_line() {
        let cron = one_of(None, None, Some("@daily".to_owned()));
        assert_eq!(text(cron.as_ref()), "cron @daily (UTC)");
        assert_eq!(
            text(one_of(Some(NOON), None, None).as_ref()),
            "at 2026-03-01T12:00:00Z"
        );
        assert_eq!(
            text(one_of(None, Some(90_000), None).as_ref()),
            "every 1m 30s"
        );
        assert_eq!(text(None), "");
        let next = |ms: u64| until(UnixMillis(NOON.0 + ms), NOON);
        assert_eq!(
            [next(0), next(1), next(240_000)],
            ["due", "next in 1s", "next in 4m"]
        );
        let soon = next_run(Some(UnixMillis(NOON.0 + 5_000)), NOON);
        assert_eq!(soon, "in 5s, at 2026-03-01T12:00:05Z");
    }

    #[test]
    fn runs_are_a_table() {
        let attempt = |exit| Attempt {
            object: ObjectId([1; 16]),
            node: NodeId([0; 32]),
            started: Some(UnixMillis(NOON.0 - 60_000)),
            exit,
        };
        let exit = |reason| Exit {
            reason,
            at: UnixMillis(NOON.0 - 30_000),
            asked: false,
        };
        let run = |number, attempt| Run {
            skipped: 2,
            attempt,
            ..Run::new(number, UnixMillis(NOON.0 - 61_000), NOON)
        };
        let runs = [
            run(5, Some(attempt(None))),
            run(4, None),
            run(3, Some(attempt(None))),
            run(2, Some(attempt(Some(exit(ExitReason::Signal(9)))))),
            run(1, Some(attempt(Some(exit(ExitReason::Code(0)))))),
        ];
        let names = NodeNames::of(&[node(0, "atlas", NodeState::Up)]);
        let drawing = Drawing {
            headers: true,
            ..Drawing::default()
        };
        expect![[r#"
            RUN  DUE                   NODE   STATE            SINCE  SKIPPED
              5  2026-03-01T11:58:59Z  atlas  running             1m        2
              4  2026-03-01T11:58:59Z  -      never placed        1m        2
              3  2026-03-01T11:58:59Z  atlas  lost                1m        2
              2  2026-03-01T11:58:59Z  atlas  ended (SIGKILL)    30s        2
              1  2026-03-01T11:58:59Z  atlas  ended (0)          30s        2
        "#]]
        .assert_eq(&runs_table(&runs, &names, NOON).draw(drawing));
    }
}
