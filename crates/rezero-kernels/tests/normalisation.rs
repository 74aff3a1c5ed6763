use std::sync::{Arc, Barrier, Mutex};

use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use rezero_kernels::{
    Epilogue, Group, batch_norm, batch_norm_gated_sum, layer_norm, normalize, rms_norm,
};

use crate::support::{
    close, composed, fast, finite_differences, gathered, gradient, leaf, random, same, weighed,
};

fn check(shape: [usize; 4], epilogue: Epilogue, alpha: f32, offset: f32) {
    let channels = shape[1];
    let values = shape.iter().product::<usize>() / channels;
    let what = format!("batch norm {shape:?}, {epilogue:?}, α = {alpha}, mean {offset}");
    same(&what, |device| {
        let x = leaf::<4>(&random(shape, 1), device);
        let gamma = leaf::<1>(&random([channels], 2), device);
        let beta = leaf::<1>(&random([channels], 3), device);
        let skip = leaf::<4>(&random(shape, 4), device);
        let a = Tensor::<1>::from_floats([alpha], device).require_grad();
        let plain = batch_norm(
            x.clone() + offset,
            gamma.clone(),
            beta.clone(),
            1e-5,
            epilogue,
        );
        let gated = batch_norm_gated_sum(
            skip.clone(),
            plain.output.clone(),
            gamma.clone(),
            beta.clone(),
            1e-5,
            epilogue,
            a.clone(),
        );
        let gradients = weighed(gated.output.clone()).backward();
        vec![
            plain.output.into_data(),
            plain.mean.into_data(),
            plain.variance.into_data(),
            gated.output.into_data(),
            gated.mean.into_data(),
            gated.variance.into_data(),
            gradient(&x, &gradients),
            gathered(&gamma, values, alpha.abs(), &gradients),
            gathered(&beta, values, alpha.abs(), &gradients),
            gradient(&skip, &gradients),
            gathered(&a, shape.iter().product(), 1.0, &gradients),
        ]
    });
}

#[test]
fn layers_of_a_resnet() {
    check([3, 5, 4, 6], Epilogue::Gelu, 0.4, 0.0);
    check([3, 5, 4, 6], Epilogue::Silu, 0.4, 0.0);
    for shape in [[8, 16, 32, 32], [8, 64, 8, 8], [2, 3, 7, 5], [3, 2, 1, 1]] {
        for epilogue in [Epilogue::Identity, Epilogue::Relu] {
            check(shape, epilogue, 0.0, 0.0);
            check(shape, epilogue, -0.7, 0.0);
        }
    }
}

#[test]
fn given_statistics() {
    for (shape, epilogue, gated) in [
        ([3, 4, 5, 7], Epilogue::Relu, true),
        ([3, 4, 5, 7], Epilogue::Identity, true),
        ([1, 2, 1, 1], Epilogue::Relu, false),
        ([2, 16, 8, 8], Epilogue::Identity, false),
        ([2, 3, 4, 4], Epilogue::Silu, true),
    ] {
        // The kernel serves `normalize` only outside autodiff.
        let run = |device: &Device| {
            let of = |seed| Tensor::<1>::from_data(random([shape[1]], seed), device);
            let x = Tensor::<4>::from_data(random(shape, 1), device);
            let skip = Tensor::<4>::from_data(random(shape, 2), device);
            let channels = [of(3), of(4), of(5), of(6).square()];
            let alpha = Tensor::<1>::from_floats([-0.3], device);
            let sum = gated.then_some((skip, alpha));
            normalize(x, channels, 1e-5, epilogue, sum).into_data()
        };
        close(
            "given statistics",
            &run(&Device::flex()),
            &run(&composed()),
            1e-5,
        );
    }
}

