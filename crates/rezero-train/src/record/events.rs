//! TensorBoard's event file of a run, made from the rows of `metrics.jsonl`.
//!
//! A run has one file, `events.out.tfevents.STEP.rezero`, where STEP is the step of the last row before the
//! last process began. A resumed run drops the rows after its checkpoint; so it writes a new file from the
//! rows that are kept, and removes the file of the process before. The file begins with `SessionLog
//! START`, at which a TensorBoard that is open drops the points of the removed file.
//!
//! | bytes | content |
//! | - | - |
//! | 8 | length n, little endian |
//! | 4 | masked CRC-32C of these 8 bytes |
//! | n | a message `Event` of TensorFlow's `event.proto`, in Protocol Buffers' wire format |
//! | 4 | masked CRC-32C of the message |
//!
//! | tag | value |
//! | - | - |
//! | `loss/train`, `loss/valid` | mean loss |
//! | `accuracy/train`, `bpb/valid`, … | the task's metrics |
//! | `lr`, `grad_norm` | as in the row |
//! | `alpha/mean`, `alpha/000`, … | \|α\|: the mean over all gates, and each gate in forward order |
//! | `layer_grad_norm/000`, … | gradient norm of each residual layer |
//! | `items_per_s/train`, `items_per_s/valid` | speed |
//!
//! Gates and layers have tags of their own where there are at most 256 of them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::metrics::{self, Row};
use super::write::write_atomic;
use super::{checkpoint, inside};
use crate::error::{Error, Result};

/// TensorBoard lists every tag: more than these are of no use.
const MOST_LAYERS: usize = 256;

const BEGIN: &str = "events.out.tfevents.";
const END: &str = ".rezero";

/// Whether a file of a run directory is one of its event files.
pub(super) fn is_one(name: &str) -> bool {
    name.starts_with(BEGIN) && name.ends_with(END)
}

/// Appends events to the file of a run.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    clock: Clock,
}

impl Writer {
    /// Begins the event file of a run with its rows so far, in place of an older one.
    ///
    /// # Errors
    ///
    /// If `metrics.jsonl` cannot be read, or the file cannot be written.
    pub fn begin(run: &Path) -> Result<Self> {
        let rows = metrics::read(run)?;
        let mut clock = Clock::ending_with(&rows, changed(run)?);
        let mut bytes = record(&Event::new(clock.base).text(3, "brain.Event:2"));
        // The session log's status is START.
        bytes.extend(record(&Event::new(clock.base).message(7, &[1 << 3, 1])));
        for row in &rows {
            bytes.extend(event(row, &mut clock));
        }
        remove(run)?;
        let step = rows.last().map_or(0, |row| row.step);
        let path = run.join(format!("{BEGIN}{step:010}{END}"));
        write_atomic(&path, &bytes)?;
        let file = inside::open(&path, File::options().append(true));
        let file = file.map_err(|e| Error::io("open", &path, e))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            clock,
        })
    }

    /// Appends the values of a row.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let bytes = event(row, &mut self.clock);
        // Flushed at once, so that TensorBoard sees whole events.
        self.file
            .write_all(&bytes)
            .and_then(|()| self.file.flush())
            .map_err(|e| Error::io("write", &self.path, e))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the event files of a run.
