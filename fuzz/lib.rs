//! What the targets share: an allocator with a budget, and files for the readers that take a path.
//!
//! A reader may use 64 bytes for each byte of its input, and beside them:
//!
//! | target | MiB | why |
//! | - | -: | - |
//! | all others | 64 | buffers, and a small network |
//! | `torch` | 1024 | the limit of rezero-nn's check on pickles, which counts copies that a pickle asks for |

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rezero_train::record::checkpoint::{BURN_VERSION, Reader};
use sha2::{Digest, Sha256};

/// Counts the memory in use, and panics where it exceeds the budget of [`within`].
pub struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Counting {
    fn take(size: usize) {
        let used = USED.fetch_add(size, Relaxed).saturating_add(size);
        if used > MOST.load(Relaxed) {
            // The message itself needs memory.
            MOST.store(usize::MAX, Relaxed);
            panic!("an allocation of {size} bytes makes {used}, more than the budget");
        }
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // For a moment both blocks may exist.
        Self::take(size);
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Runs `read`, which may use `fixed` MiB and 64 bytes for each byte of its input beside the memory
/// that is in use already.
pub fn within<R>(fixed: usize, bytes: &[u8], read: impl FnOnce() -> R) -> R {
    let more = (fixed << 20) + 64 * bytes.len();
    MOST.store(USED.load(Relaxed).saturating_add(more), Relaxed);
    let result = read();
    MOST.store(usize::MAX, Relaxed);
    result
}

/// A folder of this process.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let name = format!("rezero-fuzz-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("the folder can be made");
        folder
    });
    &FOLDER
}

/// The file `name` in [`folder`], with these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, bytes).expect("the file can be written");
    path
}

/// A checkpoint of [`model`] with these bytes in the files `names`, and its seeds in the others.
pub fn checkpoint(names: &[&str], bytes: &[u8]) -> Option<Reader> {
    let seeds: [(&str, &[u8]); 5] = [
        ("model.bpk", WHOLE),
        ("ema.bpk", WHOLE),
        (
            "optimizer.bpk",
            include_bytes!("corpus/optimizer/moments").as_slice(),
        ),
        (
            "scheduler.bpk",
            include_bytes!("corpus/optimizer/schedule").as_slice(),
        ),
        (
            "state.json",
            include_bytes!("corpus/records/state").as_slice(),
        ),
    ];
    let mut files = serde_json::Map::new();
    for (name, seed) in seeds {
        let content = if names.contains(&name) { bytes } else { seed };
        file(name, content);
        let entry = serde_json::json!({ "bytes": content.len(), "sha256": sha256(content) });
        files.insert(name.to_owned(), entry);
    }
    let manifest = serde_json::json!({
        "format": 2, "version": env!("CARGO_PKG_VERSION"), "burn": BURN_VERSION,
        "model": "model", "parameters": 5, "files": files,
    });
    file("manifest.json", manifest.to_string().as_bytes());
    Reader::open(folder(), "model").ok()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file of weights, and puts it into a small language model.
pub fn torch(fixed: usize, bytes: &[u8]) {
    use rezero_nn::mixer::mixer_shape;
    use rezero_nn::mlp::mlp_shape;
    use rezero_nn::resnet::{cifar_resnet_shape, preact_resnet_shape};
    use rezero_nn::torch::{TorchWeights, load};
    use rezero_nn::transformer::lm_shape;
    use rezero_nn::vit::vit_shape;

    let path = file("weights", bytes);
    within(fixed, bytes, || {
        if let Ok(weights) = TorchWeights::open(&path) {
            let _ = (lm_shape(&weights), mlp_shape(&weights));
            let _ = (cifar_resnet_shape(&weights), preact_resnet_shape(&weights));
            let _ = (vit_shape(&weights), mixer_shape(&weights));
            let _ = load(model(), &weights).map_err(|e| e.to_string());
        }
        let _ = TorchWeights::from_bytes(bytes).map_err(|e| e.to_string());
    });
}

/// The record of [`model`].
pub const WHOLE: &[u8] = include_bytes!("corpus/model/whole");

/// A language model of two numbers per token.
pub fn model() -> rezero_nn::transformer::RztxLm {
    use burn::tensor::Device;
    use rezero_nn::transformer::{RztxEncoderConfig, RztxLm, RztxLmConfig};

    // Made once: its initial values are random, which makes two runs of an input differ.
    static MODEL: LazyLock<RztxLm> = LazyLock::new(|| {
        let encoder = RztxEncoderConfig::new(2, 3, 1, 1).with_dropout(0.0);
        RztxLmConfig::new(encoder, 4)
            .with_vocab_size(4)
            .init(&Device::flex())
    });
    MODEL.clone()
}

/// Unpacks an archive as one of the data set `name`, whose files are said to have 64 KiB.
pub fn unpack(bytes: &[u8], name: &str) {
    use rezero_data::{fetch, registry};

    let entry = registry::Entry {
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
        unpacked_bytes: 1 << 16,
        ..registry::find(name).expect("it is in the registry").clone()
    };
    // Without the data of the input before this one.
    let dir = folder().join("data");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the folder can be made");
    fs::write(dir.join(&entry.archive), bytes).expect("the file can be written");
    let options = fetch::Options {
        dir,
        offline: true,
        quiet: true,
        ..fetch::Options::default()
    };
    within(64, bytes, || {
        let _ = fetch::fetch(&entry, &options).map_err(|e| e.to_string());
    });
    let all = fs::read_dir(folder()).expect("the folder is there");
    let names: Vec<_> = all.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["data"], "nothing is written elsewhere");
}
