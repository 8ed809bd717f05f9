//! The door of a support bundle: what goes in is as it was found, what comes out may be seen.
//!
//! Two rules, because each alone has a hole:
//!
//! 1. **By place.** In whatever a call answers, the fields [`ENVIRONMENT`] keep their names and lose
//!    their values, the fields [`ARGUMENTS`] keep the program and lose what follows it, and the
//!    fields [`SECRET`] lose all. This does not depend on what a value looks like.
//! 2. **By sight.** A value that was found by the first rule is removed wherever else it stands, in
//!    logs, events and sentences; and so is everything that looks like a ticket.
//!
//! What it is not: the second rule is a net under the first, for what no rule should need. No
//! sentence of Welkin quotes an argument or an environment; were one to, shorter values than
//! [`VALUE_BYTES_MIN`] would go through, and those of apps that are not there any more.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use wire::peer::TICKET_PREFIX;

use super::Content;

/// What stands where something was removed.
pub(crate) const REMOVED: &str = "(removed)";

/// Maps whose values are removed.
const ENVIRONMENT: [&str; 1] = ["environment"];
/// Lists of which only the first is kept.
const ARGUMENTS: [&str; 2] = ["arguments", "command"];
/// Fields that are removed whole.
const SECRET: [&str; 4] = ["ticket", "token", "key", "secret"];
/// Fields with names that are told anyway.
const NAMES: [&str; 3] = ["name", "app_name", "node"];

/// Shorter values are everyday words: without them no log could be read.
const VALUE_BYTES_MIN: usize = 8;
/// Most bytes of values that are looked for, so that the search fits into memory.
const VALUES_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What begins as a ticket and goes on at least so long is one; the shortest has some 300.
const TICKET_BYTES_MIN: usize = 16;

/// Bytes from which everything was removed that nobody else may see. Only [`Redaction`] makes them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clean(Vec<u8>);

impl Clean {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is removed.
#[derive(Debug)]
pub(crate) struct Redaction {
    values: Option<AhoCorasick>,
}

impl Redaction {
    /// Learns from all that was gathered which values nobody else may see.
    pub(crate) fn learn<'a>(contents: impl Iterator<Item = &'a Content>) -> Self {
        let mut seen = Seen::default();
        for content in contents {
            if let Content::Json(value) = content {
                seen.look(value);
            }
        }
        let mut left_bytes = VALUES_BYTES_MAX;
        let fits = |value: &&str| {
            let fits = value.len() <= left_bytes;
            left_bytes -= if fits { value.len() } else { 0 };
            fits
        };
        let secret = seen.values.difference(&seen.names).copied();
        let values: Vec<&str> = secret.filter(fits).collect();
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(values);
        Self {
            // It fails only for more values than fit.
            values: search.ok(),
        }
    }

    /// What may be seen of it, at most so many bytes, and whether that is all.
    pub(crate) fn clean(&self, content: &Content, bytes_max: usize) -> (Clean, bool) {
        // Only what is clean is cut: half a secret would not be found.
        let (text, is_whole) = match content {
            Content::Text(text) => end_of(&self.text(text), bytes_max),
            Content::Json(value) => self.json(value.clone(), bytes_max),
        };
        (Clean(text.into_bytes()), is_whole)
    }

