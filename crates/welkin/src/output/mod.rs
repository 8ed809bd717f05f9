//! What people and scripts see. The only place that writes to standard output and error.
//!
//! Data goes to standard output; progress, hints and errors to standard error. A terminal gets
//! colours (unless `NO_COLOR` is set, <https://no-color.org>); a pipe gets plain aligned columns.

pub(crate) mod description;
pub(crate) mod full_screen;
pub(crate) mod human;
pub(crate) mod listing;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod template;

use std::io::{self, IsTerminal, Write};

use crate::failure::{EXIT_USAGE, Failure};
use style::{Style, paint};

/// What standard output and standard error are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Standard output is a terminal.
    pub(crate) out_is_terminal: bool,
    /// Standard error is a terminal.
    pub(crate) err_is_terminal: bool,
    /// Nobody forbade colours.
    pub(crate) colours: bool,
}

impl Screen {
    /// Looks at the process.
    pub(crate) fn detect() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        Self {
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            colours: !set("NO_COLOR") && !dumb,
        }
    }

    /// Whether standard output may have colours.
    pub(crate) fn out_colours(self) -> bool {
        self.out_is_terminal && self.colours
    }

    /// Whether standard error may have colours.
    pub(crate) fn err_colours(self) -> bool {
        self.err_is_terminal && self.colours
    }
}

/// Writes data as it is.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes a line of data.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Writes what a program wrote to its standard error.
pub(crate) fn write_err(bytes: &[u8]) -> Result<(), Failure> {
    Ok(io::stderr().lock().write_all(bytes)?)
}

/// Says something beside the data: a hint, progress. Never fails: nobody has to hear it.
pub(crate) fn say(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Says what to type next, below something that was said.
pub(crate) fn hint(screen: Screen, command: &str) {
    say(&hint_text(screen.err_colours(), command));
}

/// Says why a verb failed and what to do about it.
pub(crate) fn failure(screen: Screen, failure: &Failure) {
    if !failure.detail.is_empty() {
        say(&failure_text(screen.err_colours(), failure));
    }
}

/// Says that something is not as it should be, and goes on.
pub(crate) fn warn(screen: Screen, text: &str) {
    let mark = paint(screen.err_colours(), Style::Warning, "note:");
    say(&format!("{mark} {text}"));
}

fn hint_text(colours: bool, command: &str) -> String {
    format!("  try: {}", paint(colours, Style::Strong, command))
}

fn failure_text(colours: bool, failure: &Failure) -> String {
    let name = paint(colours, Style::Bad, "welkin:");
    let mut text = format!("{name} {}", failure.detail);
    // Nobody is left without a next step.
    let remedy = match (failure.remedy.as_str(), failure.exit) {
        ("", EXIT_USAGE) => "welkin --help",
        ("", _) => "welkin doctor",
        (remedy, _) => remedy,
    };
    text.push('\n');
    text.push_str(&hint_text(colours, remedy));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_failure_says_what_and_what_next() {
        let problem = wire::call::Problem::not_found("app", "foo").remedy("welkin ps");
        let text = failure_text(false, &Failure::from(problem));
        expect![[r"
            welkin: no app is called `foo`
              try: welkin ps"]]
        .assert_eq(&text);
    }

    #[test]
    fn every_failure_has_a_next_step() {
        let code = wire::call::ProblemCode::NotStarted { exit: 127 };
        let problem = wire::call::Problem::new(code, "x: not found");
        let text = failure_text(false, &Failure::from(problem));
        assert!(text.contains("\n  try: welkin run -- sh -c"), "{text}");
        let text = failure_text(false, &Failure::new("odd"));
        assert_eq!(text, "welkin: odd\n  try: welkin doctor");
        let text = failure_text(false, &Failure::usage("odd"));
        assert_eq!(text, "welkin: odd\n  try: welkin --help");
    }

    #[test]
    fn colours_are_only_for_terminals() {
        let screen = Screen {
            out_is_terminal: false,
            err_is_terminal: true,
            colours: true,
        };
        assert!(!screen.out_colours() && screen.err_colours());
        assert!(failure_text(true, &Failure::new("x")).contains('\u{1b}'));
        assert!(!failure_text(false, &Failure::new("x")).contains('\u{1b}'));
    }
}
