//! What the end-to-end tests share: clouds of real `welkin` nodes, on lab hosts or on loopback, and
//! patience with a deadline.
//!
//! Everything that a test starts ends with it, also when it fails: a [`LabCloud`] takes its hosts
//! down, a [`LoopbackCloud`] its daemons and their objects.
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock while they wait"
)]
#![expect(clippy::print_stderr, reason = "what a failing test wants to be read")]

pub mod wishes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Host, Lab, Wan};
use serde_json::Value;

/// The binary under test: `WELKIN_BIN`, or the release build of this checkout.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn welkin() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/welkin");
    let path = std::env::var_os("WELKIN_BIN").map_or(built, PathBuf::from);
    assert!(
        path.exists(),
        "{} is not built: cargo build --release",
        path.display()
    );
    path.canonicalize().expect("it exists")
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit code; 128 + signal when one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            code: output.status.code().unwrap_or(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Standard output of a command that must have gone well.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// The JSON that a command must have printed.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Runs a command to its end, with `stdin`. One that cannot be started, as on a host that is down,
/// has failed with the code of a shell.
///
/// # Panics
/// When nobody can say how it ended.
pub fn run(command: &mut Command, stdin: &[u8]) -> Ran {
    use std::io::Write;
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            return Ran {
                code: 127,
                stdout: String::new(),
                stderr: format!("{command:?}: {error}"),
            };
        }
    };
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input may have closed it.
        let _unread = pipe.write_all(stdin);
    }
    child.wait_with_output().expect("it was started").into()
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

/// Looks again and again for so long: whatever is wrong meanwhile, `look` complains about.
pub fn throughout(time: Duration, mut look: impl FnMut()) {
    let started = Instant::now();
    while started.elapsed() < time {
        look();
        thread::park_timeout(Duration::from_millis(50));
    }
}

/// Words of the command line.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}

/// Makes the terminal that a command will have as its input the one that signals come from.
pub fn in_terminal(command: &mut Command) -> &mut Command {
    // `setsid --ctty` does between fork and exec what safe Rust cannot.
    let inner = command.get_program().to_os_string();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect();
    *command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(inner)
        .args(arguments);
    command.envs(environment)
}

/// One cloud on lab hosts: as many machines as it has hosts.
#[derive(Debug)]
pub struct LabCloud {
    /// The lab, for cuts and kills.
    pub lab: Lab,
}

impl LabCloud {
    /// A cloud of `hosts` machines that all know each other.
    ///
    /// # Panics
    /// When the lab or a node cannot be started; this needs root.
    #[must_use]
    pub fn new(hosts: usize, wan: Option<Wan>) -> Self {
        Self::prepared(hosts, wan, |_host| {})
    }

    /// The same, with hosts that were changed before a node began on them.
    ///
    /// # Panics
    /// As [`LabCloud::new`].
    #[must_use]
    pub fn prepared(hosts: usize, wan: Option<Wan>, prepare: impl Fn(&Host)) -> Self {
        let mut builder = Lab::builder().hosts(hosts);
        if let Some(wan) = wan {
            builder = builder.wan(wan);
        }
        Self::of(builder, prepare)
    }

