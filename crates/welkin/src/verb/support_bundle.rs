//! `welkin support-bundle`: what a maintainer needs, in one file, without secrets.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use wire::id::UnixMillis;

use crate::bundle::{Bundle, Packed, cloud, machine};
use crate::context::{Context, directory_of};
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::style::Style;
use crate::output::table::{Column, Table};
use crate::{clock, flags, manual, output, parse, progress};

/// Pack what a maintainer needs to see of this node, without secrets
///
/// Writes one gzipped tar archive that only you may read, and shows what is in it. Nothing is sent
/// anywhere. Where no node answers, it packs what is on this machine.
///
/// Keys, tickets, values of environment variables, arguments of programs and what programs wrote
/// are not in it; names, addresses and labels are.
#[derive(Debug, Args)]
#[command(after_help = manual::SUPPORT_BUNDLE)]
pub(crate) struct Arguments {
    /// File to write; welkin-support-NODE-TIME.tar.gz in the current directory when absent.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Only what happened and was logged since: 2h, or 2026-03-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse::since)]
    since: Option<u64>,
    /// Leave out what the node itself logged.
    #[arg(long)]
    no_logs: bool,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let now = clock::now();
    let gathering = gather(arguments, context);
    let (bundle, node) = progress::shown(context.screen, "gathering", gathering).await;
    let top = top(&node.clone().unwrap_or_else(host_name), now);
    let packed = bundle.pack(&top, now)?;
    let path = match &arguments.file {
        Some(file) => file.clone(),
        None => PathBuf::from(format!("{top}.tar.gz")),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    packed.write(&path)?;
    show(arguments, context, &packed, &path)?;
    if node.is_none() {
        let text = "no node answers: only what is on this machine is in it";
        output::warn(context.screen, text);
    }
    Ok(0)
}

async fn gather(arguments: &Arguments, context: &Context) -> (Bundle, Option<String>) {
    let directory = directory_of(context.client.socket());
    let mut bundle = Bundle::default();
    machine::gather(&mut bundle, directory);
    let node = cloud::gather(&mut bundle, context, arguments.since).await;
    if arguments.no_logs {
        bundle.miss("daemon.log: it was left out with --no-logs".to_owned());
    } else {
        machine::gather_logs(&mut bundle, directory, arguments.since);
    }
    (bundle, node)
}

/// `welkin-support-atlas-20260301T120000Z`.
fn top(node: &str, now: UnixMillis) -> String {
    let moment = human::moment(now);
    let seconds = moment.split('.').next().unwrap_or_default();
    let time: String = seconds.chars().filter(|c| !"-:".contains(*c)).collect();
    format!("welkin-support-{}-{time}Z", cloud::file_name(node))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_unknown| "host".to_owned(), |it| it.trim().to_owned())
}

/// Shows what is in it before anybody sends it.
fn show(
    arguments: &Arguments,
    context: &Context,
    packed: &Packed,
    path: &Path,
) -> Result<(), Failure> {
    let mut table = Table::new(&[
        Column::text("FILE"),
        Column::number("SIZE"),
        Column::text("IS"),
    ]);
    for file in &packed.files {
        let size = human::bytes(u64::try_from(file.bytes).unwrap_or(u64::MAX));
        let cells = vec![file.name.clone(), size, file.about.to_owned()];
        table.row(Style::Plain, cells);
    }
    let path = path.display().to_string();
    let listing = Listing {
        whole: &packed.to_json(Path::new(&path)),
        items: "files",
        names: vec![path.clone()],
        ids: vec![path.clone()],
        people: People::Table(table),
    };
    listing.show(&arguments.output, context.screen)?;
    for sentence in &packed.missing {
        output::warn(context.screen, &format!("not in it: {sentence}"));
    }
    let size = human::bytes(u64::try_from(packed.archive_bytes()).unwrap_or(u64::MAX));
    output::say(&format!(
        "\nAll that is in {path} ({size}). Keys, tickets, values of environments and arguments \
         were removed; names, addresses and labels are in it. Look through it before you send it:"
    ));
    output::hint(context.screen, &format!("tar xzOf '{path}' | less"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_named_after_its_node_and_its_time() {
        let name = top("atlas", UnixMillis(1_772_366_400_250));
        assert_eq!(name, "welkin-support-atlas-20260301T120000Z");
        let name = top("../x", UnixMillis(0));
        assert_eq!(name, "welkin-support-___x-19700101T000000Z");
    }
}
