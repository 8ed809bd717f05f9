//! The command `lab`, as a person types it.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::Status;

use crate::{eventually, mark, processes_with, remains::remains};

/// A lab by hand; dropping it takes it down.
struct ByHand {
    name: String,
}

impl ByHand {
    fn up(name: &str, arguments: &[&str]) -> Self {
        let lab = Self {
            name: format!("{name}-{}", std::process::id()),
        };
        let up = [&["up"], arguments].concat();
        assert_eq!(lab.run(&up).0, Some(0), "lab up");
        lab
    }

    /// Exit code, output, errors.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(arguments)
            .env("LAB_NAME", &self.name)
            .output()
            .expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn done(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let (code, output, error) = self.run(&words);
        assert_eq!(code, Some(0), "lab {line}: {error}");
        output
    }

    fn refused(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let (code, _, error) = self.run(&words);
        assert_ne!(code, Some(0), "lab {line}");
        error
    }

    fn status(&self) -> Status {
        serde_json::from_str(&self.done("status -o json")).expect("it is JSON")
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

#[test]
fn a_lab_by_hand_from_up_to_down() {
    let lab = ByHand::up(
        "hand",
        &[
            "--hosts",
            "3",
            "--wan",
            "builtin",
            "--subnet",
            "10.9.8.0/24",
        ],
    );
    let status = lab.status();
    assert_eq!(status.hosts[2].address.to_string(), "10.9.8.3");
    assert_eq!(status.hosts[1].site.as_deref(), Some("virginia"));
    assert!(lab.refused("up").contains("is up"));
    assert_eq!(lab.done("exec h3 -- hostname"), "h3\n");
    assert_eq!(
        lab.run(&["exec", "h1", "--", "sh", "-c", "exit 42"]).0,
        Some(42)
    );
    assert_eq!(lab.run(&["exec", "h1", "--", "/no/such"]).0, Some(127));
    assert_eq!(lab.run(&["exec", "h1", "--", "/etc"]).0, Some(126));

    // Whoever reads the first line and leaves is told no more: it was a panic.
    let mut left = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("status")
        .env("LAB_NAME", &lab.name)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(left.stdout.take());
    assert!(left.wait().expect("it ends").success());
    lab.done("link h1 h2 --loss 1% --rate 100M --one-way");
    let link = |lab: &ByHand| lab.status().links[0].link;
    assert_eq!(
        (link(&lab).delay.as_millis(), link(&lab).rate),
        (42, Some(100_000_000))
    );
    lab.done("link h1 h2 --rate unlimited");
    assert_eq!(link(&lab).rate, None);
    lab.done("cut h1,h2 / h3");
    lab.done("cut h1 --one-way");
    let cut = |lab: &ByHand| lab.status().links.iter().filter(|it| it.cut).count();
    assert_eq!(cut(&lab), 5);
    assert!(lab.done("status").contains("cut"));
    lab.done("heal --links");
    assert_eq!(
        (cut(&lab), link(&lab).loss.to_string()),
        (0, "0".to_owned())
    );

    lab.done("kill h2");
    assert!(lab.refused("exec h2 -- true").contains("lab start h2"));
    lab.done("start h2");
    assert_eq!(lab.done("exec h2 -- hostname"), "h2\n");
    assert!(lab.refused("kill h9").contains("no host 'h9'"));
    assert!(lab.refused("link h1 h2 --delay soon").contains("soon"));
    lab.done("down");
    assert_eq!(remains(&lab.name), [""; 0]);
    assert!(lab.refused("status").contains("lab up"));
}

#[test]
fn when_the_daemon_is_killed_its_hosts_die_and_down_takes_the_rest_away() {
    let lab = ByHand::up("crash", &["--hosts", "2"]);
    let seconds = mark(30);
    let script = format!("setsid sleep {seconds} >/dev/null 2>&1 & ");
    assert_eq!(
        lab.run(&["exec", "h1", "--", "sh", "-c", &script]).0,
        Some(0)
    );
    eventually("it sleeps", || !processes_with(&seconds).is_empty());
    let status = lab.status();
    let daemon = status.owner_pid.to_string();
    let killed = Command::new("kill").args(["-KILL", &daemon]).status();
    assert!(killed.expect("kill is there").success());
    let gone = |pid: i32| !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid);
    eventually("the hosts are gone", || {
        status.hosts.iter().filter_map(|it| it.init_pid).all(gone)
    });
    eventually("the program is gone", || {
        processes_with(&seconds).is_empty()
    });
    // It may be refused: any lab that starts meanwhile, such as another test's, has done it then.
    lab.run(&["down"]);
    assert_eq!(remains(&lab.name), [""; 0]);
}

#[test]
fn a_daemon_that_is_asked_to_end_takes_its_lab_down() {
    let lab = ByHand::up("term", &["--hosts", "1"]);
    let daemon = lab.status().owner_pid.to_string();
    let asked = Command::new("kill").args(["-TERM", &daemon]).status();
    assert!(asked.expect("kill is there").success());
    eventually("nothing is left", || remains(&lab.name).is_empty());
}

/// Killed, but not yet reaped by whoever is process 1 here.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") Z ")
}
