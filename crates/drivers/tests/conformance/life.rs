//! From launch to exit: codes, signals, stopping, limits, what is left.

use std::os::unix::fs::PermissionsExt;

use drivers::exec::{self, FoundState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wire::driver::{ShimReport, ShimRequest};
use wire::fact::ExitReason;
use wire::stream::Kind;

use crate::Case;
use crate::bed::{Driver, Mounted, eventually, is_alive, launch};

pub(crate) const CASES: &[Case] = &[
    ("a_program_starts_writes_and_exits", starts),
    ("its_exit_code_is_reported", exit_codes),
    ("a_program_that_does_not_exist_is_127", not_found),
    ("a_program_that_cannot_be_executed_is_126", not_executable),
    ("a_directory_that_does_not_exist_is_125", no_directory),
    ("a_signal_that_ends_it_is_reported", signals),
    (
        "a_signal_without_a_name_ends_it_like_any_other",
        real_time_signals,
    ),
    ("a_signal_reaches_the_program", signal_reaches),
    ("stop_asks_first", stop_asks),
    ("stop_kills_after_the_grace_period", stop_kills),
    ("a_machine_that_shuts_down_asks_programs_to_end", shutdown),
    ("the_environment_says_what_it_is", environment),
    ("the_memory_limit_holds_and_is_named", out_of_memory),
    (
        "who_is_stopped_after_a_lack_of_memory_was_stopped",
        stopped_after_out_of_memory,
    ),
    ("one_process_is_enough_for_a_program", one_process),
    ("a_full_disk_does_not_hide_how_it_ended", full_disk),
    ("a_disk_without_room_for_its_start_is_named", no_room),
    (
        "what_was_half_made_or_half_removed_goes_at_the_next_start",
        half_made,
    ),
    ("the_process_limit_bounds_a_fork_bomb", fork_bomb),
    ("the_cpu_limit_is_set", cpu_limit),
    ("usage_is_measured", usage),
    ("what_it_leaves_behind_dies_with_it", leftovers),
    ("a_killed_shim_leaves_nothing", shim_killed),
    ("nothing_is_left_of_an_ended_object", cleanup),
    ("an_absent_daemon_finds_what_happened", scan),
    (
        "whoever_gets_through_to_an_ending_shim_is_heard",
        last_callers,
    ),
    ("an_object_can_be_started_again", restart),
    (
        "a_restart_waits_for_what_is_left_of_the_run_before",
        overlapping_restart,
    ),
    ("nonsense_closes_only_its_own_connection", nonsense),
    ("a_very_long_path_works", long_path),
];

fn starts(driver: &Driver) {
    let object = driver.shell("echo hello; echo oops >&2");
    let mut watcher = object.watch();
    assert!(matches!(watcher.report(), ShimReport::Running { .. }));
    assert_eq!(watcher.exit(), ExitReason::Code(0));
    let object = driver.shell("echo hello; echo oops >&2; sleep 0.3");
    assert_eq!(object.output(), "hello\noops\n");
}

fn exit_codes(driver: &Driver) {
    for code in [0, 1, 42, 255] {
        let object = driver.shell(&format!("exit {code}"));
        assert_eq!(object.reason(), ExitReason::Code(code));
        let exit = exec::read_exit(&object.directory).unwrap().unwrap();
        assert_eq!(
            exit.reason,
            ExitReason::Code(code),
            "written before it is told"
        );
    }
}

fn check_not_started(driver: &Driver, arguments: &[&str], code: u8, says: &str) {
    match driver.start(launch(arguments)).reason() {
        ExitReason::NotStarted {
            code: found,
            message,
        } => {
            assert_eq!(found, code, "{message}");
            assert!(message.contains(says), "{message}");
        }
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn not_found(driver: &Driver) {
    check_not_started(driver, &["no-such-program"], 127, "no-such-program");
    check_not_started(driver, &["/no/such/program"], 127, "/no/such/program");
    check_not_started(driver, &[], 125, "no program");
}

fn not_executable(driver: &Driver) {
    check_not_started(driver, &["/etc/passwd"], 126, "/etc/passwd");
    check_not_started(driver, &["/etc"], 126, "directory");
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = scratch.path().join("no-shebang");
    std::fs::write(&path, "echo hello\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    check_not_started(driver, &[path.to_str().unwrap()], 126, "#!");
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    check_not_started(driver, &[path.to_str().unwrap()], 127, "interpreter");
}

fn no_directory(driver: &Driver) {
    let mut launch = launch(&["true"]);
    launch.program.directory = Some("/no/such/directory".to_string());
    match driver.start(launch.clone()).reason() {
        ExitReason::NotStarted { code: 125, message } => assert!(message.contains("/no/such")),
        other => panic!("{other:?}"),
    }
    launch.program.directory = None;
    launch.program.user = Some("no-such-user".to_string());
    match driver.start(launch).reason() {
        ExitReason::NotStarted { code: 125, message } => assert!(message.contains("no-such-user")),
        other => panic!("{other:?}"),
    }
}

fn signals(driver: &Driver) {
    let object = driver.shell("kill -USR1 $$");
    assert_eq!(object.reason(), ExitReason::Signal(10));
}

// A signal without a name ended a program for good, but nobody saw it: it was listed as running.
fn real_time_signals(driver: &Driver) {
    for number in [34, 64] {
        let object = driver.shell(&format!("kill -{number} $$"));
        assert_eq!(object.reason(), ExitReason::Signal(number));
    }
    let object = driver.shell("echo ready; exec sleep 600");
    object.wait_for("ready");
    let (_, reason) = object.exec_shell("kill -40 $$");
    assert_eq!(reason, ExitReason::Signal(40));
    object.caller().request(&ShimRequest::Signal { signal: 50 });
    assert_eq!(object.reason(), ExitReason::Signal(50));
}

fn signal_reaches(driver: &Driver) {
    let object =
        driver.shell("trap 'echo got it; exit 7' USR2; echo ready; while :; do sleep 0.01; done");
    object.wait_for("ready");
    object.caller().request(&ShimRequest::Signal { signal: 12 });
    assert_eq!(object.reason(), ExitReason::Code(7));
}

fn stop_asks(driver: &Driver) {
    let object = driver.shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    object.wait_for("ready");
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Stop { grace_ms: 10_000 });
    let exit = watcher.end();
    assert_eq!((exit.reason, exit.asked), (ExitReason::Code(5), true));
}

fn stop_kills(driver: &Driver) {
    let object = driver.shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    object.wait_for("ready");
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Stop { grace_ms: 100 });
    assert_eq!(watcher.exit(), ExitReason::Signal(9));
}

// Servers return 0 when they are asked to end. After a reboot those that were to be started again
// on failure had been a success, and did not return: so it is told that it was asked for.
fn shutdown(driver: &Driver) {
    for code in [0, 5] {
        let script = format!("trap 'exit {code}' TERM; echo ready; while :; do sleep 0.01; done");
        let object = driver.shell(&script);
        object.wait_for("ready");
        let mut watcher = object.watch();
        kill(Pid::from_raw(object.shim_pid()), Signal::SIGTERM).unwrap();
        let exit = watcher.end();
        assert_eq!((exit.reason, exit.asked), (ExitReason::Code(code), true));
    }
}

fn environment(driver: &Driver) {
    let mut launch = launch(&["/usr/bin/env"]);
    launch.restarts = 2;
    launch
        .program
        .environment
        .insert("MINE".to_string(), "a=b c".to_string());
    let object = driver.start(launch);
    let output = output_of(&object);
    for line in [
        "WELKIN_APP=case",
        "WELKIN_INDEX=3",
        "WELKIN_RESTARTS=2",
        "MINE=a=b c",
        "HOSTNAME=case-3",
    ] {
        assert!(
            output.lines().any(|other| other == line),
            "{line} in {output}"
        );
    }
    let id = format!("WELKIN_OBJECT={}", object.launch.object);
    assert!(
        output.contains(&id) && output.contains("PATH=/usr/local/sbin:"),
        "{output}"
    );
    assert!(!output.contains("CARGO"), "{output}");
}

/// The output of an object that may have ended long ago: from its log on disk.
fn output_of(object: &crate::bed::Object) -> String {
    object.reason();
    let mut reader =
        drivers::log::Reader::open(&object.directory, drivers::log::Start::Oldest).unwrap();
    let mut output = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        output.extend(record.payload);
    }
    String::from_utf8(output).unwrap()
}

fn out_of_memory(driver: &Driver) {
    let mut launch = launch(&["tail", "/dev/zero"]);
    launch.resources.memory_bytes = 32 << 20;
    assert_eq!(driver.start(launch).reason(), ExitReason::OutOfMemory);
}

// Whoever had lost a child for want of memory was said to have lacked memory when it was stopped.
fn stopped_after_out_of_memory(driver: &Driver) {
    let mut launch = launch(&["/bin/sh", "-c", "tail /dev/zero; echo lost; sleep 600"]);
    launch.resources.memory_bytes = 32 << 20;
    for request in [
        ShimRequest::Stop { grace_ms: 0 },
        ShimRequest::Signal { signal: 9 },
    ] {
        let object = driver.start(launch.clone());
        object.wait_for("lost\n");
        let mut watcher = object.watch();
        watcher.request(&request);
        assert_eq!(watcher.exit(), ExitReason::Signal(9));
    }
}

fn one_process(driver: &Driver) {
    let mut launch = launch(&["/bin/true"]);
    launch.resources.processes = 1;
    assert_eq!(driver.start(launch).reason(), ExitReason::Code(0));
}

// The exit code needed a new block, which a disk that the object had filled did not have.
fn full_disk(driver: &Driver) {
    use nix::mount::{MsFlags, mount};
    let disk = tempfile::tempdir_in("/var/tmp").unwrap();
    let (kind, options) = (Some("tmpfs"), Some("size=1m"));
    mount(kind, disk.path(), kind, MsFlags::empty(), options).unwrap();
    let _mounted = Mounted(vec![disk.path().to_path_buf()]);
    let script = "read go; head -c 2000000 /dev/zero > /tmp/fill; test $? != 0 && exit 7";
    let mut launch = launch(&["/bin/sh", "-c", script]);
    launch.program.stdin = true;
    let directory = disk.path().join("object");
    (driver.launch)(&directory, &launch);
    let mut caller = crate::bed::Caller {
        stream: exec::connect(&directory).unwrap(),
    };
    let what = serde_json::json!({"attach": {"stdin": true, "replay": true}});
    let open = serde_json::json!({
        "node": launch.node, "object": launch.object, "what": what
    });
    caller.send(Kind::Open, open.to_string().as_bytes());
    caller.send(Kind::Stdin, b"go\n");
    assert_eq!(caller.outputs().2, ExitReason::Code(7));
    let exit = exec::read_exit(&directory).unwrap();
    exec::kill_everything(&directory);
    exec::remove(&directory).unwrap();
    let exit = exit.expect("it was written");
    assert_eq!((exit.reason, exit.asked), (ExitReason::Code(7), false));
}

// There was room for nothing but the launch file: the shim ended without a word, and the object was
// held as lost with its machine.
fn no_room(driver: &Driver) {
    use nix::mount::{MsFlags, mount};
    let disk = tempfile::tempdir_in("/var/tmp").unwrap();
    let (kind, options) = (Some("tmpfs"), Some("size=1m"));
    mount(kind, disk.path(), kind, MsFlags::empty(), options).unwrap();
    let _mounted = Mounted(vec![disk.path().to_path_buf()]);
    let free = nix::sys::statvfs::statvfs(disk.path()).unwrap();
    // The launch file takes one block, the word on its end two of 4 KiB.
    let filled = (free.blocks_available() - 3) * free.fragment_size();
    let filled = vec![0; usize::try_from(filled).unwrap()];
    std::fs::write(disk.path().join("fill"), filled).unwrap();
    let directory = disk.path().join("object");
    (driver.launch)(&directory, &launch(&["/bin/true"]));
    let exit = || exec::read_exit(&directory).unwrap();
    eventually("it is written how it ended", || exit().is_some());
    let reason = exit().expect("it was there").reason;
    exec::kill_everything(&directory);
    exec::remove(&directory).unwrap();
    let is_named = matches!(&reason, ExitReason::NotStarted { code: 125, message }
        if message.contains("No space left"));
    assert!(is_named, "{reason:?}");
}

fn fork_bomb(driver: &Driver) {
    let bomb = "import os, time\ntry:\n while True: os.fork()\nexcept OSError: time.sleep(600)";
    let mut launch = launch(&["/usr/bin/env", "python3", "-c", bomb]);
    launch
        .program
        .environment
        .insert("PATH".to_string(), std::env::var("PATH").unwrap());
    launch.resources.processes = 30;
    let object = driver.start(launch);
    object.running();
    eventually("it reaches its limit", || object.processes().len() >= 25);
    for _ in 0..20 {
        assert!(object.processes().len() <= 31, "thirty and init");
    }
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Stop { grace_ms: 0 });
    assert_eq!(watcher.exit(), ExitReason::Signal(9));
    eventually("nothing is left", || object.groups().is_empty());
}

