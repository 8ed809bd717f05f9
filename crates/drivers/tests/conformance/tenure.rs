//! Objects of apps that never run twice: frozen in time, killed in time, by nobody but the shim.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use drivers::exec;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use wire::driver::{Launch, ShimRequest, Tenure};
use wire::fact::ExitReason;
use wire::stream::What;

use crate::Case;
use crate::bed::{Caller, Driver, Mounted, Object, eventually, is_alive, launch, program};
use crate::isolation::{PLAIN, as_nobody, run_child};

pub(crate) const CASES: &[Case] = &[
    ("it_freezes_in_time_and_goes_on_with_a_new_tenure", freezes),
    ("it_is_killed_in_time_and_says_so", lapses),
    ("what_may_not_run_never_begins", never_begins),
    ("further_programs_freeze_and_die_with_it", sessions),
    ("a_frozen_object_that_is_stopped_is_not_let_go", stopped),
    ("a_signal_waits_until_a_frozen_object_goes_on", signalled),
    ("the_usage_of_a_frozen_object_is_measured", measured),
    ("a_storm_of_forks_is_frozen_and_killed_whole", storm),
    (
        "a_killed_shim_leaves_nothing_of_a_frozen_object",
        shim_killed,
    ),
    ("a_stopped_daemon_changes_no_deadline", daemon_stopped),
    ("a_full_disk_delays_no_deadline", full_disk),
    ("its_end_is_said_when_nothing_of_it_is_left", said_last),
    ("its_epoch_is_in_its_environment", epoch),
    ("a_tenure_of_an_object_without_one_is_ignored", ignored),
    ("without_a_freezer_it_is_killed_instead", no_freezer),
    ("without_privileges_it_is_killed_in_time", unprivileged),
    ("without_namespaces_it_is_killed_in_time", plain),
];

/// How late a shim may be on a busy machine: half of what lies between the two deadlines of the
/// usual tenure.
const LATE_US: u64 = 1_000_000;

/// Longer than any case.
const FAR_MS: u64 = 600_000;

/// Says in a file, as fast as it can, how often it has said so and what time it is. What follows
/// it is in `sys.argv`, so that all processes of an object can be found.
const COUNT: &str = r"
import mmap, os, struct, sys, time
page = open('/tmp/' + sys.argv[1], 'w+b')
page.truncate(16)
page = mmap.mmap(page.fileno(), 16)
count = 0
def step():
    global count
    count += 1
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    page[:16] = struct.pack('>QQ', count, now)
";

const FOREVER: &str = "while True: step()";

fn boot_us() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    let micros = std::time::Duration::from(time).as_micros();
    u64::try_from(micros).unwrap()
}

/// One that ends so many milliseconds from now.
fn tenure(freeze_ms: u64, kill_ms: u64) -> Tenure {
    let now_us = boot_us();
    Tenure {
        freeze_at_us: now_us + freeze_ms * 1000,
        kill_at_us: now_us + kill_ms * 1000,
    }
}

/// A Python program, marked with the object's id.
fn python(script: &str, tenure: Option<Tenure>) -> Launch {
    let mut launch = launch(&[]);
    let mark = launch.object.to_string();
    let arguments = ["/usr/bin/env", "python3", "-c", script, "count", &mark];
    launch.program = program(&arguments);
    let path = std::env::var("PATH").unwrap();
    launch.program.environment.insert("PATH".to_string(), path);
    launch.resources.cpu_millis = 1000;
    launch.tenure = tenure;
    launch
}

fn counting(driver: &Driver) -> Object {
    let script = format!("{COUNT}{FOREVER}");
    let object = driver.start(python(&script, Some(tenure(FAR_MS, FAR_MS))));
    eventually("it counts", || said(&object, "count").is_some());
    object
}

/// What a counting program has said last: how often, and when.
fn said(object: &Object, name: &str) -> Option<(u64, u64)> {
    let file = object.directory.join("scratch/tmp").join(name);
    let bytes: [u8; 16] = fs::read(file).ok()?.try_into().ok()?;
    let (count, at_us) = bytes.split_at(8);
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    (bytes != [0; 16]).then(|| (number(count), number(at_us)))
}

/// All processes of an object that run [`python`], whatever they are to the others.
fn marked(object: &Object) -> Vec<i32> {
    let mark = object.launch.object.to_string();
    let is_marked = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(4);
        words.any(|word| word == mark.as_bytes())
    };
    let names = fs::read_dir("/proc")
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    pids.filter(is_marked).collect()
}

