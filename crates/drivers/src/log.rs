//! The output of an object on disk: bounded, readable while it is written, whole after a crash.
//!
//! A log is a few files `log.N` in the object's directory, oldest `N` first, each at most a
//! quarter of what may be kept. When the newest is full the next one begins and the oldest is
//! deleted. Attached callers are served from here too: a caller is only a position in the log,
//! so one that is slow delays nobody, and one that begins at the oldest record gets every byte
//! once and in order.
//!
//! What it is not: not synced. What the kernel has taken survives the death of the shim and of
//! the daemon; after a power cut the last seconds may be missing.
//!
//! # A record
//!
//! ```text
//! length: u32 │ crc32: u32 │ microseconds since 1970: u64 │ stream: u8 │ payload: length bytes
//! ```
//!
//! Numbers are little endian. The checksum (CRC-32, IEEE) covers time, stream and payload. The
//! stream is 1 for standard output and the terminal, 2 for standard error. `length` is at most
//! [`LOG_RECORD_BYTES_MAX`]. A file is records and nothing else. A record that is cut short or
//! does not match its checksum ends its file: in the newest file that is a torn tail, which a
//! writer cuts off when it opens the log; in an older one the reader goes on with the next file
//! and counts the damage.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::limits::{CHUNK_BYTES, LOG_RECORD_BYTES_MAX, LOG_SEGMENT_BYTES_MIN, LOG_SEGMENTS};

/// Bytes before the payload of a record.
pub const HEADER_BYTES: usize = 17;

/// Where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it came from.
    pub stream: Stream,
    /// When it was read from the program: microseconds since 1970.
    pub time_us: u64,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that is kept.
    Oldest,
    /// So many lines before the end; a last line without its newline counts.
    TailLines(u64),
    /// At the end: only what is still to come.
    End,
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("log.{number}"))
}

/// The numbers of the files that exist, in order.
fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("log.")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Deletes the log in `directory`.
///
/// # Errors
/// The first file that could not be deleted; the others may be gone.
pub fn remove(directory: &Path) -> io::Result<()> {
    segments(directory)?
        .into_iter()
        .try_for_each(|n| fs::remove_file(segment_path(directory, n)))
}

/// Appends records. There is one writer per log.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    file: File,
    number: u64,
    size_bytes: u64,
    oldest: u64,
    segment_bytes: u64,
    encoded: Vec<u8>,
}

impl Writer {
    /// Opens the log in `directory`, which may hold one already, and cuts off a torn tail.
    /// At most `bytes_max` are kept, but never less than a few records.
    ///
    /// # Errors
    /// When the directory cannot be read or the newest file not be written.
    pub fn open(directory: &Path, bytes_max: u64) -> io::Result<Self> {
        let numbers = segments(directory)?;
        let number = numbers.last().copied().unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(segment_path(directory, number))?;
        let size_bytes = match file.metadata()?.len() {
            0 => 0,
            length_bytes => {
                let (valid, _lines) = scan(&file)?;
                if valid < length_bytes {
                    file.set_len(valid)?;
                }
                valid
            }
        };
        let segment_bytes = (bytes_max / LOG_SEGMENTS).max(LOG_SEGMENT_BYTES_MIN);
        Ok(Self {
            directory: directory.to_path_buf(),
            file,
            number,
            size_bytes,
            oldest: numbers.first().copied().unwrap_or(0),
            segment_bytes,
            encoded: Vec::new(),
        })
    }

    /// Appends one record; what is beyond [`LOG_RECORD_BYTES_MAX`] goes into further ones.
    ///
    /// # Errors
    /// When the disk takes nothing more. A record that was taken in part has been cut off again
    /// where possible; readers ignore it otherwise.
    pub fn append(&mut self, stream: Stream, time_us: u64, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(LOG_RECORD_BYTES_MAX)
            .try_for_each(|piece| self.append_one(stream, time_us, piece))
    }

