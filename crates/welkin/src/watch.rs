//! A picture that is drawn again and again on the whole screen, until a key or a signal ends it.

use std::future::pending;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::failure::Failure;
use crate::flags::{Output, Watching};
use crate::output::Screen;
use crate::output::full_screen::FullScreen;
use crate::signals::Signals;
use crate::terminal::RawMode;

/// Between two pictures.
pub(crate) const AGAIN: Duration = Duration::from_secs(2);
/// Keys that end it: q, Escape, Ctrl-C, Ctrl-D.
const QUIT: [u8; 4] = [b'q', 0x1b, 0x03, 0x04];

/// Whether a list is to be drawn again and again: once is all that a pipe gets.
///
/// # Errors
/// When it is also to be in a form for programs.
pub(crate) fn is_wanted(
    watching: Watching,
    output: &Output,
    screen: Screen,
) -> Result<bool, Failure> {
    if watching.watch && output.is_for_programs() {
        let text = "--watch is for people, and this form is for programs";
        return Err(Failure::usage(text).remedy("welkin events -f -o json"));
    }
    Ok(watching.watch && screen.out_is_terminal)
}

/// Draws pictures on the terminal. The screen and the keys are given back however it ends, also in
/// the middle of a picture. A first picture that fails is said on the usual screen.
pub(crate) async fn watch(
    mut picture: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<u8, Failure> {
    let first = picture().await?;
    let mut signals = Signals::catch()?;
    let keys = RawMode::begin()?;
    let screen = FullScreen::begin()?;
    let drawing = async {
        screen.show(&first)?;
        loop {
            sleep(AGAIN).await;
            screen.show(&picture().await?)?;
        }
    };
    let watched = tokio::select! {
        watched = drawing => watched,
        () = quit_key(keys.is_some()) => Ok(0),
        signal = signals.next() => Ok(signal.saturating_add(128)),
    };
    drop(screen);
    drop(keys);
    watched
}

/// Returns when a key that ends it was pressed.
async fn quit_key(has_keys: bool) {
    let mut stdin = tokio::io::stdin();
    let mut key = [0];
    let mut listening = has_keys;
    while listening {
        listening = stdin.read(&mut key).await.is_ok_and(|read| read == 1);
        if listening && QUIT.iter().any(|quit| key.contains(quit)) {
            return;
        }
    }
    pending().await
}
