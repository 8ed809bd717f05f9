//! What this machine and the node's directory tell without the node: versions, limits, features,
//! files and logs.
//!
//! What it is not: it adds nothing that could hold a secret. Of the state directory it adds the logs
//! of the daemon, and of all else names and sizes; it reads the process id in `lock`, and in the
//! `launch` of objects what must not be seen. It does not read `/proc/cmdline`, environments, or
//! mounts other than those of control groups.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use wire::driver::{LAUNCH_BYTES_MAX, Launch};

use super::Bundle;
use crate::output::human;

/// What the kernel and the distribution say of themselves. What is not there is left out.
const FILES: [&str; 30] = [
    "/etc/os-release",
    "/proc/sys/kernel/osrelease",
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/filesystems",
    "/proc/cgroups",
    "/proc/self/cgroup",
    "/proc/self/limits",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inotify/max_user_instances",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/seccomp/actions_avail",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/net/core/rmem_max",
    "/proc/sys/net/core/wmem_max",
    "/proc/sys/user/max_user_namespaces",
    "/sys/fs/cgroup/cgroup.controllers",
    "/sys/fs/cgroup/cgroup.subtree_control",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/pids.max",
    "/sys/kernel/security/lsm",
    "/sys/module/overlay/version",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
];
/// What the kernel says of the daemon.
const FILES_OF_DAEMON: [&str; 3] = ["cgroup", "limits", "status"];
/// Most bytes of each of these.
const SMALL_BYTES_MAX: u64 = 32 * 1024;
/// Most bytes of a log that are read, from its end.
const LOG_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Most lines of the journal, and how many seconds it may take.
const JOURNAL_LINES: &str = "10000";
const JOURNAL_SECONDS: &str = "20";
/// Most bytes of what objects were started with that are read.
const LAUNCHES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most entries of the state directory that are named.
const ENTRIES_MAX: usize = 20_000;

/// Adds what this machine tells of itself.
pub(crate) fn gather(bundle: &mut Bundle, directory: &Path) {
    let versions = json!({
        "welkin": env!("CARGO_PKG_VERSION"),
        "wire": wire::PEER_VERSION,
        "kernel": read_small("/proc/sys/kernel/osrelease").map(|it| it.trim().to_owned()),
        "architecture": std::env::consts::ARCH,
        "distribution": read_small("/etc/os-release").and_then(|it| distribution(&it)),
        "control_groups": layout(&control_group_mounts()),
        "user": nix::unistd::geteuid().as_raw(),
    });
    bundle.json("versions.json", "versions of all that matters", &versions);
    bundle.text(
        "machine.txt",
        "limits and features of this machine",
        machine(directory),
    );
    state_files(bundle, directory);
    learn_programs(bundle, &directory.join("objects"));
}

