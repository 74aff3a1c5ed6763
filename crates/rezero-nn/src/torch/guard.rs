//! Checks on a `.pt` file before `pytorch-reader` reads it.
//!
//! That crate executes nothing and checks every tensor against its storage. But its memory budget
//! for copies does not count class names, keys and shapes. It also decompresses entries, and an
//! opcode of one byte costs it a hundred bytes. So a file of a megabyte can make it ask for tens of
//! gigabytes, which aborts the process. Therefore this module first runs the pickle with sizes in
//! place of values.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

/// The largest memory for all values of a pickle, with copies. A model of 128 layers takes 60 MB.
const MAX_MEMORY: u64 = 1 << 30;

/// The size of the longest pickle. 32 MiB describe a hundred thousand tensors.
const MAX_PICKLE: u64 = 32 << 20;

/// The approximate memory of a value without text in `pytorch-reader`.
const VALUE: u64 = 160;

/// The magic number of a file of PyTorch before 1.6, as pickle protocol 2 writes it.
const LEGACY: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The place of the magic number of a tar archive.
const TAR_MAGIC: Range<usize> = 257..262;

/// A change of a file: these bytes from this place on.
pub(super) struct Patch {
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// Errors unless `path` is one of the two containers that `torch.save` writes, and reading its
/// pickles takes a bounded amount of memory: all of them together have one budget. The changes make a
/// `defaultdict`, which `pytorch-reader` cannot fill, an `OrderedDict`.
pub(super) fn check(path: &Path) -> Result<Vec<Patch>, String> {
    let mut head = Vec::new();
    let io = |e: std::io::Error| e.to_string();
    let mut file = File::open(path).map_err(io)?;
    file.by_ref()
        .take(TAR_MAGIC.end as u64)
        .read_to_end(&mut head)
        .map_err(io)?;
    match Container::of(&head) {
        Some(Container::Zip) => check_zip(path),
        Some(Container::Legacy) => {
            let mut bytes = head;
            file.take(MAX_PICKLE).read_to_end(&mut bytes).map_err(io)?;
            check_legacy(&bytes).map(|()| Vec::new())
        }
        None => Err(
            "it must be a safetensors file or what torch.save writes, and is neither".to_owned(),
        ),
    }
}

/// A container that is read.
enum Container {
    Zip,
    Legacy,
}

impl Container {
    /// The container of a file that begins with `head`. The tests and their order are those of
    /// `pytorch-reader`: a file may be two containers at once, and must be checked as the one that
    /// is read. `None` stands for anything else, such as a tar archive, PyTorch's format of 2016.
    fn of(head: &[u8]) -> Option<Self> {
        let opening = &head[..head.len().min(64)];
        let mut numbers = opening.windows(LEGACY.len());
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            Some(Self::Zip)
        } else if head.get(TAR_MAGIC) == Some(b"ustar") {
            None
        } else {
            numbers.any(|bytes| bytes == LEGACY).then_some(Self::Legacy)
        }
    }
}

/// Checks the five pickles of an old file: magic number, version, system, state dict and keys. The
/// values follow them.
fn check_legacy(bytes: &[u8]) -> Result<(), String> {
    let mut sizes = Sizes::default();
    let mut rest = bytes;
    for _ in 0..5 {
        rest = sizes.run(rest)?;
    }
    Ok(())
}