#[test]
fn a_mean_far_from_zero_costs_no_accuracy() {
    let device = crate::support::fast();
    let x = Tensor::<4>::from_data(random([8, 4, 16, 16], 1), &device);
    let ones = Tensor::<1>::ones([4], &device);
    let run = |offset: f32| {
        let x = x.clone() + offset;
        batch_norm(x, ones.clone(), ones.clone(), 1e-5, Epilogue::Identity)
            .variance
            .into_data()
    };
    // Adding 4096 rounds the values to 2⁻¹²; no other error is allowed.
    crate::support::close("variance", &run(4096.0), &run(0.0), 1e-3);
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    let inputs = [
        random([3 * 2 * 4 * 4], 1),
        random([2], 2),
        random([2], 3),
        random([3 * 2 * 4 * 4], 4),
        random([1], 5),
    ];
    finite_differences("batch norm", inputs, |[x, gamma, beta, skip, alpha]| {
        let shape = [3, 2, 4, 4];
        let normed = batch_norm_gated_sum(
            skip.clone().reshape(shape),
            x.clone().reshape(shape),
            gamma.clone(),
            beta.clone(),
            1e-5,
            Epilogue::Identity,
            alpha.clone(),
        );
        weighed::<4>(normed.output)
    });
}

proptest! {
    #![proptest_config(crate::support::cases(32))]

    #[test]
    fn any_shape(
        shape in prop::array::uniform4(1usize..12),
        relu: bool,
        alpha in -2.0f32..2.0,
    ) {
        // The variance of very few values may be nothing but rounding.
        prop_assume!(shape[0] * shape[2] * shape[3] > 3);
        let epilogue = if relu { Epilogue::Relu } else { Epilogue::Identity };
        check(shape, epilogue, alpha, 0.5);
    }
}

/// Rows of several lengths, far means and views: layer norm and RMS norm.
fn rows(shape: [usize; 3], scale: f32, mean: f32) {
    let channels = shape[2];
    same(
        &format!("norms of rows {shape:?} × {scale} + {mean}"),
        |device| {
            let x = leaf::<3>(&random(shape, 1), device);
            let gamma = leaf::<1>(&random([channels], 2), device);
            let beta = leaf::<1>(&random([channels], 3), device);
            let z = x.clone() * scale + mean;
            let centred = layer_norm(z.clone(), gamma.clone(), beta.clone(), 1e-5);
            let plain = rms_norm(z, gamma.clone(), 1e-5);
            let gradients = (weighed(centred.clone()) + weighed(plain.clone() * 0.5)).backward();
            vec![
                centred.into_data(),
                plain.into_data(),
                gradient(&x, &gradients),
                gradient(&gamma, &gradients),
                gradient(&beta, &gradients),
            ]
        },
    );
}

#[test]
fn rows_of_the_models() {
    for shape in [[2, 3, 5], [3, 17, 64], [16, 64, 128], [1, 2, 40_001]] {
        rows(shape, 1.0, 0.0);
        rows(shape, 3.0, 0.5);
    }
}

#[test]
fn rows_of_a_view() {
    same("layer norm of a view", |device| {
        let x = leaf::<3>(&random([4, 6, 10], 2), device);
        let gamma = leaf::<1>(&random([4], 4), device);
        let y = layer_norm(
            x.clone().swap_dims(0, 2).flip([1]),
            gamma.clone(),
            gamma.clone(),
            1e-5,
        );
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&gamma, &gradients),
        ]
    });
}

#[test]
fn the_slopes_of_the_norms_of_rows() {
    finite_differences(
        "layer norm",
        [random([6 * 7], 1), random([7], 2), random([7], 3)],
        |[x, gamma, beta]| {
            weighed(layer_norm(
                x.clone().reshape([6, 7]),
                gamma.clone(),
                beta.clone(),
                1e-5,
            ))
        },
    );
    finite_differences(
        "RMS norm",
        [random([6 * 7], 1), random([7], 2)],
        |[x, gamma]| weighed(rms_norm(x.clone().reshape([6, 7]), gamma.clone(), 1e-5)),
    );
}

