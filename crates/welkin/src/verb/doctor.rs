//! `welkin doctor`: what is wrong or missing, and what to do about it.

use clap::Args;
use client::CallError;
use wire::call::{Doctor, Finding, Findings, Severity};

use crate::context::{Context, daemon_log};
use crate::failure::{EXIT_FAILED, Failure};
use crate::output::listing::{Listing, People};
use crate::output::style::{Style, paint};
use crate::{daemon, flags, manual, output, progress};

/// Say what is wrong or missing on this machine, and how to get it
///
/// Where no node answers, this machine is examined without it, and the end of its log is shown.
#[derive(Debug, Args)]
#[command(after_help = manual::DOCTOR)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let (found, answers) = match progress::shown(context.screen, "examining", ask(context)).await {
        Ok(found) => (found, true),
        Err(CallError::Problem(problem)) => return Err(problem.into()),
        Err(error) => (without_a_node(context, error), false),
    };
    let listing = Listing {
        whole: &found,
        items: "findings",
        names: found.findings.iter().map(|it| it.summary.clone()).collect(),
        ids: found.findings.iter().map(|it| it.summary.clone()).collect(),
        people: People::Text(describe(&found.findings, context.screen.out_colours())),
    };
    listing.show(&arguments.output, context.screen)?;
    if !answers {
        last_words(context);
    }
    let bad = |it: &Finding| matches!(it.severity, Severity::Alarm | Severity::Missing);
    Ok(if found.findings.iter().any(bad) {
        EXIT_FAILED
    } else {
        0
    })
}

/// What the node finds.
pub(crate) async fn ask(context: &Context) -> Result<Findings, CallError> {
    // A node that hangs is found out sooner so.
    context.client.health().await?;
    context.client.call(Doctor {}).await
}

/// What can be found out in this process.
pub(crate) fn without_a_node(context: &Context, error: CallError) -> Findings {
    let mut found = host::doctor::examine_machine(&context.state_dir);
    let failure = match error {
        CallError::Protocol(why) => {
            let log = daemon_log(context.client.socket());
            Failure::new(why).remedy(format!("less {}", log.display()))
        }
        CallError::NotUp { .. } | CallError::Silent { .. } | CallError::Problem(_) => error.into(),
    };
    let finding = Finding {
        severity: Severity::Missing,
        node: String::new(),
        summary: failure.detail,
        remedy: failure.remedy,
    };
    found.findings.insert(0, finding);
    found
}

/// Shows how the log of the daemon ends.
fn last_words(context: &Context) {
    let log = daemon_log(context.client.socket());
    let lines = daemon::last_lines(&log);
    if !lines.is_empty() {
        output::say(&format!("{} ends with:", log.display()));
        lines
            .iter()
            .for_each(|line| output::say(&format!("  {line}")));
    }
}

/// For people, each line ended.
pub(crate) fn describe(findings: &[Finding], colours: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let (word, style) = match finding.severity {
            Severity::Alarm => ("alarm", Style::Bad),
            Severity::Missing => ("missing", Style::Bad),
            Severity::Advice => ("advice", Style::Warning),
            Severity::Fine => ("fine", Style::Good),
        };
        let word = paint(colours, style, &format!("{word:<8}"));
        let node = match finding.node.as_str() {
            "" => String::new(),
            node => format!("{node}: "),
        };
        text.push_str(&format!("{word} {node}{}\n", finding.summary));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("{:8} do: {}\n", "", finding.remedy));
        }
    }
    if findings.is_empty() {
        text.push_str("everything is as it should be\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn findings_say_what_to_do() {
        let finding = |severity, summary: &str, remedy: &str| Finding {
            severity,
            node: "atlas".to_owned(),
            summary: summary.to_owned(),
            remedy: remedy.to_owned(),
        };
        let findings = [
            finding(
                Severity::Missing,
                "no cgroup may be made",
                "systemctl edit …",
            ),
            finding(Severity::Fine, "8 cores", ""),
        ];
        expect![[r#"
            missing  atlas: no cgroup may be made
                     do: systemctl edit …
            fine     atlas: 8 cores
        "#]]
        .assert_eq(&describe(&findings, false));
        expect![[r#"
            everything is as it should be
        "#]]
        .assert_eq(&describe(&[], false));
    }
}