fn check_zip(path: &Path) -> Result<Vec<Patch>, String> {
    let failed = |e: zip::result::ZipError| e.to_string();
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| format!("it is cut short or damaged: {e}"))?;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(failed)?;
        let name = entry.name().map_err(failed)?;
        // TorchScript keeps a program beside the weights.
        if name.split('/').nth(1) == Some("code") {
            return Err(whole_module());
        }
        // A small entry could decompress to any size, once per tensor that reads it.
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!(
                "its entry {name:?} is compressed, which torch.save never does: load it in PyTorch \
                 and save it again"
            ));
        }
    }
    // The pickle that `pytorch-reader` chooses. The others are not read, and thousands of entries
    // may share the bytes of one.
    let names: Vec<_> = archive
        .file_names()
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let roots = names
        .iter()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'));
    let index = roots
        .min_by_key(|root| root.len())
        .and_then(|root| archive.index_for_name(&format!("{root}data.pkl")))
        .ok_or("it must hold data.pkl, as what torch.save writes, and does not")?;
    let entry = archive.by_index_raw(index).map_err(failed)?;
    if entry.size() > MAX_PICKLE {
        return Err(too_large());
    }
    let start = entry.data_start();
    let (local, central) = (entry.header_start(), entry.central_header_start());
    let mut pickle = Vec::new();
    entry
        .take(MAX_PICKLE)
        .read_to_end(&mut pickle)
        .map_err(|e| e.to_string())?;
    let mut sizes = Sizes::default();
    sizes.run(&pickle)?;
    let mut patches = sizes.patches;
    if let (Some(start), false) = (start, patches.is_empty()) {
        for patch in &mut patches {
            patch.at += start;
        }
        // Both headers have a checksum, and 0 is none.
        patches.extend([local + 14, central + 16].map(|at| Patch {
            at,
            bytes: vec![0; 4],
        }));
    }
    Ok(patches)
}

fn too_large() -> String {
    format!(
        "its pickle must be read with {MAX_MEMORY} bytes of memory and needs more: save \
         model.state_dict() alone"
    )
}

fn whole_module() -> String {
    "it holds a whole module, and must hold weights alone: save model.state_dict() with torch.save"
        .to_owned()
}

fn damaged() -> String {
    "its pickle is damaged".to_owned()
}

/// Upper bounds for the size of a value.
#[derive(Clone, Copy, Default)]
struct Size {
    /// The bytes of the value and of all that it holds.
    bytes: u64,
    /// The number of calls in the value, and so the largest number of tensors in it.
    calls: u64,
    /// The length of the longest text in the value; a text may become a key.
    text: u64,
    /// The length of the longest tensor name in the value.
    path: u64,
    /// The place in the memo where `BUILD` stores a copy.
    memo: Option<u32>,
}

impl Size {
    fn text(length: u64) -> Self {
        Self {
            bytes: VALUE + length,
            text: length,
            ..Self::default()
        }
    }

    /// The size of a value that holds both.
    fn with(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            calls: self.calls.saturating_add(other.calls),
            text: self.text.max(other.text),
            path: self.path.max(other.path),
            memo: None,
        }
    }
}

/// The stack machine of pickle, on sizes.
#[derive(Default)]
struct Sizes {
    stack: Vec<Size>,
    marks: Vec<usize>,
    memo: HashMap<u32, Size>,
    /// The bytes of all values so far.
    spent: u64,
    /// Changes of the pickle.
    patches: Vec<Patch>,
    /// Whether the class `defaultdict` was read last, so that the type of its values comes next.
    default: bool,
    /// Where the class `defaultdict` is in the memo.
    defaults: HashSet<u32>,
    /// Which of [`OF_A_MODULE`] were read.
    fields: [bool; 2],
}

/// Two fields of every `torch.nn.Module`, which no `state_dict` has. Its class says how they become weights, and no
/// class is known here.
const OF_A_MODULE: [&[u8]; 2] = [b"_parameters", b"_modules"];

/// Names of a class, which have the same length.
const DEFAULT_DICT: &[u8] = b"collections\ndefaultdict\n";
const ORDERED_DICT: &[u8] = b"collections\nOrderedDict\n";

/// An empty list in place of a class of `length` bytes with its opcode.
fn empty_list(length: usize) -> Vec<u8> {
    let mut bytes = vec![b']'];
    // A number that is removed, and as many times None.
    if length.is_multiple_of(2) {
        bytes.extend(b"K\x000");
    }
    while bytes.len() < length {
        bytes.extend(b"N0");
    }
    bytes
}

