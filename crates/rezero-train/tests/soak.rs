//! SIGKILLs and full disks at random moments of runs of every family with every optimizer: `just soak`.
//!
//! | variable | meaning | default |
//! | - | - | - |
//! | `REZERO_SOAK_KILLS` | the number of SIGKILLs | 200 |
//! | `REZERO_SOAK_SEED` | the seed of the moments | the time |

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rezero_data::rng::mix;
use rezero_train::recipe::schema;

use crate::families::small;
use crate::support::{cifar_layout, families, kinds, last, rezero, rows, scratch, succeed};

/// One of this many disturbances is a full disk; the others are kills.
const FULL_DISK: u64 = 6;

#[test]
#[ignore = "takes minutes; `just soak` runs it"]
fn resumed_runs_equal_undisturbed_runs() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("REZERO_SOAK_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    let kills = number("REZERO_SOAK_KILLS").unwrap_or(200);
    let mut random = Random { seed, drawn: 0 };
    let dir = scratch();
    let disk = Disk::new(dir.path());
    cifar_layout(&disk.path, 20);

    let optimizers: Vec<String> = kinds(&schema())
        .iter()
        .filter(|(section, _)| section == "optimizer")
        .filter_map(|(_, kind)| Some(kind["properties"]["kind"]["const"].as_str()?.to_owned()))
        .collect();
    let mut settings = Vec::new();
    for family in families() {
        for (i, optimizer) in optimizers.iter().enumerate() {
            let mut args = vec!["train".to_owned()];
            args.extend(
                small(family.of_text, &family.name)
                    .into_iter()
                    .map(str::to_owned),
            );
            args.extend([
                format!("model={}", family.name),
                format!("optimizer={optimizer}"),
                format!("dtype={}", ["f16", "f32"][i % 2]),
                format!("ema={}", [0.0, 0.9][i / 2 % 2]),
            ]);
            args.extend(
                [
                    "scheme=rezero",
                    "batch=8",
                    "lr=0.01",
                    "log_every=3",
                    "keep=1",
                    "--plain",
                ]
                .map(str::to_owned),
            );
            // An epoch of images is 12 steps, so that kills fall inside of epochs and between them.
            args.extend(
                match family.name.as_str() {
                    // Its checkpoints are large.
                    "preact-resnet" => ["steps=14", "eval_every=5", "checkpoint_every=4"],
                    _ => ["steps=40", "eval_every=7", "checkpoint_every=5"],
                }
                .map(str::to_owned),
            );
            settings.push(args);
        }
    }
    let (mut killed, mut full, mut stopped, mut compared) = (0, 0, 0, 0);
    for (i, args) in settings.iter().enumerate() {
        let name = args[1..].join(" ");
        let whole = disk.path.join("undisturbed");
        let begun = Instant::now();
        succeed(&disk.path, &with_run(args, &whole, false));
        let takes = begun.elapsed();
        let due = kills * (i as u64 + 1) / settings.len() as u64;
        let (mut n, mut run) = (0, disk.path.join("run-0"));
        loop {
            let disturbed = killed < due;
            let args = with_run(args, &run, run.join("recipe.toml").exists());
            let fills = disturbed && random.below(FULL_DISK) == 0;
            let end = if fills {
                full += 1;
                Some(disk.full(random.below(700), &args))
            } else {
                let mut child = start(&disk.path, &args);
                if disturbed {
                    let until = Instant::now() + takes.mul_f64(random.share());
                    let mut alive = || child.try_wait().expect("the run is watched").is_none();
                    while alive() && Instant::now() < until {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if alive() {
                        child.kill().expect("the run is killed");
                        killed += 1;
                    }
                }
                let end = child.wait().expect("the run ends");
                Some(end).filter(|end| end.code().is_some())
            };
            let Some(end) = end else { continue };
            if end.success() {
                assert_eq!(rows(&run), rows(&whole), "{name}, seed {seed}");
                assert!(last(&run) == last(&whole), "{name}, seed {seed}");
                compared += 1;
                std::fs::remove_dir_all(&run).expect("the run goes");
                n += 1;
                run = disk.path.join(format!("run-{n}"));
                if !disturbed {
                    break;
                }
            } else {
                // An error, never a panic (101) or a signal.
                assert!(fills && end.code() == Some(1), "{name}, seed {seed}: {end}");
                stopped += 1;
            }
        }
        std::fs::remove_dir_all(&whole).expect("the run goes");
        eprintln!("{killed} kills, {full} full disks, {compared} runs compared: {name}");
    }
    eprintln!(
        "soak: seed {seed}, {killed} kills and {full} full disks ({}, {stopped} of them stopped a run) in \
         {compared} runs of {} families with {} optimizers: all rows and weights equal",
        disk.how(),
        families().len(),
        optimizers.len(),
    );
}

fn with_run<'a>(args: &'a [String], run: &'a Path, resume: bool) -> Vec<&'a str> {
    let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
    all.extend(["--run-dir", run.to_str().expect("a path is text")]);
    all.extend(resume.then_some("--resume"));
    all
}

fn start(dir: &Path, args: &[&str]) -> Child {
    let mut command = rezero(dir, args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the command starts")
}

/// Numbers of a seed.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.next() as f64 / u64::MAX as f64
    }
}

/// A disk that can be filled: a tmpfs, which only root may mount. Else, the size of files is limited,
/// so that writes fail in the same places.
struct Disk {
    path: PathBuf,
    is_tmpfs: bool,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        let path = dir.join("disk");
        std::fs::create_dir(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=3g", "tmpfs"]);
        let mounted = mount.arg(&path).stderr(Stdio::null()).status();
        Self {
            path,
            is_tmpfs: mounted.is_ok_and(|status| status.success()),
        }
    }

    fn how(&self) -> &'static str {
        match self.is_tmpfs {
            true => "a tmpfs",
            false => "a limit of the size of files",
        }
    }

    /// Runs the command with that many KiB left on the disk.
    fn full(&self, kib: u64, args: &[&str]) -> ExitStatus {
        if self.is_tmpfs {
            let filler = self.path.join("filler");
            let rest = format!(
                "avail=$(df -Pk . | awk 'NR == 2 {{ print $4 }}'); \
                 fallocate -l $(( (avail - {kib}) * 1024 )) filler"
            );
            let mut shell = Command::new("sh");
            let made = shell.args(["-c", &rest]).current_dir(&self.path).status();
            assert!(
                made.is_ok_and(|status| status.success()),
                "the disk is filled"
            );
            let end = start(&self.path, args).wait().expect("the run ends");
            std::fs::remove_file(filler).expect("the disk is free again");
            return end;
        }
        let command = rezero(&self.path, args);
        let mut shell = Command::new("sh");
        // Blocks of 512 bytes.
        let limit = format!("ulimit -f {}; exec \"$@\"", 2 * kib);
        shell.args(["-c", &limit, "sh"]).arg(command.get_program());
        shell.args(command.get_args()).current_dir(&self.path);
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        shell.status().expect("the run ends")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_tmpfs {
            let _ = Command::new("umount").arg(&self.path).status();
        }
    }
}
