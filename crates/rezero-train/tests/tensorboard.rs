//! Event files. `scripts/check-tensorboard.py` reads them with Python's tensorboard.

use std::path::{Path, PathBuf};

use rezero_train::record::events;

use crate::support::{cifar_layout, fail, rewind, rows, scratch, succeed};

fn files(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run).unwrap().flatten();
    let names = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.contains("tfevents")
    });
    names.map(|entry| entry.path()).collect()
}

/// The messages of a file, without their times: the first field, of nine bytes.
fn messages(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut all) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let message = &rest[12..12 + length];
        assert_eq!(message[0], 9);
        all.push(message[9..].to_vec());
        rest = &rest[12 + length + 4..];
    }
    all
}

fn has(message: &[u8], tag: &str) -> bool {
    message
        .windows(tag.len())
        .any(|part| part == tag.as_bytes())
}

#[test]
fn the_event_file_has_the_rows_of_the_run_and_no_others() {
    let dir = scratch();
    let data = cifar_layout(dir.path(), 20);
    let data = data.to_str().unwrap();
    let mut args = vec!["train", "cifar10-mlp64", "--plain", "--data-dir", data];
    args.extend([
        "--run-dir",
        "run",
        "depth=4",
        "width=8",
        "batch=8",
        "epochs=2",
        "steps=10",
    ]);
    args.extend([
        "eval_every=3",
        "checkpoint_every=4",
        "keep=9",
        "log_every=1",
        "tensorboard=true",
    ]);
    succeed(dir.path(), &args);
    let run = dir.path().join("run");
    let one = files(&run);
    assert_eq!(one, [run.join("events.out.tfevents.0000000000.rezero")]);
    let all = messages(&one[0]);
    // The version and the session's start, then a message per row.
    let found = rows(&run);
    assert_eq!(all.len(), 2 + found.len());
    assert!(has(&all[0], "brain.Event:2"));
    for (row, message) in found.iter().zip(&all[2..]) {
        let train = row.split == "train";
        assert!(has(message, &format!("loss/{}", row.split)));
        assert!(has(message, &format!("accuracy/{}", row.split)));
        for tag in [
            "lr",
            "grad_norm",
            "alpha/mean",
            "alpha/003",
            "layer_grad_norm/003",
        ] {
            assert_eq!(has(message, tag), train, "{tag}");
        }
        assert!(!has(message, "alpha/004"));
    }

    // A resumed run has another file, with the rows that were kept and the new ones. It is that of
    // the whole metrics.jsonl.
    rewind(&run, 4);
    succeed(dir.path(), &["train", "run", "--resume", "--plain"]);
    let two = files(&run);
    assert_eq!(two, [run.join("events.out.tfevents.0000000004.rezero")]);
    let resumed = messages(&two[0]);
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(run.join("metrics.jsonl"), copy.join("metrics.jsonl")).unwrap();
    let fresh = events::Writer::begin(&copy).unwrap();
    assert_eq!(messages(fresh.path()), resumed);
    assert_eq!(resumed.len(), all.len());

    // Of a run that is over.
    let report = ["report", "run", "--tensorboard", "--no-jacobian"];
    let said = succeed(dir.path(), &report);
    assert!(said.err.contains("for TensorBoard: "), "{}", said.err);
    assert_eq!(
        files(&run),
        [run.join("events.out.tfevents.0000000010.rezero")]
    );
    assert_eq!(messages(&files(&run)[0]), resumed);

    #[cfg(unix)]
    {
        let file = &files(&run)[0];
        std::fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", file).unwrap();
        let parts = ["tfevents", "symbolic link"];
        fail(dir.path(), &report, 1, &parts);
        fail(
            dir.path(),
            &["train", "run", "--resume", "steps=12"],
            1,
            &parts,
        );
        std::fs::remove_file(file).unwrap();
    }
    // Without the key, an older file does not stay: it would lack the new rows.
    std::fs::write(&one[0], b"old").unwrap();
    let off = [
        "train",
        "run",
        "--resume",
        "--plain",
        "steps=11",
        "tensorboard=false",
    ];
    succeed(dir.path(), &off);
    assert!(files(&run).is_empty());
    // A run that is over takes no more rows.
    let said = succeed(
        dir.path(),
        &["train", "run", "--resume", "--plain", "tensorboard=true"],
    );
    assert!(
        said.err.contains("for its event file: ") && said.err.contains("report run --tensorboard"),
        "{said:?}"
    );
    assert!(files(&run).is_empty());
}
