//! Completion of names that live in the cloud: apps, objects, nodes.
//!
//! The shell calls this program with `COMPLETE` set for each press of the key. The node is asked
//! with little patience: no names are better than a shell that hangs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::CompleteEnv;
use nix::sys::signal::Signal;
use wire::call::{AppList, Call, NodeList};

use crate::cli;
use crate::context::{Context, NodeNames, object_name};
use crate::flags::Global;
use crate::output::human;

/// How long the node may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// The variable by which the shell asks.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// Answers the shell if it is the one that called.
pub(crate) fn answer() -> Option<ExitCode> {
    std::env::var_os(VARIABLE)?;
    let here = std::env::current_dir().ok();
    let completion = CompleteEnv::with_factory(cli::command).var(VARIABLE);
    match completion.try_complete(std::env::args_os(), here.as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(error) => {
            drop(error.print());
            Some(ExitCode::FAILURE)
        }
    }
}

/// Apps, and their objects where there are several.
pub(crate) fn targets(typed: &OsStr) -> Vec<CompletionCandidate> {
    let list = AppList {
        all: true,
        target: None,
    };
    let Some((context, apps)) = ask(list) else {
        return Vec::new();
    };
    let nodes = wait(context.node_names()).unwrap_or_else(NodeNames::default);
    let mut candidates = Vec::new();
    for app in &apps.apps {
        let about = format!("{}/{} running", app.running, app.wanted);
        candidates.push((app.name.clone(), about));
    }
    for object in &apps.objects {
        let about = format!("{} on {}", human::state(object), nodes.get(object.node));
        candidates.push((object_name(object), about));
    }
    matching(typed, candidates)
}

/// Ends of a copy: files here, and objects with the beginning of a path in them.
pub(crate) fn places(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut candidates = PathCompleter::any().complete(typed);
    let objects = targets(typed).into_iter();
    candidates.extend(objects.map(|it| followed_by(&it, ":/")));
    candidates
}

/// Apps only.
pub(crate) fn apps(typed: &OsStr) -> Vec<CompletionCandidate> {
    let list = AppList {
        all: true,
        target: None,
    };
    let apps = ask(list).map(|(_, answer)| answer.apps);
    let about = |app: wire::call::AppSummary| (app.name, human::command(&app.command));
    matching(typed, apps.into_iter().flatten().map(about).collect())
}

/// Apps, and that a number follows.
pub(crate) fn counts(typed: &OsStr) -> Vec<CompletionCandidate> {
    apps(typed)
        .into_iter()
        .map(|it| followed_by(&it, "="))
        .collect()
}

fn followed_by(candidate: &CompletionCandidate, end: &str) -> CompletionCandidate {
    let mut value = candidate.get_value().to_owned();
    value.push(end);
    CompletionCandidate::new(value).help(candidate.get_help().cloned())
}

/// Signals.
pub(crate) fn signals(typed: &OsStr) -> Vec<CompletionCandidate> {
    let names = Signal::iterator().map(Signal::as_str);
    let names = names.filter_map(|name| name.strip_prefix("SIG"));
    matching(
        typed,
        names.map(|name| (name.to_owned(), String::new())).collect(),
    )
}

/// Restart policies.
pub(crate) fn restarts(typed: &OsStr) -> Vec<CompletionCandidate> {
    let policies = [
        ("no", "what has ended has ended"),
        ("on-failure", "again when it fails"),
        ("on-failure:5", "again when it fails, so many times"),
        ("always", "again whenever it ends"),
    ];
    let policies = policies.map(|(name, about)| (name.to_owned(), about.to_owned()));
    matching(typed, policies.to_vec())
}

/// Policies for a network that is cut.
pub(crate) fn partition_policies(typed: &OsStr) -> Vec<CompletionCandidate> {
    let policies = [
        ("available", "each side keeps it running"),
        ("once", "it never runs twice"),
        ("once:30s", "the same; so long until it runs elsewhere"),
    ];
    let policies = policies.map(|(name, about)| (name.to_owned(), about.to_owned()));
    matching(typed, policies.to_vec())
}

