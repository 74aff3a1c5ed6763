//! `rezero devices`

use std::process::Command;

use serde::de::DeserializeOwned;

use super::{check_ranks, end_with_parent, out};
use crate::cli::Devices;
use crate::device::check::{self, Outcome};
use crate::device::trouble::to_install;
use crate::device::{self, BACKENDS, Description, describe, found, select};
use crate::error::{Error, Result};
use crate::ranks::{self, Ranks};
use crate::words;

pub fn run(args: &Devices) -> Result<()> {
    if args.mpi {
        let ranks = Ranks::join(
            ranks::PATIENCE,
            &[("command line", "devices --mpi".to_owned())],
        )?;
        return check_ranks::run(&ranks, args.json).map_err(|error| ranks.end(error));
    }
    match (args.here, args.check) {
        (true, check) => here(&args.names, check),
        (false, true) => check_all(&args.names),
        (false, false) => list(&args.names),
    }
}

fn list(names: &[String]) -> Result<()> {
    for name in names {
        line(name)?;
    }
    if !names.is_empty() {
        return Ok(());
    }
    out!("compiled in:");
    for backend in BACKENDS.iter().filter(|b| b.compiled) {
        out!("  {:8} {}", backend.name, backend.about);
        if backend.name == "remote" {
            continue;
        }
        let found = found(backend.name);
        if found.is_empty() {
            out!("           none found ({})", to_install(backend.name));
        }
        for (name, _) in found {
            line(&name)?;
        }
    }
    out!("to add, build with --features NAME:");
    for backend in BACKENDS.iter().filter(|b| !b.compiled) {
        out!("  {:8} {}", backend.name, backend.about);
    }
    Ok(())
}

/// A device's line in the list. A driver that fails is reported there.
fn line(name: &str) -> Result<()> {
    match in_own_process::<Description>(name, false) {
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

/// Checks every device.
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
            compiled
                .flat_map(|b| found(b.name))
                .map(|(name, _)| name)
                .collect()
        }
        wanted => wanted.to_vec(),
    };
    let mut failed = Vec::new();
    for name in all {
        out!("{name}");
        let allowed = device::backend(&name).map_or(0.0, |b| b.tolerance);
        match in_own_process::<Vec<Outcome>>(&name, true) {
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

/// The output of `--here` for a device, from a process of its own, because a driver may end the
/// process.
fn in_own_process<T: DeserializeOwned>(name: &str, check: bool) -> Result<T> {
    let fail = |message: String| Error::Device {
        name: name.to_owned(),
        message,
    };
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let output = Command::new(&program)
        .args(["devices", "--here", name])
        .args(check.then_some("--check"))
        .output()
        .map_err(|e| Error::io("start", &program, e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let said = text.lines().rev().find(|line| !line.trim().is_empty());
        let said = said.unwrap_or_default().trim_start_matches("error: ");
        // An error of ours names the device already.
        let ours = said.strip_prefix(&format!("device `{name}`: "));
        return Err(fail(match ours {
            Some(message) => message.to_owned(),
            None => format!("its driver ended the process ({}): {said}", output.status),
        }));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| fail(format!("its process wrote no result: {e}")))
}

fn here(names: &[String], check: bool) -> Result<()> {
    let [name] = names else {
        return Err(Error::Training("one device to a process".to_owned()));
    };
    end_with_parent();
    let device = select(name)?;
    let text = match check {
        true => words::json(&check::run(&device, &select("flex")?)),
        false => words::json(&describe(&device)),
    };
    let text = text.map_err(|e| Error::Training(format!("cannot write JSON: {e}")))?;
    out!("{text}");
    Ok(())
}