/// Two threads with a part each, and a third whose rows do not count, against the whole batch: outputs, statistics and gradients.
#[test]
fn a_group_has_the_statistics_of_the_whole_batch() {
    let parts = [0..5, 5..7, 0..1];
    let shape = [7, 3, 6, 5];
    let (mut x, skip) = (random(shape, 1), random(shape, 2));
    // A mean that lies far from zero, and differs between the parts.
    let values = x.as_mut_slice::<f32>().unwrap();
    for (i, value) in values.iter_mut().enumerate() {
        *value += if i < 5 * 90 { 300.0 } else { 310.0 };
    }
    let run = |rows: std::ops::Range<usize>, group: Option<Group>| -> Vec<TensorData> {
        let device = fast();
        let part = |data: &TensorData| {
            let whole = Tensor::<4>::from_data(data.clone(), &device);
            whole.slice_dim(0, rows.clone()).into_data()
        };
        let [x, skip] = [&x, &skip].map(|data| leaf::<4>(&part(data), &device));
        let [gamma, beta] = [3, 4].map(|seed| leaf::<1>(&random([3], seed), &device));
        let alpha = leaf::<1>(&random([1], 5), &device);
        let forward = || {
            let plain = batch_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5, Epilogue::Relu);
            let gated = batch_norm_gated_sum(
                skip.clone(),
                plain.output.clone(),
                gamma.clone(),
                beta.clone(),
                1e-5,
                Epilogue::Identity,
                alpha.clone(),
            );
            (plain, gated)
        };
        let (plain, gated) = match &group {
            Some(group) => group.run(forward),
            None => forward(),
        };
        let weights = part(&random(shape, 6));
        let weights = Tensor::from_data(weights, &device);
        let gradients = (gated.output.clone() * weights).sum().backward();
        vec![
            gated.output.into_data(),
            gradient(&x, &gradients),
            gradient(&skip, &gradients),
            plain.mean.into_data(),
            plain.variance.into_data(),
            gated.mean.into_data(),
            gated.variance.into_data(),
            gradient(&gamma, &gradients),
            gradient(&beta, &gradients),
            gradient(&alpha, &gradients),
        ]
    };
    let whole = run(0..7, None);
    let lists = Mutex::new([const { Vec::new() }; 3]);
    let (lists, barrier) = (Arc::new(lists), Arc::new(Barrier::new(3)));
    let found: Vec<Vec<TensorData>> = std::thread::scope(|scope| {
        let works: Vec<_> = (0..3)
            .map(|i| {
                let (lists, barrier) = (lists.clone(), barrier.clone());
                let group = Group::new(2, move |own| {
                    lists.lock().unwrap()[i] = own;
                    barrier.wait();
                    let all = lists.lock().unwrap().to_vec();
                    barrier.wait();
                    all
                });
                let (run, rows) = (&run, parts[i].clone());
                scope.spawn(move || run(rows, Some(group)))
            })
            .collect();
        works.into_iter().map(|work| work.join().unwrap()).collect()
    });
    let tensor = |data: &TensorData| Tensor::<4>::from_data(data.clone(), &Device::flex());
    for i in 0..3 {
        let joined = Tensor::cat(vec![tensor(&found[0][i]), tensor(&found[1][i])], 0);
        close("rows", &joined.into_data(), &whole[i], 1e-6);
    }
    for i in 3..7 {
        for part in &found {
            close("statistics", &part[i], &whole[i], 1e-6);
        }
    }
    let tensor = |data: &TensorData| Tensor::<1>::from_data(data.clone(), &Device::flex());
    for i in 7..10 {
        let sum = tensor(&found[0][i]) + tensor(&found[1][i]);
        close("parameters", &sum.into_data(), &whole[i], 1e-6);
    }
}

#[test]
#[should_panic = "only for f32 on Flex"]
fn a_group_on_composed_operations_panics() {
    let x = Tensor::<2>::zeros([2, 3], &Device::flex().autodiff().gradient_checkpointing());
    let ones = Tensor::<1>::ones([3], &x.device());
    Group::new(1, |own| vec![own])
        .run(|| batch_norm(x, ones.clone(), ones, 1e-5, Epilogue::Identity));
}
