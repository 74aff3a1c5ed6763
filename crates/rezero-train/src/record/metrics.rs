//! The run's numbers: `metrics.jsonl`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{events, inside, number};
use crate::error::{Error, Result};

/// The name of the metrics file in a run directory.
pub const FILE: &str = "metrics.jsonl";

/// The most bytes of a line. A network of 100,000 gates has lines of 2 MB.
const LONGEST: u64 = 64 << 20;

/// A row of `metrics.jsonl`.
///
/// `items_per_s`, `warm_up_s` and `seconds` are wall-clock values, and `ranks` tells of processes; every other
/// field of a resumed run equals that of a run without interruption.
///
/// JSON has no number for an infinite value or NaN: these are the strings `"inf"`, `"-inf"` and `"NaN"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `train` or `valid`.
    pub split: String,
    /// Optimizer steps taken so far.
    pub step: usize,
    /// The epoch that the step belongs to, from 1.
    pub epoch: usize,
    /// Mean loss per item, since the last `train` row or over the whole split.
    #[serde(with = "number::one")]
    pub loss: f64,
    /// The task's metrics by name: of images `accuracy`, the share that is classified correctly; of
    /// text `bpb`, bits per byte.
    #[serde(flatten, with = "number::map")]
    pub metrics: BTreeMap<String, f64>,
    /// The number of items that the row covers.
    pub items: usize,
    /// Learning rate of the weights (`train`).
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "number::option"
    )]
    pub lr: Option<f64>,
    /// Global L2 norm of the gradients at this step, before clipping (`train`); none where the step was
    /// skipped because they were too large for `train.dtype = "f16"`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "number::option"
    )]
    pub grad_norm: Option<f64>,
    /// L2 norm of each residual layer's gradients at this step, before clipping, in forward order
    /// (`train`).
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "number::list")]
    pub layer_grad_norm: Vec<f32>,
    /// Every gate in forward order after the step (`train`).
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "number::list")]
    pub alpha: Vec<f32>,
    /// Items per second of wall time; none in the first steps of a process, which compile kernels
    /// and choose among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_per_s: Option<f64>,
    /// Wall time of these first steps, in the first `train` row that a process writes after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_s: Option<f64>,
    /// The decay of the average of weights that was scored (`valid`); none if these were the weights
    /// themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Communication since the row before (`train`), where several processes compute the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Communication>,
    /// Wall time since the process began training.
    pub seconds: f64,
}

/// Communication between the processes that compute each step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Communication {
    /// How many processes there are.
    pub count: usize,
    /// Bytes of gradients that rank 0 has sent since the row before.
    pub bytes: u64,
    /// The share of rank 0's wall time since then in which it sent or waited for others.
    pub share: f64,
}

impl Row {
    /// Whether loss, learning rate, gradient norm and gates are finite. A row in which one is not is the
    /// last of a run that diverged. (Metrics may be undefined, and with a scaled loss some steps are skipped
    /// because a layer's gradients are too large.)
    pub fn is_finite(&self) -> bool {
        let mut numbers = [Some(self.loss), self.lr, self.grad_norm]
            .into_iter()
            .flatten();
        numbers.all(f64::is_finite) && self.alpha.iter().all(|alpha| alpha.is_finite())
    }
}

/// Appends rows to `metrics.jsonl`.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    /// TensorBoard's event file, if one is wanted.
    events: Option<events::Writer>,
}