/// Adds the end of what the node logged: below its directory, and in the journal of systemd.
pub(crate) fn gather_logs(bundle: &mut Bundle, directory: &Path, since_ms: Option<u64>) {
    let mut found = false;
    for name in ["daemon.log", "daemon.log.old"] {
        let path = directory.join(name);
        match end_of(&path) {
            Ok(text) => {
                found = true;
                let text = since_ms.map_or(text.as_str(), |since_ms| newer(&text, since_ms));
                bundle.text(name, "the end of what the node logged", text.to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => bundle.miss(format!("{name}: {}: {error}", path.display())),
        }
    }
    let has_service = directory == Path::new(host::home::ROOT_STATE_DIR)
        && Path::new("/run/systemd/system").exists();
    if has_service {
        match journal(since_ms) {
            Ok(text) => {
                found = true;
                bundle.text("journal.txt", "what the node's service logged", text);
            }
            Err(why) => bundle.miss(format!("journal.txt: {why}")),
        }
    }
    if !found {
        let directory = directory.display();
        bundle.miss(format!(
            "daemon.log: there is none in {directory}; what a service manager keeps of the node \
             is not in it"
        ));
    }
}

fn read_small(path: impl AsRef<Path>) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `Debian GNU/Linux 12 (bookworm)`, of os-release(5).
fn distribution(os_release: &str) -> Option<String> {
    let mut lines = os_release.lines();
    let name = lines.find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The lines of mountinfo (proc(5)) about control groups.
fn control_group_mounts() -> Vec<String> {
    let all = read_small("/proc/self/mountinfo").unwrap_or_default();
    let is_one = |line: &&str| kind_of(line).is_some_and(|it| it.starts_with("cgroup"));
    all.lines().filter(is_one).map(str::to_owned).collect()
}

fn kind_of(mount: &str) -> Option<&str> {
    mount.split_once(" - ")?.1.split(' ').next()
}

fn layout(mounts: &[String]) -> &'static str {
    let has = |kind| mounts.iter().any(|mount| kind_of(mount) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

fn machine(directory: &Path) -> String {
    let mut text = String::new();
    let mut add = |path: &Path| {
        if let Some(content) = read_small(path) {
            text.push_str(&format!(
                "== {}\n{}\n\n",
                path.display(),
                content.trim_end()
            ));
        }
    };
    FILES.iter().for_each(|path| add(Path::new(path)));
    // The lock says which process is the daemon; an old one may name somebody else's.
    let pid = read_small(directory.join("lock")).and_then(|it| it.trim().parse::<u32>().ok());
    let process = pid.map(|pid| PathBuf::from(format!("/proc/{pid}")));
    let process = process.filter(|it| read_small(it.join("comm")).as_deref() == Some("welkin\n"));
    for name in FILES_OF_DAEMON {
        if let Some(process) = &process {
            add(&process.join(name));
        }
    }
    text.push_str("== mounts of control groups\n");
    for mount in control_group_mounts() {
        text.push_str(&format!("{mount}\n"));
    }
    text
}

/// Adds the names and sizes of what is in the state directory; of objects, not their files.
fn state_files(bundle: &mut Bundle, directory: &Path) {
    if !host::home::exists(directory) && !directory.join("lock").exists() {
        let text = format!("state-files.txt: no node in {}", directory.display());
        return bundle.miss(text);
    }
    let objects = directory.join("objects");
    let mut text = format!(
        "mode  user         bytes  changed  name below {}\n",
        directory.display()
    );
    let mut folders = vec![directory.to_path_buf()];
    let mut entries = 0;
    while let Some(folder) = folders.pop() {
        let listed = match fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) => {
                bundle.miss(format!("state-files.txt: {}: {error}", folder.display()));
                continue;
            }
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                bundle.miss("state-files.txt: more entries".to_owned());
                return bundle.text("state-files.txt", STATE_FILES, text);
            }
            let path = entry.path();
            text.push_str(&line_of(directory, &path));
            // The directories of objects, but not what programs wrote below them.
            let is_ours = path == objects || folder == objects;
            if is_ours && path.is_dir() {
                folders.push(path);
            }
        }
    }
    bundle.text("state-files.txt", STATE_FILES, text);
}

/// Learns what the objects here were started with. So it is known also while no node answers.
fn learn_programs(bundle: &mut Bundle, objects: &Path) {
    let mut left_bytes = LAUNCHES_BYTES_MAX;
    for object in fs::read_dir(objects).into_iter().flatten().flatten() {
        let mut bytes = Vec::new();
        let file = File::open(object.path().join("launch"));
        let read = file.and_then(|file| file.take(left_bytes).read_to_end(&mut bytes));
        left_bytes -= u64::try_from(bytes.len()).unwrap_or(left_bytes);
        // One that cannot be read, or is no launch, tells nothing.
        let launch = wire::decode::<Launch>(&bytes, LAUNCH_BYTES_MAX).ok();
        if let (Ok(_), Some(launch)) = (read, launch) {
            bundle.learn(json!({
                "arguments": launch.program.arguments,
                "environment": launch.program.environment,
            }));
        }
    }
}

const STATE_FILES: &str = "names and sizes of the node's files";

fn line_of(directory: &Path, path: &Path) -> String {
    let name = path.strip_prefix(directory).unwrap_or(path).display();
    match fs::symlink_metadata(path) {
        Ok(found) => {
            let changed = u64::try_from(found.mtime()).unwrap_or(0);
            format!(
                "{:06o} {:>5} {:>12}  {}  {name}\n",
                found.mode(),
                found.uid(),
                found.len(),
                human::timestamp(changed.saturating_mul(1_000_000)),
            )
        }
        Err(error) => format!("{name}: {error}\n"),
    }
}

/// Whole lines from the end of a log.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = match text.split_once('\n') {
        Some((_cut, lines)) if from > 0 => lines,
        Some(_) | None => &text,
    };
    Ok(lines.to_owned())
}

