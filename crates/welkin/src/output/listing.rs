//! An answer in the form that was asked for.

use serde::Serialize;
use serde_json::Value;

use super::Screen;
use super::table::{Drawing, Table};
use super::template::Template;
use crate::failure::Failure;
use crate::flags::{Form, Output};

/// An answer that can be shown in every form.
#[derive(Debug)]
pub(crate) struct Listing<'a, R> {
    /// The answer itself: what JSON and YAML show.
    pub(crate) whole: &'a R,
    /// The field of the answer that holds the items for templates; all of it when empty.
    pub(crate) items: &'static str,
    /// What `-o name` shows.
    pub(crate) names: Vec<String>,
    /// What `-q` shows.
    pub(crate) ids: Vec<String>,
    /// What people see, by default and with `-o wide`.
    pub(crate) people: People,
}

/// What people see.
#[derive(Debug)]
pub(crate) enum People {
    /// A list.
    Table(Table),
    /// A description of few things, each line ended.
    Text(String),
}

impl<R: Serialize> Listing<'_, R> {
    /// Shows it.
    pub(crate) fn show(&self, output: &Output, screen: Screen) -> Result<(), Failure> {
        super::write(self.render(output, screen.out_colours())?.as_bytes())
    }

    /// The text in the form that was asked for, each line ended.
    pub(crate) fn render(&self, output: &Output, colours: bool) -> Result<String, Failure> {
        if output.quiet {
            return Ok(lines(&self.ids));
        }
        if let Some(template) = output.template() {
            return self.by_template(&Template::parse(template)?);
        }
        let form = output.form();
        match (form, &self.people) {
            (Form::Json, _) => json(self.whole),
            (Form::Yaml, _) => yaml(self.whole),
            (Form::Name, _) => Ok(lines(&self.names)),
            (Form::Table | Form::Wide, People::Text(text)) => Ok(text.clone()),
            (Form::Table | Form::Wide, People::Table(table)) => {
                // Titles above nothing would look like an answer that was cut off.
                let headers = !output.no_headers && !table.is_empty();
                Ok(table.draw(Drawing {
                    wide: form == Form::Wide,
                    headers,
                    colours,
                }))
            }
        }
    }

    fn by_template(&self, template: &Template) -> Result<String, Failure> {
        let whole = serde_json::to_value(self.whole).map_err(unlikely)?;
        let items = if self.items.is_empty() {
            &whole
        } else {
            whole.get(self.items).unwrap_or(&whole)
        };
        let one = std::slice::from_ref(items);
        let each = match items {
            Value::Array(items) => items.as_slice(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => one,
        };
        let filled: Result<Vec<String>, Failure> =
            each.iter().map(|it| template.fill(it)).collect();
        Ok(lines(&filled?))
    }
}

/// JSON for people and programs: indented, one value.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(unlikely)?;
    text.push('\n');
    Ok(text)
}

fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_yaml_ng::to_string(value).map_err(unlikely)
}

fn lines(texts: &[String]) -> String {
    texts
        .iter()
        .flat_map(|text| [text.as_str(), "\n"])
        .collect()
}

fn unlikely(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the answer cannot be shown: {error}"))
}