    /// A cloud of all hosts of a lab, which are prepared first; h1 founds it.
    ///
    /// # Panics
    /// As [`LabCloud::new`].
    #[must_use]
    pub fn of(builder: lab::Builder, prepare: impl Fn(&Host)) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "lab hosts need root: they are namespaces"
        );
        let cloud = Self {
            lab: builder.start().expect("a lab"),
        };
        cloud.lab.hosts().iter().for_each(prepare);
        let hosts = cloud.lab.hosts().len();
        let _up = cloud.welkin("h1", "up").ok();
        let ticket = cloud.welkin("h1", &format!("invite --uses {hosts}")).ok();
        for host in cloud.names().iter().skip(1) {
            let _joined = cloud.welkin(host, &format!("join {}", ticket.trim())).ok();
        }
        cloud.await_up(hosts);
        cloud
    }

    /// Names of the hosts.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lab
            .hosts()
            .iter()
            .map(|host| host.name().to_string())
            .collect()
    }

    /// A host.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.lab.host(name)
    }

    /// Runs `welkin LINE` on a host.
    pub fn welkin(&self, host: &str, line: &str) -> Ran {
        self.welkin_with(host, &words(line), b"")
    }

    /// Runs `welkin ARGUMENTS` on a host, with an input.
    pub fn welkin_with(&self, host: &str, arguments: &[String], stdin: &[u8]) -> Ran {
        run(self.host(host).command(welkin()).args(arguments), stdin)
    }

    /// Runs a shell line on a host.
    pub fn shell(&self, host: &str, line: &str) -> Ran {
        run(self.host(host).command("sh").args(["-c", line]), b"")
    }

    /// The process of the daemon on a host, as that host numbers it.
    ///
    /// # Panics
    /// When no node ever began there.
    #[must_use]
    pub fn daemon(&self, host: &str) -> i32 {
        let lock = self.shell(host, "cat /var/lib/welkin/lock").ok();
        lock.trim().parse().expect("the lock names a process")
    }

    /// Sends a signal, such as `KILL`, to the daemon on a host.
    ///
    /// # Panics
    /// When there is none.
    pub fn signal_daemon(&self, host: &str, signal: &str) {
        let daemon = self.daemon(host);
        let _sent = self.shell(host, &format!("kill -s {signal} {daemon}")).ok();
    }

    /// What a host holds that belongs to an object, one a line: directories, shims, control groups.
    ///
    /// # Panics
    /// When the host is down.
    #[must_use]
    pub fn left_over(&self, host: &str) -> Vec<String> {
        let nodes = self.nodes(host);
        let mine = nodes.iter().find(|it| it["name"] == host);
        let node = mine.and_then(|it| it["node"].as_str()).unwrap_or_default();
        let group = node.get(..10).unwrap_or("no node");
        let look = format!(
            "find /var/lib/welkin/objects -mindepth 1; \
             grep -alx shim /proc/[0-9]*/cmdline -z 2>/dev/null; \
             find /sys/fs/cgroup -mindepth 1 -path '*/welkin-{group}/*' -type d 2>/dev/null; true"
        );
        let found = self.shell(host, &look).ok();
        found.lines().map(str::to_string).collect()
    }

    /// Removes every app.
    ///
    /// # Panics
    /// When one cannot be removed.
    pub fn remove_all(&self, host: &str) {
        let table = self.welkin(host, "ps -a -o json").json();
        for app in table["apps"].as_array().into_iter().flatten() {
            let name = app["name"].as_str().expect("every app has one");
            let _removed = self.welkin(host, &format!("rm -f {name}")).ok();
        }
    }

    /// Waits until nothing of any object is left on any host.
    pub fn await_nothing_left(&self) {
        for host in self.names() {
            let mut left = Vec::new();
            until(&format!("{host} is empty"), Duration::from_secs(30), || {
                left = self.left_over(&host);
                if left.is_empty() {
                    return Some(());
                }
                eprintln!("still on {host}: {left:?}");
                None
            });
        }
    }

    /// Waits until every host that is up sees `count` nodes up.
    pub fn await_up(&self, count: usize) {
        for host in self.lab.hosts().iter().filter(|host| host.is_up()) {
            until(
                &format!("{} sees {count} nodes", host.name()),
                Duration::from_secs(60),
                || (self.nodes_up(host.name()).len() == count).then_some(()),
            );
        }
    }

    /// Names of the nodes that a host sees up.
    pub fn nodes_up(&self, host: &str) -> Vec<String> {
        let up = |node: &Value| {
            (node["state"] == "up").then(|| node["name"].as_str().map(str::to_string))?
        };
        self.nodes(host).iter().filter_map(up).collect()
    }

    /// The nodes that `host` knows; none when it does not answer.
    pub fn nodes(&self, host: &str) -> Vec<Value> {
        let ran = self.welkin(host, "nodes -o json");
        let table: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        table["nodes"].as_array().cloned().unwrap_or_default()
    }

    /// The name of a node.
    ///
    /// # Panics
    /// When `host` does not know it.
    pub fn name_of(&self, host: &str, node: &str) -> String {
        let nodes = self.nodes(host);
        let found = nodes.iter().find(|it| it["node"] == node);
        found
            .and_then(|it| it["name"].as_str())
            .expect("it is a node")
            .to_string()
    }

    /// The objects of an app as `ps` on `host` shows them: index, node and phase.
    pub fn objects(&self, host: &str, app: &str) -> Vec<Value> {
        objects_of(&self.welkin(host, &format!("ps {app} -a -o json")))
    }

    /// Waits until exactly `count` objects of an app run, as seen from `host`.
    pub fn await_running(&self, host: &str, app: &str, count: usize) -> Vec<Value> {
        until(
            &format!("{count} objects of {app} run"),
            Duration::from_secs(60),
            || {
                let running: Vec<Value> = running_of(self.objects(host, app));
                (running.len() == count).then_some(running)
            },
        )
    }
}

