//! Aligned columns.

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};

use super::style::{Style, paint};

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    wide: bool,
}

impl Column {
    /// Words.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self {
            title,
            right: false,
            wide: false,
        }
    }

    /// Numbers: aligned at their ends.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self {
            right: true,
            ..Self::text(title)
        }
    }

    /// Only with `-o wide`.
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// How a table is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drawing {
    /// With the columns that are only for wide tables.
    pub(crate) wide: bool,
    /// With a line of titles.
    pub(crate) headers: bool,
    /// With colours.
    pub(crate) colours: bool,
}

/// Rows under titles.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<(Style, Vec<String>)>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; a cell for each column.
    pub(crate) fn row(&mut self, style: Style, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push((style, cells));
    }

    /// Whether there is nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line ended.
    pub(crate) fn draw(&self, drawing: Drawing) -> String {
        let shown = |cells: Vec<String>| {
            let pairs = self.columns.iter().zip(cells);
            let kept = pairs.filter(move |(column, _)| drawing.wide || !column.wide);
            kept.map(|(_, cell)| Cell::new(one_line(&cell)))
        };
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        let mut styles = Vec::new();
        if drawing.headers {
            let titles = self.columns.iter().map(|it| it.title.to_owned()).collect();
            table.add_row(shown(titles));
            styles.push(Style::Strong);
        }
        for (style, cells) in &self.rows {
            table.add_row(shown(cells.clone()));
            styles.push(*style);
        }
        let columns = self.columns.iter().filter(|it| drawing.wide || !it.wide);
        for (drawn, column) in table.column_iter_mut().zip(columns) {
            drawn.set_padding((0, 2));
            if column.right {
                drawn.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for (line, style) in table.lines().zip(styles) {
            text.push_str(&paint(drawing.colours, style, line.trim_end()));
            text.push('\n');
        }
        text
    }
}

/// Names and arguments come from other people: none of them may break a line or move the cursor.
fn one_line(cell: &str) -> String {
    let visible = |c: char| if c.is_control() { '�' } else { c };
    cell.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::text("NAME"),
            Column::number("CORES"),
            Column::text("LABELS").wide(),
        ]);
        table.row(Style::Plain, ["a", "16", "x=1"].map(str::to_owned).to_vec());
        table.row(
            Style::Dim,
            ["long\u{1b}-name", "2", ""].map(str::to_owned).to_vec(),
        );
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let plain = Drawing {
            headers: true,
            ..Drawing::default()
        };
        expect![[r"
            NAME        CORES
            a              16
            long�-name      2
        "]]
        .assert_eq(&table().draw(plain));
        let wide = Drawing {
            wide: true,
            ..Drawing::default()
        };
        expect![[r"
            a           16  x=1
            long�-name   2
        "]]
        .assert_eq(&table().draw(wide));
    }

    #[test]
    fn a_terminal_gets_colours_by_row() {
        let coloured = Drawing {
            headers: true,
            colours: true,
            ..Drawing::default()
        };
        let text = table().draw(coloured);
        assert!(
            text.starts_with("\u{1b}[1mNAME        CORES\u{1b}[0m\na "),
            "{text:?}"
        );
        assert!(text.ends_with("2\u{1b}[0m\n"), "{text:?}");
    }
}
