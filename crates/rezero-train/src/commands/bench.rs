//! `rezero bench`

use std::collections::BTreeMap;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::{end_with_parent, out};
use rezero_kernels::Launch;

use crate::bench::{How, Workload, parse};
use crate::cli::Bench;
use crate::device::panics::Listener;
use crate::device::trouble::{of_memory, tells_of_memory, tells_of_size};
use crate::device::{computes_in, panic_message, resolved, select};
use crate::error::{Error, Result};
use crate::fit::STACK_BYTES;
use crate::words;

/// Kernels of a profile.
const SHOWN: usize = 12;

/// One workload's line of `--json`, with the keys that the PyTorch half prints too.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    framework: String,
    device: String,
    workload: String,
    dtype: String,
    /// The time of the first step, which the other values leave out.
    ms_first: f64,
    ms_min: f64,
    ms_median: f64,
    ms_max: f64,
    items_per_s: f64,
    /// `None` if the system does not report it.
    peak_rss_mb: Option<u64>,
    /// What the process has reserved on a GPU, for training steps on CubeCL's backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_mb: Option<u64>,
    /// Parallel loops of the kernels in a step.
    loops_per_step: f64,
    /// The share of their time in loops of at least 16 tasks.
    share_16_tasks: f64,
    /// Whether the steps were replays of a captured step.
    captured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
}

