//! What the host knows about the health of its machine, for `welkin doctor`.
//!
//! What it is not: a repair. Each finding says what is the case and what to do.

use std::net::SocketAddr;
use std::path::Path;

use drivers::exec;
use nix::sys::statvfs::statvfs;
use wire::call::{Finding, Findings, Severity};

use crate::events::Raised;
use crate::{clock, disk, home};

/// Less free disk than this is a problem.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Less than this is worth a word.
const FREE_BYTES_ADVICE: u64 = 2 * 1024 * 1024 * 1024;
/// A wall clock before this was never set (2024-01-01).
const CLOCK_MILLIS_MIN: u64 = 1_704_067_200_000;

/// What can be found out about this machine while no node runs on it: for one that does not start.
#[must_use]
pub fn examine_machine(state_dir: &Path) -> Findings {
    // The directory may not be there yet: what matters is the file system below it.
    let there = state_dir.ancestors().find(|it| it.exists());
    let patient = Patient {
        state_dir: there.unwrap_or(state_dir).to_path_buf(),
        bound: Vec::new(),
        addresses: Vec::new(),
        alarms: Vec::new(),
        control_groups: Vec::new(),
    };
    let mut findings = Findings {
        findings: Vec::new(),
    };
    examine(&patient, &mut findings);
    findings
}

/// What a check may look at. Without links that are bound, nothing is said of the network.
#[derive(Debug, Clone)]
pub(crate) struct Patient {
    pub(crate) state_dir: std::path::PathBuf,
    pub(crate) bound: Vec<SocketAddr>,
    pub(crate) addresses: Vec<String>,
    pub(crate) alarms: Vec<Raised>,
    /// Sentences about limits that may not hold.
    pub(crate) control_groups: Vec<String>,
}

/// Adds what the host finds to what the kernel found; worst first.
pub(crate) fn examine(patient: &Patient, findings: &mut Findings) {
    let node = findings
        .findings
        .first()
        .map_or_else(String::new, |first| first.node.clone());
    let mut add = |severity, summary: String, remedy: &str| {
        findings.findings.push(Finding {
            severity,
            node: node.clone(),
            summary,
            remedy: remedy.to_owned(),
        });
    };
    for raised in &patient.alarms {
        add(Severity::Alarm, explain(raised), raised.alarm.remedy());
    }
    for protection in exec::probe() {
        let severity = if protection.available {
            Severity::Fine
        } else {
            Severity::Missing
        };
        let summary = format!("{}: {}", protection.name, protection.explanation);
        add(severity, summary, &protection.remedy);
    }
    for sentence in &patient.control_groups {
        add(Severity::Missing, sentence.clone(), exec::LIMITS_REMEDY);
    }
    examine_state(&patient.state_dir, &mut add);
    for (summary, remedy) in clocks() {
        add(Severity::Missing, summary.to_owned(), remedy);
    }
    let bound: Vec<_> = patient.bound.iter().map(ToString::to_string).collect();
    if !bound.is_empty() {
        let summary = format!("links listen on UDP {}", bound.join(", "));
        add(Severity::Fine, summary, "");
    }
    let is_local = |address: &String| {
        address
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.ip().is_loopback())
    };
    if !bound.is_empty() && patient.addresses.iter().all(is_local) {
        let summary = "no other machine can reach this node: it has only loopback addresses";
        add(
            Severity::Advice,
            summary.to_owned(),
            "connect it to a network, or check --listen",
        );
    }
    findings.findings.sort_by_key(|finding| finding.severity);
}

/// What an alarm means, how often it was raised, and what was seen last.
fn explain(raised: &Raised) -> String {
    let Raised {
        alarm,
        detail,
        count,
        ..
    } = raised;
    let times = match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let (name, meaning) = (alarm.name(), alarm.meaning());
    format!("{name}, {times}: {meaning} ({detail})")
}

/// What is wrong with the clocks of this machine, and what to do about it.
fn clocks() -> Vec<(&'static str, &'static str)> {
    let mut wrong = Vec::new();
    if clock::wall().0 < CLOCK_MILLIS_MIN {
        let remedy = "set the clock, for example with an NTP service";
        wrong.push(("the clock of the machine is not set", remedy));
    }
    if !clock::counts_sleep() {
        wrong.push((clock::NO_TENURES, "install a newer kernel"));
    }
    wrong
}