    /// Where the log ends: the number of the file that is written, and its length.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.number, self.size_bytes)
    }

    fn append_one(&mut self, stream: Stream, time_us: u64, payload: &[u8]) -> io::Result<()> {
        let record_bytes = u64::try_from(HEADER_BYTES + payload.len()).unwrap_or(u64::MAX);
        if self.size_bytes > 0 && self.size_bytes.saturating_add(record_bytes) > self.segment_bytes
        {
            self.rotate()?;
        }
        self.encoded.clear();
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let time = time_us.to_le_bytes();
        let crc = checksum(time, stream as u8, payload);
        self.encoded.extend_from_slice(&length.to_le_bytes());
        self.encoded.extend_from_slice(&crc.to_le_bytes());
        self.encoded.extend_from_slice(&time);
        self.encoded.push(stream as u8);
        self.encoded.extend_from_slice(payload);
        // One call, so that a reader seldom sees half a record.
        if let Err(error) = self.file.write_all(&self.encoded) {
            self.file.set_len(self.size_bytes)?;
            return Err(error);
        }
        self.size_bytes = self.size_bytes.saturating_add(record_bytes);
        self.encoded.shrink_to(CHUNK_BYTES + HEADER_BYTES);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.number + 1;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        self.file = options.open(segment_path(&self.directory, number))?;
        self.file.set_len(0)?;
        self.number = number;
        self.size_bytes = 0;
        while self.number - self.oldest >= LOG_SEGMENTS {
            crate::directory::remove_file(&segment_path(&self.directory, self.oldest))?;
            self.oldest += 1;
        }
        Ok(())
    }
}

fn checksum(time: [u8; 8], stream: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&time);
    hasher.update(&[stream]);
    hasher.update(payload);
    hasher.finalize()
}

/// How many bytes of a file are whole records, and its newlines and last byte.
fn scan(file: &File) -> io::Result<(u64, Lines)> {
    let mut window = Window::default();
    let mut lines = Lines::default();
    while let Some(record) = window.next_record(file)? {
        lines.newlines += count_newlines(&record.payload);
        lines.open = record
            .payload
            .last()
            .map_or(lines.open, |last| *last != b'\n');
    }
    Ok((window.position, lines))
}

