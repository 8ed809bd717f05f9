//! The terminal of the caller: its size, and raw mode that always ends.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError};

use nix::sys::termios::{self, SetArg, Termios};

/// How the terminal was before; shared with the hook that runs on panic.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw mode of standard input (cfmakeraw(3)), ended when the value is dropped or the process
/// panics.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Begins raw mode; `None` when standard input is no terminal.
    pub(crate) fn begin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                report(info);
            }));
        });
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // Nothing can be done about a terminal that has gone.
        let _gone = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
    }
}

/// Rows and columns of the terminal of standard output, or else of standard input.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = terminal_size::terminal_size_of(io::stdout())
        .or_else(|| terminal_size::terminal_size_of(io::stdin()))?;
    Some((size.1.0, size.0.0))
}
