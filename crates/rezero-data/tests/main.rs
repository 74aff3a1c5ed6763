//! One binary, which links once: `cargo test -p rezero-data`. No test leaves this machine.

mod corpora;
mod fetching;
mod loading;
mod reading;
mod real;
mod registry;
mod server;
mod shapes;
mod texts;
mod unpacking;
mod zips;

use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rezero_data::registry::{Entry, Format};
use rezero_data::{cifar10, shapes as drawn};
use sha2::{Digest, Sha256};

/// A small data set in the official layout, as an archive.
fn small_archive() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    drawn::write_cifar_layout(dir.path(), 10, 7).unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    tar.append_dir_all(cifar10::FOLDER, dir.path()).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

/// A registry entry for `archive`.
fn entry_of(archive: &[u8], urls: &[String]) -> Entry {
    Entry {
        name: "small".into(),
        title: "Small CIFAR-10".into(),
        description: "Ten records a batch.".into(),
        archive: "small.tar.gz".into(),
        folder: cifar10::FOLDER.into(),
        format: Format::Cifar10Binary,
        urls: urls.to_vec(),
        bytes: archive.len() as u64,
        sha256: sha256(archive),
        unpacked_bytes: 6 * 10 * 3073,
        member: None,
        licence: "none".into(),
        source: "drawn".into(),
    }
}

/// The SHA-256 in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// The names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
