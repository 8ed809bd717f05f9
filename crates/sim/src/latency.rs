//! How far places are from each other: square matrices of round-trip times.
//!
//! Real measurements come as text: one line a place, one number a column, `nan` or nothing where
//! nobody measured, and perhaps a first line with the names of the places. They are asymmetric and
//! break the triangle inequality, as the Internet does; nothing here mends that.

use std::fmt;
use std::time::Duration;

/// Round-trip times between cities in milliseconds, computed: the way of light in glass along the
/// great circle and back, with detours of one half, and 2 ms of equipment. Each line holds the
/// times to the cities above it.
const CITIES: [(&str, &[u64]); 11] = [
    ("london", &[]),
    ("frankfurt", &[12]),
    ("madrid", &[21, 24]),
    ("virginia", &[91, 100, 94]),
    ("oregon", &[120, 127, 131, 57]),
    ("sao-paulo", &[144, 149, 128, 117, 163]),
    ("mumbai", &[110, 100, 115, 195, 192, 209]),
    ("singapore", &[165, 156, 173, 235, 200, 242, 61]),
    ("tokyo", &[145, 142, 163, 165, 120, 280, 103, 82]),
    ("sydney", &[257, 249, 267, 237, 189, 202, 154, 97, 119]),
    (
        "johannesburg",
        &[138, 132, 123, 198, 250, 113, 107, 132, 205, 168],
    ),
];

/// Between two machines of one place.
const NEAR: Duration = Duration::from_micros(500);
/// Where nobody measured.
const UNKNOWN: Duration = Duration::from_millis(150);

/// Round-trip times between places.
#[derive(Debug, Clone)]
pub struct Matrix {
    names: Vec<String>,
    /// Row by row.
    round_trips: Vec<Duration>,
}

/// The text is not a square matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for MatrixError {}

impl Matrix {
    /// Eleven cities of the world.
    #[must_use]
    pub fn cities() -> Self {
        let names: Vec<String> = CITIES.iter().map(|(name, _)| (*name).to_string()).collect();
        // The table is a triangle: the other half is the same.
        let time = |row: usize, column: usize| {
            let millis = CITIES
                .get(row.max(column))
                .and_then(|(_, times)| times.get(row.min(column)));
            millis.map_or(NEAR, |millis| Duration::from_millis(*millis))
        };
        let cells =
            (0..names.len()).flat_map(|row| (0..names.len()).map(move |column| (row, column)));
        let round_trips = cells.map(|(row, column)| time(row, column)).collect();
        Self { names, round_trips }
    }

    /// One room: everything is near.
    #[must_use]
    pub fn room() -> Self {
        Self {
            names: vec!["room".to_string()],
            round_trips: vec![NEAR],
        }
    }

    /// Reads a matrix whose numbers are in units of `unit`: a millisecond, a second.
    ///
    /// # Errors
    /// [`MatrixError`] when it is not square, or a word is not a number.
    pub fn parse(text: &str, unit: Duration) -> Result<Self, MatrixError> {
        let lines = text.lines().enumerate();
        let mut lines = lines.filter(|(_, line)| !line.trim().is_empty()).peekable();
        let is_number = |word: &str| word.is_empty() || word.parse::<f64>().is_ok();
        let has_names = lines
            .peek()
            .is_some_and(|(_, line)| !line.trim().split('\t').all(is_number));
        let names = if has_names { lines.next() } else { None };
        let mut rows = Vec::new();
        for (number, line) in lines {
            rows.push((number + 1, parse_row(number + 1, line, unit, rows.len())?));
        }
        if let Some((line, row)) = rows.iter().find(|(_, row)| row.len() != rows.len()) {
            let reason = format!("{} numbers in one of {} lines", row.len(), rows.len());
            return Err(MatrixError {
                line: *line,
                reason,
            });
        }
        let numbered = (0..rows.len()).map(|number| format!("place-{number}"));
        let names: Vec<String> = match names {
            Some((_, line)) => line.trim().split('\t').map(str::to_string).collect(),
            None => numbered.collect(),
        };
        if names.len() != rows.len() || rows.is_empty() {
            let reason = format!("{} names for {} lines", names.len(), rows.len());
            return Err(MatrixError { line: 1, reason });
        }
        let round_trips = rows.into_iter().flat_map(|(_, row)| row).collect();
        Ok(Self { names, round_trips })
    }

    /// How many places there are.
    #[must_use]
    pub fn places(&self) -> usize {
        self.names.len()
    }

    /// The place of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|it| it == name)
    }

    /// From one place to another and back.
    #[must_use]
    pub fn round_trip(&self, from: usize, to: usize) -> Duration {
        let (from, to) = (from % self.places(), to % self.places());
        let cell = self.round_trips.get(from * self.places() + to);
        cell.copied().unwrap_or(UNKNOWN).max(NEAR)
    }
}

fn parse_row(
    line_number: usize,
    line: &str,
    unit: Duration,
    row: usize,
) -> Result<Vec<Duration>, MatrixError> {
    let cell = |(column, word): (usize, &str)| {
        let word = word.trim();
        let number: f64 = if word.is_empty() {
            f64::NAN
        } else {
            let wrong = |_not_a_number| MatrixError {
                line: line_number,
                reason: format!("`{word}` is not a number"),
            };
            word.parse().map_err(wrong)?
        };
        let is_known = number.is_finite() && number > 0.0;
        Ok(if is_known {
            Duration::try_from_secs_f64(number * unit.as_secs_f64()).unwrap_or(UNKNOWN)
        } else if row == column {
            NEAR
        } else {
            UNKNOWN
        })
    };
    line.trim_matches([' ', '\r', '\n'])
        .split('\t')
        .enumerate()
        .map(cell)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cities_are_as_far_one_way_as_the_other() {
        let cities = Matrix::cities();
        let (london, tokyo) = (cities.find("london"), cities.find("tokyo"));
        let (london, tokyo) = (london.unwrap(), tokyo.unwrap());
        assert_eq!(cities.round_trip(london, tokyo), Duration::from_millis(145));
        assert_eq!(cities.round_trip(tokyo, london), Duration::from_millis(145));
        assert_eq!(cities.round_trip(tokyo, tokyo), NEAR);
    }

    #[test]
    fn a_matrix_with_names_and_holes_can_be_read() {
        let text = "a\tb\n8.21\t262.69\n260.5\tnan\n";
        let matrix = Matrix::parse(text, Duration::from_millis(1)).unwrap();
        assert_eq!(matrix.round_trip(0, 1), Duration::from_micros(262_690));
        assert_eq!(matrix.round_trip(1, 0), Duration::from_micros(260_500));
        assert_eq!(matrix.round_trip(1, 1), NEAR);
        assert_eq!(matrix.find("b"), Some(1));
    }

    #[test]
    fn a_matrix_without_names_in_seconds_can_be_read() {
        let matrix = Matrix::parse("0\t0.1\n0.2\t0\n", Duration::from_secs(1)).unwrap();
        assert_eq!(matrix.round_trip(1, 0), Duration::from_millis(200));
        assert_eq!(matrix.places(), 2);
    }

    #[test]
    fn a_line_that_is_too_short_is_named() {
        let error = Matrix::parse("0\t1\n1\n", Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.line, 2);
    }
}