fn cpu_limit(driver: &Driver) {
    let object = driver.shell("sleep 60");
    object.running();
    let limits: Vec<String> = object
        .groups()
        .iter()
        .flat_map(|group| ["cpu.cfs_quota_us", "cpu.max"].map(|name| group.join(name)))
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    assert!(
        limits.iter().any(|limit| limit.starts_with("50000")),
        "{limits:?}"
    );
}

fn usage(driver: &Driver) {
    let object =
        driver.shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 60");
    object.wait_for("done");
    let usage = object.usage();
    assert!(usage.cpu_us > 1_000, "{usage:?}");
    assert!(
        usage.memory_bytes > 0 && usage.memory_bytes < 64 << 20,
        "{usage:?}"
    );
    assert!((2..=4).contains(&usage.processes), "{usage:?}");
}

fn leftovers(driver: &Driver) {
    let object = driver.shell("(trap '' TERM HUP; setsid sleep 600) & sleep 600 & exit 3");
    assert_eq!(object.reason(), ExitReason::Code(3));
    eventually("its groups are removed", || object.groups().is_empty());
}

fn shim_killed(driver: &Driver) {
    let object = driver.shell("setsid sleep 600 & sleep 600 & sleep 600");
    object.running();
    eventually("all of it runs", || object.processes().len() >= 4);
    let processes = object.processes();
    kill(Pid::from_raw(object.shim_pid()), Signal::SIGKILL).unwrap();
    eventually("every process dies", || {
        !processes.iter().any(|pid| is_alive(*pid))
    });
    assert!(exec::connect(&object.directory).is_err());
    let found = exec::scan(object.directory.parent().unwrap()).unwrap();
    assert_eq!(found.first().unwrap().state, FoundState::Lost);
    assert!(object.groups().is_empty());
}

