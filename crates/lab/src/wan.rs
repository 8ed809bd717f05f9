//! Round-trip times between places. It is not a network: it only says which link two hosts get.
//!
//! A matrix is a tab-separated text: a line of names and then, in the same order, a square of
//! round-trip times in milliseconds. A text of numbers alone is a matrix too; its places are called
//! `p1`, `p2`, .... The one-way delay from a to b is half of the number in row a, column b.
//! `nan` (never measured) is replaced by the other direction, or else by the median.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::link::Link;

/// A square of round-trip times between named places.
#[derive(Clone, Debug, PartialEq)]
pub struct Wan {
    sites: Vec<String>,
    round_trip_ms: Vec<Vec<f64>>,
}

/// Why a matrix could not be read. Nothing was changed.
#[derive(Debug)]
pub enum WanError {
    /// The file cannot be read.
    Read(std::path::PathBuf, std::io::Error),
    /// The text is not a matrix; says where and why.
    Shape(String),
    /// A site was asked for that the matrix does not have; the second are those it has.
    NoSuchSite(String, Vec<String>),
}

impl fmt::Display for WanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(formatter, "cannot read {}: {error}", path.display()),
            Self::Shape(reason) => write!(formatter, "not a matrix of round-trip times: {reason}"),
            Self::NoSuchSite(site, known) => {
                write!(
                    formatter,
                    "no site '{site}'; there are {}",
                    known.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for WanError {}

impl Wan {
    /// Five cities, for trying things out. The numbers are illustrative: of the right size for the
    /// distances, and measured by nobody.
    pub fn builtin() -> Self {
        let sites = ["amsterdam", "virginia", "oregon", "tokyo", "sydney"];
        let round_trip_ms = [
            [0.6, 84.0, 141.0, 228.0, 262.0],
            [84.0, 0.6, 66.0, 152.0, 204.0],
            [142.0, 66.0, 0.6, 98.0, 143.0],
            [229.0, 153.0, 98.0, 0.6, 107.0],
            [262.0, 204.0, 144.0, 107.0, 0.6],
        ];
        Self {
            sites: sites.map(str::to_owned).to_vec(),
            round_trip_ms: round_trip_ms.map(|row| row.to_vec()).to_vec(),
        }
    }

    /// Reads a matrix from a file; `builtin` is [`Wan::builtin`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, WanError> {
        let path = path.as_ref();
        if path == Path::new("builtin") {
            return Ok(Self::builtin());
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| WanError::Read(path.into(), error))?;
        Self::parse(&text)
    }

    /// Reads a matrix from its text.
    pub fn parse(text: &str) -> Result<Self, WanError> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let first: Vec<&str> = lines.clone().next().unwrap_or("").split('\t').collect();
        let sites: Vec<String> = if first.iter().all(|field| number(field).is_some()) {
            (1..=first.len()).map(|place| format!("p{place}")).collect()
        } else {
            lines.next();
            first.iter().map(|name| name.trim().to_owned()).collect()
        };
        let round_trip_ms = lines
            .enumerate()
            .map(|(row, line)| parse_row(row + 1, line, sites.len()))
            .collect::<Result<Vec<_>, _>>()?;
        if round_trip_ms.len() != sites.len() || sites.is_empty() {
            let (rows, columns) = (round_trip_ms.len(), sites.len());
            return Err(WanError::Shape(format!("{columns} names but {rows} rows")));
        }
        let mut wan = Self {
            sites,
            round_trip_ms,
        };
        wan.fill_gaps();
        Ok(wan)
    }

    /// Only these sites, in this order; a site may be named twice.
    pub fn only<S: AsRef<str>>(&self, sites: &[S]) -> Result<Self, WanError> {
        let find = |site: &S| {
            let site = site.as_ref();
            let place = self.sites.iter().position(|known| known == site);
            place.ok_or_else(|| WanError::NoSuchSite(site.to_owned(), self.sites.clone()))
        };
        let chosen = sites.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let row = |from: &usize| {
            let to = chosen.iter();
            to.map(|to| self.round_trip_ms[*from][*to]).collect()
        };
        Ok(Self {
            sites: chosen.iter().map(|it| self.sites[*it].clone()).collect(),
            round_trip_ms: chosen.iter().map(row).collect(),
        })
    }

    /// The names of the sites.
    pub fn sites(&self) -> &[String] {
        &self.sites
    }

    /// The site of a host, both counted from zero: hosts are dealt out in turn.
    pub(crate) fn site_of(&self, host: usize) -> &str {
        &self.sites[host % self.sites.len()]
    }

    /// The link between two hosts, counted from zero.
    pub(crate) fn link(&self, from: usize, to: usize) -> Link {
        let places = self.sites.len();
        let round_trip_ms = self.round_trip_ms[from % places][to % places];
        Link::with_delay(Duration::from_secs_f64(round_trip_ms / 2000.0))
    }

    fn fill_gaps(&mut self) {
        let mut known: Vec<f64> = self.round_trip_ms.iter().flatten().copied().collect();
        known.retain(|value| value.is_finite());
        known.sort_by(f64::total_cmp);
        let median = known.get(known.len() / 2).copied().unwrap_or(0.0);
        let before = self.round_trip_ms.clone();
        for (from, row) in self.round_trip_ms.iter_mut().enumerate() {
            for (to, value) in row.iter_mut().enumerate() {
                let known = [*value, before[to][from], median];
                *value = known.into_iter().find(|it| !it.is_nan()).unwrap_or(0.0);
            }
        }
    }
}

