//! Completion of names that live in the cloud: apps, objects, nodes.
//!
//! The shell calls this program with `COMPLETE` set for each press of the key. The node is asked
//! with little patience: no names are better than a shell that hangs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::CompleteEnv;
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
    candidates.extend(objects.map(|it| {
        let mut place = it.get_value().to_owned();
        place.push(":/");
        CompletionCandidate::new(place).help(it.get_help().cloned())
    }));
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
    let mut words = std::env::args_os().skip_while(|word| word != "--state-dir");
    let flag = words.nth(1);
    flag.or_else(|| std::env::var_os("WELKIN_STATE_DIR"))
        .map(PathBuf::from)
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
}
