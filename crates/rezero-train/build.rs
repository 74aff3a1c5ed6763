//! Records which commit and compiler a binary was built from, for `env.json`.

use std::process::Command;

fn main() {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success()).then_some(text)
    };
    let commit = run("git", &["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // Tracked files only: data and runs beside the sources do not change the binary.
    let dirty = run("git", &["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|status| !status.is_empty());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustc = run(&rustc, &["--version"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=REZERO_COMMIT={commit}");
    println!("cargo:rustc-env=REZERO_DIRTY={dirty}");
    println!("cargo:rustc-env=REZERO_RUSTC={rustc}");
    println!("cargo:rerun-if-changed=../../.git/logs/HEAD");
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=recipes");
}
