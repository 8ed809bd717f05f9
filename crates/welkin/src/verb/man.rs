//! `welkin man`: manual pages, made from the same definition as the command line.

use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::failure::Failure;
use crate::{cli, manual, output};

/// Print a manual page, or write all of them to a directory
#[derive(Debug, Args)]
#[command(after_help = manual::MAN)]
pub(crate) struct Arguments {
    /// Verb whose page to print, such as run or node drain; the main page when absent.
    #[arg(value_name = "VERB")]
    verb: Vec<String>,
    /// Write every page to this directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "verb")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if let Some(directory) = &arguments.dir {
        return write_all(directory);
    }
    let wanted = [&["welkin".to_owned()], arguments.verb.as_slice()]
        .concat()
        .join("-");
    let page = pages()?.into_iter().find(|page| page.name == wanted);
    let page = page.ok_or_else(|| {
        Failure::usage(format!("there is no verb `{}`", arguments.verb.join(" ")))
            .remedy("welkin --help")
    })?;
    output::write(&page.text)?;
    Ok(0)
}

fn write_all(directory: &Path) -> Result<u8, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(format!("cannot write to {}: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(cannot)?;
    for page in pages()? {
        let path = directory.join(format!("{}.1", page.name));
        std::fs::write(&path, &page.text).map_err(cannot)?;
        output::line(&path.display().to_string())?;
    }
    Ok(0)
}

/// A manual page.
struct Page {
    /// `welkin-node-drain`.
    name: String,
    text: Vec<u8>,
}

fn pages() -> Result<Vec<Page>, Failure> {
    let mut command = cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<Page>) -> Result<(), Failure> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let text = page(command, name)?;
    let name = name.to_owned();
    pages.push(Page { name, text });
    let verbs = command.get_subcommands().filter(|it| !it.is_hide_set());
    verbs
        .into_iter()
        .try_for_each(|verb| add_pages(verb, pages))
}

fn page(command: &Command, name: &str) -> Result<Vec<u8>, Failure> {
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut text = Vec::new();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("Welkin ", env!("CARGO_PKG_VERSION")))
        .manual("Welkin Manual");
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    closing_sections(name, &help).to_writer(&mut text)?;
    Ok(text)
}

/// What every page ends with.
fn closing_sections(name: &str, help: &str) -> Roff {
    let mut roff = Roff::new();
    let sections = [
        ("EXIT STATUS", manual::exit_status(name)),
        ("FILES", manual::files(name)),
    ];
    for (title, entries) in sections.iter().filter(|(_, entries)| !entries.is_empty()) {
        roff.control("SH", [*title]);
        for (entry, meaning) in *entries {
            roff.control("TP", []);
            roff.text([bold(*entry)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["EXAMPLES"]);
    for (example, about) in manual::examples(help) {
        roff.control("TP", []);
        roff.text([bold(example)]);
        roff.text([roman(about)]);
    }
    roff.control("SH", ["BUGS"]);
    roff.text([roman(manual::bugs(name))]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_that_ends_as_it_should() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|it| it.name.as_str()).collect();
        for name in [
            "welkin",
            "welkin-run",
            "welkin-node-drain",
            "welkin-name-resolve",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(
            !names.contains(&"welkin-shim"),
            "the shim is not for people"
        );
        assert!(pages.len() > 30, "{names:?}");
        for page in pages {
            let text = String::from_utf8(page.text).unwrap();
            let places: Vec<usize> = ["NAME", "SYNOPSIS", "EXIT STATUS", "EXAMPLES", "BUGS"]
                .map(|title| {
                    text.find(title)
                        .unwrap_or_else(|| panic!("{} {title}", page.name))
                })
                .to_vec();
            assert!(places.is_sorted(), "{} {places:?}", page.name);
        }
    }
}