fn parse_row(row: usize, line: &str, columns: usize) -> Result<Vec<f64>, WanError> {
    let values: Vec<f64> = line
        .split('\t')
        .enumerate()
        .map(|(column, field)| {
            number(field).ok_or_else(|| {
                let column = column + 1;
                WanError::Shape(format!(
                    "row {row}, column {column}: '{field}' is not milliseconds from 0 to 60000"
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    if values.len() == columns {
        return Ok(values);
    }
    let found = values.len();
    Err(WanError::Shape(format!(
        "row {row} has {found} numbers, not {columns}"
    )))
}

/// Milliseconds, or `nan`.
fn number(field: &str) -> Option<f64> {
    let value: f64 = field.trim().parse().ok()?;
    (value.is_nan() || (0.0..=60_000.0).contains(&value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_round_trip_goes_each_way_and_directions_may_differ() {
        let wan = Wan::parse("a\tb\n0\t100\n80\t0\n").expect("a matrix");
        assert_eq!(wan.link(0, 1).delay, Duration::from_millis(50));
        assert_eq!(wan.link(1, 0).delay, Duration::from_millis(40));
        assert_eq!((wan.site_of(0), wan.site_of(3)), ("a", "b"));
    }

    #[test]
    fn numbers_alone_are_a_matrix_and_gaps_are_filled() {
        let wan = Wan::parse("0\tnan\t8\n6\t0\tnan\n8\tnan\t0\n").expect("a matrix");
        assert_eq!(wan.sites(), ["p1", "p2", "p3"]);
        assert_eq!(wan.link(0, 1).delay, Duration::from_millis(3));
        assert_eq!(wan.link(1, 2).delay, Duration::from_millis(3));
    }

    #[test]
    fn what_is_not_a_square_of_times_is_refused_with_the_place() {
        for (text, reason) in [
            ("", "0 rows"),
            ("a\tb\n1\t2\n", "2 names but 1 rows"),
            ("a\tb\n1\n1\t2\n", "row 1 has 1"),
            ("a\tb\n1\tx\n1\t2\n", "row 1, column 2: 'x'"),
            ("a\n-1\n", "column 1: '-1'"),
        ] {
            let error = Wan::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn sites_are_chosen_by_name() {
        let wan = Wan::builtin()
            .only(&["tokyo", "oregon"])
            .expect("both exist");
        assert_eq!(wan.link(0, 1).delay, Duration::from_millis(49));
        let error = Wan::builtin().only(&["atlantis"]).expect_err("sunk");
        assert!(error.to_string().contains("amsterdam"), "{error}");
    }
}
