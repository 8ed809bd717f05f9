//! The release build from nothing, on as many cores as this machine has.

use std::process::Command;

use super::{Figure, time_ms};

/// Once, whatever was asked for: it takes minutes, and does not vary by much.
pub(super) fn measure() -> Vec<Figure> {
    let target = tempfile::tempdir().expect("a directory");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let minutes = time_ms(
        Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet", "-p", "welkin"])
            .current_dir(root)
            .env("CARGO_TARGET_DIR", target.path()),
    ) / 60e3;
    let figure = Figure::new("release build from nothing", "min", vec![minutes]);
    vec![figure.goal("10 min on two cores", minutes <= 10.0)]
}
