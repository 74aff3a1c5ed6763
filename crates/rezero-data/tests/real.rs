//! Checks on official records. `REZERO_TEST_DATA` names a folder that holds
//! `cifar10-sample/cifar-10-batches-bin`: the first 1,000 records of each official batch.

use std::path::PathBuf;

use rezero_data::{Split, cifar10};

#[test]
fn the_first_official_records_are_as_published() {
    let Some(root) = std::env::var_os("REZERO_TEST_DATA") else {
        println!("skipped: REZERO_TEST_DATA is not set");
        return;
    };
    let dir = PathBuf::from(root).join("cifar10-sample");
    let folder = cifar10::open(&dir).unwrap();
    assert!(folder.is_subset());
    let [train, valid, test] = Split::ALL.map(|split| folder.load(split).unwrap());
    assert_eq!([train.len(), valid.len(), test.len()], [4500, 500, 1000]);

    // The first labels of data_batch_1 and test_batch, as every CIFAR-10 tutorial prints them.
    assert_eq!(train.labels()[..10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert_eq!(test.labels()[..10], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]);
    // The first image is the frog whose first red, green and blue values are 59, 62 and 63.
    let frog = train.pixels(0);
    assert_eq!([frog[0], frog[1024], frog[2048]], [59, 62, 63]);

    // 5,000 of 50,000 images: their moments are near those of all.
    let all = cifar10::NORMALIZATION_SUPERCONVERGENCE;
    for c in 0..3 {
        let (mut sum, mut square, mut n) = (0.0, 0.0, 0.0);
        for i in 0..train.len() {
            for &byte in &train.pixels(i)[c * 1024..][..1024] {
                let value = f64::from(byte) / 255.0;
                sum += value;
                square += value * value;
                n += 1.0;
            }
        }
        let mean = sum / n;
        assert!(
            (mean - f64::from(all.mean[c])).abs() < 0.01,
            "{c}: mean {mean}"
        );
        let std = (square / n - mean * mean).sqrt();
        assert!((std - f64::from(all.std[c])).abs() < 0.01, "{c}: std {std}");
    }
}
