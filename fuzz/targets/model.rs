//! `model.bpk` and `ema.bpk` of a checkpoint, put into a small language model.
#![no_main]

use burn::module::Module;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| {
    let model = rezero_fuzz::model();
    let Some(reader) = rezero_fuzz::checkpoint(&["model.bpk", "ema.bpk"], bytes) else {
        return;
    };
    rezero_fuzz::within(64, bytes, || {
        if reader.fits(&model).is_ok()
            && let Ok(record) = reader.weights()
        {
            let _ = model
                .clone()
                .try_load_record(record)
                .map_err(|e| e.to_string());
            if let Ok(Some(average)) = reader.average() {
                let _ = model.try_load_record(average).map_err(|e| e.to_string());
            }
        }
    });
});