/// The lines of a log from this moment on. A line without a time belongs to the one before.
fn newer(log: &str, since_ms: u64) -> &str {
    let mut from = 0;
    for line in log.split_inclusive('\n') {
        let time = line.split(' ').next().unwrap_or_default();
        let time = time.parse::<jiff::Timestamp>().ok();
        let millis = time.and_then(|it| u64::try_from(it.as_millisecond()).ok());
        if millis.is_some_and(|millis| millis >= since_ms) {
            return log.get(from..).unwrap_or_default();
        }
        from += line.len();
    }
    ""
}

/// What systemd keeps of the service. It may hang on a journal that is damaged.
fn journal(since_ms: Option<u64>) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.args([JOURNAL_SECONDS, "journalctl", "--unit", "welkin.service"]);
    command.args(["--lines", JOURNAL_LINES, "--output", "short-iso-precise"]);
    command.args(["--no-pager", "--quiet"]);
    if let Some(since_ms) = since_ms {
        command.arg(format!("--since=@{}", since_ms / 1000));
    }
    let ran = command.stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("journalctl: {error}"))?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    if ran.status.success() {
        return Ok(text);
    }
    let why = String::from_utf8_lossy(&ran.stderr);
    let why = why.lines().next().unwrap_or("it said nothing");
    Err(format!("journalctl: {} ({why})", ran.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_at_the_moment_that_was_named() {
        let log = "2026-11-25T09:00:00.5Z  INFO a\n  more of a\n2026-11-25T09:00:02Z ERROR b\n c\n";
        let at = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            u64::try_from(time.as_millisecond()).unwrap()
        };
        assert_eq!(newer(log, 0), log);
        let second = newer(log, at("2026-11-25T09:00:01Z"));
        assert_eq!(second, "2026-11-25T09:00:02Z ERROR b\n c\n");
        assert_eq!(newer(log, at("2026-11-25T09:00:03Z")), "");
    }

    #[test]
    fn control_groups_are_told_apart_by_their_mounts() {
        let v1 = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu".to_owned();
        let v2 = "32 24 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw".to_owned();
        assert_eq!(layout(&[v1.clone(), v2.clone()]), "hybrid");
        assert_eq!(layout(&[v1]), "v1");
        assert_eq!(layout(&[v2]), "v2");
        assert_eq!(layout(&[]), "none");
    }

    #[test]
    fn a_distribution_is_named_as_it_names_itself() {
        let text = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        let name = distribution(text);
        assert_eq!(name.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    }

    #[test]
    fn files_of_the_node_are_named_and_those_of_programs_are_not() {
        let top = tempfile::tempdir().unwrap();
        let object = top.path().join("objects/0a");
        fs::create_dir_all(object.join("scratch/upper")).unwrap();
        fs::write(object.join("scratch/secret-name"), "").unwrap();
        fs::write(object.join("log.0"), "what it wrote").unwrap();
        fs::write(top.path().join("lock"), "1").unwrap();
        fs::write(top.path().join("node.key"), "swordfish").unwrap();
        let mut bundle = Bundle::default();
        state_files(&mut bundle, top.path());
        let packed = bundle.pack("top", wire::id::UnixMillis(0)).unwrap();
        let text = packed.text_of("state-files.txt");
        for name in ["node.key", "objects/0a/log.0", "objects/0a/scratch"] {
            assert!(text.lines().any(|line| line.ends_with(name)), "{text}");
        }
        assert!(text.contains(" 9  "), "its size: {text}");
        for word in ["secret-name", "upper", "swordfish", "what it wrote"] {
            assert!(!text.contains(word), "{text}");
        }
    }
}
