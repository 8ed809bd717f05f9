//! Cron expressions, as in crontab(5), in UTC.
//!
//! | field | numbers | or |
//! | --- | --- | --- |
//! | minute | 0 to 59 | |
//! | hour | 0 to 23 | |
//! | day of the month | 1 to 31 | |
//! | month | 1 to 12 | `jan` to `dec` |
//! | day of the week | 0 to 7; 0 and 7 are Sunday | `sun` to `sat` |
//!
//! A field is a list with commas: of numbers, ranges (`1-5`), or `*`; a range or `*` may have a step
//! (`*/15`). When neither of the two fields of days begins with `*`, a day fits that fits one of
//! them; else it fits both. `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly` and
//! `@annually` stand for what they say.
//!
//! Work is bounded: at most the days of [`YEARS_MAX`] years are looked at.

use alloc::string::{String, ToString};

use wire::id::UnixMillis;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
/// The longest time between two days that fit: 29 February on one day of the week, where a century
/// without a leap day lies between. What fits no day for so long never fits.
const YEARS_MAX: i64 = 40;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// An expression that was read: a bit for each number that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day fits that fits `days` or `weekdays`; else it must fit both.
    either_day: bool,
}

/// What a field is about.
struct Field {
    name: &'static str,
    first: u64,
    last: u64,
    /// Words for the numbers from `first` on.
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        first: 0,
        last: 59,
        words: &[],
    },
    Field {
        name: "hour",
        first: 0,
        last: 23,
        words: &[],
    },
    Field {
        name: "day of the month",
        first: 1,
        last: 31,
        words: &[],
    },
    Field {
        name: "month",
        first: 1,
        last: 12,
        words: &MONTHS,
    },
    Field {
        name: "day of the week",
        first: 0,
        last: 7,
        words: &WEEKDAYS,
    },
];

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mut words = match text.strip_prefix('@') {
            Some(word) => in_fields(word)?,
            None => text,
        }
        .split_ascii_whitespace();
        let mut masks = [0; 5];
        let mut starred = [false; 5];
        for ((field, mask), star) in FIELDS.iter().zip(&mut masks).zip(&mut starred) {
            let Some(word) = words.next() else {
                return Err(five_fields(text));
            };
            *mask = field.mask(word)?;
            *star = word.starts_with('*');
        }
        if words.next().is_some() {
            return Err(five_fields(text));
        }
        let [minutes, hours, days, months, weekdays] = masks;
        let [_, _, any_day, _, any_weekday] = starred;
        let cron = Self {
            minutes,
            hours,
            days,
            months,
            // 7 is Sunday too.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either_day: !any_day && !any_weekday,
        };
        match cron.next(UnixMillis(0)) {
            Some(_) => Ok(cron),
            None => Err(alloc::format!(
                "`{text}` is never due: no month that it names has such a day"
            )),
        }
    }

    /// The first moment after `after` that fits.
    pub(super) fn next(&self, after: UnixMillis) -> Option<UnixMillis> {
        let first = after.0 / MINUTE_MS + 1;
        let mut date = Date::of_day(i64::try_from(first / DAY_MINUTES).ok()?);
        let mut from = first % DAY_MINUTES;
        let last_year = date.year + YEARS_MAX;
        while date.year <= last_year {
            if self.months & (1 << date.month) == 0 {
                date = date.next_month();
                from = 0;
                continue;
            }
            if self.fits_day(&date)
                && let Some(minute) = self.minute_from(from)
            {
                let minutes = u64::try_from(date.number).ok()? * DAY_MINUTES + minute;
                return minutes.checked_mul(MINUTE_MS).map(UnixMillis);
            }
            date = date.next_day();
            from = 0;
        }
        None
    }

    fn fits_day(&self, date: &Date) -> bool {
        let day = self.days & (1 << date.day) != 0;
        let weekday = self.weekdays & (1 << date.weekday()) != 0;
        if self.either_day {
            day || weekday
        } else {
            day && weekday
        }
    }

    /// The first minute of a day that fits, from this one on.
    fn minute_from(&self, from: u64) -> Option<u64> {
        let (hour, minute) = (from / 60, from % 60);
        let this_hour = self.minutes & (u64::MAX << minute);
        if self.hours & (1 << hour) != 0 && this_hour != 0 {
            return Some(hour * 60 + u64::from(this_hour.trailing_zeros()));
        }
        let later = self.hours & (u64::MAX << (hour + 1));
        let first = u64::from(self.minutes.trailing_zeros());
        (later != 0).then(|| u64::from(later.trailing_zeros()) * 60 + first)
    }
}

