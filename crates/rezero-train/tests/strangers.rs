//! Runs, recipes and weights whose names and texts would take over a terminal or a page.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::report::written;
use crate::support::{Said, run, scratch, succeed};

/// Sets the window's title, clears the screen, colours, turns the text around, hides, begins a line.
const ODD: &str = "x\nerror: owned\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{8}\u{7f}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{2028}y";

/// Asserts that a terminal or a page would only show the text.
fn is_shown(text: &str, of: &str) {
    let hidden = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found = text.chars().find(|c| hidden(*c));
    assert_eq!(found, None, "{of}: {text:?}");
}

/// And that no line of it is a name's.
fn is_plain(text: &str, of: &str) {
    is_shown(text, of);
    let is_faked = |line: &str| line.starts_with("error: owned");
    assert!(!text.lines().any(is_faked), "{of}: {text}");
}

/// Runs a command whose output must be plain, and asserts that its error is one message.
fn plainly(dir: &Path, args: &[&str]) -> Said {
    let said = run(dir, args);
    let of = format!("{args:?}");
    is_plain(&said.out, &of);
    is_plain(&said.err, &of);
    assert!(!said.err.contains("panicked"), "{of}: {said:?}");
    let errors = said.err.lines().filter(|line| line.starts_with("error: "));
    let count = usize::from(said.code == Some(1));
    assert_eq!(errors.count(), count, "{of}: {said:?}");
    said
}

fn fails(dir: &Path, args: &[&str], part: &str) {
    let said = plainly(dir, args);
    assert_eq!(said.code, Some(1), "{args:?}: {said:?}");
    assert!(said.err.contains(part), "{args:?}: {said:?}");
}

/// A run of a network that is not of the zoo, in which every text is hostile.
fn hostile(dir: &Path, name: &str) -> String {
    let run = written(dir, name, &[], &[[1.0, 4.0, 4.0], [2.0, 3.0, 3.0]]);
    let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
    let odd: String = ODD
        .chars()
        .map(|c| format!("\\U{:08x}", u32::from(c)))
        .collect();
    let recipe = recipe.replace("scheme = \"rezero\"", &format!("scheme = \"{odd}\""));
    assert!(recipe.contains(&odd));
    fs::write(run.join("recipe.toml"), recipe).unwrap();
    let path = run.join("env.json");
    let mut environment: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    environment["commands"] = json!([["rezero", "train", ODD]]);
    environment["device"] = ODD.into();
    environment["data"] = ODD.into();
    for key in ["label", "loss_unit", "sign", "items"] {
        assert!(environment["task"][key].is_string(), "{key}");
        environment["task"][key] = ODD.into();
    }
    // A number with so many digits is too long to be formatted.
    environment["task"]["digits"] = 100_000.into();
    fs::write(&path, environment.to_string()).unwrap();
    run.to_str().unwrap().to_owned()
}

#[test]
fn names_and_texts_of_runs_are_shown_and_not_obeyed() {
    let dir = scratch();
    let run = hostile(&dir.path().join("runs"), ODD);

    let said = plainly(dir.path(), &["runs"]);
    assert!(
        said.out
            .contains(r"runs/x\nerror: owned\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{8}\u{7f}\u{9b}31m")
    );
    assert_eq!(said.out.lines().count(), 2, "{said:?}");
    let said = plainly(dir.path(), &["runs", "--json"]);
    let listed: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(listed["run"], format!("runs/{ODD}"));

    let named = format!("{ODD}={run}");
    for (spec, title) in [(run.as_str(), "Runs"), (&named, ODD)] {
        let args = [
            "report",
            "--no-jacobian",
            "--title",
            title,
            "--out",
            "report",
            spec,
        ];
        let said = plainly(dir.path(), &args);
        assert_eq!(said.code, Some(0), "{said:?}");
        let rows = said.out.lines().filter(|line| line.starts_with("| x"));
        assert_eq!(rows.count(), 1, "{said:?}");
        let mut files = 0;
        for file in fs::read_dir(dir.path().join("report")).unwrap() {
            let path = file.unwrap().path();
            let of = path.display().to_string();
            match path.extension().and_then(|kind| kind.to_str()) {
                Some("md" | "csv") => is_plain(&fs::read_to_string(&path).unwrap(), &of),
                // A line break is a blank there.
                Some("html" | "svg") => is_shown(&fs::read_to_string(&path).unwrap(), &of),
                kind => assert_eq!(kind, Some("png")),
            }
            files += 1;
        }
        assert!(files > 6, "{files} files");
        // One line per row, each with all its columns.
        let table = fs::read_to_string(dir.path().join("report/report.csv")).unwrap();
        assert_eq!(table.lines().count(), 2, "{table}");
    }

    fails(dir.path(), &["report", &run, &run], "the seed");
    fails(dir.path(), &["eval", &run], "scheme");
    fails(dir.path(), &["train", "--resume", &run], "scheme");
    fails(dir.path(), &["jacobian", &run], "scheme");
    fails(dir.path(), &["eval", &format!("{run}/{ODD}")], "no run");
    fails(dir.path(), &["train", ODD], "there is no recipe");
    fails(
        dir.path(),
        &["train", "quickstart", &format!("{ODD}=1")],
        "unknown recipe key",
    );
    fails(
        dir.path(),
        &["train", "quickstart", "--device", ODD],
        "unknown",
    );
    fails(dir.path(), &["runs", ODD, "."], "cannot read");
    fails(dir.path(), &["fetch", ODD], "unknown data set");
    let said = plainly(dir.path(), &["runs", &format!("--{ODD}")]);
    assert!(said.err.contains("unexpected argument"), "{said:?}");
}

