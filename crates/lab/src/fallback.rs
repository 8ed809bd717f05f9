//! Hosts without namespaces: loopback addresses, directories, and processes known by a mark in
//! their environment. It is not isolation.
//!
//! Every program that is started through a host carries `LAB_HOST=MARK` in its environment, and so
//! do the programs that it starts. Killing the host kills all that carry the mark, and their
//! descendants. A program escapes if it clears its environment *and* its parent has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use crate::{clock, process};

/// The environment variable that carries the mark.
pub(crate) const MARK: &str = "LAB_HOST";

const GONE_LIMIT: Duration = Duration::from_secs(10);

/// A command that belongs to the host with this mark.
pub(crate) fn command(program: &OsStr, mark: &str) -> Command {
    let mut command = Command::new(program);
    command.env(MARK, mark);
    command
}

/// Kills every process whose mark begins with `mark`, with its descendants, until there is none.
pub(crate) fn kill_marked(mark: &str) -> io::Result<()> {
    let gone = clock::poll_until(GONE_LIMIT, || {
        let members = members(mark);
        for (pid, started) in &members {
            if let Some(handle) = process::open_same(*pid, *started) {
                process::kill_by_handle(&handle).ok();
            }
        }
        members.is_empty()
    });
    if gone {
        return Ok(());
    }
    let message = format!("processes marked {MARK}={mark} do not die");
    Err(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// The living processes of a mark, with their start times.
fn members(mark: &str) -> Vec<(i32, u64)> {
    let everyone = snapshot();
    let prefix = format!("{MARK}={mark}");
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut members: BTreeSet<i32> = everyone
        .keys()
        .copied()
        .filter(|pid| *pid != own && is_marked(*pid, &prefix))
        .collect();
    loop {
        let children: BTreeSet<i32> = everyone
            .iter()
            .filter(|(pid, seen)| members.contains(&seen.parent) && !members.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            break;
        }
        members.extend(children);
    }
    members
        .into_iter()
        .filter_map(|pid| Some((pid, everyone.get(&pid)?.started)))
        .collect()
}

fn is_marked(pid: i32, prefix: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry.starts_with(prefix.as_bytes()))
}

struct Seen {
    parent: i32,
    started: u64,
}

/// Every process that is not a zombie.
fn snapshot() -> BTreeMap<i32, Seen> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, read_stat(pid)?)))
        .collect()
}

fn read_stat(pid: i32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let alive = !matches!(*fields.first()?, "Z" | "X");
    alive.then_some(Seen {
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}