/// What a word with `@` stands for.
fn in_fields(word: &str) -> Result<&'static str, String> {
    match word.to_ascii_lowercase().as_str() {
        "hourly" => Ok("0 * * * *"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "weekly" => Ok("0 0 * * 0"),
        "monthly" => Ok("0 0 1 * *"),
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        _ => Err(alloc::format!(
            "`@{word}` is no time: write @hourly, @daily, @weekly, @monthly or @yearly"
        )),
    }
}

fn five_fields(text: &str) -> String {
    alloc::format!(
        "`{text}` is no cron expression: write minute, hour, day of the month, month and day of \
         the week, for example '30 3 * * mon-fri'"
    )
}

impl Field {
    /// The numbers that a list means.
    fn mask(&self, list: &str) -> Result<u64, String> {
        list.split(',').try_fold(0, |mask, item| {
            let (range, step) = match item.split_once('/') {
                None => (item, None),
                Some((range, step)) => (range, Some(step)),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last),
                None if step.is_some() => return Err(self.wrong(item)),
                None => (self.number(range)?, self.number(range)?),
                Some((first, last)) => (self.number(first)?, self.number(last)?),
            };
            let step = match step.map(str::parse::<u8>) {
                None => 1,
                Some(Ok(step)) if step > 0 => usize::from(step),
                Some(_) => return Err(self.wrong(item)),
            };
            if first > last {
                let Self { name, .. } = self;
                return Err(alloc::format!(
                    "`{range}` is no range of the {name}: write the smaller number first, or two \
                     ranges with a comma"
                ));
            }
            Ok((first..=last)
                .step_by(step)
                .fold(mask, |mask, it| mask | 1 << it))
        })
    }

    fn number(&self, text: &str) -> Result<u64, String> {
        let words = self.words.iter();
        let named = (self.first..)
            .zip(words)
            .find(|(_, word)| text.eq_ignore_ascii_case(word));
        if let Some((number, _)) = named {
            return Ok(number);
        }
        let is_number = text.bytes().all(|it| it.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number
            .filter(|it| (self.first..=self.last).contains(it))
            .ok_or_else(|| self.wrong(text))
    }

    fn wrong(&self, item: &str) -> String {
        let Self {
            name, first, last, ..
        } = self;
        let words = match (self.words.first(), self.words.last()) {
            (Some(one), Some(other)) => alloc::format!(" or {one} to {other}"),
            (_, _) => "".to_string(),
        };
        alloc::format!(
            "`{item}` is no {name}: write numbers from {first} to {last}{words}, a range such as \
             {first}-{last}, or */2"
        )
    }
}

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    /// Days since 1970-01-01.
    number: i64,
    year: i64,
    /// From 1.
    month: u8,
    /// From 1.
    day: u8,
}

