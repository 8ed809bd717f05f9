//! Every story in `scenarios/` happens as it is written there. `UPDATE_EXPECT=1` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

fn scenarios() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the stories are in the checkout")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_scenario_happens_as_it_is_written() {
    let writes = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for path in scenarios() {
        let expected = fs::read_to_string(&path).unwrap();
        let happened = sim::scenario::run(&expected);
        assert!(
            !happened.contains("not understood:"),
            "{}:\n{happened}",
            path.display()
        );
        if writes && expected != happened {
            fs::write(&path, &happened).unwrap();
        } else if let Some(difference) = sim::scenario::difference(&expected, &happened) {
            wrong.push(format!("{}: {difference}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n(UPDATE_EXPECT=1 writes what happened)",
        wrong.join("\n\n")
    );
}

#[test]
fn a_scenario_is_the_same_every_time() {
    for path in scenarios().into_iter().take(3) {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(sim::scenario::run(&text), sim::scenario::run(&text));
    }
}