fn renew(object: &Object, tenure: Tenure) {
    object.caller().request(&ShimRequest::Tenure(tenure));
}

/// A program that nobody freezes. What it has said meanwhile is how long a wait was.
struct Pace(Object);

impl Pace {
    fn new(driver: &Driver) -> Self {
        Self(counting(driver))
    }

    /// Waits for as long as a program that runs needs to be seen running.
    fn wait(&self) {
        let count = || said(&self.0, "count").unwrap().0;
        let until = count() + 20_000;
        eventually("the other program counts on", || count() >= until);
    }

    /// Waits until the kernel says that an object stands still, and checks that it does. Returns
    /// what it has said last.
    fn frozen(&self, object: &Object, name: &str) -> (u64, u64) {
        eventually("it stands still", || is_frozen(object));
        let last = said(object, name);
        self.wait();
        assert_eq!(said(object, name), last);
        last.unwrap()
    }
}

/// Whether the kernel says that everything in an object stands still, and that there is something.
fn is_frozen(object: &Object) -> bool {
    let events = |group: &PathBuf| fs::read_to_string(group.join("cgroup.events"));
    let groups = object.groups();
    let mut all = groups.iter().filter_map(|group| events(group).ok());
    all.any(|events| events.contains("populated 1") && events.contains("frozen 1"))
}

fn check_in_time(last: (u64, u64), tenure: Tenure) {
    let (freeze_at_us, said_at_us) = (tenure.freeze_at_us, last.1);
    assert!(
        said_at_us < freeze_at_us + LATE_US,
        "{} us late",
        said_at_us - freeze_at_us
    );
}

fn freezes(driver: &Driver) {
    let (pace, object) = (Pace::new(driver), counting(driver));
    assert_eq!(object.running().1, Vec::<String>::new());
    for _ in 0..3 {
        let soon = tenure(50, FAR_MS);
        renew(&object, soon);
        eventually("its time is over", || boot_us() > soon.freeze_at_us);
        let last = pace.frozen(&object, "count");
        check_in_time(last, soon);
        assert!(last.1 + LATE_US > soon.freeze_at_us, "it ran until then");
        renew(&object, tenure(FAR_MS, FAR_MS));
        eventually("it goes on", || said(&object, "count").unwrap().0 > last.0);
    }
}

/// Waits for the end of an object whose time is over, when nothing of it may be left.
fn check_lapsed(object: &Object, mut watcher: Caller, kill_at_us: u64) {
    assert_eq!(watcher.exit(), ExitReason::Lapsed);
    assert_eq!(marked(object), Vec::<i32>::new());
    let now_us = boot_us();
    assert!(now_us >= kill_at_us, "{} us early", kill_at_us - now_us);
    assert!(
        now_us < kill_at_us + LATE_US,
        "{} us late",
        now_us - kill_at_us
    );
    let exit = exec::read_exit(&object.directory).unwrap().unwrap();
    assert_eq!(exit.reason, ExitReason::Lapsed);
    eventually("nothing is left", || object.groups().is_empty());
}

fn lapses(driver: &Driver) {
    let pace = Pace::new(driver);
    for is_frozen_before in [true, false] {
        let object = counting(driver);
        let watcher = object.watch();
        let mut soon = tenure(50, 50);
        let mut last = None;
        if is_frozen_before {
            renew(&object, tenure(0, FAR_MS));
            last = Some(pace.frozen(&object, "count"));
            soon = tenure(0, 50);
        }
        renew(&object, soon);
        check_lapsed(&object, watcher, soon.kill_at_us);
        check_in_time(said(&object, "count").unwrap(), soon);
        if last.is_some() {
            assert_eq!(said(&object, "count"), last, "it died where it stood");
        }
    }
}

fn never_begins(driver: &Driver) {
    let pace = Pace::new(driver);
    let script = format!("{COUNT}{FOREVER}");
    let object = driver.start(python(&script, Some(tenure(0, FAR_MS))));
    eventually("what should start it stands still", || {
        object.directory.join("cgroups").exists() && is_frozen(&object)
    });
    pace.wait();
    assert_eq!(said(&object, "count"), None);
    renew(&object, tenure(FAR_MS, FAR_MS));
    eventually("then it begins", || said(&object, "count").is_some());
    let past = Tenure {
        freeze_at_us: 1,
        kill_at_us: 0,
    };
    let object = driver.start(python(&script, Some(past)));
    assert_eq!(object.reason(), ExitReason::Lapsed);
    assert!(said(&object, "count").is_none() && marked(&object).is_empty());
}