    fn json(&self, mut value: Value, bytes_max: usize) -> (String, bool) {
        self.value(&mut value);
        let mut is_whole = true;
        loop {
            let text = format!("{value:#}\n");
            if text.len() <= bytes_max {
                return (text, is_whole);
            }
            is_whole = false;
            if !halve(&mut value) {
                return (String::new(), is_whole);
            }
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.field(name, field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn field(&self, name: &str, field: &mut Value) {
        if SECRET.contains(&name) {
            *field = REMOVED.into();
        } else if ARGUMENTS.contains(&name) {
            remove_all_but(usize::from(field.is_array()), field);
            self.value(field);
        } else if ENVIRONMENT.contains(&name) {
            remove_all_but(0, field);
        } else {
            self.value(field);
        }
    }

    fn text(&self, text: &str) -> String {
        let text = match &self.values {
            Some(values) if values.patterns_len() > 0 => {
                let mut clean = String::with_capacity(text.len());
                values.replace_all_with(text, &mut clean, |_, _, clean| {
                    clean.push_str(REMOVED);
                    true
                });
                clean
            }
            Some(_) | None => text.to_owned(),
        };
        without_tickets(text)
    }
}

/// What was found by its place.
#[derive(Debug, Default)]
struct Seen<'a> {
    values: BTreeSet<&'a str>,
    /// What is told anyway: nobody could read a log from which the names of nodes were removed.
    names: BTreeSet<&'a str>,
}

impl<'a> Seen<'a> {
    fn look(&mut self, value: &'a Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.look(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.look_at(name, field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn look_at(&mut self, name: &str, field: &'a Value) {
        if ARGUMENTS.contains(&name) {
            let all = field.as_array().map(Vec::as_slice).unwrap_or_default();
            let words = all.iter().skip(1).filter_map(Value::as_str);
            words.for_each(|word| self.keep(word));
        } else if ENVIRONMENT.contains(&name) {
            let all = field.as_object().into_iter().flat_map(|it| it.values());
            all.filter_map(Value::as_str).for_each(|it| self.keep(it));
        } else if NAMES.contains(&name)
            && let Some(word) = field.as_str()
        {
            self.names.insert(word);
        } else {
            self.look(field);
        }
    }

    /// The value, and of `--password=VALUE` what follows the sign.
    fn keep(&mut self, word: &'a str) {
        let after = word.split_once('=').map(|(_, after)| after);
        let long = |it: &&str| it.len() >= VALUE_BYTES_MIN;
        let words = [Some(word), after].into_iter().flatten();
        self.values.extend(words.filter(long));
    }
}

/// Replaces the leaves of a field, but for the first so many of a list.
fn remove_all_but(kept: usize, field: &mut Value) {
    match field {
        Value::Array(items) => items
            .iter_mut()
            .skip(kept)
            .for_each(|item| *item = REMOVED.into()),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| *value = REMOVED.into()),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => *field = REMOVED.into(),
    }
}

fn without_tickets(text: String) -> String {
    if !text.contains(TICKET_PREFIX) {
        return text;
    }
    let mut clean = String::with_capacity(text.len());
    let mut parts = text.split(TICKET_PREFIX);
    clean.push_str(parts.next().unwrap_or_default());
    for part in parts {
        clean.push_str(TICKET_PREFIX);
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        if part.len() - rest.len() < TICKET_BYTES_MIN {
            clean.push_str(part);
        } else {
            clean.push_str(REMOVED);
            clean.push_str(rest);
        }
    }
    clean
}

/// Whole lines from the end, at most so many bytes; and whether that is all.
fn end_of(text: &str, bytes_max: usize) -> (String, bool) {
    if text.len() <= bytes_max {
        return (text.to_owned(), true);
    }
    let mut from = text.len() - bytes_max;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let end = &text[from..];
    let whole_lines = end.split_once('\n').map_or("", |(_, lines)| lines);
    (whole_lines.to_owned(), false)
}

/// Keeps the first half of the longest list of an answer; `false` when there is none to shorten.
fn halve(value: &mut Value) -> bool {
    let lists: Vec<&mut Vec<Value>> = match value {
        Value::Array(items) => vec![items],
        Value::Object(fields) => fields
            .values_mut()
            .filter_map(Value::as_array_mut)
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let longest = lists.into_iter().max_by_key(|list| list.len());
    match longest {
        Some(list) if !list.is_empty() => {
            list.truncate(list.len() / 2);
            true
        }
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MARKER: &str = "swordfish-7";

    fn check(gathered: &[Value], text: &str, expected: &str) {
        let gathered: Vec<_> = gathered.iter().cloned().map(Content::Json).collect();
        let redaction = Redaction::learn(gathered.iter());
        let (clean, is_whole) = redaction.clean(&Content::Text(text.to_owned()), 10_000);
        assert_eq!(String::from_utf8(clean.0).unwrap(), expected);
        assert!(is_whole);
        for content in &gathered {
            let (clean, _) = redaction.clean(content, 10_000);
            let text = String::from_utf8(clean.0).unwrap();
            assert!(!text.contains(MARKER), "{text}");
        }
    }

    /// The answers as they are: were a field named otherwise one day, this would not find it.
    #[test]
    fn what_programs_are_given_is_removed_from_the_answers_that_tell_it() {
        let spec: wire::spec::AppSpec = serde_json::from_value(json!({
            "name": "web",
            "program": {
                "arguments": ["/bin/serve", "-p", MARKER],
                "environment": {"PASSWORD": MARKER, "SHORT": "x"},
            },
        }))
        .unwrap();
        let summary = wire::call::AppSummary {
            app: wire::id::AppId::of_name("web"),
            name: "web".to_owned(),
            wanted: 1,
            stopped: false,
            running: 1,
            command: spec.program.arguments.clone(),
            restart: spec.restart,
            ports: spec.ports.clone(),
            created: wire::id::UnixMillis(0),
            trouble: Some(format!("it said {MARKER}")),
            waiting: None,
            next: None,
        };
        let invitation = wire::call::Invitation {
            ticket: MARKER.to_owned(),
            uses: 1,
            expires: wire::id::UnixMillis(0),
        };
        let gathered = [
            json!({"spec": &spec, "previous": &spec}),
            json!({"apps": [&summary]}),
            serde_json::to_value(&invitation).unwrap(),
        ];
        let mut told = gathered[0].clone();
        Redaction::learn([].iter()).value(&mut told);
        let program = &told["previous"]["program"];
        assert_eq!(
            program["arguments"],
            json!(["/bin/serve", REMOVED, REMOVED])
        );
        let environment = json!({"PASSWORD": REMOVED, "SHORT": REMOVED});
        assert_eq!(program["environment"], environment);
        check(&gathered, "/bin/serve ends", "/bin/serve ends");
    }

    #[test]
    fn a_value_that_is_known_is_removed_wherever_it_stands() {
        let command = json!({"command": ["serve", format!("--password={MARKER}"), "-v"]});
        let environment = json!({"environment": {"A": MARKER, "B": "swordfish-7 and more"}});
        let gathered = [command, environment];
        check(
            &gathered,
            "a swordfish-7, b=swordfish-7 and more; -v",
            "a (removed), b=(removed); -v",
        );
        check(&gathered, "--password=swordfish-7", "(removed)");
    }

    #[test]
    fn names_of_nodes_and_apps_are_told_also_when_a_program_is_given_them() {
        let nodes = json!({"nodes": [{"name": "atlas-long-name"}]});
        let given = json!({"environment": {"PEER": "atlas-long-name"}});
        check(
            &[nodes, given],
            "atlas-long-name is up",
            "atlas-long-name is up",
        );
    }

    #[test]
    fn tickets_are_removed() {
        let ticket = format!("{TICKET_PREFIX}{}", "ea2p".repeat(80));
        let text = format!("join {ticket}, or \"{ticket}\" and welkin1-short");
        let expected = "join welkin1-(removed), or \"welkin1-(removed)\" and welkin1-short";
        check(&[], &text, expected);
        let answer = Content::Json(json!({"remedy": ["welkin join", &ticket]}));
        let (clean, _) = Redaction::learn([].iter()).clean(&answer, 10_000);
        assert!(!String::from_utf8(clean.0).unwrap().contains(&ticket));
    }

    #[test]
    fn what_is_too_long_is_cut_after_it_is_clean() {
        let given = Content::Json(json!({"environment": {"A": MARKER}}));
        let redaction = Redaction::learn([&given].into_iter());
        let long = Content::Text(format!("{MARKER}\nsecond {MARKER}\nthird\n"));
        let (clean, is_whole) = redaction.clean(&long, 12);
        assert_eq!((clean.0.as_slice(), is_whole), (&b"third\n"[..], false));

        let list = Content::Json(json!({"few": [1, 2], "many": vec![7; 1000]}));
        let (clean, is_whole) = redaction.clean(&list, 1000);
        let kept: Value = serde_json::from_slice(&clean.0).unwrap();
        assert!(clean.0.len() <= 1000 && !is_whole);
        assert_eq!(kept["few"], json!([1, 2]));
        assert_eq!(kept["many"].as_array().unwrap()[0], 7);
    }
}