/// Forms of health checks.
pub(crate) fn checks(typed: &OsStr) -> Vec<CompletionCandidate> {
    let checks = [
        (
            "http:8080/",
            "this is answered with a status from 200 to 399",
        ),
        ("tcp:8080", "a connection is accepted"),
        ("none", "no check"),
    ];
    let checks = checks.map(|(name, about)| (name.to_owned(), about.to_owned()));
    matching(typed, checks.to_vec())
}

/// Nodes.
pub(crate) fn nodes(typed: &OsStr) -> Vec<CompletionCandidate> {
    let nodes = ask(NodeList {}).map(|(_, answer)| answer.nodes);
    let about = |node: wire::call::NodeSummary| {
        let kind = format!("{}/{}", node.platform.os, node.platform.arch);
        (node.name, kind)
    };
    matching(typed, nodes.into_iter().flatten().map(about).collect())
}

fn matching(typed: &OsStr, candidates: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let fits = candidates
        .into_iter()
        .filter(|(name, _)| name.starts_with(&*typed));
    fits.map(|(name, about)| CompletionCandidate::new(name).help(Some(about.into())))
        .collect()
}

fn ask<C: Call>(request: C) -> Option<(Context, C::Response)> {
    let context = Context::new(&Global {
        state_dir: state_dir(),
    });
    let answer = wait(context.client.call(request))?.ok()?;
    Some((context, answer))
}

/// The directory that the command line being completed names, or the environment.
fn state_dir() -> Option<PathBuf> {
    let named = named_state_dir(std::env::args_os());
    let named = named.or_else(|| std::env::var_os("WELKIN_STATE_DIR"));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    named.map(|directory| expand(Path::new(&directory), home))
}

/// The directory after `--state-dir` or `--state-dir=`.
fn named_state_dir(mut words: impl Iterator<Item = OsString>) -> Option<OsString> {
    while let Some(word) = words.next() {
        if word == "--state-dir" {
            // Bash takes the equals sign for a word of its own.
            return words.find(|word| word != "=");
        }
        if let Some(directory) = word.as_encoded_bytes().strip_prefix(b"--state-dir=") {
            return Some(OsStr::from_bytes(directory).to_owned());
        }
    }
    None
}

/// What the shell would make of `~` if the line were carried out.
fn expand(directory: &Path, home: Option<PathBuf>) -> PathBuf {
    match (directory.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        (Ok(_) | Err(_), _) => directory.to_path_buf(),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> Option<T> {
    let runtime = cli::runtime().ok()?;
    let patient = async { tokio::time::timeout(PATIENCE, work).await };
    let done = runtime.block_on(patient).ok();
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_as_typed_is_offered() {
        let names = ["web", "web/0", "db"].map(|it| (it.to_owned(), String::new()));
        let offered = matching(OsStr::new("we"), names.to_vec());
        let values: Vec<_> = offered.iter().map(|it| it.get_value().to_owned()).collect();
        assert_eq!(values, ["web", "web/0"]);
    }

    #[test]
    fn the_state_directory_is_read_as_the_shell_would() {
        let check = |line: &str, expected: Option<&str>| {
            let words = line.split(' ').map(OsString::from);
            let named = named_state_dir(words);
            let home = Some(PathBuf::from("/home/me"));
            let read = named.map(|it| expand(Path::new(&it), home));
            assert_eq!(read, expected.map(PathBuf::from), "{line}");
        };
        check("welkin --state-dir /x ps", Some("/x"));
        check("welkin ps --state-dir=/x", Some("/x"));
        check("welkin ps --state-dir = /x", Some("/x"));
        check("welkin ps --state-dir=~/x", Some("/home/me/x"));
        check("welkin --state-dir ~ ps", Some("/home/me"));
        check("welkin --state-dir ~other ps", Some("~other"));
        check("welkin ps", None);
    }

    #[test]
    fn words_that_are_known_are_offered() {
        let values = |offered: Vec<CompletionCandidate>| -> Vec<OsString> {
            offered.iter().map(|it| it.get_value().to_owned()).collect()
        };
        assert_eq!(values(signals(OsStr::new("HU"))), ["HUP"]);
        assert_eq!(
            values(restarts(OsStr::new("on-failure:"))),
            ["on-failure:5"]
        );
        let app = CompletionCandidate::new("web");
        assert_eq!(values(vec![followed_by(&app, "=")]), ["web="]);
    }
}
