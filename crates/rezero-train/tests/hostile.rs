//! Run directories that somebody else made: no command that takes one follows a link in it, waits for a
//! pipe, reads without an end, connects to a machine that it names, or changes a file outside of it.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::DType;
use burn_pack::{Bytes, Reader, Scalar, Tensor, Writer};
use rezero_train::record::checkpoint::{FileEntry, Manifest};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Said, rezero, scratch, succeed};

/// A text that stands in files outside of a run, and that no command may print.
const SECRET: &str = "the-secret-of-this-machine";

/// The commands that take a run, without its name, and the arguments after the name.
const COMMANDS: [(&str, &str); 9] = [
    ("eval", "--checkpoint last"),
    ("sample", "--bytes 1"),
    ("export", "--out exported"),
    ("jacobian", "--inputs 1"),
    ("report", "--out report"),
    ("grow", "--layers 3 --only --run-dir grown"),
    ("train", "--resume --plain steps=3"),
    ("runs", ""),
    ("runs", "--clean --yes"),
];

/// Whether the command lists runs, and so passes over those that are refused.
fn lists(command: &str) -> bool {
    command == "runs"
}

const FILES: [&str; 10] = [
    "recipe.toml",
    "env.json",
    "metrics.jsonl",
    "run.lock",
    "DONE",
    "checkpoints/step-2/model.bpk",
    "checkpoints/step-2/optimizer.bpk",
    "checkpoints/step-2/scheduler.bpk",
    "checkpoints/step-2/state.json",
    "checkpoints/step-2/manifest.json",
];

/// A place with a run and, outside of it, files with the secret.
struct Scene {
    dir: tempfile::TempDir,
    good: PathBuf,
}

impl Scene {
    fn new() -> Self {
        Self::with("steps=2")
    }

    /// A scene whose run has other settings.
    fn with(changes: &str) -> Self {
        let dir = scratch();
        let here = dir.path();
        fs::write(
            here.join("pages.txt"),
            "the cat sat on the mat. ".repeat(400),
        )
        .unwrap();
        let train = "train enwik8-tiny --text pages.txt depth=1 d_model=8 n_heads=2 d_ff=8 context=8 batch=2 \
                     valid_items=64 steps=2 checkpoint_every=1 log_every=1 --plain --run-dir good";
        let train = train.split_whitespace().chain(changes.split_whitespace());
        succeed(here, &train.collect::<Vec<_>>());
        let good = here.join("good");
        fs::write(good.join("jacobian.json"), "[]").unwrap();
        Self { dir, good }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new copy of the good run, `runs/evil`, and a folder `outside` with a secret.
    fn evil(&self) -> PathBuf {
        for name in ["runs", "outside", "grown", "report", "exported"] {
            let path = self.at(name);
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        let evil = self.at("runs/evil");
        copy(&self.good, &evil);
        fs::create_dir(self.at("outside")).unwrap();
        fs::write(self.at("outside/secret.txt"), SECRET.repeat(40)).unwrap();
        evil
    }

    /// Runs a command on `runs/evil`. It must end in time, by itself, without a panic, must not print the
    /// secret, and must not change anything outside of the run and of its own output.
    fn call(&self, command: &str, more: &str) -> Said {
        let run = if lists(command) { "runs" } else { "runs/evil" };
        let mut args = vec![command, run];
        args.extend(more.split_whitespace());
        let outside = || [snapshot(&self.at("outside")), snapshot(&self.good)];
        let before = outside();
        let said = in_time(rezero(self.dir.path(), &args).env("REZERO_TOKEN", SECRET));
        let all = format!("{args:?}: {said:?}");
        assert!(matches!(said.code, Some(0 | 1 | 3)), "{all}");
        assert!(!said.err.contains("panicked"), "{all}");
        assert!(
            !said.out.contains(SECRET) && !said.err.contains(SECRET),
            "{all}"
        );
        assert!(outside() == before, "something outside has changed: {all}");
        said
    }

    /// Runs every command, each on a run that `make` spoils. Those that do not list must refuse it and name
    /// `part`.
    fn all_refuse(&self, part: &str, make: impl Fn(&Path)) {
        for (command, more) in COMMANDS {
            make(&self.evil());
            let said = self.call(command, more);
            if lists(command) {
                assert_eq!(said.code, Some(0), "{command} {more}: {said:?}");
            } else {
                assert_eq!(said.code, Some(1), "{part}: {command} {more}: {said:?}");
                assert!(
                    said.err.contains(part),
                    "{part}: {command} {more}: {said:?}"
                );
            }
        }
    }

    /// Runs every command, each on a run that `make` spoils.
    fn all_end(&self, make: impl Fn(&Path)) {
        for (command, more) in COMMANDS {
            make(&self.evil());
            self.call(command, more);
        }
    }
}

/// Runs a command to its end. A command that hangs is ended after a minute, and fails the test.
fn in_time(command: &mut Command) -> Said {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let limit = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("the command is watched").is_none() {
        if Instant::now() > limit {
            child.kill().expect("the command is ended");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("the output of the command");
    assert_eq!(output.status.signal(), None, "{command:?}: {output:?}");
    output.into()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let path = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &path),
            false => drop(fs::copy(entry.path(), path).unwrap()),
        }
    }
}

/// The content of every file below `dir`, by path. Links and pipes have none.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        match () {
            () if kind.is_dir() => all.extend(snapshot(&path)),
            // Sparse files are too large to be read.
            () if kind.is_file() && entry.metadata().unwrap().len() < 1 << 24 => {
                all.insert(path.clone(), fs::read(path).unwrap());
            }
            () => drop(all.insert(path, Vec::new())),
        }
    }
    all
}

