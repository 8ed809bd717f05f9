//! The test bed: objects that clean up after themselves, and a caller with deadlines.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drivers::exec;
use wire::driver::{Launch, ShimReport, ShimRequest};
use wire::fact::{Exit, ExitReason, Usage};
use wire::id::{NodeId, ObjectId};
use wire::spec::{Program, Resources, Stop};
use wire::stream::{HEADER_BYTES, Kind, Open, What, decode_header};

/// How long anything may take before the case fails: a database is made in half a minute where
/// the machine is emulated.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The node that the suite is.
pub(crate) const NODE: NodeId = NodeId([0xc0; 32]);

/// What is under test.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) launch: fn(&Path, &Launch),
}

impl Driver {
    pub(crate) fn exec() -> Self {
        Self {
            launch: |directory, launch| {
                let program = std::env::current_exe().unwrap();
                exec::launch(&program, directory, launch).expect("the shim starts");
            },
        }
    }

    /// Starts a shell script.
    pub(crate) fn shell(&self, script: &str) -> Object {
        self.start(launch(&["/bin/sh", "-c", script]))
    }

    pub(crate) fn start(&self, launch: Launch) -> Object {
        let home = tempfile::Builder::new()
            .prefix("welkin-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let directory = home.path().join(launch.object.to_string());
        let mut object = Object {
            directory,
            launch,
            home: Some(home),
        };
        self.restart(&mut object);
        object
    }

    /// Starts the same object once more, in the same directory.
    pub(crate) fn restart(&self, object: &mut Object) {
        (self.launch)(&object.directory, &object.launch);
    }
}

/// A launch with little memory and a new id.
pub(crate) fn launch(arguments: &[&str]) -> Launch {
    let mut id = [0; 16];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut id)
        .unwrap();
    Launch {
        object: ObjectId(id),
        node: NODE,
        app_name: "case".to_string(),
        index: 3,
        restarts: 0,
        program: Program {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: BTreeMap::new(),
            ..Program::default()
        },
        resources: Resources {
            cpu_millis: 500,
            memory_bytes: 256 << 20,
            processes: 64,
        },
        stop: Stop::default(),
        log_bytes_max: 4 << 20,
        hidden_directories: Vec::new(),
        epoch: 0,
        tenure: None,
    }
}

/// An object; gone with everything of it when dropped.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) directory: PathBuf,
    pub(crate) launch: Launch,
    home: Option<tempfile::TempDir>,
}

impl Drop for Object {
    fn drop(&mut self) {
        exec::kill_everything(&self.directory);
        let removed = exec::remove(&self.directory);
        if !std::thread::panicking() {
            removed.expect("an ended object can be removed");
        }
        drop(self.home.take());
    }
}

