//! `welkin completion`: what a shell needs to complete verbs, flags and live names.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::failure::Failure;
use crate::{completion, manual, output};

/// Print what a shell needs to complete verbs, flags and live names
#[derive(Debug, Args)]
#[command(after_help = manual::COMPLETION)]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    output::write(&script(arguments.shell, &completer())?)?;
    Ok(0)
}

/// How the shell finds this program: as it was found now.
fn completer() -> String {
    let typed = std::env::args().next().unwrap_or_default();
    let found_in_path = !typed.contains('/');
    let whole = std::env::current_exe().ok().filter(|_| !found_in_path);
    whole.map_or_else(|| "welkin".to_owned(), |path| path.display().to_string())
}

fn script(shell: Shell, completer: &str) -> Result<Vec<u8>, Failure> {
    let engine: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut text = Vec::new();
    engine.write_registration(
        completion::VARIABLE,
        "welkin",
        "welkin",
        completer,
        &mut text,
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_calls_back() {
        for shell in Shell::value_variants() {
            let text = script(*shell, "/opt/welkin").unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.contains("COMPLETE=") && text.contains("/opt/welkin"),
                "{text}"
            );
        }
    }
}