/// Moves a part of the run to `outside`, and leaves a link.
fn linked(scene: &Scene, run: &Path, name: &str) {
    let (path, target) = (run.join(name), scene.at("outside").join("moved"));
    fs::rename(&path, &target).unwrap();
    symlink(&target, &path).unwrap();
}

#[test]
fn no_link_is_followed() {
    let scene = Scene::new();
    let folders = ["checkpoints", "checkpoints/step-2", "jacobian.json"];
    for name in FILES.iter().chain(&folders) {
        scene.all_refuse(&format!("{name} is a symbolic link"), |run| {
            linked(&scene, run, name);
        });
    }
    // To nowhere: a command that writes there would make the file.
    for name in [
        "run.lock",
        "DONE",
        "env.json",
        "jacobian.csv",
        "jacobian-1.svg",
    ] {
        scene.all_refuse(&format!("{name} is a symbolic link"), |run| {
            let _ = fs::remove_file(run.join(name));
            symlink(scene.at("outside/new"), run.join(name)).unwrap();
        });
    }
    // Of half a checkpoint, which is removed when a run is continued or cleaned.
    scene.all_refuse("checkpoints/step-7 is a symbolic link", |run| {
        symlink(scene.at("outside"), run.join("checkpoints/step-7")).unwrap();
    });
    scene.all_refuse("metrics.jsonl is a symbolic link", |run| {
        fs::remove_file(run.join("metrics.jsonl")).unwrap();
        symlink("/dev/zero", run.join("metrics.jsonl")).unwrap();
    });
    // A new run in a folder that somebody prepared.
    for name in [
        "run.lock",
        "checkpoints",
        "env.json",
        "metrics.jsonl",
        "DONE",
    ] {
        scene.evil();
        let place = scene.at("runs/prepared");
        fs::create_dir(&place).unwrap();
        symlink(scene.at("outside"), place.join(name)).unwrap();
        let more = "data=wiki-like depth=1 steps=1 --plain --run-dir runs/prepared";
        let before = snapshot(&scene.at("outside"));
        let args = ["train", "enwik8-tiny"].into_iter().chain(more.split(' '));
        let said = in_time(&mut rezero(scene.dir.path(), &args.collect::<Vec<_>>()));
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(name), "{said:?}");
        assert!(before == snapshot(&scene.at("outside")));
    }
    // Under the name that a new run would have.
    let args = "train quickstart steps=1 --plain"
        .split(' ')
        .collect::<Vec<_>>();
    let place = scene.at("runs/quickstart_steps=1");
    fs::create_dir(&place).unwrap();
    symlink(scene.at("outside/new"), place.join("run.lock")).unwrap();
    let said = in_time(&mut rezero(scene.dir.path(), &args));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("run.lock is a symbolic link"), "{said:?}");
}

