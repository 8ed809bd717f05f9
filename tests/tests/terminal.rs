//! A person at a terminal: what is typed arrives, its size and signals too, and what ends is told.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use end_to_end::{LoopbackCloud, until, words};
use nix::pty::{Winsize, openpty};

const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal with a `welkin` in it.
struct Terminal {
    keys: File,
    shown: Receiver<Vec<u8>>,
    screen: String,
    child: Child,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Terminal {
    fn open(cloud: &LoopbackCloud, line: &str) -> Self {
        let pair = openpty(Some(&size(80, 24)), None).expect("a terminal");
        let inside = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        let mut command = cloud.command(0);
        let child = end_to_end::in_terminal(&mut command)
            .args(words(line))
            .stdin(inside())
            .stdout(inside())
            .stderr(inside())
            .spawn()
            .expect("it starts");
        let keys = File::from(pair.master);
        let mut reader = keys.try_clone().expect("a descriptor");
        let (sender, shown) = sync_channel(1024);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys,
            shown,
            screen: String::new(),
            child,
        }
    }

    fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("it listens");
    }

    fn resize(&self, columns: u16, rows: u16) {
        let same = self.keys.try_clone().expect("a descriptor");
        let mut stty = Command::new("stty");
        stty.args(["cols", &columns.to_string(), "rows", &rows.to_string()]);
        let done = stty.stdin(same).status().expect("stty is there");
        assert!(done.success());
    }

    fn await_text(&mut self, text: &str) {
        until(&format!("{text:?} is shown"), PATIENCE, || {
            while let Ok(bytes) = self.shown.try_recv() {
                self.screen.push_str(&String::from_utf8_lossy(&bytes));
            }
            let at = self.screen.find(text)?;
            self.screen.drain(..at + text.len());
            Some(())
        });
    }

    fn await_exit(mut self) -> i32 {
        until("it has ended", PATIENCE, || {
            let status = self.child.try_wait().expect("it is ours")?;
            status.code()
        })
    }
}

#[test]
fn exec_gives_a_real_terminal() {
    let cloud = LoopbackCloud::new(1, None);
    let _box = cloud.welkin(0, "run -d --name box -- sleep 1000").ok();
    let mut terminal = Terminal::open(&cloud, "exec -it box -- sh");
    terminal.type_in("stty size\r");
    terminal.await_text("24 80");
    terminal.resize(120, 50);
    terminal.type_in("sleep 0.2; stty size\r");
    terminal.await_text("50 120");
    terminal.type_in("test -t 0 && echo a-\"\"tty\r");
    terminal.await_text("a-tty");
    // Ctrl-C ends the program in it, not the session.
    terminal.type_in("sleep 999; echo code $?\r");
    terminal.await_text("code $?");
    until("sleep runs", PATIENCE, || {
        let ran = cloud.welkin(0, "exec box -- pgrep -f sleep.999");
        (ran.code == 0).then_some(())
    });
    terminal.type_in("\x03");
    terminal.type_in("echo still-\"\"here\r");
    terminal.await_text("still-here");
    terminal.type_in("exit 7\r");
    assert_eq!(terminal.await_exit(), 7);
}

#[test]
fn run_in_a_terminal_can_be_left_and_taken_up_again() {
    let cloud = LoopbackCloud::new(1, None);
    let mut terminal = Terminal::open(&cloud, "run -it --name shell -- sh");
    terminal.type_in("x=kept; echo re\"\"ady\r");
    terminal.await_text("ready");
    // Ctrl-P Ctrl-Q, as docker has it.
    terminal.type_in("\x10\x11");
    assert_eq!(terminal.await_exit(), 0);
    let mut again = Terminal::open(&cloud, "attach shell");
    again.type_in("echo $x-again\r");
    again.await_text("kept-again");
    again.type_in("exit 4\r");
    assert_eq!(again.await_exit(), 4);
}

#[test]
fn an_interrupt_ends_a_program_in_the_foreground_and_leaves_nothing() {
    let cloud = LoopbackCloud::new(1, None);
    let mut terminal = Terminal::open(&cloud, "run --name short -- sleep 1000");
    until("it runs", PATIENCE, || {
        let ran = cloud.welkin(0, "ps short -o json");
        (end_to_end::running_of(end_to_end::objects_of(&ran)).len() == 1).then_some(())
    });
    terminal.type_in("\x03");
    assert_eq!(terminal.await_exit(), 130);
    until("nothing of it runs", PATIENCE, || {
        cloud.welkin(0, "ps -q").ok().is_empty().then_some(())
    });
}
