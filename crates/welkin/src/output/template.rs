//! `--format`: text with places for fields of the JSON.
//!
//! ```text
//! {{.name}}                     a field
//! {{.capacity.memory_bytes}}    a field of a field; .objects.0 is the first of a list
//! {{json .labels}}              as JSON
//! {{.}}                         everything
//! ```
//!
//! `{{.MemoryBytes}}` means what `{{.memory_bytes}}` does. `\t` and `\n` are a tab and a new line.

use serde_json::{Map, Value};

use crate::failure::Failure;

/// A template, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, behind) = after
                .split_once("}}")
                .ok_or_else(|| wrong(&format!("{{{{{after}"), "`}}` is missing"))?;
            pieces.push(Piece::Text(unescape(before)));
            pieces.push(field(inside)?);
            rest = behind;
        }
        pieces.push(Piece::Text(unescape(rest)));
        Ok(Self(pieces))
    }

    /// Fills it in for one item.
    pub(crate) fn fill(&self, item: &Value) -> Result<String, Failure> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Field { path, json } => {
                    let value = find(item, path)?;
                    text.push_str(&show(value, *json));
                }
            }
        }
        Ok(text)
    }
}

fn field(inside: &str) -> Result<Piece, Failure> {
    let inside = inside.trim();
    let (json, path) = match inside.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, inside),
    };
    let path = path
        .strip_prefix('.')
        .ok_or_else(|| wrong(inside, "write {{.field}} or {{json .field}}"))?;
    let names = path.split('.').filter(|name| !name.is_empty());
    Ok(Piece::Field {
        path: names.map(str::to_owned).collect(),
        json,
    })
}

fn wrong(what: &str, why: &str) -> Failure {
    Failure::usage(format!(
        "the template has `{what}`, which is not understood: {why}"
    ))
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

fn find<'a>(item: &'a Value, path: &[String]) -> Result<&'a Value, Failure> {
    let mut value = item;
    for (depth, name) in path.iter().enumerate() {
        value = match value {
            // What some items have below a field and others do not (labels, ports, how a program
            // ended) is empty where it is missing.
            Value::Object(fields) if depth > 0 => named(fields, name).unwrap_or(&Value::Null),
            Value::Object(fields) => {
                let names = || match fields.keys().cloned().collect::<Vec<_>>() {
                    none if none.is_empty() => "there is none at all".to_owned(),
                    names => format!("there are {}", names.join(", ")),
                };
                named(fields, name).ok_or_else(|| {
                    Failure::usage(format!("there is no field `{name}`; {}", names()))
                })?
            }
            Value::Array(items) => {
                let index: Option<usize> = name.parse().ok();
                let found = index.and_then(|index| items.get(index));
                found.unwrap_or(&Value::Null)
            }
            Value::Null => return Ok(&Value::Null),
            Value::Bool(_) | Value::Number(_) | Value::String(_) if depth > 0 => &Value::Null,
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(Failure::usage(format!(
                    "there is no field `{name}` in `{value}`, which has none"
                )));
            }
        };
    }
    Ok(value)
}

/// A field, by its name or by one that differs only in how words are told apart.
fn named<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| {
        let field = fields.keys().find(|field| plain(field) == plain(name))?;
        fields.get(field)
    })
}

fn plain(name: &str) -> String {
    let kept = name.chars().filter(|c| *c != '_' && *c != '-');
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

fn show(value: &Value, json: bool) -> String {
    match value.as_str() {
        Some(text) if !json => text.to_owned(),
        None if !json && value.is_null() => String::new(),
        Some(_) | None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: &str) {
        let item = json!({
            "name": "atlas",
            "capacity": {"memory_bytes": 8, "cpu_millis": 500},
            "labels": {"disk": "ssd"},
            "addresses": ["10.0.0.1:1", "10.0.0.2:1"],
            "rtt_us": null,
        });
        let filled = Template::parse(template).and_then(|it| it.fill(&item));
        assert_eq!(
            filled.unwrap_or_else(|e| format!("error: {}", e.detail)),
            expected
        );
    }

    #[test]
    fn fields_are_filled_in() {
        check("{{.name}}", "atlas");
        check("{{ .Name }}\\t{{.Capacity.MemoryBytes}}!", "atlas\t8!");
        check(
            "{{json .labels}} {{json .name}}",
            r#"{"disk":"ssd"} "atlas""#,
        );
        check("{{.addresses.1}} {{.addresses.7}}.", "10.0.0.2:1 .");
        check("{{.rtt_us}}.", ".");
        check("{{.rtt_us.x}}.", ".");
        check("{{.labels.disk}} {{.labels.arch}}.", "ssd .");
        check("{{.name.x}}.", ".");
        check("no places", "no places");
    }

    #[test]
    fn mistakes_are_explained() {
        check(
            "{{.nam}}",
            "error: there is no field `nam`; there are addresses, capacity, labels, name, rtt_us",
        );
        check(
            "{{name}}",
            "error: the template has `name`, which is not understood: write {{.field}} or \
             {{json .field}}",
        );
        check(
            "{{.name",
            "error: the template has `{{.name`, which is not understood: `}}` is missing",
        );
    }
}
