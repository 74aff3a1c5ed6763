//! A downloaded `.tar.gz` with the folder of a data set. An input that is not compressed is compressed here:
//! hardly a damaged one would reach the reader of the archive.
#![no_main]

use std::io::Read;

use flate2::Compression;
use flate2::read::GzEncoder;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return rezero_fuzz::unpack(bytes, "cifar10");
    }
    let mut archive = Vec::new();
    let mut encoder = GzEncoder::new(bytes, Compression::none());
    encoder.read_to_end(&mut archive).expect("it is in memory");
    rezero_fuzz::unpack(&archive, "cifar10");
});