fn sessions(driver: &Driver) {
    let (pace, object) = (Pace::new(driver), counting(driver));
    let mut further = object.launch.program.clone();
    further.arguments[4] = "further".to_string();
    let mut caller = object.open(What::Exec { program: further });
    eventually("it counts", || said(&object, "further").is_some());
    let (soon, watcher) = (tenure(0, FAR_MS), object.watch());
    renew(&object, soon);
    check_in_time(pace.frozen(&object, "further"), soon);
    // One that comes to a frozen object waits.
    let mut later = object.open(What::Exec {
        program: program(&["/bin/echo", "later"]),
    });
    pace.wait();
    assert_eq!(marked(&object).len(), 2);
    later.stream.set_nonblocking(true).unwrap();
    let unread = later.stream.read(&mut [0]).unwrap_err();
    assert_eq!(unread.kind(), std::io::ErrorKind::WouldBlock);
    later.stream.set_nonblocking(false).unwrap();
    renew(&object, tenure(FAR_MS, FAR_MS));
    assert_eq!(later.outputs().0, b"later\n");
    let soon = tenure(50, 100);
    renew(&object, soon);
    check_lapsed(&object, watcher, soon.kill_at_us);
    assert_eq!(caller.outputs().2, ExitReason::Signal(9));
}

fn stopped(driver: &Driver) {
    let pace = Pace::new(driver);
    let asked = "import signal
def asked(*_):
    open('/tmp/asked', 'w')
signal.signal(signal.SIGTERM, asked)";
    let script = format!("{asked}\n{COUNT}{FOREVER}");
    let ends: [fn(&Object); 3] = [
        |object| object.caller().request(&ShimRequest::Signal { signal: 9 }),
        |object| {
            object
                .caller()
                .request(&ShimRequest::Stop { grace_ms: 600_000 })
        },
        |object| kill(Pid::from_raw(object.shim_pid()), Signal::SIGTERM).unwrap(),
    ];
    for (end, is_stop) in ends.into_iter().zip([false, true, true]) {
        let object = driver.start(python(&script, Some(tenure(FAR_MS, FAR_MS))));
        eventually("it counts", || said(&object, "count").is_some());
        renew(&object, tenure(0, FAR_MS));
        let last = pace.frozen(&object, "count");
        let mut watcher = object.watch();
        end(&object);
        let exit = watcher.end();
        assert_eq!((exit.reason, exit.asked), (ExitReason::Signal(9), is_stop));
        assert_eq!(marked(&object), Vec::<i32>::new());
        assert_eq!(said(&object, "count"), Some(last), "it died where it stood");
        assert!(!object.directory.join("scratch/tmp/asked").exists());
    }
}

fn signalled(driver: &Driver) {
    let pace = Pace::new(driver);
    let script = format!(
        "import signal, sys\nsignal.signal(signal.SIGUSR2, lambda *_: sys.exit(7))\n{COUNT}{FOREVER}"
    );
    let object = driver.start(python(&script, Some(tenure(FAR_MS, FAR_MS))));
    eventually("it counts", || said(&object, "count").is_some());
    renew(&object, tenure(0, FAR_MS));
    let last = pace.frozen(&object, "count");
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Signal { signal: 12 });
    pace.wait();
    assert_eq!(said(&object, "count"), Some(last));
    watcher.request(&ShimRequest::Tenure(tenure(FAR_MS, FAR_MS)));
    assert_eq!(watcher.exit(), ExitReason::Code(7));
}

fn measured(driver: &Driver) {
    let (pace, object) = (Pace::new(driver), counting(driver));
    renew(&object, tenure(0, FAR_MS));
    pace.frozen(&object, "count");
    let usage = object.usage();
    assert!(usage.cpu_us > 0 && usage.processes >= 2, "{usage:?}");
}

