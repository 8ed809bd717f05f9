//! Hosts on loopback addresses, as without root.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lab::{Lab, Link, NetworkError, Ways};

use crate::{eventually, mark, processes_with};

fn loopback_lab(hosts: usize) -> Lab {
    let lab = Lab::builder().hosts(hosts).without_namespaces().start();
    lab.expect("it needs nothing")
}

#[test]
fn hosts_have_addresses_and_directories_of_their_own() {
    let lab = loopback_lab(2);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    assert!(!lab.capabilities().isolation && !lab.capabilities().missing.is_empty());
    assert_eq!(h2.address().to_string(), "127.77.0.2");
    assert_ne!(h1.state_dir(), h2.state_dir());
    fs::write(h1.state_dir().join("file"), "kept").expect("it is writable");
    let sockets = [h1, h2].map(|host| {
        let bound = host.in_network(|| UdpSocket::bind((host.address(), 0)));
        bound.expect("a port is free")
    });
    crate::network::round_trip(&sockets[0], &sockets[1], 1);
    h1.kill().expect("nothing runs");
    h1.start().expect("it is down");
    assert_eq!(
        fs::read(h1.state_dir().join("file")).expect("it is there"),
        b"kept"
    );
}

#[test]
fn what_needs_namespaces_is_refused_and_says_so() {
    let lab = loopback_lab(2);
    let cut = lab.cut(&["h1"], &["h2"], Ways::Both);
    assert!(matches!(cut, Err(NetworkError::NoNetwork)));
    let slow = lab.link("h1", "h2", Link::default());
    assert!(matches!(slow, Err(NetworkError::NoNetwork)));
    assert!(matches!(lab.heal(), Err(NetworkError::NoNetwork)));
}

#[test]
fn killing_a_host_kills_what_was_started_through_it() {
    let (seconds, other) = (mark(20), mark(21));
    let lab = loopback_lab(2);
    let script = format!("env -i setsid sleep {seconds} & sleep {seconds}");
    let mut child = lab
        .host("h1")
        .command("/bin/sh")
        .args(["-c", &script])
        .spawn()
        .expect("it starts");
    let mut elsewhere = lab
        .host("h2")
        .command("sleep")
        .arg(&other)
        .spawn()
        .expect("it starts");
    let sleeping = format!("sleep\0{seconds}");
    eventually("both sleep", || processes_with(&sleeping).len() == 2);
    let reaper = std::thread::spawn(move || child.wait());
    lab.host("h1").kill().expect("it dies");
    reaper.join().expect("no panic").expect("it ends");
    eventually("nothing is left", || processes_with(&sleeping).is_empty());
    assert!(
        elsewhere.try_wait().expect("ours").is_none(),
        "the other host lives"
    );
    let down = lab.host("h1").command("true").spawn();
    assert_eq!(down.expect_err("down").raw_os_error(), Some(112));
    let (name, state) = (lab.name().to_owned(), lab.host("h1").state_dir());
    drop(lab);
    elsewhere.wait().expect("it ends");
    assert_eq!(super::remains::remains(&name), [""; 0]);
    assert!(!state.exists());
}

/// The command itself, as a user who may do nothing special.
#[test]
fn without_root_a_lab_comes_up_on_loopback_addresses_and_says_what_is_missing() {
    const NOBODY: u32 = 65534;
    let home = tempfile::tempdir().expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let program = home.path().join("lab");
    fs::copy(env!("CARGO_BIN_EXE_lab"), &program).expect("it can be copied");
    let own = home.path().join("own");
    fs::create_dir(&own).expect("it is new");
    chown(&own, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let run = |arguments: &str| run_as(NOBODY, &program, &own, arguments);

    let (code, output, error) = run("up --hosts 2");
    assert_eq!(
        (code, output.as_str()),
        (Some(0), "h1 127.77.0.1\nh2 127.77.0.2\n"),
        "{error}"
    );
    assert!(
        error.contains("not root") && error.contains("cannot be cut"),
        "{error}"
    );
    assert_eq!(run("exec h2 -- id -u").1, "65534\n");
    assert_eq!(run("exec h2 -- sh -c exit\t9").0, Some(9));
    let (code, _, error) = run("cut h1 / h2");
    assert_eq!(code, Some(1));
    assert!(error.contains("loopback"), "{error}");
    assert!(run("status").1.contains("127.77.0.2"));
    assert_eq!(run("down").0, Some(0));
    let left: Vec<_> = fs::read_dir(&own).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Exit code, output and errors; a tab in `arguments` is a space inside a word.
fn run_as(user: u32, program: &Path, own: &Path, arguments: &str) -> (Option<i32>, String, String) {
    let words = arguments.split(' ').map(|word| word.replace('\t', " "));
    let output = Command::new(program)
        .args(words)
        .uid(user)
        .gid(user)
        .env("XDG_RUNTIME_DIR", own)
        .env("TMPDIR", own)
        .current_dir("/")
        .output()
        .expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
