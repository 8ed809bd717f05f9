//! Few things, described: a title, then a line for each property.

use super::style::{Style, paint};

/// A description that grows line by line.
#[derive(Debug)]
pub(crate) struct Description {
    text: String,
    colours: bool,
}

/// Where values begin.
const KEY_CHARACTERS: usize = 14;

impl Description {
    /// An empty one.
    pub(crate) fn new(colours: bool) -> Self {
        Self {
            text: String::new(),
            colours,
        }
    }

    /// Begins with a new thing.
    pub(crate) fn title(&mut self, title: &str) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text
            .push_str(&paint(self.colours, Style::Strong, title));
        self.text.push('\n');
        self
    }

    /// A property; left out when there is nothing to say.
    pub(crate) fn line(&mut self, key: &str, value: impl AsRef<str>) -> &mut Self {
        let value = value.as_ref();
        if !value.is_empty() {
            let key = format!("  {key:<KEY_CHARACTERS$}");
            self.text.push_str(&paint(self.colours, Style::Dim, &key));
            self.text.push_str(value);
            self.text.push('\n');
        }
        self
    }

    /// Lines of their own, indented.
    pub(crate) fn block(&mut self, block: &str) -> &mut Self {
        for line in block.lines() {
            self.text.push_str("  ");
            self.text.push_str(line);
            self.text.push('\n');
        }
        self
    }

    /// What was written.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}
