//! What the command prints: results on standard output, refusals on standard error.

use std::collections::BTreeMap;
use std::io::{self, Write};

use lab::{Link, LinkStatus, Status};

/// Refuses, in one line.
pub(crate) fn refuse(reason: &str) {
    // Nobody has to hear it.
    drop(writeln!(io::stderr().lock(), "lab: {reason}"));
}

/// Writes lines. Whoever read the first of them and went away wants to hear no more: `lab status |
/// head -1` is no mistake.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Says which hosts have come up.
pub(crate) fn started(status: &Status) {
    let hosts: Vec<String> = status
        .hosts
        .iter()
        .map(|host| format!("{} {}", host.name, host.address))
        .collect();
    print(&format!("{}\n", hosts.join("\n")));
}

pub(crate) fn json(status: &Status) {
    let text = serde_json::to_string_pretty(status).expect("a status has no maps with odd keys");
    print(&format!("{text}\n"));
}

pub(crate) fn table(status: &Status) {
    print(&drawn(status));
}

fn drawn(status: &Status) -> String {
    let mut text = format!("lab {} (process {})\n\n", status.name, status.owner_pid);
    let mut rows = vec![["HOST", "ADDRESS", "STATE", "INIT", "SITE", "DISK"].map(str::to_owned)];
    for host in &status.hosts {
        rows.push([
            host.name.clone(),
            host.address.to_string(),
            if host.up { "up" } else { "down" }.to_owned(),
            host.init_pid.map_or("-".to_owned(), |pid| pid.to_string()),
            host.site.clone().unwrap_or("-".to_owned()),
            host.state_directory.display().to_string(),
        ]);
    }
    text.push_str(&columns(&rows));
    text.push('\n');
    if !status.capabilities.wan {
        let missing = status.capabilities.missing.join("; ");
        text.push_str(&format!("no network of its own: {missing}\n"));
        return text;
    }
    text.push_str(&links(&status.links));
    let frames = status.counters;
    text.push_str(&format!(
        "frames: {} delivered, {} lost, {} cut, {} overflowed\n",
        frames.delivered, frames.lost, frames.cut, frames.overflowed
    ));
    text
}

/// The links that are not perfect, both directions in one row where they are alike.
fn links(all: &[LinkStatus]) -> String {
    let find: BTreeMap<(&str, &str), &LinkStatus> = all
        .iter()
        .map(|link| ((link.from.as_str(), link.to.as_str()), link))
        .collect();
    let mut rows = vec![["LINK", "DELAY", "JITTER", "LOSS", "RATE", ""].map(str::to_owned)];
    for (index, link) in all.iter().enumerate() {
        let back = find.get(&(link.to.as_str(), link.from.as_str()));
        let alike = back.is_some_and(|back| (back.link, back.cut) == (link.link, link.cut));
        let told = alike
            && all[..index]
                .iter()
                .any(|it| it.from == link.to && it.to == link.from);
        if told || (!link.cut && link.link == Link::default()) {
            continue;
        }
        let arrow = if alike { "<->" } else { "-->" };
        rows.push([
            format!("{} {arrow} {}", link.from, link.to),
            format!("{:?}", link.link.delay),
            format!("{:?}", link.link.jitter),
            format!("{}%", link.link.loss * 100.0),
            link.link
                .rate
                .map_or("-".to_owned(), |rate| rate.to_string()),
            if link.cut { "cut" } else { "" }.to_owned(),
        ]);
    }
    let mut text = if rows.len() == 1 {
        "all links are perfect\n".to_owned()
    } else {
        columns(&rows)
    };
    text.push('\n');
    text
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate();
        let line: Vec<String> = cells
            .map(|(column, cell)| format!("{cell:<0$}", width(column)))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}
