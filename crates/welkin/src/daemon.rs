//! The node as a daemon: starting it, waiting until it serves, and being it.
//!
//! `welkin up` runs `welkin up --foreground --detached` and waits until that answers on its
//! socket or ends. What the daemon says goes to `daemon.log` in the state directory; why it could
//! not start is the last thing it says there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::context::Context;
use crate::failure::Failure;
use crate::flags::Founding;
use crate::signals::Signals;
use crate::{output, progress};

/// A log that is longer when the daemon starts is put aside.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How often the daemon is asked whether it serves.
const POLL: Duration = Duration::from_millis(15);
/// How long it may take: a large disk after a power cut.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one that is not wanted any more may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);
/// How much of the log is looked through for the reason of a failure.
const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// How many lines of the log are shown when it gives no reason.
const LOG_TAIL_LINES: usize = 12;

/// Starts a daemon and waits until it serves. The ticket, if it joins, goes to its standard input:
/// everybody can read its arguments.
pub(crate) async fn start(
    context: &Context,
    founding: &Founding,
    ticket: Option<&str>,
) -> Result<(), Failure> {
    let log = Log::open(&context.state_dir)?;
    // Whoever leaves before the node serves must not leave a daemon at work.
    let mut signals = Signals::catch()?;
    let mut child = spawn(context, founding, ticket.is_some(), &log)?;
    if let (Some(mut pipe), Some(ticket)) = (child.stdin.take(), ticket) {
        // A daemon that has ended already says why in its log.
        drop(pipe.write_all(ticket.as_bytes()));
    }
    let waited = {
        let waiting = tokio::time::timeout(PATIENCE, ready(context, &mut child, &log));
        let waiting = progress::shown(context.screen, "starting the node", waiting);
        tokio::select! {
            waited = waiting => Ok(waited),
            signal = signals.next() => Err(signal),
        }
    };
    let waited = match waited {
        Ok(waited) => waited,
        Err(signal) => {
            end(&mut child).await;
            return Err(Failure::silent(signal.saturating_add(128)));
        }
    };
    waited.unwrap_or_else(|_late| {
        let text = format!(
            "the node does not answer yet; its process is {}",
            child.id()
        );
        Err(Failure::new(text).remedy(format!("less {}", log.path.display())))
    })
}

/// Ends a daemon that is not wanted any more. What it has written by then, a second attempt uses.
async fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It fails only for a daemon that has ended already.
        let _ended = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let ended = async {
        while let Ok(None) = child.try_wait() {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        drop(child.kill().and_then(|()| child.wait()));
    }
}

fn spawn(context: &Context, founding: &Founding, joins: bool, log: &Log) -> Result<Child, Failure> {
    let (verb, input): (&[&str], _) = if joins {
        (&["join", "-"], Stdio::piped())
    } else {
        (&["up"], Stdio::null())
    };
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(verb)
        .args(["--foreground", "--detached", "--state-dir"]);
    command.arg(&context.state_dir);
    for address in &founding.listen {
        command.arg("--listen").arg(address.to_string());
    }
    if let Some(name) = &founding.name {
        command.arg(format!("--name={name}"));
    }
    for (key, value) in &founding.labels {
        command.arg(format!("--label={key}={value}"));
    }
    if founding.no_relay {
        command.arg("--no-relay");
    }
    command
        .current_dir("/")
        .env_remove("WELKIN_STATE_DIR")
        .stdin(input)
        .stdout(log.file.try_clone()?)
        .stderr(log.file.try_clone()?);
    command
        .spawn()
        .map_err(|error| Failure::new(format!("the daemon cannot be started: {error}")))
}

