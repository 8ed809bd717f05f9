//! The last steps of a process before it becomes the program: streams, user, capabilities,
//! directory, filter, `execve`. The same for the first program of an object and for further ones.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, access, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use seccompiler::BpfProgram;
use wire::driver::Launch;
use wire::spec::Program;

use super::user::{self, Account};
use super::{Failure, Isolation, Reporter, filter, hidden};
use crate::sys;

/// Where programs are looked for when the object's environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities that a program of the superuser keeps (`linux/capability.h`): those that Docker
/// keeps, without `MKNOD`, because no device filter stands behind it here, and without `NET_RAW`
/// and `AUDIT_WRITE`, because objects share the network of the node, its audit socket included.
const CAPABILITIES: [u32; 11] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    18, // SYS_CHROOT
    31, // SETFCAP
];

/// Highest capability number that any kernel could have.
const CAPABILITY_MAX: u32 = 63;

/// The program's ends of its streams. With a terminal there are none: it is opened inside.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Streams {
    pub(crate) fn descriptors(&self) -> Vec<i32> {
        let all = [&self.stdin, &self.stdout, &self.stderr];
        all.into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }
}

/// The object's name of itself.
pub(crate) fn host_name(launch: &Launch) -> String {
    let mut name = format!("{}-{}", launch.app_name, launch.index);
    if name.len() > 64 {
        name = launch.object.short();
    }
    name
}

/// Becomes the program, or says why not. Never returns.
pub(crate) fn run(
    launch: &Launch,
    program: &Program,
    streams: Streams,
    reporter: &Reporter,
    filter: &BpfProgram,
) -> ! {
    match prepare(launch, program, streams, reporter) {
        Ok(call) => {
            reporter.starting();
            if let Err(error) = seccompiler::apply_filter(filter) {
                reporter.fail(&Failure::setup(
                    "the system-call filter cannot be set",
                    error,
                ));
            }
            let error = sys::execute(&call.path, &call.arguments, &call.environment);
            reporter.fail(&refused(&call.name, error))
        }
        Err(failure) => reporter.fail(&failure),
    }
}

/// What `execve` takes.
#[derive(Debug)]
struct Call {
    name: String,
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

fn prepare(
    launch: &Launch,
    program: &Program,
    streams: Streams,
    reporter: &Reporter,
) -> Result<Call, Failure> {
    reset_signals();
    umask(Mode::from_bits_truncate(0o022));
    setsid().map_err(|error| Failure::setup("it cannot have a session of its own", error))?;
    let streams = if program.terminal {
        let peer = open_terminal(reporter)
            .map_err(|error| Failure::setup("it cannot have a terminal", error))?;
        Streams {
            stdin: peer.try_clone().ok(),
            stdout: peer.try_clone().ok(),
            stderr: Some(peer),
        }
    } else {
        streams
    };
    connect(streams).map_err(|error| Failure::setup("its streams cannot be connected", error))?;
    let wanted = program.user.as_deref();
    let account = user::find(wanted).map_err(|text| Failure { code: 125, text })?;
    confine(&account).map_err(|error| {
        let who = wanted.unwrap_or("an unprivileged program");
        Failure::setup(&format!("cannot become {who}"), error)
    })?;
    enter(program.directory.as_deref().unwrap_or("/"))?;
    call(launch, program, &account)
}

fn enter(directory: &str) -> Result<(), Failure> {
    let path = Path::new(directory);
    let outcome = std::env::set_current_dir(path);
    let failed = |why: String| Failure {
        code: 125,
        text: format!("cannot enter the directory {directory}: {why}"),
    };
    match outcome {
        Ok(()) if hidden::is_place(path) => Err(failed(hidden::explain(path))),
        Err(_) if hidden::is_cause(path) => Err(failed(hidden::explain(path))),
        other => other.map_err(|error| failed(error.to_string())),
    }
}

/// What the shim ignores or blocks, the program shall not.
fn reset_signals() {
    for signal in [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGTTOU] {
        sys::default_signal(signal);
    }
    // Cannot fail: the set is valid.
    let _unblocked = SigSet::empty().thread_set_mask();
}

/// Makes these the standard streams; where there is none, `/dev/null`.
pub(crate) fn connect(streams: Streams) -> io::Result<()> {
    let null = |read| {
        OpenOptions::new()
            .read(read)
            .write(!read)
            .open("/dev/null")
            .map(OwnedFd::from)
    };
    let or_null = |stream: Option<OwnedFd>, read| stream.map_or_else(|| null(read), Ok);
    dup2_stdin(or_null(streams.stdin, true)?)?;
    dup2_stdout(or_null(streams.stdout, false)?)?;
    dup2_stderr(or_null(streams.stderr, false)?)?;
    Ok(())
}

/// Opens a terminal of the object's own and makes it the controlling one of this session.
fn open_terminal(reporter: &Reporter) -> io::Result<OwnedFd> {
    let open = |path: &str| {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(path)
    };
    let terminal = OwnedFd::from(open("/dev/pts/ptmx").or_else(|_other_place| open("/dev/ptmx"))?);
    sys::unlock_terminal(terminal.as_fd())?;
    let peer = sys::terminal_peer(terminal.as_fd())?;
    sys::take_terminal(peer.as_fd())?;
    reporter.terminal(&terminal);
    Ok(peer)
}

/// Gives up every privilege that the program shall not have.
pub(crate) fn confine(account: &Account) -> io::Result<()> {
    let keep = CAPABILITIES
        .iter()
        .fold(0_u64, |keep, capability| keep | (1 << capability));
    for capability in (0..=CAPABILITY_MAX).filter(|capability| keep & (1 << capability) == 0) {
        match sys::drop_bounding(capability) {
            Ok(true) => {}
            Ok(false) => break,
            // Without privileges there is nothing to drop.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(error),
        }
    }
    sys::clear_ambient();
    account.assume()?;
    sys::limit_capabilities(keep)?;
    prctl::set_no_new_privs()?;
    // After the user has changed, because that clears it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

/// The same for a process that copies files. It executes nothing, so the caller must have made
/// it one that nobody in the object can look into.
pub(crate) fn confine_copy(wanted: Option<&str>, isolation: Isolation) -> io::Result<()> {
    reset_signals();
    setsid()?;
    let filter = filter::build(isolation).map_err(io::Error::other)?;
    let account = user::find(wanted).map_err(io::Error::other)?;
    confine(&account)?;
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}

fn call(launch: &Launch, program: &Program, account: &Account) -> Result<Call, Failure> {
    let environment = environment(launch, program, account);
    let Some(name) = program.arguments.first() else {
        return Err(Failure {
            code: 125,
            text: "no program was named".to_string(),
        });
    };
    let search = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let path = look_up(name, search)?;
    let text = |text: String| {
        CString::new(text).map_err(|error| Failure::setup("an argument cannot be passed", error))
    };
    let arguments = program
        .arguments
        .iter()
        .cloned()
        .map(text)
        .collect::<Result<_, _>>()?;
    let environment = environment
        .into_iter()
        .map(|(name, value)| text(format!("{name}={value}")));
    Ok(Call {
        name: name.clone(),
        path: text(path.to_string_lossy().into_owned())?,
        arguments,
        environment: environment.collect::<Result<_, _>>()?,
    })
}

fn environment(launch: &Launch, program: &Program, account: &Account) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("PATH".to_string(), DEFAULT_PATH.to_string()),
        ("HOME".to_string(), account.home.clone()),
        ("HOSTNAME".to_string(), host_name(launch)),
        ("WELKIN_APP".to_string(), launch.app_name.clone()),
        ("WELKIN_INDEX".to_string(), launch.index.to_string()),
        ("WELKIN_OBJECT".to_string(), launch.object.to_string()),
        ("WELKIN_NODE".to_string(), launch.node.to_string()),
        ("WELKIN_RESTARTS".to_string(), launch.restarts.to_string()),
    ]);
    if launch.epoch > 0 {
        all.insert("WELKIN_EPOCH".to_string(), launch.epoch.to_string());
    }
    if program.terminal {
        all.insert("TERM".to_string(), "xterm".to_string());
    }
    let own = launch
        .program
        .environment
        .iter()
        .chain(&program.environment);
    all.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    all
}

