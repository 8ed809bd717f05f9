//! Disks that take no more.

use std::fs;
use std::time::Duration;

use end_to_end::{
    LabCloud, LoopbackCloud, objects_of, run as run_command, running_of, until, words,
};
use lab::Host;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{processes, signal};

/// How long a call may take until it says that the disk is in its way.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many apps that each of three nodes supervises some, by the names.
const APPS: usize = 6;

/// A disk of its own for the state directory of a host, as real as a file can be one.
const MAKE_DISK: &str = "truncate -s 32M /run/welkin/disk.img && \
    mkfs.ext4 -q -m 0 -E lazy_itable_init=0 /run/welkin/disk.img";
const MOUNT_DISK: &str = "mount -o loop,errors=remount-ro /run/welkin/disk.img /var/lib/welkin && \
    rm -rf /var/lib/welkin/lost+found";

fn with_small_disk(host: &Host) {
    if host.name() != "h2" {
        return;
    }
    for line in [MAKE_DISK, MOUNT_DISK] {
        let made = end_to_end::run(host.command("sh").args(["-c", line]), b"");
        assert_eq!(
            made.code, 0,
            "it needs loop devices and mkfs.ext4: {made:?}"
        );
    }
}

/// Three machines, the second with a small disk; on each, apps that want to run for good.
fn cloud_with_apps() -> LabCloud {
    let cloud = LabCloud::prepared(3, None, with_small_disk);
    for app in apps() {
        let run = format!("run -d --name {app} --restart always --replicas 2 -- sleep 1000");
        let _app = cloud.welkin("h2", &run).ok();
    }
    let run = "run -d --name here --host h2 --restart always -- sleep 1000";
    let _app = cloud.welkin("h1", run).ok();
    cloud
}

fn apps() -> impl Iterator<Item = String> {
    (0..APPS).map(|app| format!("app{app}"))
}

/// Makes large apps elsewhere until the disk of the second machine, which keeps a copy of all, has
/// to grow for it: what is changed within the room that it has needs no more.
fn fill_records(cloud: &LabCloud) {
    let environment = format!("--env=FILLER={}", "x".repeat(60_000));
    let mut made = 0;
    until("the node has noticed", PATIENCE, || {
        let mut run = words(&format!("run -d --name filler{made} --host h1"));
        run.extend([
            environment.clone(),
            "--".into(),
            "sleep".into(),
            "1000".into(),
        ]);
        let _refused_at_last = cloud.welkin_with("h1", &run, b"");
        made += 1;
        let report = cloud.welkin("h2", "doctor").stdout;
        report.contains("the disk takes no writes").then_some(())
    });
}

/// What a node whose disk takes nothing still does: it refuses what would change something, names
/// the disk, and tells what is asked, also of apps that other nodes supervise.
fn refuses_and_answers(cloud: &LabCloud) {
    let refused = cloud.welkin("h2", "scale app0=3");
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("disk"), "{refused:?}");
    for app in apps() {
        let running = running_of(cloud.objects("h2", &app));
        assert_eq!(running.len(), 2, "{running:?}");
        let told = cloud.welkin("h2", &format!("inspect {app} -o json")).json();
        assert_eq!(told[0]["spec"]["name"], app.as_str(), "{told}");
    }
}

fn restarts(objects: &[Value]) -> u64 {
    let restarts = objects.iter().map(|it| it["restarts"].as_u64());
    restarts.map(Option::unwrap_or_default).sum()
}

