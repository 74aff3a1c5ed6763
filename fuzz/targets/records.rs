//! The text files of a run: manifest, state, environment and rows of metrics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rezero_fuzz::{file, folder, within};
use rezero_train::record::checkpoint::{Manifest, Reader};
use rezero_train::record::{Environment, Row, State, metrics};

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

// Opening a file takes longer than most readers do, so a text becomes a file only where that reads more.
fuzz_target!(|bytes: &[u8]| {
    within(64, bytes, || {
        let _ = serde_json::from_slice::<Environment>(bytes);
        if let Ok(state) = serde_json::from_slice::<State>(bytes) {
            let _ = (state.since.mean_loss(), state.since.mean("accuracy"));
            let _ = state.loss_scale.map(|scale| scale.next(true).next(false));
        }
        if let Ok(row) = serde_json::from_slice::<Row>(bytes) {
            let text = serde_json::to_vec(&row).expect("a row is JSON");
            let again: Row = serde_json::from_slice(&text).expect("it reads its own text");
            assert_eq!(serde_json::to_vec(&again).unwrap(), text);
            let _ = row.is_finite();
        }
    });
    if serde_json::from_slice::<Manifest>(bytes).is_ok() {
        file("manifest.json", bytes);
        within(64, bytes, || {
            Reader::open(folder(), "model").map_err(|e| e.to_string())
        })
        .ok();
    }
    if bytes.contains(&b'\n') {
        file("metrics.jsonl", bytes);
        within(64, bytes, || {
            let last = metrics::last(folder());
            if let Ok(rows) = metrics::read(folder()) {
                let text = |row: Option<&Row>| serde_json::to_string(&row).unwrap();
                let last = last.expect("every line is a row");
                assert_eq!(text(last.as_ref()), text(rows.last()));
            }
        });
    }
});
