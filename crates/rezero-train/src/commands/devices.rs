//! `rezero devices`

use std::process::{Command, Stdio};

use super::out;
use crate::check::{self, Outcome};
use crate::cli::Devices;
use crate::device::{self, BACKENDS, describe, found, select};
use crate::error::{Error, Result};

pub fn run(args: &Devices) -> Result<()> {
    if args.here {
        return here(&args.names);
    }
    if args.check {
        return check_all(&args.names);
    }
    for name in &args.names {
        line(name)?;
    }
    if args.names.is_empty() {
        out!("compiled in:");
        for backend in BACKENDS.iter().filter(|b| b.compiled) {
            out!("  {:8} {}", backend.name, backend.about);
            if backend.name == "remote" {
                continue;
            }
            let names = names(backend.name);
            if names.is_empty() {
                out!("           none found (is its driver installed?)");
            }
            for name in names {
                line(&name)?;
            }
        }
        out!("to add, build with --features NAME:");
        for backend in BACKENDS.iter().filter(|b| !b.compiled) {
            out!("  {:8} {}", backend.name, backend.about);
        }
    }
    Ok(())
}

/// What the devices of a backend that are found here are called.
fn names(backend: &str) -> Vec<String> {
    let all = found(backend);
    let indexed = BACKENDS.iter().any(|b| b.name == backend && b.indexed);
    let name = |(i, device): (usize, &burn::tensor::Device)| match (backend, indexed) {
        (_, false) => backend.to_owned(),
        ("tch", _) => {
            // As Burn writes it: LibTorch(Cpu), LibTorch(Cuda(1)).
            let text = format!("{device:?}").to_lowercase();
            let words = text.split(|c: char| !c.is_alphanumeric());
            let words: Vec<_> = words
                .filter(|w| !w.is_empty() && *w != "libtorch")
                .collect();
            format!("tch:{}", words.join(":"))
        }
        _ => format!("{backend}:{i}"),
    };
    all.iter().enumerate().map(name).collect()
}

/// A device's line in the list. A driver that fails is reported there.
fn line(name: &str) -> Result<()> {
    match select(name).map(|device| describe(&device)) {
        Ok(found) => {
            let memory = found.memory.map_or("memory unknown".to_owned(), |bytes| {
                format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
            });
            out!("           {name:12} {}, {memory}", found.name);
        }
        Err(error) => out!("           {name:12} {error}"),
    }
    Ok(())
}

/// Checks every device in a process of its own, which a driver may end as it likes.
fn check_all(wanted: &[String]) -> Result<()> {
    if !device::backend("flex").is_some_and(|flex| flex.compiled) {
        return Err(Error::Device {
            name: "flex".to_owned(),
            message: "devices are checked against it; build with --features flex".to_owned(),
        });
    }
    let all: Vec<String> = match wanted {
        [] => {
            let compiled = BACKENDS.iter().filter(|b| b.compiled);
            compiled.flat_map(|b| names(b.name)).collect()
        }
        wanted => wanted.to_vec(),
    };
    let mut failed = Vec::new();
    for name in all {
        out!("{name}");
        let allowed = device::backend(&name).map_or(0.0, |b| b.tolerance);
        match in_own_process(&name) {
            Ok(parts) => {
                for part in &parts {
                    let verdict = if part.error <= allowed {
                        ""
                    } else {
                        "  TOO FAR"
                    };
                    out!("  {:22} {:.1e}{verdict}", part.name, part.error);
                }
                let largest = parts.iter().map(|p| p.error).fold(0.0, f64::max);
                let ok = largest <= allowed;
                let verdict = if ok { "ok" } else { "FAILED" };
                out!("  largest error          {largest:.1e}, allowed {allowed:.0e}: {verdict}");
                if !ok {
                    failed.push(name);
                }
            }
            Err(error) => {
                out!("  FAILED: {error}");
                failed.push(name);
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::SelfTest(failed.join(", "))),
    }
}

fn in_own_process(name: &str) -> Result<Vec<Outcome>> {
    let fail = |message: String| Error::Device {
        name: name.to_owned(),
        message,
    };
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let output = Command::new(&program)
        .args(["devices", "--here", name])
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| Error::io("start", &program, e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let said = text.lines().rev().find(|line| !line.trim().is_empty());
        let said = said.unwrap_or_default().trim_start_matches("error: ");
        return Err(fail(format!(
            "its process ended with {}: {said}",
            output.status
        )));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| fail(format!("its process wrote no result: {e}")))
}

fn here(names: &[String]) -> Result<()> {
    let [name] = names else {
        return Err(Error::Training("one device to a process".to_owned()));
    };
    let (device, reference) = (select(name)?, select("flex")?);
    let outcomes = check::run(&device, &reference);
    let text = serde_json::to_string(&outcomes)
        .map_err(|e| Error::Training(format!("cannot write JSON: {e}")))?;
    out!("{text}");
    Ok(())
}