/// The disk of a node fills up: what would change something there is refused and the disk named,
/// what is asked is answered, what runs runs on, and once there is room all works again by itself.
#[test]
fn a_node_outlives_a_full_disk() {
    let cloud = cloud_with_apps();
    let before = processes(&cloud, "h2", "here");
    let daemon = cloud.daemon("h2");
    let fill = "dd if=/dev/zero of=/var/lib/welkin/fill bs=4k 2>/dev/null; sync; true";
    let _full = cloud.shell("h2", fill).ok();
    fill_records(&cloud);
    refuses_and_answers(&cloud);
    let run = "run -d --name elsewhere --restart always -- sleep 1000";
    let _app = cloud.welkin("h1", run).ok();

    let _room = cloud.shell("h2", "rm /var/lib/welkin/fill").ok();
    until("it takes writes again", Duration::from_secs(20), || {
        let run = "run -d --name later --host h2 --restart always -- sleep 1000";
        (cloud.welkin("h2", run).code == 0).then_some(())
    });
    for app in apps() {
        let running = cloud.await_running("h2", &app, 2);
        assert_eq!(restarts(&running), 0, "{running:?}");
    }
    assert_eq!(processes(&cloud, "h2", "here"), before, "it never ended");
    assert_eq!(cloud.daemon("h2"), daemon, "nor did its node");
}

/// The disk of a node becomes read-only, as after an error: the same as a full one, until somebody
/// mends it and starts the machine again.
#[test]
fn a_node_outlives_a_disk_that_became_read_only() {
    let cloud = cloud_with_apps();
    let before = processes(&cloud, "h2", "here");
    let daemon = cloud.daemon("h2");
    let _aborted = cloud.shell("h2", "mount -o remount,abort /var/lib/welkin");
    fill_records(&cloud);
    refuses_and_answers(&cloud);
    assert_eq!(processes(&cloud, "h1", "here"), before, "it runs on");
    assert_eq!(cloud.daemon("h2"), daemon, "and so does its node");

    cloud.host("h2").kill().expect("it was up");
    cloud.host("h2").start().expect("it boots");
    let mend = format!("e2fsck -fy /run/welkin/disk.img >/dev/null; {MOUNT_DISK}");
    let _mended = cloud.shell("h2", &mend).ok();
    let _up = cloud.welkin("h2", "up").ok();
    cloud.await_up(3);
    cloud.await_running("h2", "here", 1);
    for app in apps() {
        cloud.await_running("h2", &app, 2);
    }
}

/// The state directory is moved away under a node: what is asked is told, and what would change
/// something is refused with that reason. It goes on once the directory is back, by itself or,
/// when it was killed meanwhile, with its next start.
#[test]
fn a_node_whose_state_directory_is_moved_away_promises_nothing_until_it_is_back() {
    let cloud = LoopbackCloud::new(1, None);
    let run = "run -d --name steady --restart always -- sleep 1000";
    let _app = cloud.welkin(0, run).ok();
    let pid = || objects_of(&cloud.welkin(0, "ps steady -o json"))[0]["pid"].as_u64();
    let before = pid();
    let daemon = cloud.daemon(0);
    let here = cloud.state_dir(0);
    let away = here.with_extension("away");
    let at_away = |line: &str| {
        let mut command = cloud.command(0);
        command.env("WELKIN_STATE_DIR", &away).args(words(line));
        run_command(&mut command, b"")
    };

    fs::rename(&here, &away).expect("it can be moved");
    let refused = at_away("run -d --name lost --restart always -- sleep 1000");
    assert_ne!(refused.code, 0, "{refused:?}");
    let report = at_away("doctor").stdout;
    assert!(report.contains("moved away or deleted"), "{report}");
    let refused = at_away("scale steady=2");
    assert!(refused.stderr.contains("disk"), "{refused:?}");
    let listed = objects_of(&at_away("ps steady -o json"));
    assert_eq!(listed[0]["phase"], "running", "{listed:?}");

    fs::rename(&away, &here).expect("it can be moved");
    until("it takes changes again", PATIENCE, || {
        (cloud.welkin(0, "scale steady=2").code == 0).then_some(())
    });
    assert_eq!(cloud.daemon(0), daemon, "it never ended");

    fs::rename(&here, &away).expect("it can be moved");
    signal(daemon.expect("it runs"), Signal::SIGKILL);
    fs::rename(&away, &here).expect("it can be moved");
    let _up = cloud.welkin(0, "up --listen 127.0.0.1:0").ok();
    until("both run", PATIENCE, || {
        let objects = objects_of(&cloud.welkin(0, "ps steady -o json"));
        (running_of(objects).len() == 2).then_some(())
    });
    assert_eq!(pid(), before, "the same process");
}