/// Where the time of a training step goes on the device.
#[derive(Debug, Deserialize, Serialize)]
struct Profile {
    launches: usize,
    /// Milliseconds in kernels.
    ms_kernels: f64,
    /// Milliseconds between the first kernel's beginning and the last one's end, less those in kernels.
    ms_between: f64,
    /// The dearest kernels.
    kernels: Vec<Dear>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Dear {
    kernel: String,
    launches: usize,
    ms: f64,
}

impl Profile {
    /// Of these launches; `None` if there are none.
    fn of(launches: &[Launch]) -> Option<Self> {
        let measured = || launches.iter().filter_map(|launch| launch.ms);
        let begin = measured().map(|[start, _]| start).reduce(f64::min)?;
        let end = measured().map(|[_, end]| end).reduce(f64::max)?;
        let mut by_name: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for launch in launches {
            let (count, ms) = by_name.entry(&launch.kernel).or_default();
            *count += 1;
            *ms += launch.ms.map_or(0.0, |[start, end]| end - start);
        }
        let mut kernels: Vec<Dear> = by_name
            .into_iter()
            .map(|(kernel, (launches, ms))| Dear {
                kernel: kernel.to_owned(),
                launches,
                ms: round(ms),
            })
            .collect();
        kernels.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let ms_kernels = measured().map(|[start, end]| end - start).sum::<f64>();
        kernels.truncate(SHOWN);
        Some(Self {
            launches: launches.len(),
            ms_kernels: round(ms_kernels),
            ms_between: round(end - begin - ms_kernels),
            kernels,
        })
    }
}

/// To microseconds.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

pub fn run(args: &Bench) -> Result<()> {
    let workloads = parse(&args.workloads)?;
    let device = select(&args.device)?;
    if let Some(half) = args.dtype.half() {
        computes_in(&args.device, &device, half)?;
        if let Some(other) = workloads.iter().find(|w| !w.trains()) {
            return Err(Error::Workload {
                name: other.name.clone(),
                message: format!("--dtype {} is for training steps", args.dtype),
            });
        }
    }
    if args.here {
        let [workload] = workloads.as_slice() else {
            return Err(Error::Training("one workload to a process".to_owned()));
        };
        return here(args, workload.clone());
    }
    if !args.json {
        out!(
            "{:24} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9} {:>9} {:>9}",
            "workload",
            "ms first",
            "min",
            "median",
            "max",
            "items/s",
            "peak MB",
            "loops",
            "16 tasks"
        );
    }
    for workload in workloads {
        let line = in_own_process(args, &workload)?;
        if args.json {
            let text = words::json(&line)
                .map_err(|e| Error::Training(format!("cannot write JSON: {e}")))?;
            out!("{text}");
            continue;
        }
        out!(
            "{:24} {:9.2} {:9.2} {:9.2} {:9.2} {:12.1} {:>9} {:9.0} {:>9}",
            line.workload,
            line.ms_first,
            line.ms_min,
            line.ms_median,
            line.ms_max,
            line.items_per_s,
            line.peak_rss_mb.map_or("?".to_owned(), |mb| mb.to_string()),
            line.loops_per_step,
            format!("{:.0} %", 100.0 * line.share_16_tasks)
        );
        if let Some(mb) = line.gpu_mb {
            out!("  {mb} MB reserved on the device");
        }
        if let Some(profile) = line.profile {
            let Profile {
                launches,
                ms_kernels,
                ms_between,
                kernels,
            } = profile;
            out!(
                "  {launches} launches in a step, {ms_kernels:.2} ms in kernels, {ms_between:.2} ms between them"
            );
            for Dear {
                kernel,
                launches,
                ms,
            } in kernels
            {
                out!("  {ms:9.2} ms {launches:6} launches  {kernel}");
            }
        }
    }
    Ok(())
}

/// Runs a workload in a process of its own, because a process has one peak of memory and one pool
/// of threads.
fn in_own_process(args: &Bench, workload: &Workload) -> Result<Line> {
    let fail = |message: String| Error::Workload {
        name: workload.name.clone(),
        message,
    };
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let mut command = Command::new(&program);
    command
        .args(["bench", "--here", "--json", &workload.name])
        .args(["--device", &args.device])
        .args(["--steps", &args.steps.to_string()])
        .args(["--dtype", &args.dtype.to_string()])
        .stderr(std::process::Stdio::inherit());
    for (flag, set) in [
        ("--no-capture", args.no_capture),
        ("--profile", args.profile),
    ] {
        if set {
            command.arg(flag);
        }
    }
    if let Some(threads) = args.threads {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    let output = command
        .output()
        .map_err(|e| Error::io("start", &program, e))?;
    if !output.status.success() {
        let hint = match output.status.code() {
            Some(_) => "",
            None => "; a system that runs out of memory ends a process so, give smaller sizes",
        };
        return Err(fail(format!(
            "its process ended with {}{hint}",
            output.status
        )));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| fail(format!("its process wrote no result: {e}")))
}

fn here(args: &Bench, workload: Workload) -> Result<()> {
    end_with_parent();
    let device = select(&args.device)?;
    let how = How {
        steps: args.steps,
        half: args.dtype.half(),
        capture: !args.no_capture && !args.profile,
        profile: args.profile,
    };
    let name = workload.name.clone();
    let failed = |what: &str| Error::Workload {
        name: name.clone(),
        message: what.to_owned(),
    };
    let heard = Listener::new();
    let worker = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || workload.run(&device, how))
        .map_err(|e| failed(&format!("cannot start a thread: {e}")))?;
    let mut timed = worker.join().map_err(|panic| {
        let cause = heard.cause(panic_message(&*panic));
        match tells_of_memory(&cause) || tells_of_size(&cause) {
            true => failed(&format!(
                "a step does not fit on the device, give a smaller batch ({})",
                of_memory(&cause)
            )),
            false => failed("it panicked"),
        }
    })?;
    timed.ms.sort_by(f64::total_cmp);
    let n = timed.ms.len();
    let median = (timed.ms[(n - 1) / 2] + timed.ms[n / 2]) / 2.0;
    let line = Line {
        framework: format!("rezero {} burn 0.22.1", env!("CARGO_PKG_VERSION")),
        device: resolved(&args.device).to_owned(),
        workload: name.clone(),
        dtype: args.dtype.to_string(),
        ms_first: round(timed.first_ms),
        ms_min: round(timed.ms[0]),
        ms_median: round(median),
        ms_max: round(timed.ms[n - 1]),
        items_per_s: round(1e3 * timed.items as f64 / median),
        peak_rss_mb: peak_rss_mb(),
        gpu_mb: timed.device_bytes.map(|bytes| bytes >> 20),
        loops_per_step: round(timed.tasks.loops.iter().sum::<u64>() as f64 / n as f64),
        share_16_tasks: round(timed.tasks.share_of(16)),
        captured: timed.captured,
        profile: Profile::of(&timed.launches),
    };
    let text = words::json(&line).map_err(|e| failed(&format!("cannot write JSON: {e}")))?;
    out!("{text}");
    Ok(())
}

/// The peak memory of this process, if Linux reports it.
fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kb: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kb / 1024)
}
