use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use rezero_kernels::{cross_entropy, soft_cross_entropy};

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

/// The numbers that `label_smoothing.py` prints.
const SMOOTH: [f32; 3] = [0.503_248_6, 7.175_281, 0.675_370_16];
const SMOOTH_GRADIENT: [f32; 12] = [
    0.134_693_55,
    0.002_750_577_9,
    -0.209_303_16,
    0.071_859_03,
    -0.924_470_7,
    0.931_924_34,
    -0.011_350_207,
    0.003_896_611,
    -0.024_876_636,
    -0.024_876_636,
    -0.024_876_636,
    0.074_629_91,
];
const MIXED: [f32; 3] = [0.784_498_6, 2.669_031, 9.000_37];
const MIXED_GRADIENT: [f32; 12] = [
    -0.140_306_45,
    0.027_750_578,
    0.015_696_838,
    0.096_859_03,
    0.000_529_259_9,
    0.706_924_3,
    0.013_649_793,
    -0.721_103_4,
    0.000_123_364_13,
    -0.999_876_6,
    0.000_123_364_13,
    0.999_629_9,
];

#[test]
fn shares_of_classes_are_pytorchs() {
    let device = fast();
    let logits = || {
        Tensor::<2>::from_floats(
            [
                [0.5, -1.25, 2.0, 0.0],
                [-3.0, 4.5, 0.25, 1.0],
                [0.0, 0.0, 0.0, 9.0],
            ],
            &device,
        )
        .require_grad()
    };
    let smooth = |target: usize| {
        let share = |class| if class == target { 0.925 } else { 0.025 };
        std::array::from_fn::<f32, 4, _>(share)
    };
    let mixed = [
        [0.3, 0.0, 0.7, 0.0],
        [0.0, 0.25, 0.0, 0.75],
        [0.0, 1.0, 0.0, 0.0],
    ];
    for (shares, losses, gradient) in [
        ([2, 0, 3].map(smooth), SMOOTH, SMOOTH_GRADIENT),
        (mixed, MIXED, MIXED_GRADIENT),
    ] {
        let logits = logits();
        let found = soft_cross_entropy(logits.clone(), Tensor::from_floats(shares, &device));
        let gradients = found.clone().sum().backward();
        let slopes = logits.grad(&gradients).unwrap().into_data();
        let found = found.into_data();
        let close = |found: &[f32], expected: &[f32]| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} {b}");
            }
        };
        close(found.as_slice().unwrap(), &losses);
        close(slopes.as_slice().unwrap(), &gradient);
    }
}

/// `λ CE(a) + (1 − λ) CE(b)`, and `CE` alone where a class has the whole row.
#[test]
fn a_mixed_rows_loss_is_the_mixture_of_both() {
    const N: usize = 50;
    for classes in [2, 10, 257] {
        let device = fast();
        let logits = || leaf::<2>(&random([N, classes], 3), &device);
        let [a, b] = [0, 1].map(|add| {
            let ids = (0..N).map(|i| ((i * 7919 + add) % classes) as i32);
            Tensor::<1, Int>::from_data(TensorData::new(ids.collect::<Vec<_>>(), [N]), &device)
        });
        for share in [0.0f32, 0.3, 1.0] {
            let hot = |ids: &Tensor<1, Int>| ids.clone().one_hot::<2>(classes).float();
            let shares = hot(&a) * share + hot(&b) * (1.0 - share);
            let (soft, hard) = (logits(), logits());
            let found = soft_cross_entropy(soft.clone() * 4, shares);
            let ce = |ids: &Tensor<1, Int>| cross_entropy(hard.clone() * 4, ids.clone());
            let expected = ce(&a) * share + ce(&b) * (1.0 - share);
            let slopes = [
                soft.grad(&weighed(found.clone()).backward()).unwrap(),
                hard.grad(&weighed(expected.clone()).backward()).unwrap(),
            ];
            let far = |a: Tensor<1>, b: Tensor<1>| (a - b).abs().max().into_scalar::<f32>();
            assert!(far(found.inner(), expected.inner()) < 2e-6 * 12.0);
            let [soft, hard] = slopes.map(|slopes| slopes.flatten::<1>(0, 1));
            assert!(far(soft, hard) < 2e-6 * 4.0);
        }
    }
}

#[test]
fn the_slope_with_shares_is_that_of_the_loss() {
    finite_differences("shares", [random([4 * 7], 1)], |[logits]| {
        let shares = Tensor::<1>::from_data(random([4 * 7], 2), &fast()).abs();
        let shares = shares.reshape([4, 7]);
        weighed(soft_cross_entropy(logits.clone().reshape([4, 7]), shares))
    });
}

#[test]
#[should_panic(expected = "logits have the shape [1, 3], but the shares have [1, 2].")]
fn shares_of_another_shape_are_refused() {
    let device = Device::flex();
    soft_cross_entropy(
        Tensor::zeros([1, 3], &device),
        Tensor::zeros([1, 2], &device),
    );
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
