//! What an object cannot see, change or do; and objects of a node without privileges.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};

use drivers::exec;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wire::driver::ShimRequest;
use wire::fact::ExitReason;
use wire::stream::What;

use crate::bed::{Driver, Mounted, Object, eventually, is_alive, launch};
use crate::{Case, say};

pub(crate) const CASES: &[Case] = &[
    ("every_protection_is_on_here", protections),
    ("it_sees_only_its_own_processes", processes),
    ("it_cannot_change_the_root_of_the_node", root),
    ("it_cannot_see_hidden_directories", hidden),
    ("it_cannot_see_secrets_and_homes_of_the_node", secrets),
    ("what_is_hidden_cannot_be_run_and_says_so", hidden_programs),
    ("it_cannot_rename_its_way_around_what_is_hidden", renamed),
    ("it_cannot_open_devices_of_other_file_systems", devices),
    ("its_temporary_files_are_its_own", temporary),
    ("dangerous_calls_are_refused", calls),
    ("its_privileges_are_few", privileges),
    ("it_runs_as_the_wanted_user", user),
    ("it_starts_with_the_usual_limit_of_open_files", open_files),
    ("ordinary_programs_work", ordinary),
    ("servers_work", servers),
    ("the_machine_is_described", probe),
    ("without_privileges_it_still_runs", unprivileged),
    ("without_namespaces_nothing_outlives_the_shim_either", plain),
];

/// Runs a script to its end and returns what it printed.
fn run(driver: &Driver, script: &str) -> String {
    driver
        .shell(&format!("{{ {script}; }} 2>&1; sleep 0.2"))
        .output()
}

fn protections(driver: &Driver) {
    let object = driver.shell("sleep 600");
    assert_eq!(object.running().1, Vec::<String>::new());
}

fn processes(driver: &Driver) {
    let output = run(
        driver,
        "ls /proc | grep '^[0-9]' | head -n 20; hostname; cat /proc/1/comm",
    );
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines.len() <= 8 && lines[..2] == ["1", "2"], "{output}");
    assert!(output.ends_with("case-3\nwelkin-init\n"), "{output}");
}

fn root(driver: &Driver) {
    let name = format!("welkin-{}", std::process::id());
    let script = format!(
        "echo x > /etc/{name} && cat /etc/{name}; rm -f /etc/passwd; ls /etc/passwd; \
        echo x > /proc/sys/kernel/hostname; echo 1 > /sys/kernel/mm/ksm/run; \
        cat /proc/kcore | wc -c"
    );
    let output = run(driver, &script);
    assert!(
        output.starts_with("x\n"),
        "it has a layer of its own: {output}"
    );
    assert!(!Path::new("/etc").join(&name).exists() && Path::new("/etc/passwd").exists());
    assert_eq!(
        output.matches("Read-only file system").count(),
        2,
        "{output}"
    );
    assert!(output.ends_with("\n0\n"), "{output}");
}

fn hidden(driver: &Driver) {
    let secrets = tempfile::tempdir_in("/var").unwrap();
    std::fs::write(secrets.path().join("key"), "secret").unwrap();
    let path = secrets.path().to_str().unwrap();
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        &format!(
            "ls -A {path}; cat {path}/key; echo x > {path}/mine; ls -A /var/tmp/welkin-*/$WELKIN_OBJECT; sleep 0.2"
        ),
    ]);
    launch.hidden_directories = vec![path.to_string(), "/no/such/directory".to_string()];
    let object = driver.start(launch);
    let output = object.output();
    assert!(output.contains("No such file"), "{output}");
    assert!(
        !output.contains("secret") && !output.contains("launch"),
        "{output}"
    );
    assert!(!secrets.path().join("mine").exists());
}

// Objects of the superuser read the password hashes and the keys of the node.
fn secrets(driver: &Driver) {
    assert!(std::fs::metadata("/etc/shadow").unwrap().len() > 0);
    assert!(std::fs::read_dir("/root").unwrap().count() > 0);
    let script = "cat /etc/shadow /etc/gshadow; ls -A /root /home /var/lib/private; \
                  echo x > /root/mine && cat $HOME/mine; stat -c %a /root; \
                  mv /root /other; echo x > /home/mine";
    let output = run(driver, script);
    let expect = "/home:\n\n/root:\n\n/var/lib/private:\nx\n700\n";
    assert!(output.starts_with(expect), "{output}");
    assert!(
        output.contains("busy") && output.contains("Read-only"),
        "{output}"
    );
    assert!(!Path::new("/root/mine").exists());
}

