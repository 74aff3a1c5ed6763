//! `rezero jacobian`

use std::fs;
use std::path::{Path, PathBuf};

use super::eval::choose;
use super::{out, say};
use crate::checkpoint::write_atomic;
use crate::cli::Jacobian;
use crate::data::Source;
use crate::device;
use crate::error::{Error, Result};
use crate::jacobian::{
    Fresh, MLP_ARMS, Record, TRANSFORMER_ARMS, csv, figure, mlp, of_run, table, transformer,
};
use crate::nearest::nearest;
use crate::plot;
use crate::run_dir;

/// The records of a run, in its directory.
pub const FILE: &str = "jacobian.json";

pub fn run(args: &Jacobian) -> Result<()> {
    let (title, records) = match args.what.as_str() {
        "transformer" | "mlp" => (args.what.clone(), fresh(args)?),
        _ => {
            let run = Path::new(&args.what);
            if !run.is_dir() {
                return Err(bad(
                    &args.what,
                    "is neither transformer, mlp nor a run directory".to_owned(),
                ));
            }
            (run.display().to_string(), measure_run(args, run)?)
        }
    };
    let dir = match (&args.out, Path::new(&args.what)) {
        (Some(dir), _) => dir.clone(),
        (None, run) if run.is_dir() => run.to_owned(),
        (None, model) => PathBuf::from("jacobian").join(model),
    };
    write(&dir, &title, &records)?;
    match args.json {
        true => {
            let json = serde_json::to_string(&records).expect("records are JSON");
            out!("{json}");
        }
        false => {
            out!("{}", table(&records).trim_end());
            say!("histograms: {}", dir.join("jacobian*.svg").display());
        }
    }
    Ok(())
}

fn bad(what: &str, message: String) -> Error {
    Error::Jacobian {
        what: what.to_owned(),
        message,
    }
}

fn fresh(args: &Jacobian) -> Result<Vec<Record>> {
    let is_mlp = args.what == "mlp";
    let names: Vec<&str> = match is_mlp {
        true => MLP_ARMS.iter().map(|(name, _)| *name).collect(),
        false => TRANSFORMER_ARMS.iter().map(|(name, _)| *name).collect(),
    };
    let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let wanted = match args.arm.as_slice() {
        [one] if one == "all" => &all,
        several => several,
    };
    for arm in wanted {
        if !names.contains(&arm.as_str()) {
            let meant = nearest(arm, names.iter().copied());
            let hint = meant.map_or(String::new(), |name| format!(", did you mean `{name}`?"));
            return Err(bad(
                &args.what,
                format!(
                    "has no arm `{arm}`{hint}; choose all or of {}",
                    names.join(", ")
                ),
            ));
        }
    }
    if !args.alpha.is_finite() {
        return Err(bad(
            &args.what,
            format!("alpha must be finite, got {}", args.alpha),
        ));
    }
    const MOST: usize = 1 << 14;
    let sizes = [
        ("width", args.width),
        ("d-ff", args.d_ff),
        ("length", Some(args.length)),
    ];
    let layers = args.layers.iter().map(|layers| ("layers", Some(*layers)));
    for (name, size) in sizes.into_iter().chain(layers) {
        if let Some(size) = size.filter(|size| *size > MOST) {
            return Err(bad(
                &args.what,
                format!("{name} must be at most {MOST}, got {size}"),
            ));
        }
    }
    let width = args.width.unwrap_or(if is_mlp { 256 } else { 16 });
    if !is_mlp && !width.is_multiple_of(args.n_heads) {
        return Err(bad(
            &args.what,
            format!(
                "n-heads must divide width, got {} and {width}",
                args.n_heads
            ),
        ));
    }
    let settings = Fresh {
        draws: args.draws,
        alpha: args.alpha,
        seed: args.seed,
        width,
        n_heads: args.n_heads,
        d_ff: args.d_ff.unwrap_or(4 * width),
        length: args.length,
    };
    let device = device::select(&args.device)?;
    let mut records = Vec::new();
    for &layers in &args.layers {
        for arm in wanted {
            // ReZero is shown as it begins, too.
            let gates: &[f64] = match arm.as_str() {
                "rezero" if args.alpha != 0.0 => &[args.alpha, 0.0],
                _ => &[0.0],
            };
            for &alpha in gates {
                let label = match arm.as_str() {
                    "rezero" => format!("rezero, α = {alpha}"),
                    _ => arm.clone(),
                };
                records.push(match is_mlp {
                    true => {
                        let (_, arm) = MLP_ARMS[names.iter().position(|n| n == arm).unwrap_or(0)];
                        mlp(&label, arm, alpha, layers, &settings, &device)?
                    }
                    false => {
                        let at = names.iter().position(|n| n == arm).unwrap_or(0);
                        let (_, scheme) = TRANSFORMER_ARMS[at];
                        transformer(&label, scheme, alpha, layers, &settings, &device)?
                    }
                });
            }
        }
    }
    Ok(records)
}

fn measure_run(args: &Jacobian, run: &Path) -> Result<Vec<Record>> {
    let recipe = run_dir::recipe(run)?.recipe;
    let device = device::select(match args.device.as_str() {
        "auto" => &recipe.device,
        other => other,
    })?;
    let reader = choose(run, &args.checkpoint, &recipe.model_id())?;
    let (text, dir) = run_dir::environment(run).map_or((None, None), |e| (e.text, e.data_dir));
    let source = Source {
        text,
        dir: args.data_dir.clone().or(dir),
        offline: args.offline,
    };
    of_run(run, &reader, &source, args.inputs, &device)
}

/// Writes `jacobian.json`, `jacobian.csv` and a figure for each depth.
fn write(dir: &Path, title: &str, records: &[Record]) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let json = serde_json::to_vec_pretty(records).expect("records are JSON");
    write_atomic(&dir.join(FILE), &json)?;
    write_atomic(&dir.join("jacobian.csv"), csv(records).as_bytes())?;
    let mut depths: Vec<usize> = records.iter().map(|r| r.layers).collect();
    depths.dedup();
    for layers in depths {
        let these: Vec<&Record> = records.iter().filter(|r| r.layers == layers).collect();
        let svg = figure(&format!("{title}, {layers} layers"), &these).svg();
        let name = format!("jacobian-{layers}");
        write_atomic(&dir.join(format!("{name}.svg")), svg.as_bytes())?;
        write_atomic(&dir.join(format!("{name}.png")), &plot::png(&svg))?;
    }
    Ok(())
}
