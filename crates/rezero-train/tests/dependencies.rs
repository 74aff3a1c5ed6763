//! The dependencies that the libraries bring into a user's build.

use std::path::Path;
use std::process::Command;

/// Crates that compute, or make Burn choose a default device: a library that brings one decides for its
/// users.
const BACKENDS: [&str; 12] = [
    "burn-cpu",
    "burn-cubecl",
    "burn-cuda",
    "burn-flex",
    "burn-ndarray",
    "burn-remote",
    "burn-rocm",
    "burn-tch",
    "burn-wgpu",
    "cubecl",
    "wgpu",
    "tch",
];

fn tree(package: &str, features: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["tree", "--locked", "--offline", "--edges", "normal,build"])
        .args([
            "--prefix",
            "none",
            "--package",
            package,
            "--features",
            features,
        ])
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn libraries_bring_no_backend() {
    for (package, features) in [
        ("rezero-nn", ""),
        ("rezero-nn", "train,import,jacobian,schema"),
        ("rezero-data", ""),
        ("rezero-kernels", ""),
    ] {
        let names = tree(package, features);
        assert!(names.iter().any(|name| name == "burn-core"), "{names:?}");
        let backend = names.iter().find(|name| BACKENDS.contains(&name.as_str()));
        assert_eq!(backend, None, "{package} with features `{features}`");
    }
    let names = tree("rezero-nn", "flex");
    assert!(names.iter().any(|name| name == "burn-flex"));
}