async fn ready(context: &Context, child: &mut Child, log: &Log) -> Result<(), Failure> {
    loop {
        // In this order: a daemon that answered and then ended did not start well.
        let answers = context.client.is_up().await;
        if let Some(status) = child.try_wait()? {
            return Err(log.reason(&status.to_string()));
        }
        if answers {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The log of the daemon, from where this start begins.
struct Log {
    path: PathBuf,
    file: File,
    begins_at: u64,
}

impl Log {
    fn open(state_dir: &Path) -> Result<Self, Failure> {
        let path = state_dir.join("daemon.log");
        let cannot = |what: &Path, error: io::Error| {
            Failure::new(format!("cannot write {}: {error}", what.display()))
                .remedy("name a directory of your own with --state-dir")
        };
        make_private(state_dir).map_err(|error| cannot(state_dir, error))?;
        if std::fs::metadata(&path).is_ok_and(|it| it.len() > LOG_BYTES_MAX) {
            std::fs::rename(&path, state_dir.join("daemon.log.old"))
                .map_err(|error| cannot(&path, error))?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        let file = options.open(&path).map_err(|error| cannot(&path, error))?;
        let begins_at = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            begins_at,
        })
    }

    /// Why the daemon ended: what it said last.
    fn reason(&self, status: &str) -> Failure {
        let text = self.said().unwrap_or_default();
        if let Some(failure) = stated_reason(&text) {
            return failure;
        }
        tail(&text).iter().for_each(|line| output::say(line));
        Failure::new(format!("the node did not start ({status})"))
            .remedy(format!("less {}", self.path.display()))
    }

    fn said(&self) -> io::Result<String> {
        end_of(&self.path, self.begins_at)
    }
}

/// The last lines of the log of a daemon; none when it cannot be read.
pub(crate) fn last_lines(log: &Path) -> Vec<String> {
    tail(&end_of(log, 0).unwrap_or_default())
}

fn tail(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_TAIL_LINES);
    lines
        .iter()
        .skip(skipped)
        .map(|it| (*it).to_owned())
        .collect()
}

/// The end of a file, but nothing before this place.
fn end_of(path: &Path, begins_at: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LOG_TAIL_BYTES).max(begins_at);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a directory that only its owner may enter, and those above it as usual.
fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let made = DirBuilder::new().mode(0o700).create(directory);
    made.or_else(|error| {
        if directory.is_dir() {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// The failure that a daemon printed before it ended.
fn stated_reason(log: &str) -> Option<Failure> {
    let (_, last) = log
        .rsplit_once("welkin: ")
        .filter(|(before, _)| before.is_empty() || before.ends_with('\n'))?;
    Some(match last.trim_end().rsplit_once("\n  try: ") {
        Some((detail, remedy)) => Failure::new(detail).remedy(remedy),
        None => Failure::new(last.trim_end()),
    })
}

/// Is the daemon, until it is told to stop. A machine that belongs to no cloud founds one.
pub(crate) fn serve(
    context: &Context,
    founding: &Founding,
    ticket: Option<String>,
) -> Result<u8, Failure> {
    if founding.detached {
        // It fails only for a group leader, and then whoever called made a session already.
        let _group_leader = nix::unistd::setsid();
    }
    log_to_standard_error(context);
    let options = host::Options {
        listen: founding.listen.clone(),
        name: founding.name.clone(),
        labels: founding.labels.iter().cloned().collect(),
        ticket,
        carries: !founding.no_relay,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..host::Options::new(context.state_dir.clone())
    };
    host::run(options).map_err(told)?;
    Ok(0)
}

/// An error of the host as a failure; what comes after a semicolon is what to do.
fn told(error: impl std::error::Error) -> Failure {
    let text = error.to_string();
    match text.rsplit_once("; ").filter(|_| !text.contains('\n')) {
        Some((detail, remedy)) => Failure::new(detail).remedy(remedy),
        None => Failure::new(text),
    }
}

fn log_to_standard_error(context: &Context) {
    let variable = std::env::var("WELKIN_LOG").or_else(|_unset| std::env::var("RUST_LOG"));
    let filter = variable.unwrap_or_else(|_unset| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_default();
    // A line that cannot be written is lost: to complain of that on the same full disk would panic,
    // and end a node that goes on without a log.
    let subscriber = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_ansi(context.screen.err_colours())
        .with_writer(io::stderr);
    // Set already only if somebody else did: then they log.
    drop(subscriber.try_init());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_daemon_are_its_reason() {
        let log = "2026 INFO starting\nwelkin: the port is taken\n  try: welkin up --listen …\n";
        let expected = Failure::new("the port is taken").remedy("welkin up --listen …");
        assert_eq!(stated_reason(log), Some(expected));
        let expected = Failure::new("no room");
        assert_eq!(stated_reason("x\nwelkin: no room\n\n"), Some(expected));
        let expected = Failure::new("no door:\n  a: closed\ncheck them");
        assert_eq!(
            stated_reason("welkin: no door:\n  a: closed\ncheck them\n"),
            Some(expected)
        );
        assert_eq!(stated_reason("2026 INFO starting\n"), None);
        assert_eq!(stated_reason(""), None);
    }

    #[test]
    fn what_the_host_advises_becomes_the_remedy() {
        let expected = Failure::new("the disk is full").remedy("make room");
        assert_eq!(
            told(io::Error::other("the disk is full; make room")),
            expected
        );
        assert_eq!(told(io::Error::other("odd")), Failure::new("odd"));
    }
}