/// Finds a program as a shell does: 127 when there is none, 126 when it may not be executed. What it
/// says is logged and told to all nodes, so it quotes no environment that an app brings.
fn look_up(name: &str, search: &str) -> Result<PathBuf, Failure> {
    let is_program = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match std::fs::metadata(&path) {
            Err(_) if hidden::is_cause(&absolute(&path)) => Err(Failure {
                code: 127,
                text: hidden::explain(&absolute(&path)),
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure {
                code: 126,
                text: format!("{name}: permission denied"),
            }),
            Err(_) => Err(Failure {
                code: 127,
                text: format!("{name}: there is no such file"),
            }),
            Ok(_) if is_program(&path) => Ok(path),
            Ok(found) if found.is_dir() => Err(Failure {
                code: 126,
                text: format!("{name} is a directory"),
            }),
            Ok(_) => Err(Failure {
                code: 126,
                text: format!("{name}: is not executable"),
            }),
        };
    }
    let mut found = None;
    for directory in search.split(':').filter(|directory| !directory.is_empty()) {
        let path = Path::new(directory).join(name);
        if is_program(&path) {
            return Ok(path);
        }
        found = found.or_else(|| path.is_file().then_some(path));
    }
    let is_own = search != DEFAULT_PATH;
    let (code, text) = match found {
        Some(_) if is_own => (
            126,
            format!("{name}: is not executable where PATH finds it"),
        ),
        Some(path) => (126, format!("{}: is not executable", path.display())),
        None if is_own => (
            127,
            format!("{name}: not found in the PATH that it was given"),
        ),
        None => (127, format!("{name}: not found in PATH ({search})")),
    };
    Err(Failure { code, text })
}

/// A path as it would be from everywhere.
fn absolute(path: &Path) -> PathBuf {
    std::env::current_dir().unwrap_or_default().join(path)
}

fn refused(name: &str, error: Errno) -> Failure {
    let text = if error == Errno::ENOEXEC {
        format!("{name} is not a program that this machine can run; a script must begin with #!")
    } else if error == Errno::ENOENT {
        format!("{name}: its interpreter or loader does not exist")
    } else {
        format!("{name}: {}", error.desc())
    };
    Failure {
        code: if error == Errno::ENOENT { 127 } else { 126 },
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The PATH of an app was in the log of its node, and in the events of all others.
    #[test]
    fn a_path_that_an_app_brings_is_not_quoted() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("data"), "").unwrap();
        let own = place.path().display().to_string();
        for (name, code) in [("no-such-program", 127), ("data", 126)] {
            let Err(failure) = look_up(name, &own) else {
                panic!("{name} is no program");
            };
            assert_eq!(failure.code, code);
            assert!(failure.text.starts_with(name), "{}", failure.text);
            assert!(!failure.text.contains(&own), "{}", failure.text);
        }
    }
}
