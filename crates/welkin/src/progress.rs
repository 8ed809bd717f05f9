//! A sign of life while something takes long.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Screen;

/// What is done sooner needs no sign of life.
const PATIENCE: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(100);

/// Waits for the work, and on a terminal says after a moment what is waited for.
pub(crate) async fn shown<T>(screen: Screen, what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if !screen.err_is_terminal {
        return work.await;
    }
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let spinner = spinner(what, screen.colours);
    let done = loop {
        if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
            break done;
        }
        spinner.tick();
    };
    spinner.finish_and_clear();
    done
}

fn spinner(what: &str, colours: bool) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = if colours {
        "{spinner:.cyan} {msg} {elapsed:.dim}"
    } else {
        "{spinner} {msg} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        spinner.set_style(style);
    }
    spinner.set_message(what.to_owned());
    spinner
}
