//! Pieces of a log, put together to lines.

use std::collections::BTreeMap;

use wire::id::ObjectId;

/// A whole line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When its first byte was written, in microseconds since 1970.
    pub(crate) at_us: u64,
    /// What it says.
    pub(crate) bytes: Vec<u8>,
}

/// Longest line that is waited for; a longer one is broken.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// The lines that are not complete yet, by where they come from.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: BTreeMap<(ObjectId, u8), Line>,
}

impl Lines {
    /// Takes a piece of the given stream of the given object; the lines that it completes.
    pub(crate) fn feed(&mut self, source: (ObjectId, u8), at_us: u64, bytes: &[u8]) -> Vec<Line> {
        let mut complete = Vec::new();
        let mut line = self.begun.remove(&source);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut current = line.take().unwrap_or(Line {
                at_us,
                bytes: Vec::new(),
            });
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            current.bytes.extend_from_slice(text);
            if ended || current.bytes.len() > LINE_BYTES_MAX {
                complete.push(current);
            } else {
                line = Some(current);
            }
        }
        if let Some(rest) = line {
            self.begun.insert(source, rest);
        }
        complete
    }

    /// The lines that will never be completed, as they are.
    pub(crate) fn finish(&mut self) -> Vec<((ObjectId, u8), Line)> {
        std::mem::take(&mut self.begun).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_of_their_own_stream() {
        let mut lines = Lines::default();
        let mut feed = |stream, at_us, text: &str| -> Vec<(u64, String)> {
            let complete = lines.feed((ObjectId([0; 16]), stream), at_us, text.as_bytes());
            let text = |line: Line| (line.at_us, String::from_utf8(line.bytes).unwrap());
            complete.into_iter().map(text).collect()
        };
        let line = |at_us, text: &str| (at_us, text.to_owned());
        assert_eq!(feed(1, 10, "one\ntw"), [line(10, "one")]);
        assert_eq!(feed(2, 11, "err\n\n"), [line(11, "err"), line(11, "")]);
        assert_eq!(feed(1, 12, "o\n"), [line(10, "two")]);
        assert_eq!(feed(1, 13, "rest"), []);
        let rest = lines.finish();
        assert_eq!(rest[0].0, (ObjectId([0; 16]), 1));
        assert_eq!(rest[0].1.bytes, b"rest");
    }
}
