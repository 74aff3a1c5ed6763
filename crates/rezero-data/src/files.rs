//! Pixels that are not held in memory: each image is decoded when it is asked for.

use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use crate::folder::Listing;
use crate::hash::hex;
use crate::image_set::{ImageShape, label_bytes};
use crate::normalization::Counts;
use crate::picture::{self, Preparation};
use crate::{DataError, Result};

/// The images of a listing, all of one shape, as they were when it was surveyed.
#[derive(Debug)]
pub(crate) struct Files {
    listing: Listing,
    preparation: Preparation,
    bytes: usize,
    /// A digest of the pixels of each image. It is compared within this process alone.
    digests: Vec<u64>,
    counts: Counts,
    fingerprint: String,
}

/// Pixels decoded at a time, in bytes, while files are surveyed.
const SURVEYED_AT_A_TIME: usize = 1 << 26;

impl Files {
    /// Decodes each image once, on all cores, and keeps what is to be known of it. Also gives the
    /// corrupt files, which are left out if that is allowed.
    pub(crate) fn survey(
        mut listing: Listing,
        shape: ImageShape,
        preparation: Preparation,
        skip_corrupt: bool,
    ) -> Result<(Self, Vec<PathBuf>)> {
        let bytes = shape.bytes();
        let mut skipped = Vec::new();
        // The digest of all begins with the labels, so that it has to begin anew without the files
        // that are left out.
        loop {
            let labels: Vec<u16> = listing.labels().collect();
            let mut digests = Vec::with_capacity(labels.len());
            let mut counts = Counts::new(shape);
            let mut hasher = Sha256::new();
            hasher.update(label_bytes(&labels, listing.class_names.len()));
            let mut failed = Vec::new();
            let at_a_time = (SURVEYED_AT_A_TIME / bytes).max(1);
            for from in (0..labels.len()).step_by(at_a_time) {
                let n = at_a_time.min(labels.len() - from);
                let read = |i: usize| picture::read(&listing.path(from + i), &preparation);
                let (pixels, corrupt) = decode(n, bytes, read, skip_corrupt)?;
                failed.extend(corrupt.iter().map(|i| from + i));
                if failed.is_empty() {
                    digests.extend(pixels.chunks_exact(bytes).map(digest));
                    pixels.chunks_exact(bytes).for_each(|one| counts.add(one));
                    hasher.update(&pixels);
                }
            }
            if failed.is_empty() {
                let files = Self {
                    listing,
                    preparation,
                    bytes,
                    digests,
                    counts,
                    fingerprint: hex(&hasher.finalize()),
                };
                return Ok((files, skipped));
            }
            skipped.extend(failed.iter().map(|&i| listing.path(i)));
            listing.leave_out(&failed);
        }
    }

    /// The label of each image.
    pub(crate) fn labels(&self) -> Vec<u16> {
        self.listing.labels().collect()
    }

    /// The pixels of image `i`.
    pub(crate) fn read(&self, i: usize) -> Result<Vec<u8>> {
        Ok(self.picture(i)?.pixels)
    }

    fn picture(&self, i: usize) -> Result<picture::Picture> {
        let path = self.listing.path(i);
        let picture = picture::read(&path, &self.preparation)?;
        match digest(&picture.pixels) == self.digests[i] {
            true => Ok(picture),
            false => Err(DataError::ChangedPicture { file: path }),
        }
    }

    /// The pixels of several images, one after the other, decoded on all cores.
    pub(crate) fn read_all(&self, records: &[u32]) -> Result<Vec<u8>> {
        let read = |i: usize| self.picture(records[i] as usize);
        let (pixels, _) = decode(records.len(), self.bytes, read, false)?;
        Ok(pixels)
    }

    /// How often each byte is in each channel of all images.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// [`ImageSet::fingerprint`](crate::ImageSet::fingerprint) of all images.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn digest(pixels: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(pixels);
    hasher.finish()
}

/// The pixels of `n` images of `bytes` bytes each, which `read` gives, on all cores; and those that
/// were skipped, in order, in whose place are zeros.
pub(crate) fn decode(
    n: usize,
    bytes: usize,
    read: impl Fn(usize) -> Result<picture::Picture> + Sync,
    skip_corrupt: bool,
) -> Result<(Vec<u8>, Vec<usize>)> {
    /// The most images that a thread takes at a time.
    const AT_A_TIME: usize = 32;

    let threads = thread::available_parallelism().map_or(1, usize::from);
    // A batch is few images: each thread takes several times a part of it.
    let at_a_time = (n / (4 * threads)).clamp(1, AT_A_TIME);
    let mut pixels = vec![0; bytes * n];
    let parts = Mutex::new(pixels.chunks_mut(bytes * at_a_time).enumerate());
    let stopped = AtomicBool::new(false);
    // Parts are taken in order and each is finished up to its first error, so that the first error
    // of all is always among those that are found.
    let work = || {
        let mut failed = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let part = parts.lock().unwrap_or_else(|e| e.into_inner()).next();
            let Some((part, to)) = part else {
                break;
            };
            for (k, to) in to.chunks_exact_mut(bytes).enumerate() {
                let i = part * at_a_time + k;
                match read(i) {
                    Ok(picture) => to.copy_from_slice(&picture.pixels),
                    Err(error) => {
                        let skip =
                            skip_corrupt && matches!(error, DataError::CorruptPicture { .. });
                        failed.push((i, error));
                        if !skip {
                            stopped.store(true, Ordering::Relaxed);
                            break;
                        }
                    }
                }
            }
        }
        failed
    };
    let mut failed = thread::scope(|scope| {
        // A thread that cannot be started is one that does not help.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads.min(n)).filter_map(spawn).collect();
        let mut failed = work();
        for other in others {
            match other.join() {
                Ok(more) => failed.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        failed
    });
    failed.sort_unstable_by_key(|(i, _)| *i);
    let corrupt = |error: &DataError| matches!(error, DataError::CorruptPicture { .. });
    if let Some(at) = failed
        .iter()
        .position(|(_, e)| !(skip_corrupt && corrupt(e)))
    {
        return Err(failed.swap_remove(at).1);
    }
    Ok((pixels, failed.into_iter().map(|(i, _)| i).collect()))
}