fn storm(driver: &Driver) {
    let pace = Pace::new(driver);
    let forks = "
workers = [os.fork() for _ in range(3)]
while True:
    if os.fork() == 0:
        step()
        os._exit(0)
    os.wait()
";
    let object = driver.start(python(
        &format!("{COUNT}{forks}"),
        Some(tenure(FAR_MS, FAR_MS)),
    ));
    for _ in 0..5 {
        let before = said(&object, "count");
        eventually("it forks", || said(&object, "count") > before);
        renew(&object, tenure(0, FAR_MS));
        pace.frozen(&object, "count");
        let processes = marked(&object);
        assert!(processes.len() >= 4, "{processes:?}");
        pace.wait();
        assert_eq!(marked(&object), processes);
        renew(&object, tenure(FAR_MS, FAR_MS));
    }
    let (soon, watcher) = (tenure(20, 40), object.watch());
    renew(&object, soon);
    check_lapsed(&object, watcher, soon.kill_at_us);
}

// The freezer of v1 kept what it had frozen alive although its parent had died, for ever.
fn shim_killed(driver: &Driver) {
    let (pace, object) = (Pace::new(driver), counting(driver));
    renew(&object, tenure(0, FAR_MS));
    let last = pace.frozen(&object, "count");
    let processes = object.processes();
    assert!(processes.len() >= 2, "init is one of them: {processes:?}");
    kill(Pid::from_raw(object.shim_pid()), Signal::SIGKILL).unwrap();
    eventually("every process dies", || {
        !processes.iter().any(|pid| is_alive(*pid))
    });
    assert_eq!(said(&object, "count"), Some(last), "it died where it stood");
    let found = exec::scan(object.directory.parent().unwrap()).unwrap();
    assert_eq!(found.first().unwrap().state, exec::FoundState::Lost);
    assert!(object.groups().is_empty());
}

/// Another process, gone when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn daemon_stopped(_driver: &Driver) {
    let by_daemon = Driver {
        launch: |directory, launch| {
            let file = directory.with_extension("wanted");
            fs::write(file, wire::encode(launch).unwrap()).unwrap();
        },
    };
    let launch = python(&format!("{COUNT}{FOREVER}"), Some(tenure(0, FAR_MS)));
    let object = by_daemon.start(launch);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.arg("daemon").arg(&object.directory);
    let daemon = Daemon(command.stdout(Stdio::null()).spawn().unwrap());
    eventually("it begins", || said(&object, "count").is_some());
    let until = boot_us() + 1000 * (DAEMON_FREEZE_MS + DAEMON_KILL_MS);
    eventually("it is renewed", || {
        said(&object, "count").unwrap().1 > until
    });
    let mut watcher = object.watch();
    let daemon_pid = Pid::from_raw(i32::try_from(daemon.0.id()).unwrap());
    kill(daemon_pid, Signal::SIGSTOP).unwrap();
    let last = tenure(DAEMON_FREEZE_MS, DAEMON_KILL_MS);
    assert_eq!(watcher.exit(), ExitReason::Lapsed);
    assert!(boot_us() < last.kill_at_us + LATE_US);
    assert_eq!(marked(&object), Vec::<i32>::new());
    check_in_time(said(&object, "count").unwrap(), last);
}

const DAEMON_FREEZE_MS: u64 = 300;
const DAEMON_KILL_MS: u64 = 600;

/// Launches an object and renews its tenure until it is killed itself.
pub(crate) fn daemon(directory: &Path) -> ExitCode {
    let wanted = fs::read(directory.with_extension("wanted")).unwrap();
    let launch = wire::decode(&wanted, 1 << 20).unwrap();
    (Driver::exec().launch)(directory, &launch);
    eventually("the object ends before its daemon", || {
        let stream = exec::connect(directory);
        if let Ok(stream) = stream {
            let renewed = tenure(DAEMON_FREEZE_MS, DAEMON_KILL_MS);
            Caller { stream }.request(&ShimRequest::Tenure(renewed));
        }
        false
    });
    ExitCode::SUCCESS
}