fn cleanup(driver: &Driver) {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let object = driver.shell("echo x > /var/mine; echo y > /tmp/mine; sleep 600");
    let (pid, _) = object.running();
    let shim = object.shim_pid();
    let groups = object.groups();
    let parents: Vec<_> = groups.iter().filter_map(|path| path.parent()).collect();
    assert!(!parents.is_empty());
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Stop { grace_ms: 0 });
    watcher.exit();
    eventually("the shim ends", || {
        let _reaped = exec::scan(object.directory.parent().unwrap()).unwrap();
        !is_alive(shim) && !is_alive(i32::try_from(pid).unwrap())
    });
    assert_eq!(object.groups(), Vec::<std::path::PathBuf>::new());
    exec::remove(&object.directory).unwrap();
    assert!(!object.directory.exists());
    assert_eq!(mounts(), before);
    exec::remove_control_groups(object.launch.node);
    let left: Vec<_> = parents.iter().filter(|path| path.exists()).collect();
    assert_eq!(left, Vec::<&&std::path::Path>::new());
}

// A daemon that died as it made or removed an object left a directory that nobody looked at again.
fn half_made(_driver: &Driver) {
    let objects = tempfile::tempdir_in("/var/tmp").unwrap();
    let directory = |name: &str| objects.path().join(name);
    for name in ["removed", "begun", "odd"] {
        std::fs::create_dir(directory(name)).unwrap();
    }
    std::fs::write(directory("begun").join("launch"), b"").unwrap();
    std::fs::write(directory("odd").join("launch"), b"who wrote this?").unwrap();
    assert_eq!(exec::scan(objects.path()).unwrap(), []);
    let left = ["removed", "begun", "odd"].map(|name| directory(name).exists());
    assert_eq!(left, [false, false, true], "what may be an object stays");
}