fn hidden_programs(driver: &Driver) {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("/root/bin/program", &link).unwrap();
    let check = |arguments: &[&str], directory: Option<&str>, code: u8| {
        let mut launch = launch(arguments);
        launch.program.directory = directory.map(ToString::to_string);
        match driver.start(launch).reason() {
            ExitReason::NotStarted {
                code: found,
                message,
            } => {
                assert_eq!(found, code, "{message}");
                assert!(message.contains("is hidden in objects"), "{message}");
            }
            other => panic!("{arguments:?}: {other:?}"),
        }
    };
    check(&["/root/bin/program"], None, 127);
    check(&["/home/someone/program"], None, 127);
    check(&[link.to_str().unwrap()], None, 127);
    check(&["true"], Some("/root/work"), 125);
    check(&["true"], Some("/root"), 125);
    check(&["true"], Some("/home"), 125);
    let mut launch = launch(&["sh", "-c", "exit 3"]);
    let path = "/root/bin:/home/someone/bin:/usr/bin:/bin".to_string();
    launch.program.environment.insert("PATH".to_string(), path);
    assert_eq!(driver.start(launch).reason(), ExitReason::Code(3));
}

/// Lets overlays redirect by default, as some distributions do, and puts that back.
struct Redirecting(String);

const REDIRECTING: &str = "/sys/module/overlay/parameters/redirect_dir";

impl Drop for Redirecting {
    fn drop(&mut self) {
        std::fs::write(REDIRECTING, &self.0).unwrap();
    }
}

