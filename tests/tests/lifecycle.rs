//! The life of apps, in a cloud of one node and in one without root.

use std::time::Duration;

use end_to_end::{LoopbackCloud, Ran, until, words};

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;

fn sh(cloud: &LoopbackCloud, flags: &str, script: &str, stdin: &[u8]) -> Ran {
    let mut arguments = words(&format!("run {flags} -- sh -c"));
    arguments.push(script.to_string());
    cloud.welkin_with(0, &arguments, stdin)
}

#[test]
fn a_program_runs_in_the_foreground_with_its_streams_and_its_exit_code() {
    for uid in [None, Some(NOBODY)] {
        let cloud = LoopbackCloud::new(1, uid);
        let ran = sh(&cloud, "", "echo hello; echo oops >&2; exit 3", b"");
        assert_eq!((ran.code, &*ran.stdout), (3, "hello\n"), "{}", ran.stderr);
        assert!(ran.stderr.contains("oops"), "{}", ran.stderr);
        let sorted = cloud.welkin_with(0, &words("run -i -- sort"), b"b\na\n");
        assert_eq!(sorted.ok(), "a\nb\n");
        let silent = cloud.welkin_with(0, &words("run -- cat"), b"nobody reads this");
        assert_eq!(silent.ok(), "", "without -i standard input is empty");
    }
}

#[test]
fn what_cannot_be_started_says_so_with_the_code_of_a_shell() {
    let cloud = LoopbackCloud::new(1, None);
    let missing = cloud.welkin(0, "run -- no-such-program");
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    assert!(
        missing.stderr.contains("no-such-program"),
        "{}",
        missing.stderr
    );
    assert_eq!(cloud.welkin(0, "run -- /etc/passwd").code, 126);
    assert_eq!(cloud.welkin(0, "run -d -- no-such-program").code, 127);
    until(
        "nothing half-started is left",
        Duration::from_secs(20),
        || cloud.welkin(0, "ps -a -q").ok().is_empty().then_some(()),
    );
}

#[test]
fn a_program_that_wants_too_much_memory_is_reported_as_such() {
    let cloud = LoopbackCloud::new(1, None);
    let line = "run --name hog -d --memory 32M -- python3 -c x=bytearray(200<<20);input()";
    let _started = cloud.welkin(0, line);
    let exit = until("the hog has ended", Duration::from_secs(30), || {
        let objects = end_to_end::objects_of(&cloud.welkin(0, "ps hog -a -o json"));
        let exit = objects.first()?["last_exit"].clone();
        (!exit.is_null()).then_some(exit)
    });
    assert_eq!(exit["reason"], "out-of-memory", "{exit}");
}

#[test]
fn names_ids_and_prefixes_mean_the_same_object() {
    let cloud = LoopbackCloud::new(1, None);
    let _web = cloud.welkin(0, "run -d --name web -- sleep 1000").ok();
    let objects = end_to_end::objects_of(&cloud.welkin(0, "ps web -o json"));
    let id = objects[0]["object"].as_str().expect("an id").to_string();
    for name in ["web", "web/0", &id, &id[..8]] {
        let inspected = cloud.welkin(0, &format!("inspect {name} -o json")).ok();
        assert!(inspected.contains(&id), "{name}: {inspected}");
    }
    let unknown = cloud.welkin(0, "stop nonesuch");
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("welkin ps"),
        "says what to do: {}",
        unknown.stderr
    );
    let taken = cloud.welkin(0, "run -d --name web -- sleep 1000");
    assert_ne!(taken.code, 0);
    assert!(taken.stderr.contains("exists already"), "{}", taken.stderr);
}

#[test]
fn an_app_stops_starts_scales_and_leaves() {
    let cloud = LoopbackCloud::new(1, None);
    let _app = cloud
        .welkin(
            0,
            "run -d --name app --restart always --replicas 2 -- sleep 1000",
        )
        .ok();
    let running = |count: usize| {
        until(&format!("{count} run"), Duration::from_secs(20), || {
            let objects = end_to_end::objects_of(&cloud.welkin(0, "ps app -a -o json"));
            (end_to_end::running_of(objects).len() == count).then_some(())
        });
    };
    running(2);
    let _scaled = cloud.welkin(0, "scale app=3").ok();
    running(3);
    let _stopped = cloud.welkin(0, "stop app").ok();
    running(0);
    let _again = cloud.welkin(0, "start app").ok();
    running(3);
    let refused = cloud.welkin(0, "rm app");
    assert_eq!(refused.code, 1, "it runs");
    let _gone = cloud.welkin(0, "rm -f app").ok();
    assert_eq!(cloud.welkin(0, "ps -a -q").ok(), "");
}

#[test]
fn a_failing_program_is_started_again_as_often_as_its_policy_says() {
    let cloud = LoopbackCloud::new(1, None);
    let _app = sh(
        &cloud,
        "-d --name flaky --restart on-failure:2",
        "exit 7",
        b"",
    );
    let waited = cloud.welkin(0, "wait flaky");
    assert_eq!(waited.ok().trim(), "7");
    let objects = end_to_end::objects_of(&cloud.welkin(0, "ps flaky -a -o json"));
    assert_eq!(objects[0]["restarts"], 2, "{objects:?}");
}