/// The objects in the JSON that `ps` prints.
#[must_use]
pub fn objects_of(ran: &Ran) -> Vec<Value> {
    let table: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    table["objects"].as_array().cloned().unwrap_or_default()
}

/// Those that run.
#[must_use]
pub fn running_of(objects: Vec<Value>) -> Vec<Value> {
    objects
        .into_iter()
        .filter(|object| object["phase"] == "running")
        .collect()
}

/// A cloud of several nodes on this machine alone, each with a state directory of its own.
#[derive(Debug)]
pub struct LoopbackCloud {
    directory: tempfile::TempDir,
    /// Run the nodes as this user instead of the test's own.
    uid: Option<u32>,
    /// What each node runs: the program under test, unless a test says otherwise.
    programs: Mutex<Vec<PathBuf>>,
}

impl LoopbackCloud {
    /// `count` nodes; as the unprivileged user `uid` when it is given.
    ///
    /// # Panics
    /// When a node cannot be started.
    #[must_use]
    pub fn new(count: usize, uid: Option<u32>) -> Self {
        let cloud = Self::strangers(count, uid);
        cloud.found(count);
        cloud
    }

    /// `count` nodes that run another program than the one under test.
    ///
    /// # Panics
    /// When a node cannot be started.
    #[must_use]
    pub fn with_program(count: usize, program: &Path) -> Self {
        let cloud = Self::strangers(count, None);
        for node in 0..count {
            cloud.set_program(node, program.to_path_buf());
        }
        cloud.found(count);
        cloud
    }

    /// Makes a cloud of the first `count` machines, all of which see each other then.
    ///
    /// # Panics
    /// When a node cannot be started.
    pub fn found(&self, count: usize) {
        let _up = self.up(0).ok();
        for node in 1..count {
            self.join(node);
        }
        for node in 0..count {
            until("all nodes see each other", Duration::from_secs(30), || {
                (self.welkin(node, "nodes -q").ok().lines().count() == count).then_some(())
            });
        }
    }

    /// Lets a machine join the cloud of the first.
    ///
    /// # Panics
    /// When it cannot.
    pub fn join(&self, node: usize) {
        let ticket = self.welkin(0, "invite").ok();
        let line = format!("join {} --name n{node} --listen 127.0.0.1:0", ticket.trim());
        let _joined = self.welkin(node, &line).ok();
    }

    /// Waits until a node has forgotten all of its objects, and nothing of them is left.
    pub fn await_no_objects(&self, node: usize) {
        let objects = self.state_dir(node).join("objects");
        until("its objects are gone", Duration::from_secs(60), || {
            (fs::read_dir(&objects).ok()?.count() == 0).then_some(())
        });
    }

    /// Machines that belong to no cloud yet.
    ///
    /// # Panics
    /// When there is no room for them.
    #[must_use]
    pub fn strangers(count: usize, uid: Option<u32>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        if uid.is_some() {
            nix::unistd::chown(directory.path(), uid.map(Into::into), uid.map(Into::into))
                .expect("root may give it away");
        }
        Self {
            directory,
            uid,
            programs: Mutex::new(vec![welkin(); count]),
        }
    }

