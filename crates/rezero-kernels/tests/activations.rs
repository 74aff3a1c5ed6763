use proptest::prelude::*;
use rezero_kernels::gelu;

use crate::support::{cases, finite_differences, gradient, leaf, random, same, weighed};

fn check(shape: [usize; 3], scale: f32) {
    same(&format!("gelu {shape:?} × {scale}"), |device| {
        let x = leaf::<3>(&random(shape, 1), device);
        let y = gelu(x.clone() * scale);
        let gradients = weighed(y.clone()).backward();
        vec![y.into_data(), gradient(&x, &gradients)]
    });
}

#[test]
fn sizes_and_scales() {
    check([1, 1, 1], 1.0);
    // Far below 0 the composed operations have few digits, so that larger values must be there.
    for shape in [[3, 17, 5], [8, 64, 256], [1, 1, 40_003]] {
        check(shape, 1.0);
        check(shape, 8.0);
    }
}

#[test]
fn views() {
    same("gelu of a view", |device| {
        let x = leaf::<3>(&random([4, 6, 10], 2), device);
        let y = gelu(x.clone().swap_dims(0, 2).flip([1]));
        let gradients = weighed(y.clone()).backward();
        vec![y.into_data(), gradient(&x, &gradients)]
    });
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    finite_differences("gelu", [random([60], 3)], |[x]| {
        weighed(gelu(x.clone() * 3.0))
    });
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_shape(a in 1usize..5, b in 1usize..70, c in 16usize..70, scale in 0.1f32..20.0) {
        check([a, b, c], scale);
    }
}