#[test]
fn signals_reach_the_program() {
    let cloud = LoopbackCloud::new(1, None);
    let script = "trap 'echo got it; exit 5' HUP; echo ready; while :; do sleep 0.05; done";
    let _app = sh(&cloud, "-d --name app", script, b"").ok();
    until("the trap is set", Duration::from_secs(10), || {
        cloud
            .welkin(0, "logs app")
            .stdout
            .contains("ready")
            .then_some(())
    });
    let _sent = cloud.welkin(0, "kill -s HUP app").ok();
    assert_eq!(cloud.welkin(0, "wait app").ok().trim(), "5");
    assert!(cloud.welkin(0, "logs app").ok().contains("got it"));
}

#[test]
fn programs_are_run_inside_objects_and_files_go_in_and_out() {
    let cloud = LoopbackCloud::new(1, None);
    let _app = cloud.welkin(0, "run -d --name box -- sleep 1000").ok();
    let ran = cloud.welkin_with(0, &words("exec -i box -- cat"), b"through");
    assert_eq!(ran.ok(), "through");
    assert_eq!(cloud.welkin(0, "exec box -- false").code, 1);
    assert_eq!(cloud.welkin(0, "exec box -- no-such-program").code, 127);
    let here = tempfile::tempdir().expect("a directory");
    let file = here.path().join("data");
    std::fs::write(&file, b"payload").expect("writes");
    let _in = cloud
        .welkin(0, &format!("cp {} box:/tmp", file.display()))
        .ok();
    assert_eq!(cloud.welkin(0, "exec box -- cat /tmp/data").ok(), "payload");
    std::fs::remove_file(&file).expect("it is there");
    let _out = cloud
        .welkin(0, &format!("cp box:/tmp/data {}", here.path().display()))
        .ok();
    assert_eq!(std::fs::read(&file).expect("it came back"), b"payload");
}

#[test]
fn an_object_cannot_see_or_damage_its_node() {
    let cloud = LoopbackCloud::new(1, None);
    let marker = cloud.state_dir(0).join("node.key");
    let script = format!(
        "cat {} 2>/dev/null; rm -rf /etc/hostname; echo damage > /etc/passwd; ls /proc | grep -c '^[0-9]'",
        marker.display()
    );
    let before = std::fs::read("/etc/passwd").expect("every node has one");
    let ran = sh(&cloud, "", &script, b"");
    assert_eq!(std::fs::read("/etc/passwd").expect("still there"), before);
    let processes: u32 = ran
        .stdout
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{ran:?}"));
    assert!(processes < 8, "it sees {processes} processes");
}

#[test]
fn the_daemon_may_die_and_no_object_notices() {
    let cloud = LoopbackCloud::new(1, None);
    let script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done";
    let _ticker = sh(&cloud, "-d --name ticker", script, b"").ok();
    let _short = sh(&cloud, "-d --name short", "sleep 1; exit 9", b"").ok();
    let pid = |ran: &Ran| end_to_end::objects_of(ran)[0]["pid"].as_u64();
    let before = pid(&cloud.welkin(0, "ps ticker -o json"));
    let daemon = cloud.daemon(0).expect("it runs");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(daemon),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it runs");
    until(
        "the short one has ended without a daemon",
        Duration::from_secs(10),
        || {
            let exit = std::fs::read_dir(cloud.state_dir(0).join("objects")).ok()?;
            exit.flatten()
                .any(|object| object.path().join("exit").exists())
                .then_some(())
        },
    );
    let _back = cloud.welkin(0, "up --listen 127.0.0.1:0").ok();
    assert_eq!(
        pid(&cloud.welkin(0, "ps ticker -o json")),
        before,
        "the same process"
    );
    assert_eq!(
        cloud.welkin(0, "wait short").ok().trim(),
        "9",
        "its exit code is known"
    );
    let log = cloud.welkin(0, "logs ticker").ok();
    let numbers: Vec<u32> = log
        .lines()
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    let expected: Vec<u32> = (0..u32::try_from(numbers.len()).expect("few")).collect();
    assert!(numbers.len() > 20, "{log}");
    assert_eq!(numbers, expected, "no line is lost or doubled");
}

#[test]
fn a_second_daemon_on_one_state_directory_is_refused() {
    let cloud = LoopbackCloud::new(1, None);
    let second = cloud.welkin(0, "up --foreground --listen 127.0.0.1:0");
    assert_ne!(second.code, 0);
    let says = format!("{}{}", second.stdout, second.stderr);
    assert!(
        says.contains("already") || says.contains("another"),
        "{says}"
    );
}

#[test]
fn a_node_that_is_not_up_says_how_to_get_it_up() {
    let empty = tempfile::tempdir().expect("a directory");
    let mut command = std::process::Command::new(end_to_end::welkin());
    command
        .arg("ps")
        .env("WELKIN_STATE_DIR", empty.path().join("none"));
    let ran = end_to_end::run(&mut command, b"");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("welkin up"), "{}", ran.stderr);
}