/// What is said of the state directory and its disk.
fn examine_state(state_dir: &Path, add: &mut impl FnMut(Severity, String, &str)) {
    if let Err(error) = home::examine(state_dir) {
        let remedy = "do that before the next start: the node would not come up";
        add(Severity::Missing, error.to_string(), remedy);
    }
    for path in disk::set_aside_in(state_dir) {
        let path = path.display();
        add(
            Severity::Advice,
            format!("a damaged disk of this node was set aside as {path}"),
            "look into `dmesg`: the disk may fail again; remove the file when nobody wants to look \
             at it any more",
        );
    }
    let (severity, summary, remedy) = free_space(state_dir);
    add(severity, summary, remedy);
}

fn free_space(state_dir: &Path) -> (Severity, String, &'static str) {
    let Ok(stats) = statvfs(state_dir) else {
        let text = format!("the disk of {} cannot be looked at", state_dir.display());
        return (
            Severity::Missing,
            text,
            "check that the file system is mounted",
        );
    };
    let free = stats.blocks_available() * stats.fragment_size();
    let text = format!("{} MiB are free in {}", free >> 20, state_dir.display());
    if free < FREE_BYTES_MIN {
        (
            Severity::Missing,
            text,
            "make room: without it nothing can be started or remembered",
        )
    } else if free < FREE_BYTES_ADVICE {
        (
            Severity::Advice,
            text,
            "make room before logs and files of objects need it",
        )
    } else {
        (Severity::Fine, text, "")
    }
}

#[cfg(test)]
mod tests {
    use kernel::alarm::Alarm;

    use super::*;

    #[test]
    fn every_alarm_is_explained_and_everything_bad_has_a_remedy() {
        let raise = |(alarm, count): (&Alarm, u64)| Raised {
            alarm: *alarm,
            detail: "as it was seen".to_owned(),
            count,
            last: wire::id::UnixMillis(0),
        };
        let patient = Patient {
            state_dir: "/".into(),
            bound: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
            addresses: vec!["127.0.0.1:1".to_owned()],
            alarms: Alarm::ALL.iter().zip(1..).map(raise).collect(),
            control_groups: vec![],
        };
        let mut findings = Findings { findings: vec![] };
        examine(&patient, &mut findings);
        let (alarms, rest) = findings.findings.split_at(Alarm::ALL.len());
        for (finding, alarm) in alarms.iter().zip(Alarm::ALL) {
            assert_eq!(finding.severity, Severity::Alarm, "alarms come first");
            assert!(finding.summary.starts_with(alarm.name()), "{finding:?}");
            assert!(finding.summary.contains(alarm.meaning()), "{finding:?}");
            assert!(finding.summary.ends_with("(as it was seen)"), "{finding:?}");
            assert_eq!(finding.remedy, alarm.remedy());
        }
        assert!(alarms[0].summary.contains(", once: "));
        assert!(alarms[1].summary.contains(", 2 times: "));
        for finding in rest {
            assert_eq!(
                finding.remedy.is_empty(),
                finding.severity == Severity::Fine,
                "{finding:?}"
            );
        }
    }

    /// An alarm is forgotten with the process that raised it; what is wrong is not.
    #[test]
    fn what_is_wrong_with_the_state_is_found_while_no_node_runs() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("node.key"), b"short").unwrap();
        std::fs::write(top.path().join("disk.damaged-5"), b"").unwrap();
        let found = examine_machine(top.path()).findings;
        let has = |words: &str| found.iter().any(|it| it.summary.contains(words));
        assert!(has("node.key is damaged"), "{found:?}");
        assert!(has("was set aside as"), "{found:?}");
    }

    #[test]
    fn a_machine_without_a_node_is_examined_but_for_its_network() {
        let top = tempfile::tempdir().unwrap();
        let found = examine_machine(&top.path().join("not/yet")).findings;
        let has = |words: &str| found.iter().any(|it| it.summary.contains(words));
        assert!(has("MiB are free"), "{found:?}");
        assert!(!has("links listen") && !has("loopback"), "{found:?}");
    }
}