// Where overlays redirect, an object renamed what lies above the node's keys, and found them
// under the new name when it was started again.
fn renamed(driver: &Driver) {
    let _before = Redirecting(std::fs::read_to_string(REDIRECTING).unwrap());
    std::fs::write(REDIRECTING, "Y").unwrap();
    let node = tempfile::tempdir_in("/var").unwrap();
    let state = node.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let path = node.path().to_str().unwrap();
    let rename = format!("/usr/bin/python3 -c 'import os; os.rename(\"{path}\", \"/other\")'");
    let output = run(driver, &rename);
    assert!(output.contains("cross-device"), "{output}");
    let mut object = driver.shell(&format!("rm -r {path}"));
    assert_eq!(object.reason(), ExitReason::Code(0));
    object.launch.hidden_directories = vec![state.to_str().unwrap().to_string()];
    driver.restart(&mut object);
    match object.reason() {
        ExitReason::NotStarted { code: 125, message } => {
            assert!(message.contains("cannot be hidden"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

fn devices(driver: &Driver) {
    use nix::mount::{MsFlags, mount};
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let node = tempfile::tempdir_in("/var/tmp").unwrap();
    let (from, to) = (node.path().join("from"), node.path().join("to"));
    std::fs::create_dir_all(from.join("pod")).unwrap();
    std::fs::create_dir(&to).unwrap();
    let all = Mode::from_bits_truncate(0o666);
    mknod(&from.join("zero"), SFlag::S_IFCHR, all, makedev(1, 5)).unwrap();
    std::fs::write(from.join("plain"), "plain\n").unwrap();
    let none = None::<&str>;
    let mut mounted = Mounted(Vec::new());
    mount(Some(&from), &to, none, MsFlags::MS_BIND, none).unwrap();
    mounted.0.push(to.clone());
    let pod = to.join("pod");
    mount(Some("tmpfs"), &pod, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mounted.0.push(pod.clone());
    std::fs::write(pod.join("key"), "secret").unwrap();
    let script = format!(
        "cd {}; cat plain; cat pod/key; head -c 1 zero | wc -c",
        to.display()
    );
    let output = run(driver, &script);
    assert!(output.starts_with("plain\n"), "{output}");
    assert!(
        output.contains("No such file") && !output.contains("secret"),
        "{output}"
    );
    assert!(
        output.contains("denied") && output.ends_with("\n0\n"),
        "{output}"
    );
    let output = run(
        driver,
        "grep ' / /tmp ' /proc/self/mountinfo; grep /tmp /proc/self/mounts",
    );
    assert!(output.contains("nodev"), "{output}");
}

fn temporary(driver: &Driver) {
    let output = run(
        driver,
        "ls -A /tmp /run; echo x > /tmp/a; echo y > /run/b; cat /tmp/a /run/b; stat -c %a /tmp",
    );
    assert_eq!(output, "/run:\n\n/tmp:\nx\ny\n1777\n");
}

/// Asks for system calls by number, with arguments that would do nothing if they were allowed.
const CALLS: &str = r"
import ctypes, os, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    print(name, result, errno.errorcode.get(ctypes.get_errno(), 0))
call('mount', 165, 0, 0, 0, 0, 0)
call('kexec_load', 246, 0, 0, 0, 0)
call('bpf', 321, 0, 0, 0)
call('unshare', 272, 0x10000000)
call('clone', 56, 0x10000000 | 17, 0, 0, 0, 0)
call('clone3', 435, 0, 0)
call('keyctl', 250, 0, 0, 0, 0, 0)
call('perf_event_open', 298, 0, 0, -1, -1, 0)
call('io_uring_setup', 425, 1, 0)
call('init_module', 175, 0, 0, 0)
call('vsock', 41, 40, 1, 0)
call('future', 500, 0)
call('x32', 0x40000000 + 39)
call('ptrace', 101, 16, 1, 0, 0)
call('getpid', 39)
";

fn calls(driver: &Driver) {
    let mut launch = launch(&[
        "/usr/bin/env",
        "python3",
        "-c",
        &format!("{CALLS}\nimport time; time.sleep(0.2)"),
    ]);
    launch
        .program
        .environment
        .insert("PATH".to_string(), std::env::var("PATH").unwrap());
    let output = driver.start(launch).output();
    for line in output.lines().take(11) {
        let expect = if line.starts_with("clone3") {
            "-1 ENOSYS"
        } else {
            "-1 EPERM"
        };
        assert!(line.ends_with(expect), "{line} in {output}");
    }
    for name in ["future", "x32"] {
        assert!(output.contains(&format!("{name} -1 ENOSYS")), "{output}");
    }
    assert!(
        output.contains("ptrace -1 EPERM"),
        "init cannot be traced: {output}"
    );
    assert!(
        output
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("getpid 2 ")),
        "{output}"
    );
}

fn privileges(driver: &Driver) {
    let output = run(
        driver,
        "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; mknod /tmp/disk b 8 0; mount -t tmpfs x /mnt; cat < /dev/tty",
    );
    for line in [
        "CapEff:\t00000000800405fb",
        "CapBnd:\t00000000800405fb",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    assert!(
        output.contains("mknod: /tmp/disk: Operation not permitted"),
        "{output}"
    );
}

fn user(driver: &Driver) {
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        "id -u; id -g; echo $HOME; grep CapEff /proc/self/status; ls /root; sleep 0.2",
    ]);
    launch.program.user = Some("nobody".to_string());
    launch.program.directory = Some("/usr".to_string());
    let object = driver.start(launch);
    let output = object.output();
    assert!(
        output.starts_with("65534\n65534\n/nonexistent\nCapEff:\t0000000000000000\n"),
        "{output}"
    );
    assert!(output.contains("Permission denied"), "{output}");
    let (output, _) = object_exec_user(driver);
    assert_eq!(output, "33:33\n");
}

fn object_exec_user(driver: &Driver) -> (String, ExitReason) {
    let object = driver.shell("sleep 600");
    object.running();
    let mut wanted = crate::bed::program(&["/bin/sh", "-c", "echo $(id -u):$(id -g)"]);
    wanted.user = Some("33:33".to_string());
    object.exec(wanted)
}

/// A daemon with many objects raises its own limit; a program that uses select(2) must not see
/// descriptors that it cannot name.
fn open_files(driver: &Driver) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let output = run(driver, "ulimit -Sn; ulimit -Hn");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(output, format!("{}\n{hard}\n", hard.min(1024)));
}

fn ordinary(driver: &Driver) {
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        "cd /tmp && python3 -c 'import threading, subprocess, tempfile, socket
t = [threading.Thread(target=lambda: subprocess.check_output([\"true\"])) for _ in range(8)]
[x.start() for x in t]; [x.join() for x in t]
s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen()
print(\"python\", len(t))' && tar cf - /etc/hostname 2>/dev/null | tar tf - && sleep 0.2",
    ]);
    launch
        .program
        .environment
        .insert("PATH".to_string(), std::env::var("PATH").unwrap());
    let output = driver.start(launch).output();
    assert_eq!(output, "python 8\netc/hostname\n");
}

fn probe(_driver: &Driver) {
    let found = exec::probe();
    assert!(found.len() >= 9);
    for protection in found {
        assert!(protection.available, "{protection:?}");
        assert!(protection.remedy.is_empty());
    }
}

/// An object of a node without privileges.
fn unprivileged(_driver: &Driver) {
    as_nobody(&[], "unprivileged");
}

/// The same where not even a user namespace can be made.
fn plain(_driver: &Driver) {
    as_nobody(PLAIN, "plain");
}

/// Runs a program where no namespace can be made.
pub(crate) const PLAIN: &[&str] = &[
    "unshare",
    "-U",
    "-r",
    "/bin/sh",
    "-ec",
    "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \"$@\"",
    "sh",
];

/// Runs the suite's program once more as a user without privileges.
pub(crate) fn as_nobody(wrapper: &[&str], verb: &str) {
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let copy = home.path().join("conformance");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    Command::new("chmod")
        .args(["-R", "a+rx"])
        .arg(home.path())
        .status()
        .unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(wrapper)
        .arg(&copy)
        .arg(verb)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

/// What `as_nobody` runs.
pub(crate) fn child(verb: &str) -> ExitCode {
    let case = if verb == "plain" {
        plain_child
    } else {
        unprivileged_child
    };
    run_child(case)
}

/// Runs a case in a process of its own.
pub(crate) fn run_child(case: fn(&Driver)) -> ExitCode {
    let outcome = catch_unwind(AssertUnwindSafe(|| case(&Driver::exec())));
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn unprivileged_child(driver: &Driver) {
    let script = "id -u; touch /tmp/x && echo tmp; touch /etc/x || echo no; \
                  ls /proc | grep -c '^[0-9]'; echo ready; sleep 600";
    let object = driver.shell(script);
    let output = object.wait_for("ready");
    for sentence in object.running().1 {
        say(&format!("  off: {sentence}"));
    }
    assert!(
        output.starts_with("65534\ntmp\n") && output.contains("no\n"),
        "{output}"
    );
    let count: u32 = output.lines().rev().nth(1).unwrap().parse().unwrap();
    assert!(count < 8, "it sees only its own processes: {output}");
    let (output, reason) = object.exec_shell("id -u; ls /tmp; exit 3");
    assert_eq!(
        (output.as_str(), reason),
        ("65534\nx\n", ExitReason::Code(3))
    );
    let (pid, _) = object.running();
    let mut watcher = object.watch();
    watcher.request(&ShimRequest::Stop { grace_ms: 0 });
    assert_eq!(watcher.exit(), ExitReason::Signal(9));
    eventually("it dies", || !is_alive(i32::try_from(pid).unwrap()));
    let object = driver.shell("setsid sleep 600 & exec sleep 600");
    let (pid, _) = object.running();
    kill(Pid::from_raw(object.shim_pid()), Signal::SIGKILL).unwrap();
    eventually("it dies with its shim", || {
        !is_alive(i32::try_from(pid).unwrap())
    });
}

/// The process ids that an object has printed as `pid N` lines.
fn printed(output: &str) -> Vec<i32> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("pid ")?.parse().ok())
        .collect()
}

fn plain_child(driver: &Driver) {
    let script = "echo pid $$; setsid sh -c 'echo pid $$; sleep 600 & sleep 600' & sleep 600 & \
                  echo pid $!; wait";
    let ends: [fn(&Object); 3] = [
        |object| kill(Pid::from_raw(object.shim_pid()), Signal::SIGKILL).unwrap(),
        |object| object.caller().request(&ShimRequest::Stop { grace_ms: 0 }),
        |object| assert!(exec::kill_everything(&object.directory)),
    ];
    for end in ends {
        let object = driver.shell(script);
        let off = object.running().1;
        let has_none = off
            .iter()
            .any(|sentence| sentence.contains("no namespaces"));
        assert!(has_none, "{off:?}");
        let mut pids = Vec::new();
        eventually("all say who they are", || {
            let everything = What::Logs {
                follow: false,
                tail_lines: None,
                since_ms: None,
            };
            let (output, _, _) = object.open(everything).outputs();
            pids = printed(&String::from_utf8_lossy(&output));
            pids.len() == 3
        });
        assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
        assert_eq!(object.exec_shell("exit 3").1, ExitReason::Code(3));
        end(&object);
        eventually("everything dies", || !pids.iter().any(|pid| is_alive(*pid)));
    }
    plain_sessions(driver);
    let object = driver.shell("setsid sleep 600 & echo pid $!; exit 4");
    assert_eq!(object.reason(), ExitReason::Code(4));
    eventually("the shim ends", || {
        exec::connect(&object.directory).is_err()
    });
}

/// A further program outlived a killed shim, because it was nobody's descendant any more.
fn plain_sessions(driver: &Driver) {
    let script = "echo pid $$; setsid sh -c 'echo pid $$; exec sleep 600' & wait";
    let ends: [fn(&Object, crate::bed::Caller); 3] = [
        |object, _caller| kill(Pid::from_raw(object.shim_pid()), Signal::SIGKILL).unwrap(),
        |_object, caller| drop(caller),
        |_object, mut caller| {
            caller.send(wire::stream::Kind::Signal, &[9]);
            assert_eq!(caller.outputs().2, ExitReason::Signal(9));
        },
    ];
    for end in ends {
        let object = driver.shell("exec sleep 600");
        object.running();
        let mut caller = object.open(What::Exec {
            program: crate::bed::program(&["/bin/sh", "-c", script]),
        });
        let mut output = caller.until("\n");
        while output.matches('\n').count() < 2 {
            output.push_str(&caller.until("\n"));
        }
        let pids = printed(&output);
        assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)));
        end(&object, caller);
        eventually("everything dies", || !pids.iter().any(|pid| is_alive(*pid)));
    }
}

/// Needs nginx, redis and `PostgreSQL` to be installed on the machine.
fn servers(driver: &Driver) {
    let try_until =
        |what: &str| format!("for i in $(seq 100); do {what} && break; sleep 0.1; done");
    let nginx = format!(
        "mkdir -p /tmp/www && echo page > /tmp/www/index.html && \
         echo 'worker_processes 2; events {{}} http {{ server {{ listen 127.0.0.1:54997; root /tmp/www; }} }}' \
         > /tmp/nginx.conf && nginx -c /tmp/nginx.conf && {}",
        try_until(
            "exec 3<>/dev/tcp/127.0.0.1/54997 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && grep page <&3"
        )
    );
    let redis = format!(
        "redis-server --port 54998 --dir /tmp --daemonize yes >/tmp/log; {}; redis-cli -p 54998 set a 1; \
         redis-cli -p 54998 bgsave",
        try_until("redis-cli -p 54998 ping 2>/dev/null")
    );
    let postgres = format!(
        "PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin | head -n 1); initdb -A trust -D /tmp/data >/tmp/log 2>&1 && \
         pg_ctl -D /tmp/data -o '-k /tmp -p 54999' -l /tmp/pg.log start >/tmp/log; {}",
        try_until("psql -h /tmp -p 54999 -d postgres -Atc 'select 40+2' 2>/dev/null")
    );
    for (script, user, expect) in [
        (nginx, None, "page\n"),
        (redis, None, "PONG\nOK\nBackground saving started\n"),
        (postgres, Some("nobody"), "42\n"),
    ] {
        let mut launch = launch(&["/bin/bash", "-c", &format!("{script}; sleep 0.2")]);
        launch.program.user = user.map(ToString::to_string);
        launch.resources.cpu_millis = 2000;
        let object = driver.start(launch);
        assert_eq!(object.output(), expect, "{script}");
    }
}
