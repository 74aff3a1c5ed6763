use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use rezero_kernels::cross_entropy;

use crate::support::{fast, finite_differences, gradient, leaf, random, same, weighed};

fn targets(n: usize, classes: usize) -> TensorData {
    let ids: Vec<i32> = (0..n).map(|i| (i * 7919 % classes) as i32).collect();
    TensorData::new(ids, [n])
}

fn check(n: usize, classes: usize, scale: f32) {
    same(
        &format!("cross entropy [{n}, {classes}] × {scale}"),
        |device| {
            let logits = leaf::<2>(&random([n, classes], 1), device);
            let targets = Tensor::from_data(targets(n, classes), device);
            let losses = cross_entropy(logits.clone() * scale, targets);
            let gradients = weighed(losses.clone()).backward();
            vec![losses.into_data(), gradient(&logits, &gradients)]
        },
    );
}

#[test]
fn sizes_and_scales() {
    for (n, classes) in [(1, 1), (1, 2), (128, 10), (1024, 256), (37, 1001)] {
        check(n, classes, 1.0);
        check(n, classes, 60.0);
    }
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    finite_differences("cross entropy", [random([4 * 7], 1)], |[logits]| {
        let targets = Tensor::from_data(targets(4, 7), &fast());
        weighed(cross_entropy(logits.clone().reshape([4, 7]), targets))
    });
}

#[test]
fn what_is_not_a_number_stays_so() {
    let logits = Tensor::<2>::from_floats([[0.0, f32::NAN, 1.0], [0.0, 0.0, 0.0]], &Device::flex());
    let targets = Tensor::from_data(targets(2, 3), &Device::flex());
    let losses = cross_entropy(logits, targets).into_data();
    let losses = losses.as_slice::<f32>().unwrap();
    assert!(losses[0].is_nan());
    assert!((losses[1] - 3f32.ln()).abs() < 1e-6);
}

#[test]
#[should_panic(expected = "a target must be from 0 to 2, got 3.")]
fn a_target_beyond_the_classes_is_refused() {
    let targets = Tensor::from_data(TensorData::new(vec![3i32], [1]), &Device::flex());
    cross_entropy(Tensor::zeros([1, 3], &Device::flex()), targets);
}

proptest! {
    #![proptest_config(crate::support::cases(32))]

    #[test]
    fn any_shape(n in 1usize..60, classes in 1usize..80, scale in 0.1f32..20.0) {
        check(n, classes, scale);
    }
}