#[test]
fn a_recipe_is_quoted_and_not_obeyed() {
    let dir = scratch();
    let odd = format!("{ODD}.toml");
    let file = dir.path().join(&odd);
    // TOML lets no control character into a comment, but marks of direction.
    fs::write(&file, "# a \u{202e}comment\n[model]\nfamily = 'mlp'\n").unwrap();
    let said = plainly(dir.path(), &["recipes", &odd]);
    assert_eq!(said.out, "# a \\u{202e}comment\n[model]\nfamily = 'mlp'\n");
    for (text, part) in [
        (
            "[model]\nfamily = \"x\\u001b[2J\\u202e\\nerror: owned\"\n",
            "family",
        ),
        (
            "[model]\nfamily = 'mlp'\n\"\\u001b[2J\\nerror: owned\" = 1\n",
            "unknown",
        ),
        ("[model]\nfamily = 'mlp'\u{1b}[2J\n", "line 2"),
        ("[model\u{202e}\n", "line 1"),
    ] {
        fs::write(&file, text).unwrap();
        fails(dir.path(), &["train", &odd], part);
    }
}

#[test]
fn weights_are_quoted_and_not_obeyed() {
    let dir = scratch();
    let bytes = [0; 4];
    let view = TensorView::new(Dtype::F32, vec![1], &bytes).unwrap();
    let metadata = HashMap::from([("n_heads".to_owned(), ODD.to_owned())]);
    let whole = safetensors::serialize([(ODD, view)], Some(metadata)).unwrap();
    fs::write(dir.path().join("w.safetensors"), whole).unwrap();
    let args = [
        "import",
        "w.safetensors",
        "enwik8-tiny",
        "--run-dir",
        "imported",
    ];
    fails(dir.path(), &args, "the weights are of another model");
    succeed(dir.path(), &["runs"]);
}

/// `docs/SECURITY.md` names the test of each promise.
#[test]
fn the_tests_of_the_promises_exist() {
    fn sources(dir: &Path, all: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, all),
                false => all.push(path),
            }
        }
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(crates, &mut files);
    let page = fs::read_to_string(crates.join("../docs/SECURITY.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    let named = quoted
        .filter_map(|word| word.split_once("::"))
        .filter(|(module, test)| *module != "rezero_nn" && *test != "…");
    let mut count = 0;
    for (module, test) in named {
        let [alone, folder] = [format!("{module}.rs"), format!("{module}/mod.rs")];
        let mut found = files
            .iter()
            .filter(|file| file.ends_with(&alone) || file.ends_with(&folder));
        let is_there = |file: &std::path::PathBuf| {
            fs::read_to_string(file)
                .unwrap()
                .contains(&format!("fn {test}("))
        };
        assert!(
            found.any(is_there),
            "docs/SECURITY.md: no test {module}::{test}"
        );
        count += 1;
    }
    assert!(count > 10, "{count}");
}
