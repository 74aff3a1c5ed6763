//! A batch file of CIFAR-10.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rezero_data::{ImageSet, cifar10};

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| {
    rezero_fuzz::within(64, bytes, || {
        let Ok((labels, pixels)) = cifar10::parse(bytes, Path::new("batch")) else {
            return;
        };
        let names = cifar10::CLASS_NAMES;
        let set = ImageSet::from_raw("cifar10", cifar10::SHAPE, pixels, labels, names, 0);
        let set = set.expect("records are images");
        let records = bytes.chunks(cifar10::RECORD_BYTES).enumerate();
        for (i, record) in records {
            let pixels = set.pixels(i).expect("pixels in memory");
            assert_eq!(
                (u16::from(record[0]), &record[1..]),
                (set.label(i), &*pixels)
            );
        }
    });
});