#[test]
fn the_run_itself_may_be_a_link() {
    let scene = Scene::new();
    let evil = scene.evil();
    let real = scene.at("real");
    fs::rename(&evil, &real).unwrap();
    symlink(&real, &evil).unwrap();
    for (command, more) in COMMANDS {
        let said = scene.call(command, more);
        assert_eq!(said.code, Some(0), "{command}: {said:?}");
    }
    // The folder of runs too.
    fs::rename(scene.at("runs"), scene.at("elsewhere")).unwrap();
    symlink(scene.at("elsewhere"), scene.at("runs")).unwrap();
    assert_eq!(scene.call("eval", "").code, Some(0));
}

#[test]
fn nobody_waits_for_a_pipe() {
    let scene = Scene::new();
    for name in FILES.iter().chain(&["checkpoints", "checkpoints/step-2"]) {
        scene.all_refuse(&format!("{name} is a pipe"), |run| {
            let path = run.join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            assert!(
                Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .unwrap()
                    .success()
            );
        });
    }
}

#[test]
fn a_second_name_of_the_metrics_is_not_changed() {
    let scene = Scene::new();
    scene.all_end(|run| {
        fs::remove_file(run.join("DONE")).unwrap();
        let (inside, outside) = (run.join("metrics.jsonl"), scene.at("outside/rows"));
        fs::hard_link(&inside, &outside).unwrap();
    });
}

