//! Runs of the `rezero` command that change the backend.

use std::path::Path;

use super::backend::{name, tolerance};
use super::command::{self, fail, losses, rewind, scratch, succeed};

const RECIPE: [&str; 15] = [
    "enwik8-tiny",
    "data=wiki-like",
    "depth=2",
    "d_model=16",
    "n_heads=2",
    "d_ff=32",
    "context=12",
    "batch=4",
    "steps=9",
    "checkpoint_every=3",
    "keep=5",
    "eval_every=100",
    "valid_items=600",
    "log_every=1",
    "alpha_init=0.3",
];

fn train(dir: &Path, device: &str, more: &[&str]) {
    let mut args = vec!["train"];
    args.extend(RECIPE);
    args.extend(["--plain", "--run-dir", "run", "--device", device]);
    args.extend(more);
    succeed(dir, &args);
}

/// Three steps on Flex, three on the device from Flex's checkpoint, and three on Flex from the
/// device's checkpoint give the losses of nine steps on Flex.
#[cfg_attr(test, test)]
pub fn a_run_goes_on_on_another_backend() {
    let dir = scratch();
    let run = dir.path().join("run");
    train(dir.path(), "flex", &[]);
    let alone = losses(&run);
    assert_eq!(alone.len(), 9);
    rewind(&run, 3);
    train(dir.path(), &name(), &["--resume"]);
    rewind(&run, 6);
    train(dir.path(), "flex", &["--resume"]);
    let together = losses(&run);
    assert_eq!(together[..3], alone[..3], "the rows before are kept");
    for (step, (got, want)) in together.iter().zip(&alone).enumerate() {
        // The rounding of a step is in the weights of all later steps.
        let error = (got / want - 1.0).abs();
        assert!(
            error <= 10.0 * tolerance(),
            "step {}: {got} {want}",
            step + 1
        );
    }
    let said = succeed(dir.path(), &["eval", "run", "--device", &name(), "--json"]);
    let flex = succeed(dir.path(), &["eval", "run", "--device", "flex", "--json"]);
    let bpb = |text: &str| -> f64 {
        let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
        json["bpb"].as_f64().expect("bits per byte")
    };
    let (got, want) = (bpb(&said.out), bpb(&flex.out));
    assert!((got / want - 1.0).abs() <= tolerance(), "{got} {want}");
}

/// The device and Flex with half a batch each give the results of Flex with the whole batch.
#[cfg_attr(test, test)]
pub fn two_devices_are_one_with_the_whole_batch() {
    let dir = scratch();
    train(dir.path(), "flex", &[]);
    let one = losses(&dir.path().join("run"));
    let second = scratch();
    let both = format!("{},flex", name());
    train(second.path(), "auto", &["--devices", &both]);
    let two = losses(&second.path().join("run"));
    assert_eq!(one.len(), two.len());
    for (a, b) in one.iter().zip(&two) {
        assert!((a / b - 1.0).abs() <= 1e-4, "{a} {b}");
    }
}

/// A step in half precision, or an error that says that the device has no half precision.
#[cfg_attr(test, test)]
pub fn half_precision_runs_or_is_refused() {
    let exact = scratch();
    train(exact.path(), "flex", &[]);
    let exact = losses(&exact.path().join("run"));
    for dtype in ["bf16", "f16"] {
        let dir = scratch();
        let key = format!("dtype={dtype}");
        let mut args = vec!["train"];
        args.extend(RECIPE);
        args.extend(["--plain", "--run-dir", "run", "--device"]);
        let device = name();
        args.extend([device.as_str(), key.as_str()]);
        let said = command::run(dir.path(), &args);
        if said.code == Some(0) {
            let losses = losses(&dir.path().join("run"));
            assert_eq!(losses.len(), exact.len());
            for (half, full) in losses.iter().zip(&exact) {
                assert!((half / full - 1.0).abs() < 2e-2, "{dtype}: {half} {full}");
            }
        } else {
            fail(
                dir.path(),
                &args,
                1,
                &["does not compute in", dtype, "; use "],
            );
        }
    }
}

/// `rezero serve` of the device, until it is dropped.
#[cfg(feature = "remote")]
struct Server {
    process: std::process::Child,
    /// Its name as a device.
    device: String,
    log: Option<std::thread::JoinHandle<Vec<String>>>,
}

#[cfg(feature = "remote")]
const TOKEN: &str = "a token of 16 or more";

#[cfg(feature = "remote")]
impl Server {
    fn command(dir: &Path, token: &str) -> std::process::Command {
        let device = name();
        let serve = ["serve", "--device", &device, "--listen", "127.0.0.1:0"];
        let mut command = command::rezero(dir, &serve);
        command.env("REZERO_TOKEN", token);
        command
    }

    /// None where the device cannot be served.
    fn start(dir: &Path) -> Option<Self> {
        use std::io::{BufRead, BufReader};
        use std::process::Stdio;

        let mut command = Self::command(dir, TOKEN);
        if matches!(name().split(':').next(), Some("tch" | "remote")) {
            let said = command::Said::from(command.output().expect("the command starts"));
            assert_eq!(said.code, Some(1));
            assert!(said.err.contains("cannot be served"), "{}", said.err);
            return None;
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the server starts");
        let lines = BufReader::new(process.stderr.take().expect("its standard error"));
        // The rest must be read too, or the server would wait for its reader.
        let mut lines = lines.lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("serving"));
        let address = line.and_then(|line| Some(line.split("remote:").nth(1)?.to_owned()));
        let address = address.expect("the server's address");
        Some(Self {
            process,
            device: format!("remote:{address}"),
            log: Some(std::thread::spawn(move || lines.collect())),
        })
    }