impl Object {
    pub(crate) fn caller(&self) -> Caller {
        // A queue that is full is no reason to give up.
        let mut connected = None;
        eventually("the shim listens", || {
            connected = match exec::connect(&self.directory) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                other => Some(other.expect("the shim listens")),
            };
            connected.is_some()
        });
        let stream = connected.expect("it is connected");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Caller { stream }
    }

    pub(crate) fn open(&self, what: What) -> Caller {
        let mut caller = self.caller();
        let open = Open {
            node: self.launch.node,
            object: self.launch.object,
            what,
        };
        caller.send(Kind::Open, &serde_json::to_vec(&open).unwrap());
        caller
    }

    pub(crate) fn watch(&self) -> Caller {
        let mut caller = self.caller();
        caller.request(&ShimRequest::Watch);
        caller
    }

    /// Waits until the program runs.
    pub(crate) fn running(&self) -> (u32, Vec<String>) {
        match self.watch().report() {
            ShimReport::Running {
                pid,
                protections_off,
                ..
            } => (pid, protections_off),
            other => panic!("expected it to run: {other:?}"),
        }
    }

    /// Waits until the program has ended.
    pub(crate) fn reason(&self) -> ExitReason {
        match exec::connect(&self.directory) {
            Ok(_) => self.watch().exit(),
            Err(_) => {
                exec::read_exit(&self.directory)
                    .unwrap()
                    .expect("it says how")
                    .reason
            }
        }
    }

    /// All output, once the program has ended.
    pub(crate) fn output(&self) -> String {
        let mut caller = self.open(What::Attach {
            stdin: false,
            replay: true,
        });
        let (out, err, _) = caller.outputs();
        String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&err)
    }

    /// Waits for output that contains `text` and returns everything up to it.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let mut caller = self.open(What::Attach {
            stdin: false,
            replay: true,
        });
        caller.until(text)
    }

    pub(crate) fn exec(&self, program: Program) -> (String, ExitReason) {
        let (out, err, reason) = self.open(What::Exec { program }).outputs();
        (
            String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&err),
            reason,
        )
    }

    pub(crate) fn exec_shell(&self, script: &str) -> (String, ExitReason) {
        self.exec(program(&["/bin/sh", "-c", script]))
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut caller = self.caller();
        caller.request(&ShimRequest::Usage);
        match caller.report() {
            ShimReport::Usage(usage) => usage,
            other => panic!("expected usage: {other:?}"),
        }
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.directory.join("shim.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// The control groups that were made for it and still exist.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let text = std::fs::read_to_string(self.directory.join("cgroups")).unwrap();
        text.lines()
            .map(PathBuf::from)
            .filter(|path| path.exists())
            .collect()
    }

    /// Host process ids of everything in the object.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let procs = |path: &PathBuf| std::fs::read_to_string(path.join("cgroup.procs"));
        let text = self
            .groups()
            .first()
            .and_then(|path| procs(path).ok())
            .unwrap_or_default();
        text.lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// Mounts of the machine for one case.
#[derive(Debug)]
pub(crate) struct Mounted(pub(crate) Vec<PathBuf>);

impl Drop for Mounted {
    fn drop(&mut self) {
        for point in self.0.iter().rev() {
            nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
    }
}

pub(crate) fn program(arguments: &[&str]) -> Program {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Program {
        arguments,
        ..Program::default()
    }
}

/// A connection to a shim, with deadlines.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) stream: UnixStream,
}

impl Caller {
    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        let mut bytes = vec![kind as u8];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        match self.stream.write_all(&bytes) {
            Ok(()) => {}
            // The shim has refused and closed already; its last frame, which says why, is there.
            Err(error) if is_closed(&error) => {}
            Err(error) => panic!("a frame cannot be sent: {error}"),
        }
    }

    pub(crate) fn request(&mut self, request: &ShimRequest) {
        self.send(Kind::ShimRequest, &wire::encode(request).unwrap());
    }

    /// The next frame; `None` when the shim has closed.
    pub(crate) fn frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if is_closed(&error) => return None,
            Err(error) => panic!("no frame came: {error}"),
        }
        let (kind, length) = decode_header(header).unwrap();
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        Some((kind, payload))
    }

    pub(crate) fn report(&mut self) -> ShimReport {
        let (kind, payload) = self.frame().expect("a report comes");
        assert_eq!(
            kind,
            Kind::ShimReport,
            "{}",
            String::from_utf8_lossy(&payload)
        );
        wire::decode(&payload, 1 << 20).unwrap()
    }

    /// Waits for the end of the program on a connection that watches; says why it ended.
    pub(crate) fn exit(&mut self) -> ExitReason {
        self.end().reason
    }

    /// The same, and says all that is told of it.
    pub(crate) fn end(&mut self) -> Exit {
        loop {
            match self.report() {
                ShimReport::Exited(exit) => return exit,
                ShimReport::Running { .. } | ShimReport::Usage(_) => {}
            }
        }
    }

    /// Reads frames until the last one: standard output (or data), standard error, the end.
    pub(crate) fn outputs(&mut self) -> (Vec<u8>, Vec<u8>, ExitReason) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let (kind, payload) = self.frame().expect("a stream ends with Exit or Failure");
            match kind {
                Kind::Stdout | Kind::Data => out.extend(payload),
                Kind::Stderr => err.extend(payload),
                Kind::Log => out.extend(payload.get(9..).unwrap()),
                Kind::DataEnd => {}
                Kind::Exit => return (out, err, serde_json::from_slice(&payload).unwrap()),
                other => panic!("{other:?}: {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    /// Reads output until it contains `text`.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        loop {
            let (kind, payload) = self
                .frame()
                .unwrap_or_else(|| panic!("`{text}` in `{all}`"));
            let is_output = matches!(kind, Kind::Stdout | Kind::Stderr);
            let piece = String::from_utf8_lossy(&payload);
            assert!(
                is_output,
                "waiting for `{text}` after `{all}`: {kind:?} {piece}"
            );
            all.push_str(&piece);
            if all.contains(text) {
                return all;
            }
        }
    }

    /// Reads frames until a failure and returns its text.
    pub(crate) fn failure(&mut self) -> String {
        loop {
            let (kind, payload) = self.frame().expect("a failure comes");
            if kind == Kind::Failure {
                return String::from_utf8(payload).unwrap();
            }
            assert_ne!(kind, Kind::Exit, "{}", String::from_utf8_lossy(&payload));
        }
    }
}

fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

#[expect(clippy::disallowed_methods, reason = "a deadline of the suite itself")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until a condition holds; fails the case when it does not in time.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "in time: {what}");
        let nothing: &mut [nix::poll::PollFd<'_>] = &mut [];
        let _timed_out = nix::poll::poll(nothing, 5_u8);
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ") && !state.contains(") X ")
}
