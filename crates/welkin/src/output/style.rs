//! Colours by meaning (ECMA-48 section 8.3.117).

/// What a piece of text means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// As everything.
    #[default]
    Plain,
    /// Headers, commands to type.
    Strong,
    /// Over, or unimportant.
    Dim,
    /// As it should be.
    Good,
    /// On its way, or soon wrong.
    Warning,
    /// Wrong.
    Bad,
    /// One of several that should be told apart.
    Distinct(u32),
}

/// Colours that are readable on light and dark backgrounds.
const DISTINCT: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

/// The text in its style, or as it is where there are no colours.
pub(crate) fn paint(colours: bool, style: Style, text: &str) -> String {
    let code = match style {
        Style::Plain => return text.to_owned(),
        Style::Strong => "1",
        Style::Dim => "2",
        Style::Good => "32",
        Style::Warning => "33",
        Style::Bad => "31",
        Style::Distinct(number) => DISTINCT
            .iter()
            .cycle()
            .nth(usize::try_from(number % 6).unwrap_or(0))
            .unwrap_or(&"36"),
    };
    if colours {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
