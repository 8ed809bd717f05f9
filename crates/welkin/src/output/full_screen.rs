//! The whole screen of the terminal, drawn again and again.

use std::io::{self, Write};

use crate::terminal::size;

/// The full screen of standard output, given back when the value is dropped.
#[derive(Debug)]
pub(crate) struct FullScreen(());

impl FullScreen {
    /// Takes the screen.
    pub(crate) fn begin() -> io::Result<Self> {
        // The alternate screen, without a cursor (xterm, "Private Modes").
        io::stdout().write_all(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self(()))
    }

    /// Shows these lines from the top, and as many as fit.
    pub(crate) fn show(&self, text: &str) -> io::Result<()> {
        let (rows, columns) = size().unwrap_or((24, 80));
        let mut frame = String::from("\x1b[H");
        for line in text.lines().take(usize::from(rows.max(2)) - 1) {
            frame.push_str(&cut(line, usize::from(columns)));
            frame.push_str("\x1b[0m\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        drop(
            out.write_all(b"\x1b[?25h\x1b[?1049l")
                .and_then(|()| out.flush()),
        );
    }
}

/// As much of a line as fits; what colours it takes no room.
fn cut(line: &str, columns: usize) -> String {
    let mut shown = 0;
    let mut escaped = false;
    let fits = |c: &char| {
        if *c == '\x1b' {
            escaped = true;
        }
        if escaped {
            escaped = *c != 'm';
        } else {
            shown += 1;
        }
        shown <= columns
    };
    line.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("\x1b[31mabcdef", 3), "\x1b[31mabc");
        assert_eq!(cut("\x1b[31mab\x1b[0m", 3), "\x1b[31mab\x1b[0m");
    }
}
