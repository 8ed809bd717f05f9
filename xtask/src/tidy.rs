//! Rules of ARCHITECTURE.md that no compiler checks. Each is a function from the tree to its
//! faults; a fault says where, what, and why the rule is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, without its tests.
const LINES_MAX: usize = 1000;

/// Which crates of ours a crate may use: the arrows of ARCHITECTURE.md.
const ARROWS: [(&str, &[&str]); 8] = [
    ("wire", &[]),
    ("kernel", &["wire"]),
    ("sim", &["kernel", "wire"]),
    ("drivers", &["wire"]),
    ("client", &["wire"]),
    ("host", &["drivers", "kernel", "wire"]),
    ("welkin", &["client", "drivers", "host", "wire"]),
    ("lab", &[]),
];

/// Modules of the kernel that others may name: what is not a kernel process.
const KERNEL_SHARED: [&str; 4] = ["alarm", "instant", "limits", "world"];
/// Where kernel processes meet.
const KERNEL_HUBS: [&str; 3] = ["hub", "calls", "lib"];

/// Crates without IO.
const PURE: [&str; 2] = ["kernel", "wire"];
/// Crates in which functions may be `async`; this one names the words that it looks for.
const ASYNC: [&str; 4] = ["host", "client", "welkin", "xtask"];
/// Crates that may hold `unsafe`, each use with its reason; this one names the words.
const UNSAFE: [&str; 4] = ["drivers", "host", "lab", "xtask"];

/// Something that is not as it should be.
pub(crate) struct Fault {
    path: PathBuf,
    line: usize,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// A source file.
struct Source {
    /// Relative to the root.
    path: PathBuf,
    /// Its crate.
    krate: String,
    text: String,
}

impl Source {
    fn fault(&self, line: usize, message: impl Into<String>) -> Fault {
        Fault {
            path: self.path.clone(),
            line,
            message: message.into(),
        }
    }

    /// Lines of code with their numbers, without comments, up to the tests of the module.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let before_tests = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        let code = before_tests.map(|line| line.split("//").next().unwrap_or(line));
        code.enumerate().map(|(i, line)| (i + 1, line))
    }

    fn is_test(&self) -> bool {
        let parts: Vec<_> = self.path.iter().filter_map(|part| part.to_str()).collect();
        parts
            .iter()
            .any(|part| *part == "tests" || *part == "examples" || *part == "tests.rs")
    }
}

/// Every fault of the tree below `root`.
pub(crate) fn check(root: &Path) -> Vec<Fault> {
    let sources = sources(root);
    let rules: [fn(&Source, &mut Vec<Fault>); 6] =
        [length, purity, star, serialize, asynchrony, unsafety];
    let mut faults = Vec::new();
    for source in &sources {
        for rule in rules {
            rule(source, &mut faults);
        }
    }
    arrows(root, &mut faults);
    reasons(root, &mut faults);
    promises(root, &sources, &mut faults);
    faults
}

