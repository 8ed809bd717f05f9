//! Scenarios: stories of whole clouds, in a language that anybody can read, with what happened
//! written below each line.
//!
//! ```text
//! # Three machines are one cloud.
//! > cloud ada ben cara
//!   ada ben cara are one cloud
//!
//! > on ben run web x 2 restart always -- serve
//!   ada: object.running web/0
//!   cara: object.running web/1
//!   done: web/0 on ada, web/1 on cara
//! ```
//!
//! A line that begins with `>` is done; the indented lines below it are what the cloud said then;
//! everything else is for the reader. [`run`] gives the same text with what it really said, so the
//! transcript is the expectation, and is written anew when it is right that it changed.
//!
//! | line | does |
//! | --- | --- |
//! | `machine NAME [in CITY] [cpu N] [memory N] [arch A] [label K=V] [behind router]` | there is a machine |
//! | `cloud NAME…` | the first founds a cloud, the others join it |
//! | `found NAME` | it founds a cloud |
//! | `invite NAME [uses N] [for N] as TICKET` | it makes a ticket |
//! | `forge TICKET as TICKET` | a ticket with another's signature |
//! | `join NAME with TICKET` | it asks to be admitted |
//! | `on NAME CALL…` | somebody makes a call there, and waits for the answer |
//! | `later WORD on NAME CALL…`, `answer WORD [within TIME]` | somebody makes a call, and hears the answer later |
//! | `abandon WORD` | or goes away before it |
//! | `crash NAME`, `kill NAME`, `start NAME` | its power goes; its daemon is killed; it starts |
//! | `end NAME`, `shut NAME` | its daemon is asked to end, to begin again; its machine is turned off |
//! | `partition NAME… from NAME…`, `heal` | they do not reach each other; everybody does |
//! | `freeze NAME`, `thaw NAME` | its daemon does nothing; it goes on |
//! | `clock NAME ahead N`, `clock NAME behind N` | its wall clock is set, beside the right time |
//! | `disk NAME full`, `disk NAME works` | it takes no writes; it does |
//! | `show KIND…` | which events are told from now on |
//! | `pass N` | time passes |
//! | `until APP runs N on NAME within N` | time passes until that node says so |
//!
//! The calls are those of the command line; [`calls`] reads them. Times are `3s`, `200ms`, `5m`.

mod calls;
mod print;
mod stage;

use stage::Stage;

/// Runs a scenario and gives its text with what happened.
#[must_use]
pub fn run(text: &str) -> String {
    let mut stage = Stage::new();
    let mut told = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        told.push_str(line);
        told.push('\n');
        let Some(command) = line.strip_prefix('>') else {
            continue;
        };
        for said in stage.perform(command.trim()) {
            told.push_str("  ");
            told.push_str(&said);
            told.push('\n');
        }
    }
    told
}

/// The first lines that differ, for a failing test: nothing when none do.
#[must_use]
pub fn difference(expected: &str, actual: &str) -> Option<String> {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    let mut command = String::new();
    for number in 1.. {
        let (wanted, got) = (expected.next(), actual.next());
        if wanted.is_none() && got.is_none() {
            return None;
        }
        if let Some(line) = got.filter(|line| line.starts_with('>')) {
            command = line.to_string();
        }
        if wanted != got {
            let rest: Vec<&str> = actual.take(8).collect();
            return Some(format!(
                "line {number}, after `{command}`\n  expected: {}\n  happened: {}\n{}",
                wanted.unwrap_or("(nothing more)"),
                got.unwrap_or("(nothing more)"),
                rest.join("\n")
            ));
        }
    }
    None
}
