//! Files of `torch.save`, as `rezero import` reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| rezero_fuzz::torch(1024, bytes));
