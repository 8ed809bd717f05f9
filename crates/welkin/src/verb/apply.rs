//! `welkin apply`: apps as files say.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use wire::spec::AppSpec;

use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::rollout::{self, Manner};
use crate::{appfile, manual, output};

/// Longest file that is read: a hundred of the largest specifications.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Make apps as files say: new ones, or those that there are
///
/// A file is TOML or JSON with the words of the flags of welkin run; welkin inspect --spec writes
/// one. What is so already is left alone. When what objects run is changed, they are replaced one
/// after the other, the next once the one before it has run for a while; when one does not come up,
/// the change is undone.
#[derive(Debug, Args)]
#[command(after_help = manual::APPLY)]
pub(crate) struct Arguments {
    /// Files; - is standard input.
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    manner: Manner,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let done = apply(arguments, context).await;
    if arguments.manner.dry_run {
        return done.map_err(Failure::beside_a_difference);
    }
    done
}

async fn apply(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    // Nothing is changed while anything is wrong with any of the files.
    let specs = in_order(read_all(&arguments.files)?)?;
    let mut differs = false;
    let mut failed = None;
    for spec in &specs {
        let found = rollout::find(context, &spec.name).await;
        let made = match found {
            Ok(found) => rollout::make(context, found.as_ref(), spec, arguments.manner).await,
            Err(failure) => Err(failure),
        };
        match made {
            Ok(changes) => differs |= changes,
            // One app fails as a whole, with its own exit code.
            Err(failure) if specs.len() == 1 => return Err(failure),
            Err(failure) => {
                output::failure(context.screen, &failure);
                failed = Some(Failure::silent(EXIT_FAILED));
            }
        }
    }
    match failed {
        Some(failure) => Err(failure),
        None => Ok(u8::from(differs && arguments.manner.dry_run)),
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<AppSpec>, Failure> {
    let mut specs: Vec<AppSpec> = Vec::new();
    for file in files {
        let is_input = file.as_os_str() == "-";
        let name = if is_input {
            "standard input".to_owned()
        } else {
            file.display().to_string()
        };
        let text = text_of(file, is_input)
            .map_err(|error| Failure::usage(format!("{name}: {error}")).remedy("ls -l FILE"))?;
        let found = appfile::read(&text).map_err(|fault| {
            let (line, column, detail) = (fault.line, fault.column, fault.detail);
            let failure = Failure::usage(format!("{name}:{line}:{column}: {detail}"));
            if fault.remedy.is_empty() {
                failure.remedy("welkin man apply")
            } else {
                failure.remedy(fault.remedy)
            }
        })?;
        specs.extend(found);
    }
    let mut names = BTreeSet::new();
    match specs.iter().find(|spec| !names.insert(&spec.name)) {
        Some(twice) => {
            let detail = format!("{} is there twice", twice.name);
            Err(Failure::usage(detail).remedy("another name for one of them"))
        }
        None => Ok(specs),
    }
}

/// Those that come after others last, so that they need not wait longer than it takes.
fn in_order(mut left: Vec<AppSpec>) -> Result<Vec<AppSpec>, Failure> {
    let mut ordered: Vec<AppSpec> = Vec::new();
    while !left.is_empty() {
        let is_free = |spec: &AppSpec| !left.iter().any(|it| spec.after.contains(&it.name));
        let Some(next) = left.iter().position(is_free) else {
            let detail = format!(
                "these would wait for each other for ever: {}",
                circle(&left)
            );
            return Err(Failure::usage(detail).remedy("take one of these names out of `after`"));
        };
        ordered.push(left.remove(next));
    }
    Ok(ordered)
}

/// A circle among apps each of which comes after another of them.
fn circle(specs: &[AppSpec]) -> String {
    let mut way: Vec<&AppSpec> = specs.first().into_iter().collect();
    loop {
        let next = way.last().and_then(|last| {
            let mut before = specs.iter();
            before.find(|it| last.after.contains(&it.name))
        });
        let Some(next) = next else { break };
        let seen = way.iter().position(|it| it.name == next.name);
        way.push(next);
        if let Some(from) = seen {
            way.drain(..from);
            break;
        }
    }
    let links = way.windows(2).filter_map(|pair| match pair {
        [one, other] => Some(format!("{} comes after {}", one.name, other.name)),
        _ => None,
    });
    links.collect::<Vec<_>>().join(", ")
}

fn text_of(file: &PathBuf, is_input: bool) -> std::io::Result<String> {
    let mut text = String::new();
    let length = if is_input {
        let input = std::io::stdin().lock();
        input.take(FILE_BYTES_MAX).read_to_string(&mut text)?
    } else {
        let opened = std::fs::File::open(file)?;
        opened.take(FILE_BYTES_MAX).read_to_string(&mut text)?
    };
    if u64::try_from(length) == Ok(FILE_BYTES_MAX) {
        let message = format!("longer than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(std::io::Error::other(message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(apps: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let app = |(name, after): &(&str, &str)| {
            format!("[[app]]\nname = \"{name}\"\nrun = [\"x\"]\n{after}\n")
        };
        let text: String = apps.iter().map(app).collect();
        let names = |specs: Vec<AppSpec>| specs.into_iter().map(|it| it.name).collect();
        in_order(appfile::read(&text).unwrap())
            .map(names)
            .map_err(|failure| failure.detail)
    }

    #[test]
    fn apps_are_made_in_their_start_order() {
        let names = ordered(&[
            ("web", "after = [\"api\", \"elsewhere\"]"),
            ("api", "after = \"db\""),
            ("mail", ""),
            ("db", ""),
        ]);
        assert_eq!(names.unwrap(), ["mail", "db", "api", "web"]);
    }

    #[test]
    fn a_circle_is_refused_by_name() {
        let names = ordered(&[
            ("front", "after = \"web\""),
            ("web", "after = [\"db\"]"),
            ("db", "after = [\"api\"]"),
            ("api", "after = [\"web\"]"),
        ]);
        let expected = "these would wait for each other for ever: web comes after db, \
            db comes after api, api comes after web";
        assert_eq!(names.unwrap_err(), expected);
        assert!(ordered(&[("web", "after = \"web\"")]).is_err());
    }
}
