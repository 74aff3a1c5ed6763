use proptest::prelude::*;
use rezero_kernels::subsample;

use crate::support::{cases, fast, finite_differences, gradient, leaf, random, same, weighed};

fn check(shape: [usize; 4], stride: usize, zeros: [usize; 2]) {
    same(
        &format!("subsample {shape:?} {stride} {zeros:?}"),
        |device| {
            let x = leaf::<4>(&random(shape, 1), device);
            let y = subsample(x.clone(), stride, zeros);
            let gradients = weighed(y.clone()).backward();
            vec![y.into_data(), gradient(&x, &gradients)]
        },
    );
}

#[test]
fn models_shapes() {
    check([16, 16, 32, 32], 2, [8, 8]);
    check([16, 32, 16, 16], 2, [0, 32]);
    check([2, 5, 7, 9], 1, [3, 0]);
    check([1, 1, 1, 1], 3, [0, 0]);
}

#[test]
fn values_are_those_of_the_formula() {
    let x = leaf::<4>(&random([1, 1, 3, 5], 1), &fast());
    let x = x.detach();
    let y = subsample(x.clone(), 2, [1, 2]);
    assert_eq!(y.dims(), [1, 4, 2, 3]);
    let (x, y) = (x.into_data(), y.into_data());
    let (x, y) = (x.as_slice::<f32>().unwrap(), y.as_slice::<f32>().unwrap());
    let expected = [x[0], x[2], x[4], x[10], x[12], x[14]];
    assert_eq!(y[..6], [0.0; 6]);
    assert_eq!(y[6..12], expected);
    assert_eq!(y[12..], [0.0; 12]);
}

#[test]
fn views() {
    same("subsample of a view", |device| {
        let x = leaf::<4>(&random([3, 4, 6, 10], 2), device);
        let y = subsample(x.clone().swap_dims(2, 3).flip([0]), 2, [1, 1]);
        let gradients = weighed(y.clone()).backward();
        vec![y.into_data(), gradient(&x, &gradients)]
    });
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    finite_differences("subsample", [random([2 * 3 * 5 * 4], 3)], |[x]| {
        weighed(subsample(x.clone().reshape([2, 3, 5, 4]), 2, [1, 0]))
    });
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_shape(
        n in 1usize..4, c in 1usize..5, h in 1usize..12, w in 1usize..20, stride in 1usize..5, before in 0usize..3, after in 0usize..3,
    ) {
        check([n, c, h, w], stride, [before, after]);
    }
}
