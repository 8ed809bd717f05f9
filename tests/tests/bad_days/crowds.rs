//! More callers, and more of everything, than a node has room for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use end_to_end::{LoopbackCloud, objects_of, until, words};

/// How long a node may take to answer once it has room.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much memory a crowded node may hold.
const RESIDENT_MIB_MAX: u64 = 160;

/// Connects as often as it is told, says half a head or half a body each time, and holds on until
/// its input ends. Says how often it could.
const CROWD: &str = r#"
import resource, select, socket, sys, time
path, count = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
half = b"POST /v1/app/run HTTP/1.1\r\nHost: welkin\r\n"
if sys.argv[3] == "body":
    half += b"Content-Length: 400000\r\n\r\n" + b"{" * 4000
held, until = [], time.monotonic() + (20 if sys.argv[3] == "body" else 3)
while len(held) < count and time.monotonic() < until:
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)
    try:
        one.connect(path)
        one.send(half)
        held.append(one)
    except BlockingIOError:
        one.close()
        time.sleep(0.001)
    except OSError:
        held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"#;

fn resident_mib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("it is told") >> 10
}

/// Callers who hold on to the node.
struct Crowd {
    child: Child,
    count: u32,
}

impl Crowd {
    /// Ten thousand of them, as far as the node lets them in; or a few.
    fn gather(cloud: &LoopbackCloud, half: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", CROWD])
            .arg(cloud.state_dir(0).join("welkin.sock"))
            .args([if half == "few" { "300" } else { "10000" }, half])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is a pipe");
        let said = BufReader::new(output).read_line(&mut line);
        let count = said.ok().and(line.trim().parse().ok()).expect("a number");
        Self { child, count }
    }

    fn leave(mut self) {
        drop(self.child.stdin.take());
        let _left = self.child.wait().expect("it ends");
    }
}

/// Thousands of callers who say half a call and no more: the node reads some of them and tells the
/// others that it takes no more, at once; it stays small, and answers everybody once they have gone.
#[test]
fn a_node_outlives_a_crowd_of_callers_who_say_half_a_call() {
    let cloud = LoopbackCloud::new(1, None);
    let run = "run -d --name steady --restart always -- sleep 1000";
    let _app = cloud.welkin(0, run).ok();
    let pid = || objects_of(&cloud.welkin(0, "ps steady -o json"))[0]["pid"].as_u64();
    let before = pid();
    let daemon = cloud.daemon(0).expect("it runs");

    let bodies = Crowd::gather(&cloud, "body");
    assert_eq!(bodies.count, 10_000, "none of them has to wait");
    let _served = cloud.welkin(0, "ps").ok();
    bodies.leave();

    let heads = Crowd::gather(&cloud, "head");
    assert!(heads.count > 2000, "{} are no crowd", heads.count);
    let refused = cloud.welkin(0, "ps");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("takes no more"), "{refused:?}");
    heads.leave();

    let mib = resident_mib(daemon);
    assert!(mib <= RESIDENT_MIB_MAX, "{mib} MiB");
    until("it answers again", PATIENCE, || {
        (cloud.welkin(0, "ps").code == 0).then_some(())
    });
    assert_eq!(pid(), before, "the same process");
    assert_eq!(cloud.daemon(0), Some(daemon), "and the same node");
}

/// A node has no descriptor left: an object that ends meanwhile is not forgotten, and once there are
/// some again the node answers, and starts things, by itself.
#[test]
fn a_node_outlives_a_lack_of_descriptors() {
    let cloud = LoopbackCloud::strangers(1, None);
    let mut up = Command::new("prlimit");
    up.arg("--nofile=96:96").arg(end_to_end::welkin());
    up.args(words("up --name n0 --listen 127.0.0.1:0"));
    up.env("WELKIN_STATE_DIR", cloud.state_dir(0));
    let _up = end_to_end::run(&mut up, b"").ok();
    let daemon = cloud.daemon(0);
    let mut short = words("run -d --name short --restart no -- sh -c");
    short.push("sleep 3; exit 7".to_string());
    let _short = cloud.welkin_with(0, &short, b"").ok();
    let run = "run -d --name steady --restart always -- sleep 1000";
    let _app = cloud.welkin(0, run).ok();

    let heads = Crowd::gather(&cloud, "few");
    assert_eq!(heads.count, 300);
    until("it has ended", PATIENCE, || {
        let objects = fs::read_dir(cloud.state_dir(0).join("objects")).ok()?;
        let mut ended = objects.flatten().map(|it| it.path().join("exit").exists());
        ended.any(|it| it).then_some(())
    });
    heads.leave();

    until("it answers again", PATIENCE, || {
        (cloud.welkin(0, "ps").code == 0).then_some(())
    });
    assert_eq!(cloud.welkin(0, "wait short").ok().trim(), "7");
    let _later = cloud.welkin(0, "run -- true").ok();
    let steady = objects_of(&cloud.welkin(0, "ps steady -o json"));
    assert_eq!(steady[0]["restarts"], 0, "{steady:?}");
    assert_eq!(cloud.daemon(0), daemon, "the same node");
}

/// A control group of its own for processes, as long as the value lives.
struct Group(PathBuf);

impl Group {
    fn of(pid: i32) -> Self {
        let own = Path::new("/sys/fs/cgroup/pids");
        let root = if own.is_dir() {
            own
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let group = Self(root.join(format!("bad-day-{pid}")));
        fs::create_dir(&group.0).expect("root may make one");
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).expect("it runs");
        group
    }

    fn limit(&self, processes: &str) {
        fs::write(self.0.join("pids.max"), processes).expect("it can be set");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let root = self.0.parent().expect("it is below one");
        for pid in pids.lines() {
            let _moved = fs::write(root.join("cgroup.procs"), pid);
        }
        let _removed = fs::remove_dir(&self.0);
    }
}

/// A node may make no more processes: what is to start is refused with that reason, what runs runs
/// on, and once it may it starts things again.
#[test]
fn a_node_outlives_a_full_limit_of_processes() {
    let cloud = LoopbackCloud::new(1, None);
    let run = "run -d --name steady --restart always -- sleep 1000";
    let _app = cloud.welkin(0, run).ok();
    let daemon = cloud.daemon(0).expect("it runs");
    let group = Group::of(daemon);
    group.limit("1");
    let refused = cloud.welkin(0, "run -d --name more --restart always -- sleep 1000");
    assert_ne!(refused.code, 0, "{refused:?}");
    let is_named = refused.stderr.contains("cannot be started");
    assert!(is_named, "{refused:?}");
    let steady = objects_of(&cloud.welkin(0, "ps steady -o json"));
    assert_eq!(steady[0]["restarts"], 0, "{steady:?}");
    group.limit("max");
    let _later = cloud
        .welkin(0, "run -d --name later --restart always -- sleep 1000")
        .ok();
    assert_eq!(cloud.daemon(0), Some(daemon), "the same node");
}