impl Writer {
    /// Opens the file for appending after its first `keep` bytes. Later bytes are removed: they
    /// were written after the checkpoint from which the run resumes.
    ///
    /// With `tensorboard`, an event file has the same rows. Without, an event file of an earlier process
    /// is removed: it may have rows that are not kept.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, `metrics.jsonl` is shorter than `keep`, or has no row that ends there.
    pub fn open(run: &Path, keep: u64, tensorboard: bool) -> Result<Self> {
        let path = run.join(FILE);
        let open = || {
            let file = inside::open(&path, File::options().create(true).append(true))?;
            only_name(&file)?;
            Ok((file.metadata()?.len(), file))
        };
        let (length, file) = open().map_err(|e| Error::io("open", &path, e))?;
        if length < keep {
            return Err(Error::Run {
                dir: run.to_owned(),
                message: format!(
                    "{FILE} has {length} bytes where the checkpoint has recorded {keep}: it was \
                     shortened, so the run cannot be continued exactly; restore it or start anew"
                ),
            });
        }
        if keep > 0 && !ends_a_row(&path, keep) {
            return Err(Error::Run {
                dir: run.to_owned(),
                message: format!(
                    "{FILE} was altered: no row ends at byte {keep}, where the checkpoint's last \
                     does; restore it or start anew"
                ),
            });
        }
        file.set_len(keep)
            .map_err(|e| Error::io("truncate", &path, e))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            bytes: keep,
            events: match tensorboard {
                true => Some(events::Writer::begin(run)?),
                false => {
                    events::remove(run)?;
                    None
                }
            },
        })
    }

    /// Appends a row.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let mut line = serde_json::to_vec(row).expect("a row is JSON");
        line.push(b'\n');
        // Flushed at once, so that a reader sees whole rows.
        self.file
            .write_all(&line)
            .and_then(|()| self.file.flush())
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.bytes += line.len() as u64;
        match &mut self.events {
            Some(events) => events.write(row),
            None => Ok(()),
        }
    }

    /// Forces the rows to disk and returns the number of bytes, which a checkpoint records.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn sync(&mut self) -> Result<u64> {
        self.file
            .get_ref()
            .sync_data()
            .map_err(|e| Error::io("write", &self.path, e))?;
        Ok(self.bytes)
    }
}

/// Rows are added in place: a second name of the file, which may be outside the run, would change too.
fn only_name(file: &File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if file.metadata()?.nlink() > 1 {
            return Err(std::io::Error::other(
                "it has a second name (a hard link), whose content would change too; put a copy in its place",
            ));
        }
    }
    let _ = file;
    Ok(())
}

fn ends_a_row(path: &Path, at: u64) -> bool {
    let byte = || {
        let mut file = inside::open(path, File::options().read(true)).ok()?;
        file.seek(SeekFrom::Start(at - 1)).ok()?;
        let mut last = [0];
        file.read_exact(&mut last).ok()?;
        Some(last[0])
    };
    byte() == Some(b'\n')
}

/// Reads the rows of a run; a last line that was cut short is left out.
///
/// # Errors
///
/// If the file cannot be read or a whole line is not a row.
pub fn read(run: &Path) -> Result<Vec<Row>> {
    let path = run.join(FILE);
    let io = |e| Error::io("read", &path, e);
    let file = inside::open(&path, File::options().read(true)).map_err(io)?;
    let mut file = BufReader::new(file);
    let (mut rows, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let part = file.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        let bytes = part.map_err(io)? as u64;
        if line.last() != Some(&b'\n') {
            return match bytes < LONGEST {
                true => Ok(rows),
                false => Err(too_long(run)),
            };
        }
        rows.push(serde_json::from_slice(&line).map_err(|e| Error::Run {
            dir: run.to_owned(),
            message: format!("{FILE} line {}: {e}", rows.len() + 1),
        })?);
    }
}

fn too_long(run: &Path) -> Error {
    Error::Run {
        dir: run.to_owned(),
        message: format!("{FILE} has a line of more than {LONGEST} bytes, which no row has"),
    }
}

