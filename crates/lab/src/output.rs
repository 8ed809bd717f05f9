//! What the command prints: results on standard output, refusals on standard error.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the output module"
)]

use std::collections::BTreeMap;

use lab::{Link, LinkStatus, Status};

/// Refuses, in one line.
pub(crate) fn refuse(reason: &str) {
    eprintln!("lab: {reason}");
}

/// Says which hosts have come up.
pub(crate) fn started(status: &Status) {
    let hosts: Vec<String> = status
        .hosts
        .iter()
        .map(|host| format!("{} {}", host.name, host.address))
        .collect();
    println!("{}", hosts.join("\n"));
}

pub(crate) fn json(status: &Status) {
    let text = serde_json::to_string_pretty(status).expect("a status has no maps with odd keys");
    println!("{text}");
}

pub(crate) fn table(status: &Status) {
    println!("lab {} (process {})", status.name, status.owner_pid);
    println!();
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
    print_columns(&rows);
    println!();
    if !status.capabilities.wan {
        println!(
            "no network of its own: {}",
            status.capabilities.missing.join("; ")
        );
        return;
    }
    links(&status.links);
    let frames = status.counters;
    println!(
        "frames: {} delivered, {} lost, {} cut, {} overflowed",
        frames.delivered, frames.lost, frames.cut, frames.overflowed
    );
}

/// The links that are not perfect, both directions in one row where they are alike.
fn links(all: &[LinkStatus]) {
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
    if rows.len() == 1 {
        println!("all links are perfect");
    } else {
        print_columns(&rows);
    }
    println!();
}

fn print_columns<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    for row in rows {
        let cells = row.iter().enumerate();
        let line: Vec<String> = cells
            .map(|(column, cell)| format!("{cell:<0$}", width(column)))
            .collect();
        println!("{}", line.join("  ").trim_end());
    }
}
