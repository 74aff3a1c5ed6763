//! A downloaded `.zip` with the one file of a data set.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| rezero_fuzz::unpack(bytes, "enwik8"));
