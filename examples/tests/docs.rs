//! The documents are true: each `sh` block of README.md and docs/ that can run here runs, each Rust
//! block is a doctest of some crate, and README's table of models has the recipes' parameters.
//!
//! CONTRIBUTING.md explains the words after `sh`.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use burn::tensor::Device;
use rezero_data::{Split, corpus};
use rezero_train::recipe::{Recipe, Settings, TaskOf, TaskRecipe};
use rezero_train::task::Domain;
use rezero_train::zoo::Families;

/// Why a block does not run here.
const REASONS: [&str; 6] = ["network", "gpu", "minutes", "install", "python", "repeat"];

/// `cargo` for the workspace from another folder, without the network, and `rezero` as the documents
/// write it.
const PRELUDE: &str = r#"
set -euo pipefail
cargo() {
    local command=$1
    shift
    command cargo "$command" --manifest-path "$REZERO_ROOT/Cargo.toml" --offline --quiet "$@"
}
rezero() { cargo run --release -- "$@"; }
"#;

fn root() -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"));
    examples.parent().expect("a workspace").to_owned()
}

/// Every Markdown file that users read, by its path from the root.
fn documents() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    for folder in ["", "docs", "datasets", "crates/*"] {
        let folders: Vec<PathBuf> = match folder.strip_suffix("/*") {
            None => vec![root.join(folder)],
            Some(parent) => fs::read_dir(root.join(parent))
                .expect("the folder exists")
                .map(|entry| entry.expect("an entry").path())
                .collect(),
        };
        for folder in folders {
            for entry in fs::read_dir(&folder).expect("the folder exists") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|e| e == "md") {
                    let name = path.strip_prefix(&root).expect("below the root");
                    let text = fs::read_to_string(&path).expect("a text");
                    found.insert(name.to_str().expect("a name").to_owned(), text);
                }
            }
        }
    }
    found
}

/// The fenced blocks of a document: the words after the fence, the line, and the content. Every code
/// block with a command must be such a block.
fn blocks(text: &str) -> Vec<(Vec<String>, usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(Vec<String>, usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let bare = line.trim_start_matches(['>', ' ', '\t']);
        assert!(
            !bare.starts_with("~~~") && !bare.starts_with("````"),
            "line {}: write fences with three backticks",
            at + 1
        );
        let command = ["cargo ", "just ", "rezero ", "python3 ", "scripts/"];
        assert!(
            open.is_some()
                || !line.starts_with("    ")
                || !command.iter().any(|c| bare.starts_with(c)),
            "line {}: put the command into a fenced block",
            at + 1
        );
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(words), None) => {
                let words = words.split([' ', ',', '\t']).filter(|w| !w.is_empty());
                open = Some((words.map(str::to_owned).collect(), at + 1, String::new()));
            }
            (None, Some((_, _, content))) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// A folder as a user's clone looks, with FILE, DIR and IMAGES in it.
fn clone() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["crates", "examples", "scripts"] {
        std::os::unix::fs::symlink(root().join(name), dir.path().join(name)).expect("a link");
    }
    let text = corpus::wiki_like(400_000, 1, Split::Train);
    fs::write(dir.path().join("FILE"), text.bytes()).expect("a text");
    // CIFAR-10's layout: records of a class and 32 × 32 × 3 values.
    let images = dir.path().join("DIR");
    fs::create_dir(&images).expect("a folder");
    for (file, records) in (1..=5)
        .map(|i| (format!("data_batch_{i}.bin"), 100))
        .chain([("test_batch.bin".to_owned(), 100)])
    {
        let mut bytes = Vec::new();
        for record in 0..records {
            bytes.push((record % 10) as u8);
            bytes.extend((0..3072).map(|i| ((i * 7 + record * 31) % 251) as u8));
        }
        fs::write(images.join(file), bytes).expect("a batch");
    }
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n";
    fs::write(images.join("batches.meta.txt"), names).expect("names");
    // Image files in class folders.
    for (class, picture) in [("cat", "rgb.png"), ("dog", "progressive.jpg")] {
        let folder = dir.path().join("IMAGES").join(class);
        fs::create_dir_all(&folder).expect("a folder");
        let picture = root()
            .join("crates/rezero-data/tests/pictures")
            .join(picture);
        for i in 0..20 {
            fs::copy(&picture, folder.join(format!("{i}.png"))).expect("an image");
        }
    }
    dir
}