    fn count(&self) -> usize {
        self.programs().len()
    }

    fn programs(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a node is called, and started, with this program.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_program(&self, node: usize, program: PathBuf) {
        self.programs()[node] = program;
    }

    /// The power of a node goes: its daemon and all of its objects end at once.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self, node: usize) {
        let mut pids = vec![self.daemon(node).expect("it runs")];
        let objects = fs::read_dir(self.state_dir(node).join("objects"));
        for object in objects.expect("it has objects").flatten() {
            let shim = fs::read_to_string(object.path().join("shim.pid"));
            let first = shim.ok().and_then(|text| {
                let word = text.split_whitespace().next().map(str::to_string);
                word?.parse::<i32>().ok()
            });
            pids.extend(first);
        }
        for pid in pids {
            let _gone = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }

    fn up(&self, node: usize) -> Ran {
        self.welkin(node, &format!("up --name n{node} --listen 127.0.0.1:0"))
    }

    /// The state directory of a node.
    #[must_use]
    pub fn state_dir(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("n{node}"))
    }

    /// Runs `welkin LINE` at a node.
    pub fn welkin(&self, node: usize, line: &str) -> Ran {
        self.welkin_with(node, &words(line), b"")
    }

    /// Runs `welkin ARGUMENTS` at a node, with an input.
    pub fn welkin_with(&self, node: usize, arguments: &[String], stdin: &[u8]) -> Ran {
        run(self.command(node).args(arguments), stdin)
    }

    /// `welkin` at a node, for a test that wants more of the process.
    #[must_use]
    pub fn command(&self, node: usize) -> Command {
        let program = self.programs()[node].clone();
        let mut command = match self.uid {
            None => Command::new(program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                let id = uid.to_string();
                command.args([
                    "--reuid",
                    &id,
                    "--regid",
                    &id,
                    "--clear-groups",
                    "--no-new-privs",
                ]);
                command.arg(program);
                command
            }
        };
        command.env("WELKIN_STATE_DIR", self.state_dir(node));
        command.env("HOME", self.directory.path());
        command
    }

    /// Process id of a node's daemon.
    #[must_use]
    pub fn daemon(&self, node: usize) -> Option<i32> {
        let lock = fs::read_to_string(self.state_dir(node).join("lock")).ok()?;
        lock.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for LoopbackCloud {
    fn drop(&mut self) {
        for node in 0..self.count() {
            // Whatever is left of its objects goes with the apps.
            let names = self.welkin(node, "ps -a -o name").stdout;
            for name in names.lines() {
                let _gone = self.welkin(node, &format!("rm -f {name}"));
            }
        }
        for node in 0..self.count() {
            let daemon = self.daemon(node);
            let _down = self.welkin(node, "down");
            if let Some(pid) = daemon {
                let _ended = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        if thread::panicking() {
            for node in 0..self.count() {
                let log = fs::read_to_string(self.state_dir(node).join("daemon.log"));
                eprintln!("--- n{node}\n{}", log.unwrap_or_default());
            }
        }
    }
}

impl Drop for LabCloud {
    fn drop(&mut self) {
        let up = || self.lab.hosts().iter().filter(|host| host.is_up());
        if thread::panicking() {
            for host in up() {
                let log = self.shell(host.name(), "tail -n 60 /var/lib/welkin/daemon.log");
                eprintln!("--- {}\n{}", host.name(), log.stdout);
            }
        }
        let nodes = up()
            .next()
            .map_or_else(Vec::new, |host| self.nodes(host.name()));
        up().for_each(|host| drop(host.kill()));
        // A node that is killed leaves its control groups to the machine, which here goes on.
        for node in nodes.iter().filter_map(|it| it["node"].as_str()) {
            let group = format!("*/welkin-{}*", &node[..10]);
            let _gone = Command::new("find")
                .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &group])
                .args(["-exec", "rmdir", "{}", ";"])
                .output();
        }
    }
}
