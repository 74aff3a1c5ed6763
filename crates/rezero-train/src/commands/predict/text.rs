//! The bits per byte of texts.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use rezero_data::corpus;
use serde_json::json;

use super::{Opened, STDIN, no_effect, once, out, refused, standard_input};
use crate::cli::Predict;
use crate::commands::eval;
use crate::error::{Error, Result};
use crate::fit::bits;
use crate::ranks::Ranks;
use crate::recipe::{Settings, TaskOf};
use crate::record::Totals;
use crate::task::Text;
use crate::words;

/// The most bytes of a text, which is read into memory.
const MOST: u64 = 1 << 32;

pub fn run(args: &Predict, run: &Path, of: &TaskOf<Text>, settings: &Settings) -> Result<()> {
    let why = "the run's network predicts bytes of text, each file is scored as a whole";
    no_effect(
        args.split.is_some(),
        "--split",
        &format!("{why}; `rezero eval` scores a split"),
    )?;
    no_effect(args.grid.is_some(), "--grid", why)?;
    no_effect(args.top_k.is_some(), "--top-k", why)?;
    no_effect(args.items.is_some(), "--items", why)?;
    no_effect(args.data_dir.is_some(), "--data-dir", why)?;
    no_effect(args.offline, "--offline", why)?;
    once(&args.files)?;
    let opened = Opened::new(args, run, of, settings)?;
    let mut rows = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        let text = corpus::whole(&name, read(file)?)?;
        rows.push((
            name,
            eval::totals(
                of,
                settings,
                text,
                &opened.network,
                &opened.device,
                &Ranks::alone(),
            )?,
        ));
    }
    let mut all = Totals::default();
    rows.iter().for_each(|(_, totals)| all.add(totals));
    if args.json {
        let value = |totals: &Totals| {
            json!({
                "bytes": totals.items,
                "bpb": bits(totals.mean_loss()),
                "accuracy": totals.mean("correct"),
            })
        };
        let files = rows.iter().map(|(name, totals)| {
            let mut row = value(totals);
            row["file"] = name.as_str().into();
            row
        });
        let result = json!({
            "run": args.run.display().to_string(), "model": opened.identity, "step": opened.step,
            "files": files.collect::<Vec<_>>(), "all": value(&all),
        });
        out!(
            "{}",
            words::json(&result).expect("a table of values is JSON")
        );
        return Ok(());
    }
    out!("{} · step {}", opened.identity, opened.step);
    if rows.len() > 1 {
        rows.push(("all".to_owned(), all));
    }
    let shown =
        |(name, totals): &(String, Totals)| (words::on_a_line(name).into_owned(), totals.clone());
    let rows: Vec<(String, Totals)> = rows.iter().map(shown).collect();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or_default();
    for (name, totals) in rows {
        out!(
            "{name:width$}   {:>10} bytes   {:.4} bits per byte   accuracy {:.2} %",
            totals.items,
            bits(totals.mean_loss()),
            100.0 * totals.mean("correct")
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.as_os_str() == STDIN {
        return standard_input(MOST);
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let meta = file.metadata().map_err(|e| Error::io("read", path, e))?;
    if meta.is_dir() {
        return Err(refused(
            path,
            "is a folder; name the files of text in it".to_owned(),
        ));
    }
    // A device such as /dev/zero never ends; a pipe may be named, as by a shell's <(…).
    if !meta.is_file() && !is_pipe(&meta) {
        return Err(refused(path, "is no file of text".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", path, e))?;
    match bytes.len() as u64 {
        0 => Err(refused(
            path,
            "is empty: a score needs at least one byte".to_owned(),
        )),
        n if n > MOST => Err(refused(path, format!("has more than {MOST} bytes"))),
        _ => Ok(bytes),
    }
}

#[cfg(unix)]
fn is_pipe(meta: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&meta.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_meta: &Metadata) -> bool {
    false
}
