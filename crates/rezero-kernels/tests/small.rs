//! The kernels without matrix products, at shapes small enough for Miri: where such a shape exists,
//! it has two tasks, each with a vector and a remainder.

use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::{
    AdamStep, DotProductAttention, Epilogue, batch_norm_gated_sum, conv2d, cross_entropy, dropout,
    embedding, gated_sum, gelu, layer_norm, rms_norm, seeded, silu, subsample, swiglu,
};

use crate::support::{gradient, leaf, random, same, weighed};

#[test]
fn convolution() {
    // The last by Winograd's algorithm.
    for (batch, channels, image, kernel, stride) in [
        (2, [2, 3], [5, 4], [3, 3], 1),
        (2, [1, 9], [5, 5], [3, 2], 2),
        (6, [8, 8], [8, 9], [3, 3], 1),
    ] {
        same(
            &format!("{channels:?} {image:?} {kernel:?} {stride}"),
            |device| {
                let x = leaf::<4>(&random([batch, channels[0], image[0], image[1]], 1), device);
                let w = leaf::<4>(
                    &random([channels[1], channels[0], kernel[0], kernel[1]], 2),
                    device,
                );
                let y = conv2d(x.clone(), w.clone(), stride, 1);
                let gradients = weighed(y.clone()).backward();
                vec![
                    y.into_data(),
                    gradient(&x, &gradients),
                    gradient(&w, &gradients),
                ]
            },
        );
    }
}

#[test]
fn norm_and_sum() {
    same("batch norm and gated sums", |device| {
        let x = leaf::<4>(&random([2, 2, 3, 7], 1), device);
        let skip = leaf::<4>(&random([2, 2, 3, 7], 2), device);
        let channels = leaf::<1>(&random([2], 3), device);
        let alpha = leaf::<1>(&random([1], 4), device);
        let y = batch_norm_gated_sum(
            skip.clone(),
            x.clone(),
            channels.clone(),
            channels.clone(),
            1e-5,
            Epilogue::Relu,
            alpha.clone(),
        );
        let y = gated_sum(y.output, skip.clone(), alpha);
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&skip, &gradients),
        ]
    });
}

#[test]
fn activation() {
    same("gelu", |device| {
        let x = leaf::<1>(&random([19], 1), device);
        let y = gelu(x.clone());
        let gradients = weighed(y.clone()).backward();
        vec![y.into_data(), gradient(&x, &gradients)]
    });
}

#[test]
fn gates_and_shortcuts() {
    same("SwiGLU, SiLU and subsample", |device| {
        let x = leaf::<4>(&random([2, 2, 3, 5], 1), device);
        let gate = leaf::<4>(&random([2, 2, 3, 5], 2), device);
        let y = subsample(swiglu(x.clone(), silu(gate.clone())), 2, [1, 1]);
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&gate, &gradients),
        ]
    });
}

#[test]
fn rows_dropped_and_looked_up() {
    same("embedding and dropout", |device| {
        let weight = leaf::<2>(&random([5, 19], 1), device);
        let ids = TensorData::new(vec![4i32, 0, 4, 2, 1, 4], [2, 3]);
        let rows = embedding(weight.clone(), Tensor::from_data(ids, device), 2.0);
        let y = seeded(1, 3, || dropout(rows, 0.4));
        let gradients = weighed(y.clone()).backward();
        vec![y.into_data(), gradient(&weight, &gradients)]
    });
}

#[test]
fn norms_of_rows() {
    same("layer norm and RMS norm", |device| {
        let x = leaf::<2>(&random([3, 19], 1), device);
        let channels = leaf::<1>(&random([19], 2), device);
        let y = layer_norm(x.clone(), channels.clone(), channels.clone(), 1e-5);
        let y = rms_norm(y, channels.clone(), 1e-5);
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&channels, &gradients),
        ]
    });
}

/// With few queries, the forward pass has no product of matrices.
#[test]
fn attention_of_few_queries() {
    same("attention", |device| {
        let _alone = crate::support::seeded(device, 1);
        let x = |rows: usize, seed| Tensor::<3>::from_data(random([2, rows, 38], seed), device);
        let cells = TensorData::new((0..20).map(|i| i % 3 == 1).collect(), [2, 2, 5]);
        let attention = DotProductAttention {
            causal: true,
            dropout: 0.2,
            ..DotProductAttention::new(2)
        };
        let mask = Tensor::from_data(cells, device);
        vec![
            attention
                .forward(x(2, 1), x(5, 2), x(5, 3), Some(mask))
                .into_data(),
        ]
    });
}

#[test]
fn loss() {
    same("cross entropy", |device| {
        let logits = leaf::<2>(&random([3, 19], 1), device);
        let targets = Tensor::from_data(TensorData::new(vec![0i32, 18, 7], [3]), device);
        let losses = cross_entropy(logits.clone(), targets);
        let gradients = weighed(losses.clone()).backward();
        vec![losses.into_data(), gradient(&logits, &gradients)]
    });
}

#[test]
fn update() {
    let step = |time| AdamStep {
        lr: 1e-2,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        decoupled: false,
        time,
    };
    let steps = |device: &Device| {
        let w = Tensor::<1>::from_data(random([37], 1), device);
        let g = Tensor::<1>::from_data(random([37], 2), device);
        let (w, moments) = step(1).update(w, g.clone(), None);
        let (w, _) = step(2).update(w, g, Some(moments));
        w.into_data()
    };
    let composed = steps(&Device::flex().autodiff());
    crate::support::close("adam", &steps(&Device::flex()), &composed, 1e-5);
}