/// The target directory that this test was built in: `TARGET/release/deps/docs-…`.
fn target() -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    this.ancestors()
        .nth(3)
        .expect("a target directory")
        .to_owned()
}

fn is_shell(word: &str) -> bool {
    let word = word.trim_matches(['{', '}', '.']).to_lowercase();
    ["sh", "bash", "zsh", "shell", "console"].contains(&word.as_str())
}

#[test]
fn shell_blocks_run() {
    let mut ran = 0;
    for (name, text) in documents() {
        let dir = clone();
        for (words, line, content) in blocks(&text) {
            match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["sh"] => {}
                ["sh", reason] if REASONS.contains(&reason) => continue,
                ["sh", ..] => panic!("{name}:{line}: why does the block not run? {words:?}"),
                [other, ..] if is_shell(other) => panic!("{name}:{line}: write `sh`, got {other}"),
                _ => continue,
            }
            let begun = Instant::now();
            let script = dir.path().join(".block.sh");
            fs::write(&script, format!("{PRELUDE}{content}")).expect("a script");
            // Ended with all its children when it takes longer than any block of a document should.
            let output = Command::new("timeout")
                .args(["600", "bash"])
                .arg(&script)
                .current_dir(dir.path())
                .env("REZERO_ROOT", root())
                .env("CARGO_TARGET_DIR", target())
                .stdin(Stdio::null())
                .output()
                .expect("timeout and bash");
            let (out, err) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert!(
                output.status.success(),
                "{name}:{line}: {}\n{content}\n{out}\n{err}",
                output.status
            );
            println!("{name}:{line}: {:.0} s", begun.elapsed().as_secs_f64());
            ran += 1;
        }
    }
    assert!(ran > 5, "only {ran} blocks ran");
}

#[test]
fn rust_blocks_are_doctests() {
    let included = [
        "examples/lib.rs",
        "crates/rezero-data/src/lib.rs",
        "crates/rezero-kernels/src/lib.rs",
        "crates/rezero-nn/src/lib.rs",
        "crates/rezero-train/src/lib.rs",
    ]
    .map(|file| {
        let text = fs::read_to_string(root().join(file)).expect("a crate");
        let folder = Path::new(file).parent().expect("a folder").to_owned();
        (folder, text)
    });
    for (name, text) in documents() {
        if !blocks(&text)
            .iter()
            .any(|(words, ..)| words.first().is_some_and(|w| w == "rust"))
        {
            continue;
        }
        let tested = included.iter().any(|(folder, source)| {
            source.split("include_str!(\"").skip(1).any(|rest| {
                let path = folder.join(rest.split('"').next().expect("a path"));
                root().join(path).canonicalize().ok() == root().join(&name).canonicalize().ok()
            })
        });
        assert!(
            tested,
            "{name} has Rust blocks; include it in examples/lib.rs"
        );
    }
}

/// The parameters of a recipe's network, whose weights are not sampled.
fn parameters(recipe: &str) -> usize {
    fn count<D: Domain>(of: &TaskOf<D>, settings: &Settings) -> usize {
        let (form, device) = (D::form(&of.data), Device::flex());
        rezero_nn::parameter_count(&of.model.init(&settings.gates, &form, &device))
    }
    let recipe = Recipe::resolve(recipe, &[]).expect("a recipe").recipe;
    match &recipe.task {
        TaskRecipe::Images(of) => count(of, &recipe.settings),
        TaskRecipe::Text(of) => count(of, &recipe.settings),
    }
}

#[test]
fn the_table_of_models_has_the_recipes_parameters() {
    let readme = &documents()["README.md"];
    let section = readme.split("## Models").nth(1).expect("the section");
    let mut rows = 0;
    for line in section
        .lines()
        .take_while(|line| !line.starts_with("Results"))
    {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(recipe) = cells.get(4).and_then(|cell| cell.strip_prefix('`')) else {
            continue;
        };
        let recipe = recipe.trim_end_matches('`');
        let written: usize = cells[3].replace(',', "").parse().expect("a number");
        assert_eq!(written, parameters(recipe), "{recipe}");
        rows += 1;
    }
    // Every network of a recipe, but for ResNets by the paper's table and the quickstart's.
    assert_eq!(rows, 13);
}