fn sources(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs")
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
                let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
                let krate = match parts[..] {
                    ["crates", krate, ..] => krate,
                    [first, ..] => first,
                    [] => "",
                };
                sources.push(Source {
                    krate: krate.to_string(),
                    path,
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Files that people can read in one sitting.
fn length(source: &Source, faults: &mut Vec<Fault>) {
    let lines = source
        .text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    if lines > LINES_MAX {
        faults.push(source.fault(lines, format!("{lines} lines; {LINES_MAX} is the most")));
    }
}

/// Decisions are made without IO, clocks, threads and chance.
fn purity(source: &Source, faults: &mut Vec<Fault>) {
    if !PURE.contains(&source.krate.as_str()) || source.is_test() {
        return;
    }
    if source.path.ends_with("src/lib.rs") && !source.text.contains("#![no_std]") {
        faults.push(source.fault(1, "a crate without IO begins with #![no_std]"));
    }
    for (line, code) in source.code() {
        for word in ["std::", "HashMap", "HashSet"] {
            let is_core = word == "std::" && !code.contains(" std::") && !code.contains("(std::");
            if code.contains(word) && !is_core {
                faults.push(source.fault(line, format!("`{word}` in a crate that does no IO")));
            }
        }
    }
}

/// Kernel processes never name each other.
fn star(source: &Source, faults: &mut Vec<Fault>) {
    if source.krate != "kernel" || source.is_test() {
        return;
    }
    let Ok(inner) = source.path.strip_prefix("crates/kernel/src") else {
        return;
    };
    let own = inner
        .iter()
        .next()
        .and_then(|part| part.to_str())
        .unwrap_or_default();
    let own = own.trim_end_matches(".rs");
    if KERNEL_HUBS.contains(&own) {
        return;
    }
    for (line, code) in source.code() {
        for part in code.split("crate::").skip(1) {
            let named: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let allowed = named == own || named.is_empty() || KERNEL_SHARED.contains(&&*named);
            if !allowed && !code.contains("pub(crate)") {
                let message = format!("the kernel process {own} names {named}: only hubs may");
                faults.push(source.fault(line, message));
            }
        }
    }
}

/// What crosses a boundary is in `wire`.
fn serialize(source: &Source, faults: &mut Vec<Fault>) {
    if matches!(&*source.krate, "wire" | "lab" | "tests" | "xtask") || source.is_test() {
        return;
    }
    for (line, code) in source.code() {
        if code.contains("derive(") && code.contains("Serialize") {
            faults.push(source.fault(line, "only wire derives Serialize"));
        }
    }
}

/// `async` stays where IO is.
fn asynchrony(source: &Source, faults: &mut Vec<Fault>) {
    if ASYNC.contains(&&*source.krate) {
        return;
    }
    for (line, code) in source.code() {
        if code.contains("async fn") || code.contains("async move") {
            faults.push(source.fault(line, "async outside host, client and welkin"));
        }
    }
}

/// `unsafe` stays where the operating system is.
fn unsafety(source: &Source, faults: &mut Vec<Fault>) {
    if UNSAFE.contains(&&*source.krate) {
        return;
    }
    for (line, code) in source.code() {
        if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
            faults.push(source.fault(line, "unsafe outside drivers, host and lab"));
        }
    }
}

/// Crates use only those below them.
fn arrows(root: &Path, faults: &mut Vec<Fault>) {
    let ours: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for (krate, allowed) in ARROWS {
        let path = Path::new("crates").join(krate).join("Cargo.toml");
        let Ok(manifest) = fs::read_to_string(root.join(&path)) else {
            let message = "the crate of ARCHITECTURE.md is missing".to_string();
            faults.push(Fault {
                path,
                line: 1,
                message,
            });
            continue;
        };
        let mut section = "";
        for (i, line) in manifest.lines().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if section == "[dependencies]" && ours.contains_key(name) && !allowed.contains(&name) {
                let message = format!("{krate} may not use {name}");
                faults.push(Fault {
                    path: path.clone(),
                    line: i + 1,
                    message,
                });
            }
        }
    }
}

/// Every dependency says who uses it and why.
fn reasons(root: &Path, faults: &mut Vec<Fault>) {
    let path = PathBuf::from("Cargo.toml");
    let Ok(manifest) = fs::read_to_string(root.join(&path)) else {
        return;
    };
    let mut inside = false;
    let mut reasoned = false;
    for (i, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if line.starts_with('#') {
            reasoned = true;
        } else if line.trim().is_empty() {
            reasoned = false;
        } else if inside && !line.starts_with([' ', ']']) && !reasoned {
            let message = "a dependency without its reason in the comment above".to_string();
            faults.push(Fault {
                path: path.clone(),
                line: i + 1,
                message,
            });
        }
    }
}

/// Every number that is promised, and every bug that was mended, names a test or a benchmark that
/// exists.
fn promises(root: &Path, sources: &[Source], faults: &mut Vec<Fault>) {
    for path in ["docs/SPECIFICATION.md", "docs/BUGS-FOUND.md"] {
        keepers(root, PathBuf::from(path), sources, faults);
    }
}

fn keepers(root: &Path, path: PathBuf, sources: &[Source], faults: &mut Vec<Fault>) {
    let Ok(document) = fs::read_to_string(root.join(&path)) else {
        faults.push(Fault {
            path,
            line: 1,
            message: "it is missing".to_string(),
        });
        return;
    };
    let functions: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.text.lines())
        .filter_map(|line| line.trim().split("fn ").nth(1))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    for (i, line) in document
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("| "))
    {
        let Some(keeper) = line.trim_end_matches(['|', ' ']).rsplit('|').next() else {
            continue;
        };
        let names = keeper.split('`').skip(1).step_by(2);
        for name in names.filter(|name| !name.starts_with("cargo ") && !name.starts_with("make ")) {
            let function = name.rsplit("::").next().unwrap_or(name);
            if !functions.contains(function) && !root.join(name).exists() {
                let message = format!("`{name}` keeps a promise and does not exist");
                faults.push(Fault {
                    path: path.clone(),
                    line: i + 1,
                    message,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let faults = check(&crate::root());
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "{}", lines.join("\n"));
    }
}
