//! `rezero predict`: classes of images, bits per byte of texts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use image::{ExtendedColorType, ImageFormat, save_buffer_with_format};
use rezero_data::{Split, shapes};
use serde_json::Value;

use crate::support::{Said, fail, rezero, scratch, succeed};

/// A run of a small ResNet on `shapes`.
fn of_images(dir: &Path) {
    let args =
        "train quickstart --run-dir run depth=8 train_items=64 valid_items=32 batch=32 epochs=1";
    succeed(dir, &args.split(' ').collect::<Vec<_>>());
}

/// Records of the test split as PNG files.
fn files(dir: &Path, count: usize) -> Vec<PathBuf> {
    let set = shapes::generate(Split::Test, 1_000, 0);
    let (side, plane) = (32, 32 * 32);
    let save = |i: usize| {
        let pixels = set.pixels(i).unwrap();
        let rgb: Vec<u8> = (0..plane)
            .flat_map(|at| [0, 1, 2].map(|c| pixels[c * plane + at]))
            .collect();
        let path = dir.join(format!("{i:03}.png"));
        save_buffer_with_format(
            &path,
            &rgb,
            side,
            side,
            ExtendedColorType::Rgb8,
            ImageFormat::Png,
        )
        .unwrap();
        path
    };
    fs::create_dir_all(dir).unwrap();
    (0..count).map(save).collect()
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap()
}

fn piped(dir: &Path, args: &[&str], input: &[u8]) -> Said {
    let mut command = rezero(dir, args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that ends before it reads closes the pipe.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

/// Files of the images of a split have the same probabilities as the split, to the bit, whichever way
/// they are named.
#[test]
fn files_are_classified_as_the_data_set_is() {
    let dir = scratch();
    let dir = dir.path();
    of_images(dir);
    files(&dir.join("images/deep"), 40);
    let split = json(&succeed(
        dir,
        &[
            "predict", "run", "--split", "test", "--items", "40", "--top-k", "10", "--json",
        ],
    ));
    let folder = json(&succeed(
        dir,
        &["predict", "run", "images", "--top-k", "10", "--json"],
    ));
    let rows = |of: &Value| of["predictions"].as_array().unwrap().clone();
    assert_eq!((rows(&split).len(), rows(&folder).len()), (40, 40));
    let set = shapes::generate(Split::Test, 40, 0);
    for (i, (a, b)) in rows(&split).iter().zip(&rows(&folder)).enumerate() {
        assert_eq!(a["classes"], b["classes"], "{i}");
        assert_eq!(a["record"], format!("#{i}"));
        assert_eq!(b["file"], format!("images/deep/{i:03}.png"));
        assert_eq!(a["label"], set.class_names()[usize::from(set.label(i))]);
        let classes = a["classes"].as_array().unwrap();
        let probability = |class: &Value| class["probability"].as_f64().unwrap();
        let sum: f64 = classes.iter().map(probability).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(
            classes
                .windows(2)
                .all(|two| probability(&two[0]) >= probability(&two[1]))
        );
    }
    let named = [
        "predict",
        "run",
        "images/deep/003.png",
        "images/deep/001.png",
        "--json",
    ];
    let named = rows(&json(&succeed(dir, &named)));
    assert_eq!(named[0]["file"], "images/deep/003.png");
    assert_eq!(named[0]["classes"].as_array().unwrap().len(), 3);
    assert_eq!(named[0]["classes"][0], rows(&folder)[3]["classes"][0]);
    let bytes = fs::read(dir.join("images/deep/003.png")).unwrap();
    let said = piped(dir, &["predict", "run", "-", "--json"], &bytes);
    assert_eq!(rows(&json(&said))[0]["classes"], named[0]["classes"]);

    // The whole split, as `eval` scores it.
    let whole = json(&succeed(
        dir,
        &["predict", "run", "--split", "test", "--json"],
    ));
    let eval = json(&succeed(dir, &["eval", "run", "--split", "test", "--json"]));
    assert_eq!(whole["accuracy"], eval["accuracy"]);
    assert_eq!(whole["data"], "shapes test");

    // A table, with a class and its probability in each cell.
    let table = succeed(dir, &["predict", "run", "images", "--top-k", "2"]).out;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 41);
    assert!(
        lines[0].contains("cifar-resnet") && lines[0].contains("step 2"),
        "{}",
        lines[0]
    );
    assert!(lines[1].starts_with("images/deep/000.png   ") && lines[1].matches(" %").count() == 2);
    let table = succeed(dir, &["predict", "run", "--split", "valid", "--items", "5"]).out;
    assert!(table.contains("is ") && table.contains("of 5)"), "{table}");

    // A picture.
    succeed(
        dir,
        &[
            "predict", "run", "--split", "test", "--items", "50", "--grid", "grid.svg",
        ],
    );
    let svg = fs::read_to_string(dir.join("grid.svg")).unwrap();
    assert_eq!(svg.matches("<image ").count(), 40);
    assert!(svg.contains(">is ") || svg.contains("\nis ") && svg.contains("shapes test"));
    fs::write(dir.join("<b>.png"), &bytes).unwrap();
    succeed(dir, &["predict", "run", "<b>.png", "--grid", "grid.svg"]);
    let svg = fs::read_to_string(dir.join("grid.svg")).unwrap();
    assert!(svg.contains("&lt;b&gt;.png") && !svg.contains("<b>"));
    let (png, plain) = (
        dir.join("grid.png"),
        ["predict", "run", "images", "--grid", "grid.png"],
    );
    #[cfg(feature = "png")]
    {
        succeed(dir, &plain);
        assert!(fs::read(png).unwrap().starts_with(b"\x89PNG"));
    }
    #[cfg(not(feature = "png"))]
    {
        fail(dir, &plain, 1, &["grid.png", ".svg", "--features png"]);
        assert!(!png.exists());
    }
}

#[test]
fn what_is_no_image_of_the_runs_is_refused() {
    let dir = scratch();
    let dir = dir.path();
    of_images(dir);
    files(&dir.join("images"), 2);
    let refused = |args: &[&str], parts: &[&str]| {
        let args = [&["predict", "run"], args].concat();
        fail(dir, &args, 1, parts);
    };
    fs::write(dir.join("text.png"), "no image").unwrap();
    refused(
        &["images", "text.png"],
        &["text.png", "neither PNG nor JPEG"],
    );
    let whole = fs::read(dir.join("images/000.png")).unwrap();
    fs::write(dir.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    refused(&["cut.png"], &["cut.png"]);
    refused(&["absent.png"], &["absent.png"]);
    fs::create_dir(dir.join("none")).unwrap();
    fs::write(dir.join("none/a.txt"), "x").unwrap();
    refused(&["none"], &["none holds no file that ends in .png"]);
    let large = dir.join("large.png");
    save_buffer_with_format(
        &large,
        &[0; 3 * 40 * 30],
        40,
        30,
        ExtendedColorType::Rgb8,
        ImageFormat::Png,
    )
    .unwrap();
    refused(&["large.png"], &["large.png", "30", "40", "32"]);
    refused(&["-"], &["standard input is empty"]);
    refused(&["-", "-"], &["can be read once"]);
    refused(&["images", "--top-k", "0"], &["--top-k must be at least 1"]);
    refused(&["images", "--items", "0"], &["--items must be at least 1"]);
    refused(&["images", "--grid", "a.jpg"], &["a.jpg", ".svg or .png"]);
    refused(&["images", "--grid", "none.svg/a.svg"], &["none.svg"]);
    fail(dir, &["predict", "run"], 1, &["<FILE>"]);
    fail(
        dir,
        &["predict", "run", "images", "--split", "test"],
        1,
        &["cannot be used"],
    );
    fail(dir, &["predict", "none", "images"], 1, &["none"]);
    let said = piped(
        dir,
        &["predict", "run", "-"],
        b"\x89PNG\r\n\x1a\n and nothing",
    );
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("standard input") && !said.err.contains("panicked"),
        "{}",
        said.err
    );
    // A name that is no text.
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"im\xff\x1bage.png");
        fs::write(dir.join(name), &whole).unwrap();
        let output = rezero(dir, &["predict", "run"]).arg(name).output().unwrap();
        let said: Said = output.into();
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(
            !said.out.contains('\u{1b}') && said.out.contains("age.png"),
            "{}",
            said.out
        );
    }
}

