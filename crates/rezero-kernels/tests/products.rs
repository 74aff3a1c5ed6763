use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use rezero_kernels::{Epilogue, gated_linear, gated_sum, linear};

use crate::support::{finite_differences, gathered, gradient, leaf, random, same, weighed};

const EPILOGUES: [Epilogue; 4] = [
    Epilogue::Identity,
    Epilogue::Relu,
    Epilogue::Gelu,
    Epilogue::Silu,
];

fn check_linear(shape: [usize; 3], width: usize, bias: bool, epilogue: Epilogue) {
    let what = format!("linear {shape:?} to {width}, bias {bias}, {epilogue:?}");
    same(&what, |device| {
        let x = leaf::<3>(&random(shape, 1), device);
        let w = leaf::<2>(&random([shape[2], width], 2), device);
        let b = leaf::<1>(&random([width], 3), device);
        let y = linear(x.clone(), w.clone(), bias.then(|| b.clone()), epilogue);
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&w, &gradients),
            gathered(&b, shape[0] * shape[1], 1.0, &gradients),
        ]
    });
}

fn check_gated(batch: usize, width: usize, alpha: f32) {
    same(
        &format!("gated linear [{batch}, {width}], α = {alpha}"),
        |device| {
            let x = leaf::<2>(&random([batch, width], 1), device);
            let w = leaf::<2>(&random([width, width], 2), device);
            let b = leaf::<1>(&random([width], 3), device);
            let a = Tensor::<1>::from_floats([alpha], device).require_grad();
            let y = gated_linear(x.clone(), w.clone(), b.clone(), a.clone());
            let gradients = weighed(y.clone()).backward();
            vec![
                y.into_data(),
                gradient(&x, &gradients),
                gradient(&w, &gradients),
                gradient(&b, &gradients),
                gathered(&a, batch * width, 1.0, &gradients),
            ]
        },
    );
}

fn check_sum(shape: [usize; 3], alpha: f32) {
    same(&format!("gated sum {shape:?}, α = {alpha}"), |device| {
        let x = leaf::<3>(&random(shape, 1), device);
        let f = leaf::<3>(&random(shape, 2), device);
        let a = Tensor::<1>::from_floats([alpha], device).require_grad();
        let y = gated_sum(x.clone(), f.clone(), a.clone());
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&f, &gradients),
            gathered(&a, shape.iter().product(), 1.0, &gradients),
        ]
    });
}

#[test]
fn linear_layers_of_the_models() {
    for (shape, width) in [
        ([8, 128, 256], 768),
        ([8, 128, 256], 1024),
        ([1, 100, 256], 256),
        ([1, 1, 256], 1024),
        ([1, 1, 1], 1),
        ([2, 37, 131], 257),
    ] {
        for epilogue in EPILOGUES {
            check_linear(shape, width, true, epilogue);
            check_linear(shape, width, false, epilogue);
        }
    }
}

#[test]
fn gates_open_shut_and_negative() {
    for alpha in [0.0, 0.3, -1.7] {
        check_gated(100, 256, alpha);
        check_gated(1, 1, alpha);
        check_gated(37, 19, alpha);
        check_sum([3, 128, 257], alpha);
        check_sum([1, 1, 1], alpha);
    }
}

#[test]
fn a_transposed_weight_is_read_in_place() {
    same("a transposed weight", |device| {
        let x = leaf::<3>(&random([2, 5, 33], 1), device);
        let w = leaf::<2>(&random([70, 33], 2), device);
        let y = linear(x.clone(), w.clone().transpose(), None, Epilogue::Identity);
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&w, &gradients),
        ]
    });
    same("a transposed input and a flipped weight", |device| {
        let x = leaf::<3>(&random([2, 33, 5], 1), device);
        let w = leaf::<2>(&random([33, 70], 2), device);
        let y = linear(
            x.clone().swap_dims(1, 2),
            w.clone().flip([0]),
            None,
            Epilogue::Relu,
        );
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&w, &gradients),
        ]
    });
}

#[test]
fn a_gradient_that_two_branches_share_is_not_written_over() {
    same("x used twice", |device| {
        let x = leaf::<2>(&random([9, 16], 1), device);
        let w = leaf::<2>(&random([16, 16], 2), device);
        let b = leaf::<1>(&random([16], 3), device);
        let a = Tensor::<1>::from_floats([0.7], device).require_grad();
        let y = gated_linear(x.clone(), w.clone(), b.clone(), a.clone());
        let z = gated_sum(
            y.clone(),
            gated_linear(y, w.clone(), b, a.clone()),
            a.clone(),
        );
        let gradients = weighed(z + x.clone()).backward();
        vec![
            gradient(&x, &gradients),
            gradient(&w, &gradients),
            gradient(&a, &gradients),
        ]
    });
}

#[test]
fn backward_passes_are_the_slopes_of_forward_passes() {
    let [x, w, b, a] = [
        random([4 * 6], 1),
        random([6 * 6], 2),
        random([6], 3),
        random([1], 4),
    ];
    for epilogue in [Epilogue::Identity, Epilogue::Gelu, Epilogue::Silu] {
        finite_differences("linear", [x.clone(), w.clone(), b.clone()], |[x, w, b]| {
            let x: Tensor<2> = x.clone().reshape([4, 6]);
            let w = w.clone().reshape([6, 6]);
            weighed(linear(x, w, Some(b.clone()), epilogue))
        });
    }
    finite_differences(
        "gated linear",
        [x.clone(), w, b, a.clone()],
        |[x, w, b, a]| {
            let x: Tensor<2> = x.clone().reshape([4, 6]);
            weighed(gated_linear(
                x,
                w.clone().reshape([6, 6]),
                b.clone(),
                a.clone(),
            ))
        },
    );
    finite_differences("gated sum", [x.clone(), x, a], |[x, f, a]| {
        weighed(gated_sum(x.clone(), f.clone(), a.clone()))
    });
}

#[test]
fn without_autodiff_the_same_values() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data(random([7, 12], 1), &device);
    let w = Tensor::<2>::from_data(random([12, 12], 2), &device);
    let b = Tensor::<1>::from_data(random([12], 3), &device);
    let tracked = |t: &Tensor<2>| Tensor::from_inner(t.clone());
    for epilogue in EPILOGUES {
        let plain = linear(x.clone(), w.clone(), Some(b.clone()), epilogue);
        let bias = Some(Tensor::from_inner(b.clone()));
        let followed = linear(tracked(&x), tracked(&w), bias, epilogue);
        assert_eq!(plain.into_data(), followed.into_data(), "{epilogue:?}");
    }
}

proptest! {
    #![proptest_config(crate::support::cases(32))]

    #[test]
    fn any_shape(
        shape in prop::array::uniform3(1usize..40),
        width in 1usize..90,
        bias: bool,
        epilogue in prop::sample::select(EPILOGUES.as_slice()),
        alpha in -2.0f32..2.0,
    ) {
        check_linear(shape, width, bias, epilogue);
        check_gated(shape[0] * shape[1], width, alpha);
        check_sum(shape, alpha);
    }
}