fn scan(driver: &Driver) {
    let object = driver.shell("exit 9");
    object.reason();
    let parent = object.directory.parent().unwrap();
    let found = exec::scan(parent).unwrap();
    assert_eq!(found.first().unwrap().launch, object.launch);
    match &found.first().unwrap().state {
        FoundState::Exited(exit) => assert_eq!(exit.reason, ExitReason::Code(9)),
        other => panic!("{other:?}"),
    }
    let object = driver.shell("sleep 600");
    object.running();
    let found = exec::scan(object.directory.parent().unwrap()).unwrap();
    assert_eq!(found.first().unwrap().state, FoundState::Alive);
    assert!(
        exec::remove(&object.directory).is_err(),
        "a living object is not forgotten"
    );
}

// One in a hundred callers of a short program was connected to a shim that ended without a word.
fn last_callers(driver: &Driver) {
    for delay in 0..100_u64 {
        let object = driver.shell("exit 3");
        let mut watcher = object.watch();
        assert_eq!(watcher.exit(), ExitReason::Code(3));
        let start = crate::bed::now();
        while start.elapsed().as_micros() < u128::from(delay * 10) {}
        let Ok(stream) = exec::connect(&object.directory) else {
            continue;
        };
        let mut caller = crate::bed::Caller { stream };
        caller.request(&ShimRequest::Watch);
        assert_eq!(caller.exit(), ExitReason::Code(3), "after {delay}0 us");
    }
}

