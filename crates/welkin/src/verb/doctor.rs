//! `welkin doctor`: what is wrong or missing, and what to do about it.

use clap::Args;
use wire::call::{Doctor, Finding, Severity};

use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::output::listing::{Listing, People};
use crate::output::style::{Style, paint};
use crate::{flags, manual, progress};

/// Say what is wrong or missing on this machine, and how to get it
#[derive(Debug, Args)]
#[command(after_help = manual::DOCTOR)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let asking = context.client.call(Doctor {});
    let found = progress::shown(context.screen, "examining", asking).await?;
    let listing = Listing {
        whole: &found,
        items: "findings",
        names: found.findings.iter().map(|it| it.summary.clone()).collect(),
        ids: found.findings.iter().map(|it| it.summary.clone()).collect(),
        people: People::Text(describe(&found.findings, context.screen.out_colours())),
    };
    listing.show(&arguments.output, context.screen)?;
    let bad = |it: &Finding| matches!(it.severity, Severity::Alarm | Severity::Missing);
    Ok(if found.findings.iter().any(bad) {
        EXIT_FAILED
    } else {
        0
    })
}

fn describe(findings: &[Finding], colours: bool) -> String {
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