impl Date {
    /// The civil calendar from a count of days (Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms", `civil_from_days`): years begin in March, eras are 400 years.
    fn of_day(number: i64) -> Self {
        let days = number + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = (from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let small = |number: i64| u8::try_from(number).unwrap_or(1);
        Self {
            number,
            year,
            month: small(month),
            day: small(day),
        }
    }

    /// 0 is Sunday.
    fn weekday(&self) -> i64 {
        // The first day was a Thursday.
        (self.number + 4).rem_euclid(7)
    }

    fn days_in_month(&self) -> u8 {
        let is_leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        match self.month {
            2 => 28 + u8::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn next_day(self) -> Self {
        if self.day == self.days_in_month() {
            return self.next_month();
        }
        Self {
            number: self.number + 1,
            day: self.day + 1,
            ..self
        }
    }

    /// The first day of the next month.
    fn next_month(self) -> Self {
        let left = self.days_in_month() - self.day + 1;
        Self {
            number: self.number + i64::from(left),
            year: self.year + i64::from(self.month == 12),
            month: self.month % 12 + 1,
            day: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use proptest::prelude::*;

    const DAY_MS: u64 = DAY_MINUTES * MINUTE_MS;
    /// 2026-01-01, a Thursday.
    const NEW_YEAR: u64 = 20_454 * DAY_MS;

    /// A moment as people write it.
    fn text(at: UnixMillis) -> String {
        let minutes = at.0 / MINUTE_MS;
        let date = Date::of_day(i64::try_from(minutes / DAY_MINUTES).expect("a day"));
        let weekday = WEEKDAYS[usize::try_from(date.weekday()).expect("a day")];
        let (hour, minute) = (minutes % DAY_MINUTES / 60, minutes % 60);
        let (year, month, day) = (date.year, date.month, date.day);
        alloc::format!("{weekday} {year}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }

    /// The first moments after the new year of 2026.
    fn check(expression: &str, due: &[&str]) {
        let cron = Cron::parse(expression).expect(expression);
        let mut at = UnixMillis(NEW_YEAR);
        for expected in due {
            at = cron.next(at).expect("it is due again");
            assert_eq!(text(at), *expected, "{expression}");
        }
    }

    #[test]
    fn moments_are_those_of_crontab() {
        check(
            "* * * * *",
            &["thu 2026-01-01 00:01", "thu 2026-01-01 00:02"],
        );
        check(
            "*/20 * * * *",
            &["thu 2026-01-01 00:20", "thu 2026-01-01 00:40"],
        );
        check("@hourly", &["thu 2026-01-01 01:00", "thu 2026-01-01 02:00"]);
        check(
            "30 3 * * mon-fri",
            &[
                "thu 2026-01-01 03:30",
                "fri 2026-01-02 03:30",
                "mon 2026-01-05 03:30",
            ],
        );
        check(
            "15 10-12,22 * * *",
            &[
                "thu 2026-01-01 10:15",
                "thu 2026-01-01 11:15",
                "thu 2026-01-01 12:15",
                "thu 2026-01-01 22:15",
                "fri 2026-01-02 10:15",
            ],
        );
        check(
            "0 0 1 JAN,jul *",
            &["wed 2026-07-01 00:00", "fri 2027-01-01 00:00"],
        );
        check(
            "5-59/25 0 * * *",
            &[
                "thu 2026-01-01 00:05",
                "thu 2026-01-01 00:30",
                "thu 2026-01-01 00:55",
                "fri 2026-01-02 00:05",
            ],
        );
        check("@weekly", &["sun 2026-01-04 00:00", "sun 2026-01-11 00:00"]);
        check("0 0 * * 7", &["sun 2026-01-04 00:00"]);
        check("@yearly", &["fri 2027-01-01 00:00"]);
        check(
            "0 12 29 feb *",
            &["tue 2028-02-29 12:00", "sun 2032-02-29 12:00"],
        );
        check(
            "59 23 31 12 *",
            &["thu 2026-12-31 23:59", "fri 2027-12-31 23:59"],
        );
    }

    /// crontab(5): "if both fields are restricted, the command will be run when either field
    /// matches".
    #[test]
    fn two_fields_of_days_are_a_choice_unless_one_begins_with_a_star() {
        check(
            "0 0 13 * fri",
            &[
                "fri 2026-01-02 00:00",
                "fri 2026-01-09 00:00",
                "tue 2026-01-13 00:00",
            ],
        );
        check(
            "0 0 13 * *",
            &["tue 2026-01-13 00:00", "fri 2026-02-13 00:00"],
        );
        check(
            "0 0 */2 * fri",
            &["fri 2026-01-09 00:00", "fri 2026-01-23 00:00"],
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_to_write() {
        let refused = |expression: &str| Cron::parse(expression).expect_err(expression);
        for expression in ["", "* * * *", "* * * * * *", "0 0 * * mon-fri root"] {
            assert!(
                refused(expression).contains("'30 3 * * mon-fri'"),
                "{expression}"
            );
        }
        for expression in [
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "+1 * * * *",
            "? * * * *",
            "* * L * *",
            "5/15 * * * *",
            "*/0 * * * *",
            ", * * * *",
            "-1 * * * *",
            "* * * foo *",
            "* * * * monday",
        ] {
            assert!(
                refused(expression).contains("write numbers from"),
                "{expression}"
            );
        }
        assert!(refused("* * * * fri-mon").contains("the smaller number first"));
        assert!(refused("@reboot").contains("@hourly"));
        for expression in ["0 0 31 2 *", "0 0 30-31 feb *", "0 0 31 apr,jun *"] {
            assert!(refused(expression).contains("never due"), "{expression}");
        }
        assert!(Cron::parse("0 0 31 2 mon").is_ok(), "mondays fit");
    }

    #[test]
    fn the_longest_gap_is_within_what_is_looked_at() {
        // 29 February on a Sunday, across 2100.
        let cron = Cron::parse("0 0 */28 feb */7").expect("it is due");
        let late = UnixMillis(NEW_YEAR + 55 * 366 * DAY_MS);
        assert!(cron.next(late).is_some());
        assert!(cron.next(UnixMillis(u64::MAX)).is_none());
    }

    fn expressions() -> impl Strategy<Value = String> {
        let number = |first: u64, last: u64| {
            prop_oneof![
                2 => Just("*".to_string()),
                1 => (1_u64..30).prop_map(|step| alloc::format!("*/{step}")),
                2 => proptest::collection::vec(first..=last, 1..4).prop_map(|all| {
                    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                    all.join(",")
                }),
                1 => (first..=last, first..=last).prop_map(|(a, b)| {
                    alloc::format!("{}-{}", a.min(b), a.max(b))
                }),
            ]
        };
        let fields = (
            number(0, 59),
            number(0, 23),
            number(1, 31),
            number(1, 12),
            number(0, 7),
        );
        fields.prop_map(|(a, b, c, d, e)| alloc::format!("{a} {b} {c} {d} {e}"))
    }

    proptest! {
        /// Against the plainest reader there can be, minute by minute.
        #[test]
        fn next_is_the_first_minute_that_fits(
            expression in expressions(), day in 0_u64..40_000, minute in 0_u64..DAY_MINUTES,
        ) {
            let Ok(cron) = Cron::parse(&expression) else {
                return Ok(());
            };
            let after = day * DAY_MINUTES + minute;
            let due = cron.next(UnixMillis(after * MINUTE_MS)).expect("it is due") .0 / MINUTE_MS;
            prop_assert!(due > after);
            let fits = |at: u64| {
                let date = Date::of_day(i64::try_from(at / DAY_MINUTES).expect("a day"));
                cron.fits_day(&date)
                    && cron.months & (1 << date.month) != 0
                    && cron.hours & (1 << (at % DAY_MINUTES / 60)) != 0
                    && cron.minutes & (1 << (at % 60)) != 0
            };
            prop_assert!(fits(due));
            let before = (after + 1)..due.min(after + 3 * DAY_MINUTES);
            prop_assert!(before.into_iter().all(|at| !fits(at)));
        }

        #[test]
        fn days_follow_each_other(day in -800_000_i64..4_000_000) {
            let date = Date::of_day(day);
            prop_assert_eq!(date.next_day(), Date::of_day(day + 1));
            prop_assert_eq!(date.next_month().day, 1);
            prop_assert_eq!(date.next_month(), Date::of_day(date.next_month().number));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            drop(Cron::parse(&text));
        }
    }
}
