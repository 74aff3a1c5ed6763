//! Values near the limits of f32, and sizes near the limits of memory.

use burn::tensor::{Device, DeviceConfig, FloatDType, Int, Tensor};
use rezero_kernels::{
    AdaGradStep, AdamStep, DotProductAttention, Epilogue, SgdStep, batch_norm, conv2d,
    cross_entropy, gated_linear, linear,
};

use crate::support::{again, composed, fast, random};

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter().collect()
}

/// Expanded views of one value, larger than memory, are refused. Sizes that wrap around would let
/// the product write past its output.
#[test]
fn outputs_larger_than_memory_are_refused() {
    for n in [1usize << 62, (1 << 62) + 4, 1 << 61] {
        let refused = std::panic::catch_unwind(|| {
            let device = Device::flex();
            let x = Tensor::<2>::ones([4, 1], &device);
            let w = Tensor::<2>::ones([1, 1], &device).expand([1, n]);
            linear(x, w, None, Epilogue::Identity)
        });
        assert!(refused.is_err(), "{n}");
    }
    // 4 × 2³¹ × 2³¹ elements are 0 modulo 2⁶⁴.
    let refused = std::panic::catch_unwind(|| {
        let device = Device::flex();
        let x = Tensor::<4>::ones([4, 1, 1, 1], &device);
        conv2d(x, Tensor::ones([1, 1, 2, 2], &device), 1, 1 << 30)
    });
    let why = refused.unwrap_err();
    assert!(
        why.downcast_ref::<String>()
            .unwrap()
            .contains("fit into memory")
    );
}

#[test]
fn nan_stays_nan() {
    for device in [fast(), composed()] {
        let row = |values: [f32; 2]| Tensor::<2>::from_floats([values], &device);
        let eye = Tensor::<2>::eye(2, &device);
        let ones = Tensor::<1>::ones([2], &device);
        let nan = row([f32::NAN, 1.0]);
        for epilogue in [Epilogue::Identity, Epilogue::Relu] {
            for bias in [None, Some(ones.clone())] {
                let found = values(linear(nan.clone(), eye.clone(), bias, epilogue));
                assert!(found[0].is_nan(), "{epilogue:?} {found:?}");
            }
            let x = Tensor::<2>::from_floats([[f32::NAN, 1.0], [0.0, 2.0]], &device);
            let normed = batch_norm(x, ones.clone(), ones.clone(), 1e-5, epilogue);
            let found = values(normed.output);
            assert!(
                found[0].is_nan() && found[2].is_nan(),
                "{epilogue:?} {found:?}"
            );
            assert!(found[1].is_finite() && found[3].is_finite());
        }
        let alpha = Tensor::<1>::ones([1], &device);
        let found = values(gated_linear(row([1.0, 1.0]), eye * f32::NAN, ones, alpha));
        assert!(found.iter().all(|v| v.is_nan()), "{found:?}");
    }
}

#[test]
fn a_common_offset_of_the_logits_changes_nothing() {
    let device = fast();
    for offset in [0.0f32, 1e4, 1e6, 1e8, 3e38] {
        let logits = Tensor::<2>::full([1, 4], offset, &device).require_grad();
        let target = Tensor::<1, Int>::zeros([1], &device);
        let loss = cross_entropy(logits.clone(), target);
        let gradients = loss.backward();
        assert!((values(loss)[0] - 4f32.ln()).abs() < 1e-6, "{offset}");
        let found = values(logits.grad(&gradients).unwrap());
        for (found, expected) in found.iter().zip([-0.75, 0.25, 0.25, 0.25]) {
            assert!((found - expected).abs() < 1e-6, "{offset}: {found}");
        }
    }
}

/// Four equal scores of any size have a weight of ¼ each: every value has the gradient Σ ¼ = 1.
#[test]
fn attentions_weights_sum_to_one_in_the_backward_pass() {
    let device = fast();
    for score in [1.0f32, 1e4, 1e6, 1e8] {
        let row = [score.sqrt(), score.sqrt(), 1.0];
        let qkv = Tensor::<3>::from_floats([[row; 4]], &device).require_grad();
        let attention = DotProductAttention::new(1);
        let gradients = attention.forward_self(qkv.clone(), None).sum().backward();
        let found = values(qkv.grad(&gradients).unwrap());
        for d_v in found.chunks_exact(3).map(|row| row[2]) {
            assert!((d_v - 1.0).abs() < 1e-5, "{score}: {d_v}");
        }
    }
}

/// As above with heads of 64 values, whose product may be summed in several orders.
#[test]
fn attentions_weights_of_wide_heads_sum_to_one_in_the_backward_pass() {
    let device = fast();
    for (size, length) in [(1.0f32, 4), (300.0, 4), (300.0, 1), (300.0, 40)] {
        let row = Tensor::<3>::from_data(random([1, 1, 64], 3), &Device::flex()) * size;
        let rows = Tensor::from_inner(row.repeat_dim(1, length));
        let v = Tensor::<3>::ones([1, length, 64], &device).require_grad();
        let attention = DotProductAttention::new(1);
        let context = attention.forward(rows.clone(), rows, v.clone(), None);
        let gradients = context.sum().backward();
        for d_v in values(v.grad(&gradients).unwrap()) {
            assert!((d_v - 1.0).abs() < 1e-5, "{size}, {length}: {d_v}");
        }
    }
}