fn full_disk(driver: &Driver) {
    use nix::mount::{MsFlags, mount};
    let disk = tempfile::tempdir_in("/var/tmp").unwrap();
    let (kind, options) = (Some("tmpfs"), Some("size=1m"));
    mount(kind, disk.path(), kind, MsFlags::empty(), options).unwrap();
    let _mounted = Mounted(vec![disk.path().to_path_buf()]);
    let mut launch = launch(&["/bin/sh", "-c", "cat /dev/zero > /tmp/fill; yes"]);
    launch.tenure = Some(tenure(FAR_MS, FAR_MS));
    let directory = disk.path().join("object");
    (driver.launch)(&directory, &launch);
    let caller = || Caller {
        stream: exec::connect(&directory).unwrap(),
    };
    let free = || nix::sys::statvfs::statvfs(disk.path()).unwrap();
    eventually("the disk is full", || free().blocks_available() == 0);
    let mut watcher = caller();
    watcher.request(&ShimRequest::Watch);
    let soon = tenure(50, 100);
    caller().request(&ShimRequest::Tenure(soon));
    let reason = watcher.exit();
    let now_us = boot_us();
    let exit = exec::read_exit(&directory).unwrap();
    exec::kill_everything(&directory);
    exec::remove(&directory).unwrap();
    assert_eq!(reason, ExitReason::Lapsed);
    assert_eq!(exit.map(|exit| exit.reason), Some(ExitReason::Lapsed));
    assert!(now_us < soon.kill_at_us + LATE_US);
}

// Whoever hears that it has ended may start the next one. What is traced, if only by a test, is not
// gone before its tracer has seen it die.
fn said_last(driver: &Driver) {
    let script = "
import os, sys, time
if os.fork() == 0:
    time.sleep(600)
while not os.path.exists('/tmp/end'):
    time.sleep(0.001)
sys.exit(3)
";
    let object = driver.start(python(script, Some(tenure(FAR_MS, FAR_MS))));
    let mut watcher = object.watch();
    let main = i32::try_from(object.running().0).unwrap();
    let child = || marked(&object).into_iter().find(|pid| *pid != main);
    eventually("it has a child", || child().is_some());
    let child = child().unwrap();
    let traced = Pid::from_raw(child);
    ptrace::seize(traced, ptrace::Options::empty()).unwrap();
    fs::write(object.directory.join("scratch/tmp/end"), "").unwrap();
    eventually("what it left is killed", || !is_alive(child));
    // Init has said before how it ended; the shim has heard that before it answers.
    object.usage();
    assert_eq!(exec::read_exit(&object.directory).unwrap(), None);
    let died = waitpid(traced, None).unwrap();
    assert!(matches!(died, WaitStatus::Signaled(..)), "{died:?}");
    assert_eq!(watcher.exit(), ExitReason::Code(3));
}

fn epoch(driver: &Driver) {
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        "echo epoch ${WELKIN_EPOCH-none}; sleep 600",
    ]);
    for (epoch, expect) in [(0, "epoch none"), (7, "epoch 7")] {
        launch.epoch = epoch;
        let object = driver.start(launch.clone());
        object.wait_for(expect);
    }
}

fn ignored(driver: &Driver) {
    let object = driver.shell("sleep 600");
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Tenure(tenure(0, 0)));
    watcher.request(&ShimRequest::Stop { grace_ms: 0 });
    assert_eq!(watcher.exit(), ExitReason::Signal(9));
}

/// What happens on a node that cannot freeze: everything dies when it should have been frozen.
fn killed_instead(driver: &Driver) {
    let script = "
import os, sys, time
if os.fork() == 0:
    os.setsid()
    os.fork()
time.sleep(600)
";
    let object = driver.start(python(script, Some(tenure(FAR_MS, FAR_MS))));
    let (_, off) = object.running();
    let says_so = off.iter().any(|sentence| sentence.contains("not frozen"));
    assert!(says_so, "{off:?}");
    eventually("all of it runs", || marked(&object).len() == 3);
    let (soon, watcher) = (tenure(50, FAR_MS), object.watch());
    renew(&object, soon);
    check_lapsed(&object, watcher, soon.freeze_at_us);
    let object = driver.start(python(script, Some(tenure(0, FAR_MS))));
    assert_eq!(object.reason(), ExitReason::Lapsed);
    assert_eq!(marked(&object), Vec::<i32>::new());
}

/// What the suite's program does where it was started once more for [`killed_instead`].
pub(crate) fn child() -> ExitCode {
    run_child(killed_instead)
}

/// A machine that has no control groups of version 2.
fn no_freezer(_driver: &Driver) {
    let unmount = "grep ' cgroup2 ' /proc/mounts | cut -d ' ' -f 2 | xargs -r umount -l && \
                   exec \"$0\" no-freezer";
    let output = Command::new("unshare")
        .args(["-m", "/bin/sh", "-ec", unmount])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

fn unprivileged(_driver: &Driver) {
    as_nobody(&[], "no-freezer");
}

fn plain(_driver: &Driver) {
    as_nobody(PLAIN, "no-freezer");
}
