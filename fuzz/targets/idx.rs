//! An IDX file, plain.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rezero_data::idx;

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| {
    rezero_fuzz::within(64, bytes, || {
        for axes in 0..4 {
            let Ok(array) = idx::parse(bytes, Path::new("file"), axes, 1 << 20) else {
                continue;
            };
            assert_eq!(array.dims.iter().product::<usize>(), array.bytes.len());
            assert!(bytes.ends_with(&array.bytes));
        }
    });
});