#[test]
fn texts_are_scored_in_bits_per_byte() {
    let dir = scratch();
    let dir = dir.path();
    let text: Vec<u8> = (0..4_000u32).map(|i| (i * i / 7 % 64 + 32) as u8).collect();
    fs::write(dir.join("all.txt"), &text).unwrap();
    // The test split.
    fs::write(dir.join("test.txt"), &text[3_800..]).unwrap();
    fs::write(dir.join("one.txt"), "x").unwrap();
    let args = "train enwik8-small --text all.txt --run-dir run depth=2 d_model=16 n_heads=2 d_ff=32 \
                context=24 batch=6 steps=6 eval_every=3";
    succeed(dir, &args.split_whitespace().collect::<Vec<_>>());
    let eval = json(&succeed(dir, &["eval", "run", "--split", "test", "--json"]));
    let found = json(&succeed(
        dir,
        &["predict", "run", "test.txt", "one.txt", "--json"],
    ));
    let (files, all) = (found["files"].as_array().unwrap(), &found["all"]);
    assert_eq!(files[0]["bpb"], eval["bpb"]);
    assert_eq!(files[0]["accuracy"], eval["accuracy"]);
    assert_eq!(
        (&files[0]["bytes"], &files[1]["bytes"]),
        (&200.into(), &1.into())
    );
    let bpb = |of: &Value| of["bpb"].as_f64().unwrap();
    let mean = (200.0 * bpb(&files[0]) + bpb(&files[1])) / 201.0;
    assert!((bpb(all) - mean).abs() < 1e-9 && all["bytes"] == 201);
    let said = piped(dir, &["predict", "run", "-"], &text[3_800..]);
    let line = format!("{:.4} bits per byte", bpb(&files[0]));
    assert!(said.out.contains(&line), "{said:?}");
    let table = succeed(dir, &["predict", "run", "test.txt", "one.txt"]).out;
    assert!(
        table.contains("all ") && table.contains("201 bytes"),
        "{table}"
    );

    fs::write(dir.join("empty.txt"), "").unwrap();
    for (args, parts) in [
        (
            &["empty.txt"][..],
            &["empty.txt", "is empty: a score needs at least one byte"][..],
        ),
        (
            &["test.txt", "--raw"],
            &["keeps no average", "--raw has no effect"],
        ),
        (&["."], &["is a folder"]),
        (&["absent"], &["absent"]),
        (&["-"], &["standard input is empty"]),
        (&["test.txt", "--grid", "a.svg"], &["--grid has no effect"]),
        (&["test.txt", "--top-k", "3"], &["--top-k has no effect"]),
        (
            &["--split", "test"],
            &["--split has no effect", "rezero eval"],
        ),
    ] {
        fail(dir, &[&["predict", "run"], args].concat(), 1, parts);
    }
}