impl Sizes {
    /// Reads one pickle and returns what follows it.
    fn run<'a>(&mut self, whole: &'a [u8]) -> Result<&'a [u8], String> {
        let mut bytes = whole;
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let at = whole.len() - bytes.len();
            let [op] = take(&mut bytes)?;
            // A class may be remembered before the next one.
            self.default &= matches!(op, b'c' | b'q' | b'r');
            match op {
                b'.' => break,
                // A version, a frame.
                0x80 => drop(take::<1>(&mut bytes)?),
                0x95 => drop(take::<8>(&mut bytes)?),
                // Numbers and constants.
                b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | 0x8f => self.push(Size::text(0))?,
                b'K' => self.skip::<1>(&mut bytes)?,
                b'M' => self.skip::<2>(&mut bytes)?,
                b'J' => self.skip::<4>(&mut bytes)?,
                b'G' => self.skip::<8>(&mut bytes)?,
                b'I' | b'L' | b'F' | b'V' | b'P' => {
                    let length = line(&mut bytes)?.len() as u64;
                    // Latin-1 becomes UTF-8.
                    self.push(Size::text(2 * length))?;
                }
                b'c' => {
                    let length = line(&mut bytes)?.len() + line(&mut bytes)?.len();
                    let end = whole.len() - bytes.len();
                    self.class(at, &whole[at..end]);
                    self.push(Size::text(length as u64))?;
                }
                // Text and bytes, which follow their length.
                b'U' | b'C' | 0x8a | 0x8c => {
                    let length = take::<1>(&mut bytes)?[0];
                    self.text(&mut bytes, length.into())?;
                }
                b'T' | b'X' | b'B' | 0x8b => {
                    let length = u32::from_le_bytes(take(&mut bytes)?);
                    self.text(&mut bytes, length.into())?;
                }
                0x8d | 0x8e | 0x96 => {
                    let length = u64::from_le_bytes(take(&mut bytes)?);
                    self.text(&mut bytes, length)?;
                }
                // Containers.
                b'(' => {
                    self.marks.push(self.stack.len());
                    self.spend(VALUE)?;
                }
                b't' | b'l' | b'd' | 0x91 => {
                    let items = self.pop_to_mark(op == b'd')?;
                    self.push(items)?;
                }
                0x85..=0x87 => self.join(usize::from(op - 0x84))?,
                b'a' => {
                    let item = self.pop()?;
                    self.extend(item)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend(pair(key, value))?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_to_mark(false)?;
                    self.extend(items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark(true)?;
                    self.extend(items)?;
                }
                // The stack and the memo.
                b'0' if self.marks.last() == Some(&self.stack.len()) => {
                    self.marks.pop();
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_to_mark(false)?),
                b'2' => {
                    let top = *self.top()?;
                    self.push(top)?;
                }
                b'g' | b'h' | b'j' => {
                    let i = self.index(op == b'g', op == b'j', &mut bytes)?;
                    let value = *self.memo.get(&i).ok_or_else(damaged)?;
                    self.default = self.defaults.contains(&i);
                    self.push(value)?;
                }
                b'p' | b'q' | b'r' => {
                    let i = self.index(op == b'p', op == b'r', &mut bytes)?;
                    if self.default {
                        self.defaults.insert(i);
                    }
                    self.remember(i)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                // Calls. No result is larger than the arguments together.
                b'Q' => self.join(1)?,
                b'R' | 0x81 | 0x93 => self.join(2)?,
                0x92 => self.join(3)?,
                b'b' => {
                    let (state, object) = (self.pop()?, self.pop()?);
                    let built = object.with(state);
                    if let Some(i) = object.memo {
                        self.spend(built.bytes)?;
                        let memo = object.memo;
                        self.memo.insert(i, Size { memo, ..built });
                    }
                    self.push(built)?;
                }
                _ => return Err(damaged()),
            }
        }
        let root = self.pop()?;
        // The reader lists every tensor under its full name.
        self.spend(root.calls.saturating_mul(root.path.saturating_add(VALUE)))?;
        Ok(bytes)
    }

    /// Reads a class: its opcode and names, at `at`.
    fn class(&mut self, at: usize, bytes: &[u8]) {
        let new = match bytes[1..] == *DEFAULT_DICT {
            true => [b"c", ORDERED_DICT].concat(),
            // Of `defaultdict(list)`, which becomes `OrderedDict([])`.
            false if self.default && bytes.len() > 3 => empty_list(bytes.len()),
            false => return,
        };
        self.default = bytes[1..] == *DEFAULT_DICT;
        self.patches.push(Patch {
            at: at as u64,
            bytes: new,
        });
    }

    fn spend(&mut self, bytes: u64) -> Result<(), String> {
        self.spent = self.spent.saturating_add(bytes);
        match self.spent <= MAX_MEMORY {
            true => Ok(()),
            false => Err(too_large()),
        }
    }

    fn push(&mut self, value: Size) -> Result<(), String> {
        self.spend(value.bytes)?;
        self.stack.push(value);
        Ok(())
    }

    fn skip<const N: usize>(&mut self, bytes: &mut &[u8]) -> Result<(), String> {
        take::<N>(bytes)?;
        self.push(Size::text(0))
    }

    fn text(&mut self, bytes: &mut &[u8], length: u64) -> Result<(), String> {
        let n = usize::try_from(length).map_err(|_| damaged())?;
        let (text, rest) = bytes.split_at_checked(n).ok_or_else(damaged)?;
        *bytes = rest;
        for (read, name) in self.fields.iter_mut().zip(OF_A_MODULE) {
            *read |= text == name;
        }
        if self.fields == [true; 2] {
            return Err(whole_module());
        }
        self.push(Size::text(length))
    }

    fn top(&mut self) -> Result<&mut Size, String> {
        match self.marks.last() == Some(&self.stack.len()) {
            true => Err(damaged()),
            false => self.stack.last_mut().ok_or_else(damaged),
        }
    }

    fn pop(&mut self) -> Result<Size, String> {
        let top = *self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Joins all values above the last mark; if `pairs`, they are keys and values in turn.
    fn pop_to_mark(&mut self, pairs: bool) -> Result<Size, String> {
        let mark = self.marks.pop().ok_or_else(damaged)?;
        if mark > self.stack.len() {
            return Err(damaged());
        }
        let items = self.stack.split_off(mark);
        let empty = Size::text(0);
        Ok(match pairs {
            true => items.chunks(2).fold(empty, |all, item| match item {
                [key, value] => all.with(pair(*key, *value)),
                rest => rest.iter().fold(all, |all, item| all.with(*item)),
            }),
            false => listed(items.iter().fold(empty, |all, item| all.with(*item))),
        })
    }

    /// Replaces the last `n` values by one, as a call or a tuple does.
    fn join(&mut self, n: usize) -> Result<(), String> {
        let mut all = Size::text(0);
        for _ in 0..n {
            all = all.with(self.pop()?);
        }
        all.calls = all.calls.saturating_add(1);
        self.push(listed(all))
    }

    /// Adds `items` to the list or dictionary on top of the stack.
    fn extend(&mut self, items: Size) -> Result<(), String> {
        self.spend(items.bytes)?;
        let top = self.top()?;
        let memo = top.memo;
        *top = Size {
            memo,
            ..top.with(items)
        };
        Ok(())
    }

    fn index(&self, text: bool, long: bool, bytes: &mut &[u8]) -> Result<u32, String> {
        Ok(match (text, long) {
            (true, _) => std::str::from_utf8(line(bytes)?)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(damaged)?,
            (false, true) => u32::from_le_bytes(take(bytes)?),
            (false, false) => take::<1>(bytes)?[0].into(),
        })
    }

    fn remember(&mut self, i: u32) -> Result<(), String> {
        let top = self.top()?;
        top.memo = Some(i);
        let value = *top;
        self.spend(value.bytes)?;
        self.memo.insert(i, value);
        Ok(())
    }
}

/// A key and its value: the name of a tensor in the value contains the key.
fn pair(key: Size, value: Size) -> Size {
    let both = key.with(value);
    Size {
        path: match value.calls {
            0 => 0,
            _ => key.text.saturating_add(value.path).saturating_add(1),
        },
        ..both
    }
}

/// A list: the name of a tensor in it contains its index, or a text that turns out to be a key.
fn listed(items: Size) -> Size {
    Size {
        path: match items.calls {
            0 => 0,
            _ => items.text.saturating_add(items.path).saturating_add(21),
        },
        ..items
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(*first)
}

fn line<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(damaged)?;
    let (text, rest) = bytes.split_at(end);
    *bytes = &rest[1..];
    Ok(text.strip_suffix(b"\r").unwrap_or(text))
}
