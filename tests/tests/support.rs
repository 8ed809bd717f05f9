//! A support bundle of a real node: what a maintainer needs is in it, and no secret.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use end_to_end::{LoopbackCloud, objects_of, run, running_of, until, words};

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(40);
/// What must be in no bundle.
const MARKER: &str = "swordfish-1976";

/// Makes a bundle of the first node; the files in it by their names, and what was said of it.
fn bundle(cloud: &LoopbackCloud, name: &str) -> (Vec<(String, Vec<u8>)>, String) {
    let path = cloud.state_dir(0).join(name);
    let line = format!("support-bundle --file {} -o json", path.display());
    let ran = cloud.welkin(0, &line);
    let said = ran.stderr.clone();
    let told = ran.json();
    assert_eq!(told["path"], path.display().to_string());
    let mode = fs::metadata(&path).expect("it was made").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let unpacked = tempfile::tempdir().expect("a directory");
    let mut tar = Command::new("tar");
    tar.args(["--strip-components=1", "-xzf"]);
    tar.arg(&path).arg("-C").arg(unpacked.path());
    let _silence = run(&mut tar, b"").ok();
    let mut files = Vec::new();
    let mut folders = vec![unpacked.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("it is there").flatten() {
            let path: PathBuf = path.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((
                    below(unpacked.path(), &path),
                    fs::read(path).expect("it is there"),
                ));
            }
        }
    }
    let listed = told["files"].as_array().expect("a list");
    assert_eq!(listed.len(), files.len(), "all of it is told: {told}");
    for (name, bytes) in &files {
        let told = listed.iter().find(|it| it["name"] == name.as_str());
        assert_eq!(told.expect("it is told")["bytes"], bytes.len(), "{name}");
    }
    (files, said)
}

fn below(top: &Path, path: &Path) -> String {
    let path = path.strip_prefix(top).expect("it is below");
    path.display().to_string()
}

fn text<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> &'a str {
    let found = files.iter().find(|(path, _)| path == name);
    let (_, bytes) = found.unwrap_or_else(|| panic!("{name} is not in it"));
    std::str::from_utf8(bytes).expect("it is text")
}

/// Fails when one of these is in one of the files.
fn check_absent(files: &[(String, Vec<u8>)], secrets: &[&[u8]]) {
    for (name, bytes) in files {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|it| it == *secret);
            let secret = String::from_utf8_lossy(secret);
            assert!(
                !found,
                "{secret} is in {name}: {}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}

#[test]
fn a_support_bundle_tells_of_the_cloud_and_no_secret() {
    let cloud = LoopbackCloud::new(2, Some(NOBODY));
    let mut arguments = words("run -d --name web --restart always --host n0 --env");
    arguments.push(format!("PASSWORD={MARKER}"));
    arguments.extend(words("-- sh -c"));
    let script = format!("echo {MARKER}; exec sleep 1000");
    arguments.extend([script, format!("--token={MARKER}")]);
    let _web = cloud.welkin_with(1, &arguments, b"").ok();
    until("it runs", PATIENCE, || {
        let objects = objects_of(&cloud.welkin(0, "ps web -a -o json"));
        (running_of(objects).len() == 1).then_some(())
    });
    // What a program cannot be found in is its environment's.
    let mut failing = words("run -d --name lost --env");
    failing.push(format!("PATH=/{MARKER}"));
    failing.extend(words("-- no-such-program"));
    assert_ne!(cloud.welkin_with(0, &failing, b"").code, 0);
    let ticket = cloud.welkin(0, "invite --uses 2").ok();
    let ticket = ticket.trim();
    let log = cloud.state_dir(0).join("daemon.log");
    let mut log = OpenOptions::new().append(true).open(log).expect("a log");
    writeln!(log, "what the node never says: {ticket}").expect("it is a file");
    let key = fs::read(cloud.state_dir(0).join("node.key")).expect("root may read it");

    let (files, said) = bundle(&cloud, "up.tar.gz");
    check_absent(&files, &[MARKER.as_bytes(), ticket.as_bytes(), &key]);
    assert!(text(&files, "apps/web.json").contains("PASSWORD"));
    assert!(text(&files, "apps/web.json").contains("(removed)"));
    assert!(text(&files, "apps.json").contains("\"web\""));
    assert!(text(&files, "nodes.json").contains("\"n1\""));
    assert!(text(&files, "nodes/n1.json").contains("addresses"));
    assert!(text(&files, "events.json").contains("could not be started (127)"));
    assert!(text(&files, "daemon.log").contains("this machine is a node now"));
    assert!(text(&files, "daemon.log").contains("welkin1-(removed)"));
    assert!(text(&files, "state-files.txt").contains("node.key"));
    assert!(text(&files, "machine.txt").contains("/proc/sys/kernel/osrelease"));
    assert!(text(&files, "versions.json").contains("\"wire\": 1"));
    assert!(text(&files, "doctor.txt").contains("MiB are free"));
    assert!(text(&files, "stats.json").contains("memory_bytes"));
    assert!(
        said.contains("Look through it before you send it"),
        "{said}"
    );

    // The daemon is gone and what its objects were started with is there.
    cloud.kill(0);
    writeln!(log, "what the node never says: {MARKER} {ticket}").expect("it is a file");
    let (files, said) = bundle(&cloud, "down.tar.gz");
    check_absent(&files, &[MARKER.as_bytes(), ticket.as_bytes(), &key]);
    assert!(said.contains("no node answers"), "{said}");
    assert!(text(&files, "README.txt").contains("this node is not up"));
    assert!(text(&files, "daemon.log").contains("this machine is a node now"));
    assert!(text(&files, "doctor.txt").contains("do: welkin up"));
}