fn count_newlines(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Lines {
    newlines: u64,
    /// The last line has no newline yet.
    open: bool,
}

/// A buffered view of one file at a position that is always the start of a record.
#[derive(Debug, Default)]
struct Window {
    position: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl Window {
    /// The next whole record; `None` when there is none (yet), or it is damaged.
    fn next_record(&mut self, file: &File) -> io::Result<Option<Record>> {
        if !self.fill(file, HEADER_BYTES)? {
            self.forget();
            return Ok(None);
        }
        let Some((length, crc, time, stream)) = self.header() else {
            self.forget();
            return Ok(None);
        };
        let record_bytes = HEADER_BYTES + length;
        if !self.fill(file, record_bytes)? {
            self.forget();
            return Ok(None);
        }
        let payload = &self.buffer[self.taken + HEADER_BYTES..self.taken + record_bytes];
        if checksum(time, stream as u8, payload) != crc {
            self.forget();
            return Ok(None);
        }
        let record = Record {
            stream,
            time_us: u64::from_le_bytes(time),
            payload: payload.to_vec(),
        };
        self.taken += record_bytes;
        self.position += u64::try_from(record_bytes).unwrap_or(u64::MAX);
        Ok(Some(record))
    }

    fn header(&self) -> Option<(usize, u32, [u8; 8], Stream)> {
        let rest = self.buffer.get(self.taken..)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let stream = match rest.first()? {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        (length <= LOG_RECORD_BYTES_MAX).then_some((
            length,
            u32::from_le_bytes(*crc),
            *time,
            stream,
        ))
    }

    /// Makes `wanted` bytes at the position available; false when the file ends before.
    fn fill(&mut self, file: &File, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() - self.taken < wanted {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let had = self.buffer.len();
            self.buffer.resize(wanted.max(CHUNK_BYTES), 0);
            let at = self.position + u64::try_from(had).unwrap_or(u64::MAX);
            let read = file.read_at(&mut self.buffer[had..], at);
            self.buffer
                .truncate(had + read.as_ref().copied().unwrap_or(0));
            if read? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A writer may be in the middle of a record, so what is not a whole one must not be kept.
    fn forget(&mut self) {
        self.buffer.clear();
        self.taken = 0;
    }
}

/// Reads records, while a writer appends to them or long after.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    current: Option<(u64, File)>,
    window: Window,
    skip_lines: u64,
    since_us: u64,
    gaps: u64,
    damaged: u64,
}

impl Reader {
    /// Opens the log in `directory`; it may be empty.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(directory: &Path, start: Start) -> io::Result<Self> {
        let mut reader = Self {
            directory: directory.to_path_buf(),
            current: None,
            window: Window::default(),
            skip_lines: 0,
            since_us: 0,
            gaps: 0,
            damaged: 0,
        };
        let numbers = segments(directory)?;
        match start {
            Start::Oldest => reader.enter_first(&numbers)?,
            Start::End => {
                if let Some(number) = numbers.last() {
                    reader.enter(*number)?;
                    reader.skip_to_end()?;
                }
            }
            Start::TailLines(lines) => reader.enter_tail(&numbers, lines)?,
        }
        Ok(reader)
    }

    /// Leaves out what is older than this (microseconds since 1970).
    #[must_use]
    pub fn since(mut self, since_us: u64) -> Self {
        self.since_us = since_us;
        self
    }

    /// Where the next record will come from: the number of a file, and an offset in it.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (
            self.current.as_ref().map_or(0, |(number, _)| *number),
            self.window.position,
        )
    }

    /// How often records were deleted before they were read: this reader was too slow.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// How many files ended in a damaged record.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next record; `None` when there is none, or none yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            let Some((number, file)) = &self.current else {
                self.enter_first(&segments(&self.directory)?)?;
                if self.current.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let number = *number;
            // The order matters: a file that has a successor gets no more records.
            let has_successor = || segment_path(&self.directory, number + 1).exists();
            let record = match self.window.next_record(file)? {
                Some(record) => Some(record),
                None if !has_successor() && !self.is_behind(number)? => return Ok(None),
                None => self.window.next_record(file)?,
            };
            match record {
                Some(record) => {
                    if let Some(record) = self.wanted(record) {
                        return Ok(Some(record));
                    }
                }
                None => self.leave(number)?,
            }
        }
    }

    /// Whether the file that is being read was deleted although it has no direct successor.
    fn is_behind(&self, number: u64) -> io::Result<bool> {
        if segment_path(&self.directory, number).exists() {
            return Ok(false);
        }
        Ok(segments(&self.directory)?
            .iter()
            .any(|other| *other > number))
    }

    fn wanted(&mut self, mut record: Record) -> Option<Record> {
        while self.skip_lines > 0 {
            let newline = record.payload.iter().position(|byte| *byte == b'\n')?;
            record.payload.drain(..=newline);
            self.skip_lines -= 1;
        }
        (record.time_us >= self.since_us && !record.payload.is_empty()).then_some(record)
    }

    /// Goes on with the file after `number`.
    fn leave(&mut self, number: u64) -> io::Result<()> {
        if let Some((_, file)) = &self.current
            && self.window.position < file.metadata()?.len()
        {
            self.damaged += 1;
        }
        let numbers = segments(&self.directory)?;
        let next = numbers.iter().copied().find(|other| *other > number);
        self.gaps += u64::from(next.is_some_and(|next| next > number + 1));
        self.current = None;
        next.map_or(Ok(()), |next| self.enter(next))
    }

    fn enter_first(&mut self, numbers: &[u64]) -> io::Result<()> {
        numbers.first().map_or(Ok(()), |number| self.enter(*number))
    }

    /// A file that was deleted meanwhile is a gap.
    fn enter(&mut self, number: u64) -> io::Result<()> {
        self.window = Window::default();
        match File::open(segment_path(&self.directory, number)) {
            Ok(file) => self.current = Some((number, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.gaps += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn skip_to_end(&mut self) -> io::Result<()> {
        let Some((_, file)) = &self.current else {
            return Ok(());
        };
        let length_bytes = file.metadata()?.len();
        // Records are written whole by one call, so the length is the end of a record, unless
        // the writer died in the middle of one; its successor cuts that off.
        self.window = Window {
            position: length_bytes,
            ..Window::default()
        };
        Ok(())
    }

    fn enter_tail(&mut self, numbers: &[u64], wanted: u64) -> io::Result<()> {
        let mut lines = 0_u64;
        for (place, number) in numbers.iter().rev().enumerate() {
            self.enter(*number)?;
            let Some((_, file)) = &self.current else {
                continue;
            };
            let (end, found) = scan(file)?;
            lines += found.newlines + u64::from(place == 0 && found.open);
            if wanted == 0 {
                self.window.position = end;
                return Ok(());
            }
            if lines > wanted {
                break;
            }
        }
        self.skip_lines = lines.saturating_sub(wanted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            text.extend(record.payload);
        }
        String::from_utf8(text).unwrap()
    }

    fn check(pieces: &[&str], start: Start, expect: &str) {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 0).unwrap();
        for (time, piece) in pieces.iter().enumerate() {
            writer
                .append(Stream::Stdout, time as u64, piece.as_bytes())
                .unwrap();
        }
        let mut reader = Reader::open(directory.path(), start).unwrap();
        assert_eq!(text_of(&mut reader), expect, "{pieces:?} from {start:?}");
    }

    #[test]
    fn a_tail_counts_lines_across_records_and_an_open_last_line() {
        check(&["a\nb\n", "c\n"], Start::Oldest, "a\nb\nc\n");
        check(&["a\nb\n", "c\n"], Start::TailLines(1), "c\n");
        check(&["a\nb\n", "c\n"], Start::TailLines(2), "b\nc\n");
        check(&["a\nb\n", "c"], Start::TailLines(1), "c");
        check(&["a\nb", "c\nd"], Start::TailLines(2), "bc\nd");
        check(&["a\n"], Start::TailLines(9), "a\n");
        check(&["a\n"], Start::TailLines(0), "");
        check(&["a\n"], Start::End, "");
        check(&[], Start::TailLines(3), "");
    }

    #[test]
    fn a_reader_follows_a_writer_across_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 0).unwrap();
        let mut reader = Reader::open(directory.path(), Start::End).unwrap();
        let line = vec![b'x'; 10_000];
        for round in 0..100 {
            writer.append(Stream::Stderr, round, &line).unwrap();
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!((record.time_us, record.stream), (round, Stream::Stderr));
            assert_eq!(reader.next_record().unwrap(), None);
        }
        assert_eq!((reader.gaps(), reader.damaged()), (0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_slow_reader_is_told_of_the_gap() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 1).unwrap();
        writer.append(Stream::Stdout, 0, b"first").unwrap();
        let mut slow = Reader::open(directory.path(), Start::Oldest).unwrap();
        for round in 0..1000 {
            writer
                .append(Stream::Stdout, round, &[b'x'; 10_000])
                .unwrap();
        }
        let kept: u64 = segments(directory.path())
            .unwrap()
            .iter()
            .map(|n| {
                fs::metadata(segment_path(directory.path(), *n))
                    .unwrap()
                    .len()
            })
            .sum();
        assert!(kept <= LOG_SEGMENTS * LOG_SEGMENT_BYTES_MIN, "{kept} bytes");
        assert!(text_of(&mut slow).starts_with("first"));
        assert_eq!(slow.gaps(), 1);
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_was_torn() {
        let directory = tempfile::tempdir().unwrap();
        for cut in 1..HEADER_BYTES as u64 + 6 {
            remove(directory.path()).unwrap();
            let mut writer = Writer::open(directory.path(), 0).unwrap();
            writer.append(Stream::Stdout, 1, b"whole\n").unwrap();
            writer.append(Stream::Stdout, 2, b"torn!\n").unwrap();
            let length = writer.file.metadata().unwrap().len();
            writer.file.set_len(length - cut).unwrap();
            let mut reader = Reader::open(directory.path(), Start::Oldest).unwrap();
            assert_eq!(text_of(&mut reader), "whole\n");
            let mut writer = Writer::open(directory.path(), 0).unwrap();
            writer.append(Stream::Stdout, 3, b"after\n").unwrap();
            assert_eq!(text_of(&mut reader), "after\n");
            let mut reader = Reader::open(directory.path(), Start::Oldest).unwrap();
            assert_eq!(text_of(&mut reader), "whole\nafter\n");
        }
    }

    #[test]
    fn arbitrary_bytes_in_a_file_are_no_records_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let mut state = 7_u32;
        for length in 0..300_usize {
            let noise: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_le_bytes()[3]
                })
                .collect();
            fs::write(segment_path(directory.path(), 0), noise).unwrap();
            let mut reader = Reader::open(directory.path(), Start::TailLines(5)).unwrap();
            assert_eq!(reader.next_record().unwrap(), None);
        }
    }

    #[test]
    fn since_leaves_out_what_is_older() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), 0).unwrap();
        for time in 0..5 {
            writer
                .append(Stream::Stdout, time, format!("{time}").as_bytes())
                .unwrap();
        }
        let mut reader = Reader::open(directory.path(), Start::Oldest)
            .unwrap()
            .since(3);
        assert_eq!(text_of(&mut reader), "34");
    }
}