/// The last whole row of a run, without reading those before it; none if there is none.
///
/// # Errors
///
/// If the file cannot be read or that line is not a row.
pub fn last(run: &Path) -> Result<Option<Row>> {
    let path = run.join(FILE);
    let io = |e| Error::io("read", &path, e);
    let mut file = inside::open(&path, File::options().read(true)).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut part = 1 << 16;
    loop {
        let from = length.saturating_sub(part);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from)).map_err(io)?;
        (&file).take(part).read_to_end(&mut bytes).map_err(io)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let begin = end.and_then(|end| bytes[..end].iter().rposition(|byte| *byte == b'\n'));
        let line = match (begin, end) {
            (Some(begin), Some(end)) => &bytes[begin + 1..end],
            (None, Some(end)) if from == 0 => &bytes[..end],
            (None, None) if from == 0 => return Ok(None),
            // A whole line and the cut end of another.
            _ if part == 2 * LONGEST => return Err(too_long(run)),
            _ => {
                part = (4 * part).min(2 * LONGEST);
                continue;
            }
        };
        return serde_json::from_slice(line)
            .map(Some)
            .map_err(|e| Error::Run {
                dir: run.to_owned(),
                message: format!("{FILE}, last line: {e}"),
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_any_numbers_reads_back() {
        let values = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.1,
            -0.0,
            1e300,
            3.0,
        ];
        for value in values {
            let row = Row {
                split: "train".to_owned(),
                step: 3,
                epoch: 1,
                loss: value,
                metrics: BTreeMap::from([("bpb".to_owned(), value)]),
                items: 8,
                lr: Some(value),
                grad_norm: Some(value),
                layer_grad_norm: vec![value as f32, 0.1],
                alpha: vec![0.1, value as f32],
                items_per_s: None,
                warm_up_s: None,
                ranks: None,
                ema: None,
                seconds: 1.5,
            };
            let text = serde_json::to_string(&row).unwrap();
            assert!(!text.contains("null"), "{text}");
            assert!(text.contains("[0.1,"), "{text}");
            let back: Row = serde_json::from_str(&text).unwrap();
            // NaN is not equal to itself, so the texts are compared.
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
            assert_eq!(
                back.is_finite(),
                value.is_finite() && (value as f32).is_finite()
            );
            // Each of these counts, a metric or a layer's norm does not.
            let finite = Row {
                loss: 1.0,
                lr: None,
                grad_norm: None,
                alpha: vec![0.1],
                ..back
            };
            assert!(finite.is_finite());
            let rows = [
                Row {
                    loss: value,
                    ..finite.clone()
                },
                Row {
                    grad_norm: Some(value),
                    ..finite.clone()
                },
                Row {
                    alpha: vec![value as f32],
                    ..finite.clone()
                },
            ];
            // 1e300 is no f32.
            let counts = |row: &Row| row.alpha[0].is_finite() && value.is_finite();
            assert!(
                rows.iter().all(|row| row.is_finite() == counts(row)),
                "{value}"
            );
        }
        // As older versions wrote it.
        let old = r#"{"split":"valid","step":1,"epoch":1,"loss":null,"bpb":null,"items":2,"seconds":0.5}"#;
        let row: Row = serde_json::from_str(old).unwrap();
        assert!(row.loss.is_nan() && row.metrics["bpb"].is_nan() && row.lr.is_none());
    }
    #[test]
    fn the_last_row_is_found_in_files_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let of = |step: usize, gates: usize| Row {
            split: "train".to_owned(),
            step,
            epoch: 1,
            loss: 1.0,
            metrics: BTreeMap::new(),
            items: 8,
            lr: None,
            grad_norm: None,
            layer_grad_norm: Vec::new(),
            alpha: vec![0.25; gates],
            items_per_s: None,
            warm_up_s: None,
            ranks: None,
            ema: None,
            seconds: 1.5,
        };
        for (rows, gates) in [(0, 0), (1, 0), (1, 40_000), (3, 10), (3, 40_000)] {
            let lines =
                (1..=rows).map(|step| serde_json::to_string(&of(step, gates)).unwrap() + "\n");
            let text: String = lines.collect();
            for cut in ["", "{\"split\":"] {
                std::fs::write(&path, format!("{text}{cut}")).unwrap();
                let last = last(dir.path()).unwrap();
                assert_eq!(
                    last,
                    (rows > 0).then(|| of(rows, gates)),
                    "{rows} {gates} {cut}"
                );
            }
        }
    }
}
