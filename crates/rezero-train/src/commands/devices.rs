//! `rezero devices`

use std::process::Command;
use std::time::Instant;

use serde::de::DeserializeOwned;

use super::out;
use crate::cli::Devices;
use crate::device::check::{self, Outcome};
use crate::device::{self, BACKENDS, Description, describe, found, select};
use crate::error::{Error, Result};
use crate::ranks::{self, Ranks};
use crate::words;

pub fn run(args: &Devices) -> Result<()> {
    if args.mpi {
        let ranks = Ranks::join(ranks::PATIENCE, &[])?;
        return check_ranks(&ranks).map_err(|error| ranks.end(error));
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
            out!("           none found (is its driver installed?)");
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
    let device = select(name)?;
    let text = match check {
        true => words::json(&check::run(&device, &select("flex")?)),
        false => words::json(&describe(&device)),
    };
    let text = text.map_err(|e| Error::Training(format!("cannot write JSON: {e}")))?;
    out!("{text}");
    Ok(())
}

/// The numbers that ranks give to a check repeat after so many.
const PERIOD: usize = 61;

/// Number `i` that a rank gives: a whole number so small that all sums are exact in f32, up to 250,000 ranks.
fn given(rank: usize, i: usize) -> f32 {
    ((7 * rank + i) % PERIOD + 1) as f32
}

/// The sum of number `i` over `n` ranks.
fn known(n: usize, i: usize) -> f32 {
    let whole: usize = (0..n).map(|rank| given(rank, i) as usize).sum();
    whole as f32
}

/// Checks sums over all ranks against known numbers, and times them.
fn check_ranks(ranks: &Ranks) -> Result<()> {
    const LARGE: usize = 1 << 24;
    let n = ranks.size();
    if n == 1 {
        return Err(Error::Ranks(
            "there is one process; start several: mpirun -n 2 rezero devices --check --mpi"
                .to_owned(),
        ));
    }
    let say = |line: String| -> Result<()> {
        if ranks.leads() {
            out!("{line}");
        }
        Ok(())
    };
    for (rank, host) in ranks.hosts().iter().enumerate() {
        say(format!("  rank {rank:<4} {host}"))?;
    }
    // Odd lengths, and fewer numbers than ranks.
    for len in [1, 3, 1_001, LARGE + 1] {
        let own = (0..len).map(|i| given(ranks.rank(), i)).collect();
        let (_, sum) = ranks.sum(Vec::new(), own, n)?;
        let known: Vec<f32> = (0..PERIOD).map(|i| known(n, i)).collect();
        let known = |i: usize| known[i % PERIOD];
        let wrong = sum.iter().enumerate().find(|(i, sum)| **sum != known(*i));
        ranks.agree(match wrong {
            None => Ok(()),
            Some((i, sum)) => Err(Error::SelfTest(format!(
                "a sum of {len} numbers over {n} ranks: number {i} is {sum}, not {}",
                known(i)
            ))),
        })?;
    }
    // In f32, this sum depends on the order.
    let own = |rank: usize| [1e8, 1.0, -1e8, 3.0][rank % 4];
    let in_order = (0..n).map(own).reduce(|sum, value| sum + value);
    let (_, sum) = ranks.sum(Vec::new(), vec![own(ranks.rank())], n)?;
    ranks.agree(match sum.first() == in_order.as_ref() {
        true => Ok(()),
        false => Err(Error::SelfTest(
            "a sum over ranks is not in their order".to_owned(),
        )),
    })?;
    say("  sums                   as known, in the order of the ranks: ok".to_owned())?;

    // The middle one of several.
    let time = |len: usize, times: usize| -> Result<f64> {
        let mut all = Vec::new();
        for _ in 0..times {
            let numbers = vec![1.0; len];
            ranks.gather::<()>(&())?;
            let begun = Instant::now();
            ranks.sum(Vec::new(), numbers, n)?;
            all.push(begun.elapsed().as_secs_f64());
        }
        all.sort_by(f64::total_cmp);
        Ok(all[times / 2])
    };
    let (small, large) = (time(n, 201)?, time(LARGE, 5)?);
    say(format!("  a sum of {n} numbers     {:.3} ms", 1e3 * small))?;
    say(format!(
        "  a sum of {LARGE} numbers {:.1} ms: {:.2} GB/s sent by each rank, and as much received",
        1e3 * large,
        (2 * 4 * LARGE * (n - 1) / n) as f64 / large / 1e9
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_a_check_are_exact_and_tell_ranks_apart() {
        for n in [2, 3, 182, 183, 4_096] {
            for i in 0..2 * PERIOD {
                let sum = (0..n).fold(0.0, |sum, rank| sum + given(rank, i));
                assert_eq!(sum, known(n, i), "{n} ranks, number {i}");
            }
        }
        // A rank that is added twice in place of another.
        assert_ne!(given(0, 0), given(1, 0));
        assert_ne!(known(2, 0), 2.0 * given(0, 0));
        // 2^24 is the last of the whole numbers that f32 has without a gap.
        assert!(known(250_000, 0) < 16_777_216.0);
    }
}