    /// A run on the server.
    fn train(
        &self,
        dir: &Path,
        device: &str,
        token: Option<&str>,
        run: &str,
        more: &[&str],
    ) -> std::process::Command {
        let mut args = vec!["train"];
        args.extend(RECIPE);
        args.extend(["--plain", "--run-dir", run, "--device", device]);
        args.extend(more);
        let mut command = command::rezero(dir, &args);
        command.env_remove("REZERO_TOKEN");
        if let Some(token) = token {
            command.env("REZERO_TOKEN", token);
        }
        command
    }

    /// Kills it. What it has logged.
    fn end(&mut self) -> Vec<String> {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let log = self.log.take().map(|log| log.join().expect("its log"));
        log.unwrap_or_default()
    }
}

#[cfg(feature = "remote")]
impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A run on a server that shares this device equals a run on the device. A client with no token or
/// a wrong token is refused.
#[cfg(feature = "remote")]
#[cfg_attr(test, test)]
pub fn a_run_on_a_server() {
    let dir = scratch();
    for (token, says) in [("", "must show a token"), ("too short", "16 or more")] {
        let said = Server::command(dir.path(), token).output();
        let said = command::Said::from(said.expect("the command starts"));
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains(says), "{}", said.err);
    }
    let Some(mut server) = Server::start(dir.path()) else {
        return;
    };
    let train = |device: &str, token: Option<&str>, run: &str| {
        let mut command = server.train(dir.path(), device, token, run, &[]);
        command::Said::from(command.output().expect("the command starts"))
    };
    for (token, says) in [
        (None, "wants a token"),
        (Some("other"), "refuses the token"),
    ] {
        let said = train(&server.device, token, "refused");
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(says), "{}", said.err);
    }
    let said = train(&format!("{}#7", server.device), Some(TOKEN), "refused");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("out of range"), "{}", said.err);

    let said = train(&server.device, Some(TOKEN), "served");
    assert_eq!(said.code, Some(0), "{said:?}");
    self::train(dir.path(), &name(), &[]);
    let (served, own) = (
        losses(&dir.path().join("served")),
        losses(&dir.path().join("run")),
    );
    assert_eq!(served.len(), 9);
    for (got, want) in served.iter().zip(&own) {
        assert!((got / want - 1.0).abs() <= tolerance(), "{got} {want}");
    }
    // The log is on standard error and says who was refused.
    let log = server.end();
    let refused = log
        .iter()
        .filter(|line| line.contains("presented the wrong token"));
    assert_eq!(refused.count(), 2, "{log:?}");
}

/// A server that ends in the middle of a run is a device that is lost: an error that names the device, the checkpoint and the command
/// that continues, which does so on another device.
#[cfg(feature = "remote")]
#[cfg_attr(test, test)]
pub fn a_device_is_lost() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(300);

    let dir = scratch();
    let Some(mut server) = Server::start(dir.path()) else {
        return;
    };
    let run = dir.path().join("run");
    let longer = ["steps=100000", "checkpoint_every=2", "keep=1000"];
    let mut command = server.train(dir.path(), &server.device, Some(TOKEN), "run", &longer);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = command.spawn().expect("the command starts");
    let begun = Instant::now();
    while !run.join("checkpoints/step-4/manifest.json").exists() {
        assert!(begun.elapsed() < LONG, "there is no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.end();
    let said = command::Said::from(client.wait_with_output().expect("the command ends"));
    assert_eq!(said.code, Some(4), "{said:?}");
    let lost = format!("error: device `{}` was lost", server.device);
    let last = said.err.lines().last().unwrap_or_default();
    assert!(last.starts_with(&lost), "{}", said.err);
    for part in [
        "the checkpoint of step ",
        "train run --resume --device remote:",
    ] {
        assert!(last.contains(part), "no `{part}` in {last}");
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
    let kept = losses(&run);
    let step = last
        .split("of step ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let step: usize = step.and_then(|step| step.parse().ok()).expect("a step");
    let more = format!("steps={}", step + 3);
    succeed(
        dir.path(),
        &[
            "train", "run", "--resume", "--plain", "--device", "flex", &more,
        ],
    );
    let resumed = losses(&run);
    assert_eq!(resumed.len(), step + 3);
    assert_eq!(resumed[..step], kept[..step], "the rows before are kept");
}

/// A captured step is replayed on other batches, in another memory than a step that is not, with the same numbers. So the runs
/// are the same, with dropout, also where one is resumed within its replays.
#[cfg_attr(test, test)]
pub fn captured_steps_are_the_same_steps() {
    let dir = scratch();
    let of = |run: &str, more: &[&str]| {
        let mut args = vec!["train"];
        args.extend(RECIPE);
        args.extend(["dropout=0.1", "--plain", "--run-dir", run, "--device"]);
        let name = name();
        args.push(&name);
        args.extend(more);
        succeed(dir.path(), &args);
        losses(&dir.path().join(run))
    };
    let plain = of("plain", &["run.capture=false"]);
    let captured = of("captured", &["run.capture=true"]);
    rewind(&dir.path().join("captured"), 6);
    let resumed = of("captured", &["--resume"]);
    assert_eq!(plain.len(), 9);
    for other in [&captured, &resumed] {
        for (step, (got, want)) in other.iter().zip(&plain).enumerate() {
            let error = (got / want - 1.0).abs();
            assert!(error <= tolerance(), "step {}: {got} {want}", step + 1);
        }
    }
}
