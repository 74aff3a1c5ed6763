//! `rezero bench` as a user and benches/compare.py meet it.

use serde_json::Value;

use crate::support::{fail, scratch, succeed};

/// One of each kind, in sizes that take milliseconds.
const TINY: [&str; 8] = [
    "mlp:width=8,layers=3,batch=5",
    "lm:layers=2,d_model=12,n_heads=3,length=7,batch=2",
    "resnet:depth=8,batch=3",
    "vit:layers=2,d_model=12,n_heads=3,image=8,batch=3",
    "mixer:layers=2,d_model=12,d_tokens=5,image=8,batch=4",
    "decode:layers=1,d_model=8,n_heads=2,length=5",
    "decode:layers=1,d_model=8,n_heads=2,length=5,prompt=3,batch=2",
    "latency:depth=8,batch=2",
];
/// The keys of a line.
const KEYS: [&str; 13] = [
    "framework",
    "device",
    "workload",
    "dtype",
    "ms_first",
    "ms_min",
    "ms_median",
    "ms_max",
    "items_per_s",
    "peak_rss_mb",
    "loops_per_step",
    "share_16_tasks",
    "captured",
];

#[test]
fn every_kind_prints_a_json_object() {
    let dir = scratch();
    let list = TINY.join(",");
    let said = succeed(dir.path(), &["bench", &list, "--json", "--steps", "3"]);
    let lines: Vec<Value> = said
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), TINY.len(), "{}", said.out);
    let items = [5.0, 14.0, 3.0, 3.0, 4.0, 5.0, 10.0, 2.0];
    for ((line, name), items) in lines.iter().zip(TINY).zip(items) {
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), KEYS.len(), "{keys:?}");
        assert!(KEYS.iter().all(|key| line.get(key).is_some()), "{keys:?}");
        assert_eq!(line["workload"], name);
        assert!(line["framework"].as_str().unwrap().starts_with("rezero "));
        assert_ne!(line["device"], "auto");
        let [min, median, max] =
            ["ms_min", "ms_median", "ms_max"].map(|key| line[key].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{line}");
        let rate = line["items_per_s"].as_f64().unwrap();
        // Both are rounded to a thousandth.
        assert!((rate * median / 1e3 / items - 1.0).abs() < 0.1, "{line}");
        assert!(line["loops_per_step"].as_f64().unwrap() >= 1.0, "{line}");
        let share = line["share_16_tasks"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{line}");
        if cfg!(target_os = "linux") {
            assert!(line["peak_rss_mb"].as_u64().unwrap() > 0);
        }
    }
}

#[test]
fn without_json_it_is_a_table() {
    let dir = scratch();
    let args = ["bench", TINY[0], "--steps", "1", "--threads", "1"];
    let said = succeed(dir.path(), &args);
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
    assert!(said.out.contains("median") && said.out.contains(TINY[0]));
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is() {
    let dir = scratch();
    for (list, parts) in [
        ("resnt-20", ["did you mean `resnet`?", "known: mlp-L"]),
        (
            "mlp-2,lm:d_modle=8",
            ["lm:d_modle=8", "did you mean `d_model`?"],
        ),
        ("lm:d_model=10,n_heads=3", ["must divide", "3 and 10"]),
        ("resnet-21", ["6n+2", "got 21"]),
        ("mlp-0", ["from 1", "got 0"]),
        ("lm:length=0", ["length", "got `0`"]),
        (
            "decode:layers=18446744073709551615",
            ["layers", "to 1000000"],
        ),
        ("mlp-2,", ["no name", "known"]),
    ] {
        let said = fail(dir.path(), &["bench", list], 1, &parts);
        assert!(said.out.is_empty(), "{}", said.out);
    }
    for (option, value) in [("--steps", "0"), ("--threads", "0")] {
        fail(dir.path(), &["bench", "mlp-2", option, value], 1, &[option]);
    }
    let args = ["bench", "mlp-2", "--device", "fleks"];
    fail(dir.path(), &args, 1, &["did you mean `flex`?"]);
    let args = ["bench", "mlp-2,latency", "--dtype", "bf16"];
    fail(dir.path(), &args, 1, &["`latency`", "training steps"]);
}
