//! `rezero jacobian`

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rezero_data::nearest;
use rezero_nn::transformer::RztxEncoderConfig;
use rezero_nn::{MlpConfig, ResidualScheme};

use super::source::{NamedRun, ZOO};
use super::{out, places, say};
use crate::cli::Jacobian;
use crate::device;
use crate::error::{Error, Result};
use crate::lens::{
    self, FILE, Fresh, OF_TRANSFORMERS, Record, csv, figure, mlp, table, transformer,
};
use crate::plot;
use crate::recipe::{Recipe, with_task};
use crate::record::{alone_in, checkpoint, run_dir, write_atomic};
use crate::say::results;
use crate::task::Places;
use crate::words;

pub fn run(args: &Jacobian) -> Result<()> {
    let (title, records) = match args.what.to_str() {
        Some(model @ ("transformer" | "mlp")) => (model.to_owned(), fresh(args)?),
        _ => {
            let named = Path::new(&args.what);
            let source = NamedRun::find(named)?;
            if !source.dir().is_dir() {
                return Err(bad(
                    &args.what,
                    "is neither transformer, mlp, zoo:NAME nor a run directory; networks of other families are measured as runs".to_owned(),
                ));
            }
            (words::path(named), measure_run(args, source.dir())?)
        }
    };
    let dir = match (&args.out, Path::new(&args.what)) {
        (Some(dir), _) => dir.clone(),
        (None, run) if run.is_dir() => run.to_owned(),
        (None, model) => {
            let model = model.to_string_lossy();
            let name = model.strip_prefix(ZOO).unwrap_or(&model);
            PathBuf::from("jacobian").join(name)
        }
    };
    write(&dir, &title, &records)?;
    match args.json {
        true => {
            let json = words::json(&records).expect("records are JSON");
            out!("{json}");
        }
        false => {
            results(&table(&records))?;
            say!("histograms: {}", dir.join("jacobian*.svg").display());
        }
    }
    Ok(())
}

fn bad(what: &OsStr, message: String) -> Error {
    Error::Jacobian {
        what: what.to_string_lossy().into_owned(),
        message,
    }
}

fn fresh(args: &Jacobian) -> Result<Vec<Record>> {
    let is_mlp = args.what == "mlp";
    let (all, supported) = match is_mlp {
        true => (MlpConfig::SCHEMES, MlpConfig::SCHEMES),
        false => (OF_TRANSFORMERS, RztxEncoderConfig::SCHEMES),
    };
    let mut wanted = Vec::new();
    for name in &args.scheme {
        if name == "all" {
            wanted.extend(all);
            continue;
        }
        let Some(scheme) = supported.iter().find(|scheme| scheme.name() == name) else {
            let names: Vec<&str> = supported.iter().map(|s| s.name()).collect();
            let hint = nearest(name, names.iter().copied());
            let hint = hint.map_or(String::new(), |meant| format!(", did you mean `{meant}`?"));
            let names = names.join(", ");
            let message = format!("has no scheme `{name}`{hint} (there are all, {names})");
            return Err(bad(&args.what, message));
        };
        wanted.push(*scheme);
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
    let device = device::select(args.device.as_deref().unwrap_or("auto"))?;
    let mut records = Vec::new();
    for &layers in &args.layers {
        for &scheme in &wanted {
            // ReZero is also shown at its start, with α = 0.
            let rezero = scheme == ResidualScheme::ReZero;
            let gates: &[f64] = match rezero && args.alpha != 0.0 {
                true => &[args.alpha, 0.0],
                false => &[0.0],
            };
            for &alpha in gates {
                let label = match rezero {
                    true => format!("rezero, α = {alpha}"),
                    false => scheme.to_string(),
                };
                let measure = if is_mlp { mlp } else { transformer };
                records.push(measure(&label, scheme, alpha, layers, &settings, &device)?);
            }
        }
    }
    Ok(records)
}

fn measure_run(args: &Jacobian, run: &Path) -> Result<Vec<Record>> {
    let recipe = Recipe::of_run(run)?.recipe;
    let device = device::chosen(args.device.as_deref(), &recipe.settings.run.device)?;
    let given = Places {
        text: args.text.clone(),
        dir: args.data_dir.clone(),
        offline: args.offline,
        ..Places::default()
    };
    of_run(run, &args.checkpoint, given, args.inputs, device)
}

/// The Jacobians of a run on the device of that name, with its data at the `given` places, else where the
/// run had it.
pub(super) fn of_run(
    run: &Path,
    checkpoint: &str,
    given: Places,
    inputs: usize,
    device: &str,
) -> Result<Vec<Record>> {
    let recipe = Recipe::of_run(run)?.recipe;
    let reader = checkpoint::choose(run, checkpoint, &recipe.identity())?;
    let saved = run_dir::environment(run);
    let places = with_task!(&recipe.task, of => places(run, of, saved.as_ref(), given, device))?;
    lens::of_run(run, &reader, &places, inputs, &device::select(device)?)
}

/// Writes `jacobian.json`, `jacobian.csv` and a figure for each depth.
fn write(dir: &Path, title: &str, records: &[Record]) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let _alone = alone_in(dir);
    let json = serde_json::to_vec_pretty(records).expect("records are JSON");
    write_atomic(&dir.join(FILE), &json)?;
    write_atomic(&dir.join("jacobian.csv"), csv(records).as_bytes())?;
    let mut depths: Vec<usize> = records.iter().map(|r| r.layers).collect();
    depths.dedup();
    for layers in depths {
        let these: Vec<&Record> = records.iter().filter(|r| r.layers == layers).collect();
        let svg = figure(&format!("{title}, {layers} layers"), &these).svg();
        plot::write(dir, &format!("jacobian-{layers}"), &svg)?;
    }
    Ok(())
}