fn restart(driver: &Driver) {
    let mut object =
        driver.shell("echo run $WELKIN_RESTARTS; cat /var/kept 2>/dev/null; echo kept > /var/kept; ls /tmp; echo x > /tmp/x");
    object.reason();
    eventually("its groups are removed", || object.groups().is_empty());
    object.launch.restarts = 1;
    driver.restart(&mut object);
    assert_eq!(output_of(&object), "run 0\nrun 1\nkept\n");
}

// A quick restart found the earlier shim still at work on the same scratch files and groups.
fn overlapping_restart(driver: &Driver) {
    let mut object = driver.shell("echo ready; sleep 600");
    let (pid, _) = object.running();
    let shim = object.shim_pid();
    let mut slow = object.open(wire::stream::What::Attach {
        stdin: false,
        replay: true,
    });
    slow.until("ready");
    kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
    driver.restart(&mut object);
    assert!(!is_alive(shim) && !is_alive(i32::try_from(pid).unwrap()));
    object.running();
    assert_ne!(object.shim_pid(), shim);
}

fn nonsense(driver: &Driver) {
    let object = driver.shell("sleep 600");
    let mut watcher = object.watch();
    assert!(matches!(watcher.report(), ShimReport::Running { .. }));
    let mut caller = object.caller();
    caller.send(Kind::Open, b"{not json");
    caller.failure();
    assert!(caller.frame().is_none());
    let mut caller = object.caller();
    caller.send(Kind::ShimRequest, &[0xff; 40]);
    caller.failure();
    let mut caller = object.caller();
    std::io::Write::write_all(&mut caller.stream, &[99, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]).unwrap();
    caller.failure();
    watcher.request(&ShimRequest::Stop { grace_ms: 0 });
    assert_eq!(watcher.exit(), ExitReason::Signal(9));
}

fn long_path(driver: &Driver) {
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let parent = home
        .path()
        .join("a".repeat(120))
        .join("with space,comma:colon");
    std::fs::create_dir_all(&parent).unwrap();
    let launch = launch(&["/bin/sh", "-c", "echo ok; sleep 600"]);
    let directory = parent.join(launch.object.to_string());
    (driver.launch)(&directory, &launch);
    let mut stream = crate::bed::Caller {
        stream: exec::connect(&directory).unwrap(),
    };
    stream.request(&ShimRequest::Watch);
    match stream.report() {
        ShimReport::Running {
            protections_off, ..
        } => assert!(protections_off.is_empty(), "{protections_off:?}"),
        other => panic!("{other:?}"),
    }
    stream.request(&ShimRequest::Stop { grace_ms: 0 });
    assert_eq!(stream.exit(), ExitReason::Signal(9));
    exec::kill_everything(&directory);
    exec::remove(&directory).unwrap();
}
