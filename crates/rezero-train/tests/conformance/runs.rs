//! Runs of the `rezero` command that change the backend.

use std::path::Path;

use crate::backend::{name, tolerance};
use crate::command::{self, fail, losses, rewind, scratch, succeed};

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
#[test]
fn a_run_goes_on_on_another_backend() {
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
#[test]
fn two_devices_are_one_with_the_whole_batch() {
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
#[test]
fn half_precision_runs_or_is_refused() {
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
                &["does not compute in", dtype, "use f32"],
            );
        }
    }
}

/// A run on a server that shares this device equals a run on the device. A client with no token or
/// a wrong token is refused.
#[cfg(feature = "remote")]
#[test]
fn a_run_on_a_server() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    struct Server(std::process::Child);
    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    const TOKEN: &str = "a token of 16 or more";
    let dir = scratch();
    let device = name();
    let serve = [
        "serve",
        "--device",
        device.as_str(),
        "--listen",
        "127.0.0.1:0",
    ];
    let refused = |token: &str, says: &str| {
        let mut command = command::rezero(dir.path(), &serve);
        let said = command.env("REZERO_TOKEN", token).output();
        let said = command::Said::from(said.expect("the command starts"));
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains(says), "{}", said.err);
    };
    refused("", "must show a token");
    refused("too short", "16 or more");
    if matches!(device.split(':').next(), Some("tch" | "remote")) {
        refused(TOKEN, "cannot be served");
        return;
    }
    let mut command = command::rezero(dir.path(), &serve);
    command.env("REZERO_TOKEN", TOKEN);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = Server(command.spawn().expect("the server starts"));
    let lines = BufReader::new(server.0.stderr.take().expect("its standard error"));
    // The rest must be read too, or the server would wait for its reader.
    let mut lines = lines.lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("serving"));
    let address = line.and_then(|line| Some(line.split("remote:").nth(1)?.to_owned()));
    let address = address.expect("the server's address");
    let log = std::thread::spawn(move || lines.collect::<Vec<_>>());

    let remote = format!("remote:{address}");
    let train = |remote: &str, token: Option<&str>, run: &str| {
        let mut args = vec!["train"];
        args.extend(RECIPE);
        args.extend(["--plain", "--run-dir", run, "--device", remote]);
        let mut command = command::rezero(dir.path(), &args);
        command.env_remove("REZERO_TOKEN");
        if let Some(token) = token {
            command.env("REZERO_TOKEN", token);
        }
        command::Said::from(command.output().expect("the command starts"))
    };
    for (token, says) in [
        (None, "wants a token"),
        (Some("other"), "refuses the token"),
    ] {
        let said = train(&remote, token, "refused");
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(says), "{}", said.err);
    }
    let said = train(&format!("{remote}#7"), Some(TOKEN), "refused");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("out of range"), "{}", said.err);

    let said = train(&remote, Some(TOKEN), "served");
    assert_eq!(said.code, Some(0), "{said:?}");
    self::train(dir.path(), &device, &[]);
    let (served, own) = (
        losses(&dir.path().join("served")),
        losses(&dir.path().join("run")),
    );
    assert_eq!(served.len(), 9);
    for (got, want) in served.iter().zip(&own) {
        assert!((got / want - 1.0).abs() <= tolerance(), "{got} {want}");
    }
    // The log is on standard error and says who was refused.
    drop(server);
    let log = log.join().expect("its log");
    let refused = log
        .iter()
        .filter(|line| line.contains("presented the wrong token"));
    assert_eq!(refused.count(), 2, "{log:?}");
}

/// A captured step is replayed on other batches, in another memory than a step that is not, with the same numbers. So the runs
/// are the same, also where one is resumed within its replays.
#[test]
fn captured_steps_are_the_same_steps() {
    let dir = scratch();
    let of = |run: &str, more: &[&str]| {
        let mut args = vec!["train"];
        args.extend(RECIPE);
        args.extend(["--plain", "--run-dir", run, "--device"]);
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
