use proptest::prelude::*;
use rezero_kernels::{gelu, silu, swiglu};

use crate::support::{cases, finite_differences, gradient, leaf, random, same, weighed};

fn check(shape: [usize; 3], scale: f32) {
    for (name, act) in [("gelu", gelu::<3> as fn(_) -> _), ("silu", silu::<3>)] {
        same(&format!("{name} {shape:?} × {scale}"), |device| {
            let x = leaf::<3>(&random(shape, 1), device);
            let y = act(x.clone() * scale);
            let gradients = weighed(y.clone()).backward();
            vec![y.into_data(), gradient(&x, &gradients)]
        });
    }
    same(&format!("swiglu {shape:?} × {scale}"), |device| {
        let (x, u) = (
            leaf::<3>(&random(shape, 1), device),
            leaf::<3>(&random(shape, 2), device),
        );
        let y = swiglu(x.clone() * scale, u.clone());
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&u, &gradients),
        ]
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
    same("activations of views", |device| {
        let x = leaf::<3>(&random([4, 6, 10], 2), device);
        let view = x.clone().swap_dims(0, 2).flip([1]);
        let y = swiglu(gelu(view.clone()), silu(view.flip([0])));
        let gradients = weighed(y.clone()).backward();
        vec![y.into_data(), gradient(&x, &gradients)]
    });
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    finite_differences("gelu", [random([60], 3)], |[x]| {
        weighed(gelu(x.clone() * 3.0))
    });
    finite_differences("silu", [random([60], 3)], |[x]| {
        weighed(silu(x.clone() * 3.0))
    });
    finite_differences("swiglu", [random([60], 3), random([60], 4)], |[x, u]| {
        weighed(swiglu(x.clone() * 3.0, u.clone()))
    });
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_shape(a in 1usize..5, b in 1usize..70, c in 16usize..70, scale in 0.1f32..20.0) {
        check([a, b, c], scale);
    }
}
