//! Copies into and out of objects.

use std::io::{Cursor, Read};

use wire::fact::ExitReason;
use wire::stream::{Kind, What};

use crate::Case;
use crate::bed::{Driver, Object, eventually, launch};

pub(crate) const CASES: &[Case] = &[
    ("a_tree_can_be_read", read),
    ("a_tree_can_be_written", write),
    ("what_changes_while_it_is_read_is_read", live),
    ("what_is_written_belongs_to_the_program", owner),
    ("a_copy_is_confined_like_a_program", confined),
    ("a_link_leads_nowhere_outside", links),
    ("a_path_that_does_not_exist_is_said_so", missing),
];

fn read_path(object: &Object, path: &str) -> Vec<(String, String)> {
    let (bytes, _, reason) = object
        .open(What::Read {
            path: path.to_string(),
        })
        .outputs();
    assert_eq!(reason, ExitReason::Code(0));
    let mut archive = tar::Archive::new(Cursor::new(bytes));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_000_000);
        builder
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn write_path(object: &Object, path: &str, bytes: &[u8]) -> crate::bed::Caller {
    let mut caller = object.open(What::Write {
        path: path.to_string(),
    });
    bytes
        .chunks(1000)
        .for_each(|piece| caller.send(Kind::Data, piece));
    caller.send(Kind::DataEnd, &[]);
    caller
}

fn read(driver: &Driver) {
    let script =
        "mkdir -p /tmp/d/e; echo 1 > /tmp/d/one; echo 2 > /tmp/d/e/two; echo ready; sleep 600";
    let object = driver.shell(script);
    object.wait_for("ready");
    let entry = |name: &str, text: &str| (name.to_string(), text.to_string());
    let tree = [
        entry("d", ""),
        entry("d/e", ""),
        entry("d/e/two", "2\n"),
        entry("d/one", "1\n"),
    ];
    let found = read_path(&object, "/tmp/d");
    let found: Vec<_> = found
        .into_iter()
        .map(|(n, t)| (n.trim_end_matches('/').to_string(), t))
        .collect();
    assert_eq!(found, tree);
    assert_eq!(read_path(&object, "/tmp/d/one"), [entry("one", "1\n")]);
}

fn write(driver: &Driver) {
    let object = driver.shell("sleep 600");
    object.running();
    let big = "0123456789".repeat(50_000);
    let bytes = archive(&[("a", "hello"), ("b/c", &big)]);
    let (_, _, reason) = write_path(&object, "/tmp", &bytes).outputs();
    assert_eq!(reason, ExitReason::Code(0));
    let script = "cat /tmp/a; echo; wc -c < /tmp/b/c; stat -c '%a %Y' /tmp/a";
    assert_eq!(object.exec_shell(script).0, "hello\n500000\n640 1000000\n");
    assert!(!std::path::Path::new("/tmp/b/c").exists());
}

// A file that shrank or grew while it was copied broke the archive; sparse files and files of the
// kernel could not be copied at all.
fn live(driver: &Driver) {
    let script = "mkdir /tmp/d; cd /tmp/d; truncate -s 5M sparse; touch grows shrinks; echo ready; i=0; while :; do \
                  head -c 300000 /dev/zero > /tmp/d/shrinks; : > /tmp/d/shrinks; \
                  echo line >> /tmp/d/grows; echo x > /tmp/d/$i; rm /tmp/d/$i; i=$((i+1)); done";
    let object = driver.shell(script);
    object.wait_for("ready");
    for _ in 0..20 {
        let entries = read_path(&object, "/tmp/d");
        let sparse = entries.iter().find(|(name, _)| name == "d/sparse").unwrap();
        assert_eq!(sparse.1.len(), 5 << 20);
        for name in ["d/shrinks", "d/grows"] {
            assert!(entries.iter().any(|(other, _)| other == name), "{name}");
        }
    }
    let status = &read_path(&object, "/proc/1/status")[0].1;
    assert!(status.contains("welkin-init"), "{status}");
}

fn owner(driver: &Driver) {
    let mut launch = launch(&["/bin/sleep", "600"]);
    launch.program.user = Some("nobody".to_string());
    let object = driver.start(launch);
    object.running();
    let bytes = archive(&[("a", "hello")]);
    let (_, _, reason) = write_path(&object, "/tmp", &bytes).outputs();
    assert_eq!(reason, ExitReason::Code(0));
    assert_eq!(object.exec_shell("stat -c %u /tmp/a").0, "65534\n");
    write_path(&object, "/etc", &bytes).failure();
}

// A copy had no filter, the shim's descriptors, and could be traced by the object's programs.
fn confined(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let others = object.processes();
    let copy = object.open(What::Write {
        path: "/tmp".to_string(),
    });
    let mut found = Vec::new();
    eventually("the copy is confined", || {
        found = object.processes();
        found.retain(|pid| !others.contains(pid));
        let status = found.first().map(|pid| format!("/proc/{pid}/status"));
        let status = status.and_then(|path| std::fs::read_to_string(path).ok());
        status.is_some_and(|text| text.contains("Seccomp:\t2"))
    });
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", found[0])).unwrap();
    let targets: Vec<_> = descriptors
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let null = targets.iter().filter(|target| *target == "/dev/null");
    assert_eq!(null.count(), 3, "{targets:?}");
    let others = targets.iter().filter(|target| *target != "/dev/null");
    assert!(
        others
            .clone()
            .all(|target| target.starts_with("pipe:") || target.starts_with("socket:")),
        "{targets:?}"
    );
    let script = "for p in /proc/[0-9]*; do grep -q conformance $p/comm && echo seen && \
                  ls -l $p/fd 2>&1; done | head -n 2";
    let seen = object
        .exec_shell(&script.replace("conformance", "welkin-shim"))
        .0;
    assert!(seen.contains("seen") && seen.contains("denied"), "{seen}");
    drop(copy);
}

fn links(driver: &Driver) {
    let outside = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let path = outside.path().to_str().unwrap();
    let object = driver.shell(&format!(
        "ln -s {path} /tmp/link; ln -s / /tmp/root; echo ready; sleep 600"
    ));
    object.wait_for("ready");
    let failure = object
        .open(What::Read {
            path: "/tmp/link/secret".to_string(),
        })
        .failure();
    assert!(failure.contains("not-found"), "{failure}");
    write_path(&object, "/tmp/root/tmp", &archive(&[("mine", "x")])).outputs();
    assert_eq!(object.exec_shell("cat /tmp/mine").0, "x");
    write_path(&object, "/tmp/link", &archive(&[("mine", "x")])).failure();
    assert!(!outside.path().join("mine").exists());
}

fn missing(driver: &Driver) {
    let object = driver.shell("sleep 600");
    object.running();
    let failure = object
        .open(What::Read {
            path: "/no/such".to_string(),
        })
        .failure();
    assert!(
        failure.contains("not-found") && failure.contains("/no/such"),
        "{failure}"
    );
    let failure = object
        .open(What::Read {
            path: "relative".to_string(),
        })
        .failure();
    assert!(failure.contains("must begin with /"), "{failure}");
    let failure = write_path(&object, "/etc/passwd", &archive(&[("a", "x")])).failure();
    assert!(failure.contains("/etc/passwd"), "{failure}");
}