/// Makes the file as large as it says, without content.
fn stretched(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn nothing_is_read_without_an_end() {
    const HUGE: u64 = 1 << 40;
    let scene = Scene::new();
    for name in ["recipe.toml", "checkpoints/step-2/manifest.json"] {
        let file = name.rsplit('/').next().unwrap();
        for (command, more) in COMMANDS {
            let run = scene.evil();
            stretched(&run.join(name), HUGE);
            let said = scene.call(command, more);
            // A report of a run needs no checkpoint.
            if !lists(command) && (command != "report" || file == "recipe.toml") {
                assert!(
                    said.err.contains(file) && said.err.contains("more than"),
                    "{said:?}"
                );
            }
        }
    }
    for name in &FILES[1..] {
        scene.all_end(|run| stretched(&run.join(name), HUGE));
    }
    scene.all_end(|run| stretched(&run.join("jacobian.json"), HUGE));
    // The manifest agrees with the size of the file.
    for name in ["model.bpk", "optimizer.bpk", "scheduler.bpk", "state.json"] {
        scene.all_end(|run| {
            let checkpoint = run.join("checkpoints/step-2");
            stretched(&checkpoint.join(name), HUGE);
            sealed(&checkpoint, &[(name, HUGE)]);
        });
    }
    // A whole line, too long.
    let run = scene.evil();
    let row = format!("{{\"split\":\"{}\"}}\n", "x".repeat(65 << 20));
    fs::write(run.join("metrics.jsonl"), row).unwrap();
    let said = scene.call("report", "--out report");
    assert!(said.err.contains("a line of more than"), "{said:?}");
    scene.call("runs", "");
}

/// Writes the manifest anew, as a stranger can. Sizes that are given are taken as they are, with no hash.
fn sealed(checkpoint: &Path, sizes: &[(&str, u64)]) {
    let path = checkpoint.join("manifest.json");
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (name, entry) in &mut manifest.files {
        if let Some((_, bytes)) = sizes.iter().find(|(of, _)| of == name) {
            entry.bytes = *bytes;
            continue;
        }
        let bytes = fs::read(checkpoint.join(name)).unwrap();
        let digest = Sha256::digest(&bytes);
        *entry = FileEntry {
            bytes: bytes.len() as u64,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
    }
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

#[test]
fn numbers_at_the_end_of_their_range_stop_no_command_halfway() {
    let scene = Scene::new();
    for most in [u64::MAX, i64::MAX as u64, 1 << 62] {
        for field in [
            "/metrics_bytes",
            "/since/items",
            "/best/step",
            "/valid/step",
        ] {
            scene.all_end(|run| {
                let checkpoint = run.join("checkpoints/step-2");
                edit(&checkpoint.join("state.json"), |state| {
                    *state.pointer_mut(field).expect("a field") = json!(most);
                });
                sealed(&checkpoint, &[]);
                fs::remove_file(run.join("DONE")).unwrap();
            });
        }
        scene.all_end(|run| {
            let checkpoint = run.join(format!("checkpoints/step-{most}"));
            fs::rename(run.join("checkpoints/step-2"), &checkpoint).unwrap();
            edit(&checkpoint.join("state.json"), |state| {
                state["step"] = json!(most)
            });
            sealed(&checkpoint, &[]);
            fs::remove_file(run.join("DONE")).unwrap();
        });
        scene.all_end(|run| {
            edit(&run.join("env.json"), |env| {
                env["task"]["digits"] = json!(most);
                env["parameters"] = json!(most);
                env["processors"] = json!(most);
            });
            let metrics = run.join("metrics.jsonl");
            let row = json!({"split": "valid", "step": most, "epoch": most, "loss": 1.0, "bpb": 1.0,
                "items": most, "seconds": 1e300});
            let rows = fs::read_to_string(&metrics).unwrap();
            fs::write(metrics, format!("{rows}{row}\n")).unwrap();
            let record = json!([{"name": format!("step {most}"), "layers": most, "jacobians": most,
                "not_finite": most, "count": most, "mean_square": 1.0, "log10_quantiles": [[0.5, 1e300]],
                "vanishing": 0.0, "condition": 1.0, "low": -8.0, "high": 4.0,
                "histogram": [most, most, 1], "below": most, "above": most}]);
            fs::write(run.join("jacobian.json"), record.to_string()).unwrap();
        });
    }
}

/// Writes the tensors and numbers of a file anew, after a change.
fn repacked(path: &Path, change: impl Fn(&mut Vec<Tensor>, &mut BTreeMap<String, Scalar>)) {
    let reader = Reader::from_file_exact(path).unwrap();
    let (mut scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let tensors = reader.into_tensors().unwrap().into_iter();
    let mut tensors: Vec<Tensor> = tensors
        .map(|tensor| {
            let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
            Tensor::new(
                name,
                dtype,
                shape,
                id,
                Bytes::from_bytes_vec(bytes.to_vec()),
            )
        })
        .collect();
    change(&mut tensors, &mut scalars);
    let mut writer = Writer::new(tensors);
    for (name, value) in &scalars {
        writer = writer.with_scalar(name, *value);
    }
    for (name, value) in &metadata {
        writer = writer.with_metadata(name, value);
    }
    writer.write_to_file(path).unwrap();
}

/// The tensor with zeros of another type or shape, or of another parameter.
fn other(tensor: &Tensor, dtype: DType, shape: &[usize], id: Option<u64>) -> Tensor {
    let bytes = shape.iter().product::<usize>() * dtype.size();
    let name = match id {
        Some(id) if tensor.param_id.is_some_and(|old| old != id) => format!("{id}.0"),
        _ => tensor.name.clone(),
    };
    Tensor::new(
        name,
        dtype,
        shape.to_vec(),
        id,
        Bytes::from_bytes_vec(vec![0; bytes]),
    )
}

const TYPES: [DType; 6] = [
    DType::F64,
    DType::F16,
    DType::I64,
    DType::U8,
    DType::I32,
    DType::Bool(burn::tensor::BoolStore::Native),
];

#[test]
fn a_parameter_of_another_type_or_shape_is_refused_by_name() {
    let scene = Scene::new();
    let model = scene.good.join("checkpoints/step-2/model.bpk");
    let name = Reader::from_file_exact(model).unwrap().tensor_names()[0].to_owned();
    let spoil = |run: &Path, dtype: DType, flat: bool| {
        let checkpoint = run.join("checkpoints/step-2");
        repacked(&checkpoint.join("model.bpk"), |tensors, _| {
            let tensor = &mut tensors[0];
            let mut shape: Vec<usize> = tensor.shape.iter().copied().collect();
            if flat {
                shape.push(1);
            }
            *tensor = other(tensor, dtype, &shape, tensor.param_id);
        });
        sealed(&checkpoint, &[]);
        fs::remove_file(run.join("DONE")).unwrap();
    };
    let loads = |command| !lists(command) && command != "report";
    for dtype in TYPES {
        for (command, more) in COMMANDS {
            spoil(&scene.evil(), dtype, false);
            let said = scene.call(command, more);
            if loads(command) {
                assert_eq!(said.code, Some(1), "{dtype:?} {command}: {said:?}");
                assert!(said.err.contains(&name), "{dtype:?} {command}: {said:?}");
            }
        }
    }
    for (command, more) in COMMANDS {
        spoil(&scene.evil(), DType::F32, true);
        let said = scene.call(command, more);
        if loads(command) {
            assert_eq!(said.code, Some(1), "{command}: {said:?}");
            assert!(said.err.contains(&name), "{command}: {said:?}");
        }
    }
    // A diverged run has weights that are not finite: they are not refused.
    let run = scene.evil();
    let checkpoint = run.join("checkpoints/step-2");
    repacked(&checkpoint.join("model.bpk"), |tensors, _| {
        let tensor = &tensors[0];
        let values = f32::NAN.to_le_bytes().repeat(tensor.byte_len() / 4);
        let (shape, id) = (tensor.shape.clone(), tensor.param_id);
        let bytes = Bytes::from_bytes_vec(values);
        tensors[0] = Tensor::new(tensor.name.clone(), DType::F32, shape, id, bytes);
    });
    sealed(&checkpoint, &[]);
    assert_eq!(scene.call("eval", "--checkpoint last").code, Some(0));
}

/// `ema.bpk` is checked as `model.bpk` is.
#[test]
fn an_average_of_another_type_or_shape_is_refused_by_name() {
    let scene = Scene::with("ema=0.5");
    let file = scene.good.join("checkpoints/step-2/ema.bpk");
    let name = Reader::from_file_exact(file).unwrap().tensor_names()[0].to_owned();
    let commands = [
        ("eval", "--checkpoint last"),
        ("export", "--checkpoint last --out exported"),
        ("sample", "--checkpoint last --bytes 3"),
        ("train", "--resume --plain steps=3"),
    ];
    for (command, more) in commands {
        let run = scene.evil();
        fs::remove_file(run.join("DONE")).unwrap();
        assert_eq!(scene.call(command, more).code, Some(0), "{command}");
        for (dtype, flat) in [(DType::F64, false), (DType::I64, false), (DType::F32, true)] {
            let run = scene.evil();
            let checkpoint = run.join("checkpoints/step-2");
            repacked(&checkpoint.join("ema.bpk"), |tensors, _| {
                let tensor = &mut tensors[0];
                let mut shape: Vec<usize> = tensor.shape.iter().copied().collect();
                shape.extend(flat.then_some(1));
                *tensor = other(tensor, dtype, &shape, tensor.param_id);
            });
            sealed(&checkpoint, &[]);
            fs::remove_file(run.join("DONE")).unwrap();
            let said = scene.call(command, more);
            assert_eq!(said.code, Some(1), "{dtype:?} {command}: {said:?}");
            let named = said.err.contains(&name) && said.err.contains("ema.bpk");
            assert!(named, "{dtype:?} {command}: {said:?}");
        }
    }
}

/// Burn reserves as much memory as a file says that its names take.
#[test]
fn names_longer_than_their_file_are_refused() {
    let scene = Scene::with("ema=0.5");
    for file in ["model.bpk", "ema.bpk", "optimizer.bpk"] {
        let run = scene.evil();
        let checkpoint = run.join("checkpoints/step-2");
        let path = checkpoint.join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[6..10].copy_from_slice(&100_000_000u32.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        sealed(&checkpoint, &[]);
        fs::remove_file(run.join("DONE")).unwrap();
        let said = scene.call("train", "--resume --plain steps=3");
        assert_eq!(said.code, Some(1), "{file}: {said:?}");
        let expected = format!("cannot load {file}: its names would have 100000000 bytes");
        assert!(said.err.contains(&expected), "{file}: {said:?}");
    }
}

#[test]
fn an_optimizer_of_other_parameters_is_refused() {
    type Change<'a> = &'a dyn Fn(&mut Vec<Tensor>, &mut BTreeMap<String, Scalar>);
    let scene = Scene::new();
    let changed = |what: &str, change: Change| {
        for (command, more) in [("train", "--resume --plain steps=3"), COMMANDS[5]] {
            let run = scene.evil();
            let checkpoint = run.join("checkpoints/step-2");
            repacked(&checkpoint.join("optimizer.bpk"), |t, s| change(t, s));
            sealed(&checkpoint, &[]);
            fs::remove_file(run.join("DONE")).unwrap();
            let said = scene.call(command, more);
            assert_eq!(said.code, Some(1), "{what}: {command} {said:?}");
            assert!(
                said.err.contains("optimizer.bpk"),
                "{what}: {command} {said:?}"
            );
        }
    };
    for dtype in TYPES {
        changed("type", &|tensors, _| {
            let shape: Vec<usize> = tensors[0].shape.iter().copied().collect();
            tensors[0] = other(&tensors[0], dtype, &shape, tensors[0].param_id);
        });
    }
    changed("shape", &|tensors, _| {
        tensors[0] = other(&tensors[0], DType::F32, &[3, 5], tensors[0].param_id);
    });
    changed("id", &|tensors, _| {
        tensors[0] = other(&tensors[0], DType::F32, &[3], Some(12345));
    });
    changed("named for another", &|tensors, _| {
        let owner = tensors[0].param_id;
        let of = tensors.iter().find(|t| t.param_id != owner).unwrap();
        let shape: Vec<usize> = of.shape.iter().copied().collect();
        let bytes = Bytes::from_bytes_vec(vec![0; of.byte_len()]);
        tensors[0] = Tensor::new(tensors[0].name.clone(), of.dtype, shape, of.param_id, bytes);
    });
    changed("no id", &|tensors, _| {
        let shape: Vec<usize> = tensors[0].shape.iter().copied().collect();
        tensors[0] = other(&tensors[0], DType::F32, &shape, None);
    });
    for value in [u64::MAX, 1 << 62] {
        for field in [".time", ".__rank"] {
            changed(field, &|_, scalars| {
                let (_, number) = scalars
                    .iter_mut()
                    .find(|(name, _)| name.ends_with(field))
                    .unwrap();
                *number = Scalar::from(value);
            });
        }
    }
    changed("rank", &|_, scalars| {
        let (_, number) = scalars
            .iter_mut()
            .find(|(name, _)| name.ends_with(".__rank"))
            .unwrap();
        *number = Scalar::from(7u64);
    });
    changed("a number of nobody", &|_, scalars| {
        scalars.insert("12345.__rank".to_owned(), Scalar::from(2u64));
    });
}

#[test]
fn a_run_chooses_no_other_machine() {
    let scene = Scene::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let device = format!("remote:{}", listener.local_addr().unwrap());
    let spoil = |run: &Path| {
        let recipe = run.join("recipe.toml");
        let text = fs::read_to_string(&recipe).unwrap();
        assert!(text.contains("device = \"auto\""), "{text}");
        fs::write(
            &recipe,
            text.replace("device = \"auto\"", &format!("device = \"{device}\"")),
        )
        .unwrap();
        fs::remove_file(run.join("DONE")).unwrap();
    };
    for (command, more) in COMMANDS {
        spoil(&scene.evil());
        let said = scene.call(command, more);
        // An export computes nothing, and a report has no Jacobians then.
        match lists(command) || ["report", "export"].contains(&command) {
            true => assert_eq!(said.code, Some(0), "{command}: {said:?}"),
            false => {
                assert_eq!(said.code, Some(1), "{command}: {said:?}");
                assert!(
                    said.err.contains("only the command line"),
                    "{command}: {said:?}"
                );
            }
        }
    }
    // With a device of this machine, it is an ordinary run.
    for (command, more) in [
        ("eval", "--device auto"),
        ("jacobian", "--inputs 1 --device auto"),
        ("grow", "--layers 3 --only --run-dir grown device=auto"),
        ("train", "--resume --plain steps=3 --device auto"),
    ] {
        spoil(&scene.evil());
        assert_eq!(scene.call(command, more).code, Some(0), "{command}");
    }
    // A recipe is a file, too.
    spoil(&scene.evil());
    fs::copy(scene.at("runs/evil/recipe.toml"), scene.at("evil.toml")).unwrap();
    let args = [
        "train",
        "evil.toml",
        "--text",
        "pages.txt",
        "--run-dir",
        "new",
    ];
    let said = in_time(&mut rezero(scene.dir.path(), &args));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("only the command line"), "{said:?}");
    let error = listener.accept().unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::WouldBlock,
        "a command connected"
    );
}

#[test]
fn a_path_of_a_run_is_used_only_for_the_data_that_it_was_trained_on() {
    let scene = Scene::new();
    let name = |run: &Path, path: &Path| {
        edit(&run.join("env.json"), |env| env["text"] = json!(path));
        fs::remove_file(run.join("DONE")).unwrap();
    };
    let secret = scene.at("outside/secret.txt");
    let needs_data = ["eval", "jacobian", "train"];
    for (command, more) in COMMANDS {
        name(&scene.evil(), &secret);
        let said = scene.call(command, more);
        if needs_data.contains(&command) {
            assert_eq!(said.code, Some(1), "{command}: {said:?}");
            assert!(said.err.contains("--text"), "{command}: {said:?}");
        }
    }
    // The run's own checkpoint cannot say it either, for nobody knows the hash of a file unread.
    name(&scene.evil(), &secret);
    edit(&scene.at("runs/evil/env.json"), |env| {
        env["data"] = json!("")
    });
    assert_eq!(scene.call("eval", "").code, Some(1));
    for path in ["/dev/zero", "/dev/stdin", "/proc/self/environ", "/"] {
        name(&scene.evil(), Path::new(path));
        assert_eq!(
            scene.call("train", "--resume --plain").code,
            Some(1),
            "{path}"
        );
    }
    // The same data in another place is the same data, and a user may name any.
    fs::copy(scene.at("pages.txt"), scene.at("moved.txt")).unwrap();
    name(&scene.evil(), &scene.at("moved.txt"));
    let said = scene.call("eval", "");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("moved.txt, as env.json says"), "{said:?}");
    name(&scene.evil(), &secret);
    assert_eq!(scene.call("eval", "--text pages.txt").code, Some(0));
    // Data that only env.json names does not leave this machine.
    let said = scene.call("eval", "--device remote:127.0.0.1:1");
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
fn files_that_the_user_names_keep_their_links_and_modes() {
    let scene = Scene::new();
    scene.evil();
    let page = "<!-- report x -->\n<!-- /report x -->\n";
    for (command, more, content) in [
        (
            "report",
            "--no-jacobian --name x --out report --into link",
            page,
        ),
        ("export", "--out link", ""),
    ] {
        let (file, link) = (scene.at("page.md"), scene.at("link"));
        fs::write(&file, content).unwrap();
        fs::write(scene.at(".page.md.tmp"), "mine").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let _ = fs::remove_file(&link);
        symlink("page.md", &link).unwrap();
        assert_eq!(scene.call(command, more).code, Some(0));
        assert!(link.is_symlink(), "{command}");
        let meta = fs::metadata(&file).unwrap();
        assert!(meta.len() > 100, "{command}");
        assert_eq!(meta.permissions().mode() & 0o777, 0o640, "{command}");
        assert_eq!(fs::read(scene.at(".page.md.tmp")).unwrap(), b"mine");
    }
    // A new file has the mode of any new file.
    fs::write(scene.at("plain"), "").unwrap();
    assert_eq!(scene.call("export", "--out exported").code, Some(0));
    let mode = |name| fs::metadata(scene.at(name)).unwrap().permissions().mode();
    assert_eq!(mode("exported"), mode("plain"));
    assert_eq!(mode("report/index.html"), mode("plain"));
}

#[test]
fn two_reports_at_once_do_not_mix() {
    let scene = Scene::new();
    scene.evil();
    for round in 0..4 {
        let titles: Vec<String> = (0..4).map(|i| format!("title-{round}-{i}")).collect();
        std::thread::scope(|scope| {
            for title in &titles {
                let args = [
                    "report",
                    "runs/evil",
                    "--no-jacobian",
                    "--out",
                    "report",
                    "--title",
                    title,
                ];
                let dir = scene.dir.path();
                scope.spawn(move || assert_eq!(in_time(&mut rezero(dir, &args)).code, Some(0)));
            }
        });
        let of = |file: &str| {
            let text = fs::read_to_string(scene.at("report").join(file)).unwrap();
            let found = titles.iter().find(|title| text.contains(*title));
            found.cloned().unwrap_or_else(|| panic!("{file}: {text}"))
        };
        assert_eq!(of("index.html"), of("report.md"));
        let names = fs::read_dir(scene.at("report")).unwrap().flatten();
        let left = names.filter(|entry| entry.path().extension().is_some_and(|e| e == "tmp"));
        assert_eq!(left.count(), 0);
    }
}