#[test]
fn variance_far_from_zero_is_that_of_double_precision() {
    let device = fast();
    for offset in [1e2f32, 1e3, 1e4] {
        let x = Tensor::<3>::from_data(random([8, 3, 64], 5), &device) + offset;
        let data: Vec<f64> = x.clone().into_data().iter().collect();
        let ones = Tensor::<1>::ones([3], &device);
        let found = values(batch_norm(x, ones.clone(), ones, 1e-5, Epilogue::Identity).variance);
        for (c, found) in found.into_iter().enumerate() {
            let channel: Vec<f64> = (0..8)
                .flat_map(|n| data[(n * 3 + c) * 64..][..64].to_vec())
                .collect();
            let mean = channel.iter().sum::<f64>() / 512.0;
            let expected = channel.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 512.0;
            assert!(
                (f64::from(found) / expected - 1.0).abs() < 1e-6,
                "{offset}: {found} {expected}"
            );
        }
    }
}

#[test]
fn an_infinite_weight_without_decay_leaves_the_state_alone() {
    let device = Device::flex();
    let w = || Tensor::<1>::from_floats([f32::INFINITY, 1.0], &device);
    let g = || Tensor::<1>::from_floats([0.5, 0.5], &device);
    let sgd = SgdStep {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 0.0,
    };
    let ada = AdaGradStep {
        lr: 0.1,
        epsilon: 1e-10,
        weight_decay: 0.0,
    };
    let adam = |time| AdamStep {
        lr: 0.1,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
        time,
    };
    let (sgd_w, v) = sgd.update(w(), g(), None);
    let (ada_w, s) = ada.update(w(), g(), None);
    let (adam_w, [m, u]) = adam(1).update(w(), g(), None);
    for state in [v, s, m, u] {
        assert!(values(state).iter().all(|v| v.is_finite()));
    }
    for weights in [sgd_w, ada_w, adam_w] {
        assert_eq!(values(weights)[0], f32::INFINITY);
    }
    // A step number beyond i32 gives a finite update too.
    let (late, _) = adam((1 << 31) + 5).update(Tensor::ones([2], &device), g(), None);
    assert!(values(late).iter().all(|v| v.is_finite()));
}

#[test]
fn shapes_that_would_broadcast_are_refused() {
    for device in [Device::flex(), fast()] {
        let refused = std::panic::catch_unwind(|| {
            let sgd = SgdStep {
                lr: 0.1,
                momentum: 0.0,
                weight_decay: 0.0,
            };
            sgd.update(
                Tensor::<2>::ones([2, 3], &device),
                Tensor::ones([1, 3], &device),
                None,
            )
        });
        assert!(refused.is_err());
    }
    let refused = std::panic::catch_unwind(|| {
        let device = Device::flex();
        let x = Tensor::<4>::ones([1, 1, 4, 4], &device);
        conv2d(x, Tensor::ones([1, 1, 1, 1], &device), 1, 1 << 63)
    });
    assert!(refused.is_err());
}

#[test]
fn attention_to_nothing_is_empty() {
    let attention = DotProductAttention {
        causal: true,
        dropout: 0.5,
        ..DotProductAttention::new(1)
    };
    for device in [fast(), composed()] {
        for shape in [[0, 3, 6], [2, 0, 6], [2, 3, 0]] {
            let qkv = Tensor::<3>::zeros(shape, &device).require_grad();
            let out = attention.forward_self(qkv.clone(), None);
            assert_eq!(out.dims(), [shape[0], shape[1], shape[2] / 3]);
        }
        for (queries, keys) in [
            ([0, 3, 2], 5),
            ([2, 0, 2], 5),
            ([2, 3, 0], 5),
            ([2, 3, 2], 0),
        ] {
            let q = Tensor::<3>::ones(queries, &device).require_grad();
            let k = Tensor::<3>::ones([queries[0], keys, queries[2]], &device);
            let out = attention.forward(q, k.clone(), k, None);
            assert_eq!(out.dims(), queries);
            assert!(values(out).iter().all(|x| *x == 0.0), "no key gives zeros");
        }
    }
}

/// The work does not grow with the square of the stride.
#[test]
fn huge_strides_take_no_time() {
    let device = fast();
    let x = Tensor::<4>::from_data(random([1, 2, 8, 8], 1), &device).require_grad();
    let w = Tensor::<4>::ones([3, 2, 3, 3], &device).require_grad();
    let begun = std::time::Instant::now();
    let gradients = conv2d(x.clone(), w, 1 << 20, 1).sum().backward();
    assert!(x.grad(&gradients).is_some());
    assert!(begun.elapsed().as_secs() < 5);
}

/// Statistics have the type of the tensors, not the device's default.
#[test]
fn statistics_are_f32_on_a_device_of_halves() {
    // A device's settings last as long as the process, so this test runs in its own process.
    const CHILD: &str = "REZERO_TEST_HALVES";
    if std::env::var_os(CHILD).is_none() {
        let status = again()
            .args(["edges::statistics_are_f32_on_a_device_of_halves", "--exact"])
            .env(CHILD, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let mut device = Device::flex();
    device
        .configure(DeviceConfig::default().float_dtype(FloatDType::F16))
        .unwrap();
    let device = device.autodiff();
    let f32s = (&device, burn::tensor::DType::F32);
    let x = Tensor::<2>::from_data([[1e5f32, 2.0], [1.1e5, 3.0]], f32s);
    let ones = || Tensor::<1>::from_data([1f32, 1.0], f32s);
    let normed = batch_norm(x, ones(), ones(), 1e-5, Epilogue::Identity);
    assert_eq!(normed.mean.dtype(), burn::tensor::DType::F32);
    assert_eq!(values(normed.mean), [1.05e5, 2.5]);
}