///
/// # Errors
///
/// If one cannot be removed.
pub fn remove(run: &Path) -> Result<()> {
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        if is_one(&entry.file_name().to_string_lossy()) {
            checkpoint::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// When `metrics.jsonl` last changed, in seconds since 1970.
fn changed(run: &Path) -> Result<f64> {
    let path = run.join(metrics::FILE);
    let time = fs::symlink_metadata(&path).and_then(|meta| meta.modified());
    let time = time.map_err(|e| Error::io("read", &path, e))?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(since.as_secs_f64())
}

/// The times of rows, which have only the seconds since their process began. The pauses between
/// processes are left out.
#[derive(Debug, Default)]
struct Clock {
    /// The time at which the run began, if it had no pauses.
    base: f64,
    /// Seconds of the processes before.
    before: f64,
    /// Seconds of this process.
    last: f64,
}

impl Clock {
    /// The clock after which the last of `rows` is of the time `end`.
    fn ending_with(rows: &[Row], end: f64) -> Self {
        let mut clock = Self::default();
        let total = rows.iter().fold(0.0, |_, row| clock.at(row.seconds));
        Self {
            base: end - total,
            ..Self::default()
        }
    }

    fn at(&mut self, seconds: f64) -> f64 {
        if seconds < self.last {
            self.before += self.last;
        }
        self.last = seconds;
        self.base + self.before + seconds
    }
}

/// The event of a row, framed.
fn event(row: &Row, clock: &mut Clock) -> Vec<u8> {
    let mut values = Vec::new();
    for (tag, value) in scalars(row) {
        let mut one = Vec::new();
        field(&mut one, 1, tag.as_bytes());
        one.push(2 << 3 | FIXED_32);
        one.extend(value.to_le_bytes());
        field(&mut values, 1, &one);
    }
    let event = Event::new(clock.at(row.seconds)).step(row.step);
    record(&event.message(5, &values))
}

/// The tags of a row with their values, which are f32 in an event.
fn scalars(row: &Row) -> Vec<(String, f32)> {
    let split = &row.split;
    let mut all = vec![(format!("loss/{split}"), row.loss as f32)];
    let metrics = row.metrics.iter();
    all.extend(metrics.map(|(key, value)| (format!("{key}/{split}"), *value as f32)));
    let one = |tag: &str, value: Option<f64>| value.map(|value| (tag.to_owned(), value as f32));
    all.extend(one("lr", row.lr));
    all.extend(one("grad_norm", row.grad_norm));
    all.extend(one(&format!("items_per_s/{split}"), row.items_per_s));
    if !row.alpha.is_empty() {
        let sum: f64 = row.alpha.iter().map(|alpha| f64::from(alpha.abs())).sum();
        all.push((
            "alpha/mean".to_owned(),
            (sum / row.alpha.len() as f64) as f32,
        ));
    }
    for (tag, values) in [
        ("alpha", &row.alpha),
        ("layer_grad_norm", &row.layer_grad_norm),
    ] {
        if values.len() <= MOST_LAYERS {
            let values = values.iter().enumerate();
            all.extend(values.map(|(i, value)| (format!("{tag}/{i:03}"), value.abs())));
        }
    }
    all
}

const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// A message `Event`.
struct Event(Vec<u8>);

impl Event {
    /// An event of a time in seconds since 1970.
    fn new(time: f64) -> Self {
        let mut bytes = vec![1 << 3 | FIXED_64];
        bytes.extend(time.to_le_bytes());
        Self(bytes)
    }

    fn step(mut self, step: usize) -> Self {
        self.0.push(2 << 3);
        varint(&mut self.0, step as u64);
        self
    }

    fn text(self, number: u8, text: &str) -> Vec<u8> {
        self.message(number, text.as_bytes())
    }

    fn message(mut self, number: u8, content: &[u8]) -> Vec<u8> {
        field(&mut self.0, number, content);
        self.0
    }
}

/// Adds a field that has a length: a text or a message.
fn field(to: &mut Vec<u8>, number: u8, content: &[u8]) {
    to.push(number << 3 | BYTES);
    varint(to, content.len() as u64);
    to.extend(content);
}

/// Seven bits per byte, the lowest first; the eighth says that more follow.
fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A record of the file.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(message);
    bytes.extend(masked(message).to_le_bytes());
    bytes
}

/// The CRC-32C of `bytes`, rotated by 15 bits and with a constant added: a CRC of data that contains CRCs
/// says little.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C of RFC 3720, section 12.1, with the polynomial 0x1EDC6F41, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // Appendix B.4.
        let rising: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(bytes), crc, "{bytes:?}");
        }
    }

    #[test]
    fn an_event_is_the_message_of_tensorflow() {
        // From Python: Event(wall_time=1.5, step=300, summary=Summary(value=[Summary.Value(tag="lr",
        // simple_value=0.5)])).SerializeToString().
        let mut value = Vec::new();
        field(&mut value, 1, b"lr");
        value.push(2 << 3 | FIXED_32);
        value.extend(0.5_f32.to_le_bytes());
        let mut summary = Vec::new();
        field(&mut summary, 1, &value);
        let event = Event::new(1.5).step(300).message(5, &summary);
        let wanted =
            b"\t\x00\x00\x00\x00\x00\x00\xf8?\x10\xac\x02*\x0b\n\t\n\x02lr\x15\x00\x00\x00?";
        assert_eq!(event, wanted);
    }

    #[test]
    fn times_of_later_processes_follow_those_before() {
        let mut clock = Clock::default();
        let times = [1.0, 2.5, 0.5, 3.0, 0.25].map(|seconds| clock.at(seconds));
        assert_eq!(times, [1.0, 2.5, 3.0, 5.5, 5.75]);
    }
}
