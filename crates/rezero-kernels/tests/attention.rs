//! Attention: queries, keys and values of one projection or of three tensors, masks, dropout.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use proptest::prelude::*;
use rezero_kernels::DotProductAttention;

use crate::support::{close, fast, finite_differences, gradient, leaf, random, same, weighed};

fn check(batch: usize, length: usize, width: usize, attention: DotProductAttention) {
    let shape = [batch, length, 3 * attention.n_heads * width];
    same(&format!("{attention:?} on {shape:?}"), |device| {
        let qkv = leaf::<3>(&random(shape, 1), device);
        // Scores large enough that the softmax is not uniform.
        let out = attention.forward_self(qkv.clone() * 3.0, None);
        let gradients = weighed(out.clone()).backward();
        vec![out.into_data(), gradient(&qkv, &gradients)]
    });
}

/// Which keys are forbidden.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Masked {
    No,
    /// The last keys of each sequence, `[batch, 1, keys]`; of the last sequence all.
    Padding,
    /// Some pairs, `[1, queries, keys]`.
    Pairs,
    /// Other pairs in each sequence, `[batch, queries, keys]`; some queries have no key.
    Each,
}

const MASKS: [Masked; 4] = [Masked::No, Masked::Padding, Masked::Pairs, Masked::Each];

impl Masked {
    fn tensor(
        self,
        [batch, queries, keys]: [usize; 3],
        device: &Device,
    ) -> Option<Tensor<3, Bool>> {
        let (n, q) = match self {
            Self::No => return None,
            Self::Padding => (batch, 1),
            Self::Pairs => (1, queries),
            Self::Each => (batch, queries),
        };
        let mut cells = Vec::with_capacity(n * q * keys);
        for b in 0..n {
            for i in 0..q {
                for j in 0..keys {
                    cells.push(match self {
                        Self::No => false,
                        Self::Padding => (b + 1) * j >= keys || (b > 0 && b + 1 == n),
                        Self::Pairs => (i * 7 + j * 5) % 3 == 0,
                        Self::Each => (b + i * 3 + j * 7) % 4 == 0 || (b + i) % 5 == 4,
                    });
                }
            }
        }
        Some(Tensor::from_data(
            TensorData::new(cells, [n, q, keys]),
            device,
        ))
    }
}

/// Compares the kernel with the composed operations on `[batch, queries, keys, width of a head]`.
fn check_parts(sizes: [usize; 4], attention: DotProductAttention, masked: Masked) {
    let [batch, queries, keys, width] = sizes;
    let d = attention.n_heads * width;
    same(
        &format!("{attention:?} {masked:?} on {sizes:?}"),
        |device| {
            // Both devices draw the same seed of the dropout.
            let _alone = crate::support::seeded(device, 5);
            let q = leaf::<3>(&random([batch, queries, d], 1), device);
            let k = leaf::<3>(&random([batch, keys, d], 2), device);
            let v = leaf::<3>(&random([batch, keys, d], 3), device);
            let mask = masked.tensor([batch, queries, keys], device);
            let out = attention.forward(q.clone() * 3.0, k.clone(), v.clone(), mask);
            let gradients = weighed(out.clone()).backward();
            let mut found = vec![out.into_data(), gradient(&v, &gradients)];
            // A single key has the weight 1 whatever its score: these gradients are 0 and rounding.
            if keys > 1 {
                found.extend([gradient(&q, &gradients), gradient(&k, &gradients)]);
            }
            found
        },
    );
}

#[test]
fn heads_of_the_models() {
    for causal in [false, true] {
        for rotary in [None, Some(10_000.0)] {
            for (batch, length, n_heads, width) in [
                (2, 128, 8, 32),
                (1, 1, 1, 2),
                (3, 33, 2, 6),
                (1, 200, 3, 64),
            ] {
                let attention = DotProductAttention {
                    causal,
                    rotary,
                    ..DotProductAttention::new(n_heads)
                };
                check(batch, length, width, attention);
            }
        }
    }
}

/// Every mask with each option, where there are as many queries as keys, fewer and more, one query and one key.
#[test]
fn queries_of_another_sequence() {
    for sizes in [
        [2, 40, 40, 8],
        [3, 5, 70, 6],
        [2, 1, 33, 16],
        [3, 1, 1, 2],
        [2, 65, 3, 4],
        [4, 9, 1, 4],
        [2, 8, 64, 32],
        // Few queries of several tasks: a sequence each, and some heads each.
        [9, 2, 300, 16],
        [2, 3, 600, 17],
    ] {
        for masked in MASKS {
            for (causal, rotary, dropout) in [
                (false, None, 0.0),
                (true, None, 0.0),
                (false, Some(50.0), 0.3),
                (true, Some(50.0), 0.0),
                (true, None, 0.5),
            ] {
                let attention = DotProductAttention {
                    causal,
                    rotary: rotary.filter(|_| sizes[1] <= sizes[2] && sizes[3] % 2 == 0),
                    dropout,
                    ..DotProductAttention::new(3)
                };
                check_parts(sizes, attention, masked);
            }
        }
    }
}

/// A projection with a mask and dropout gives what its three parts give.
#[test]
fn a_projection_is_its_three_parts() {
    for device in [fast(), crate::support::composed()] {
        for masked in MASKS {
            let attention = DotProductAttention {
                causal: masked != Masked::Padding,
                rotary: Some(100.0),
                dropout: 0.2,
                ..DotProductAttention::new(2)
            };
            let run = |fused: bool| {
                let _alone = crate::support::seeded(&device, 7);
                let qkv = leaf::<3>(&random([2, 37, 3 * 12], 1), &device);
                let mask = masked.tensor([2, 37, 37], &device);
                let part = |i: usize| qkv.clone().slice_dim(2, i * 12..(i + 1) * 12);
                let out = match fused {
                    true => attention.forward_self(qkv.clone(), mask),
                    false => attention.forward(part(0), part(1), part(2), mask),
                };
                let gradients = weighed(out.clone()).backward();
                [out.into_data(), gradient(&qkv, &gradients)]
            };
            for (fused, parts) in run(true).iter().zip(&run(false)) {
                close(&format!("{masked:?}"), fused, parts, 1e-6);
            }
        }
    }
}

/// Inputs that are views: turned, flipped, expanded, a part of a larger tensor.
#[test]
fn views() {
    same("views", |device| {
        let q = leaf::<3>(&random([5, 2, 8], 1), device);
        let k = leaf::<3>(&random([1, 9, 8], 2), device);
        let v = leaf::<3>(&random([2, 11, 24], 3), device);
        let mask = Masked::Padding.tensor([9, 5, 2], device).unwrap();
        let out = DotProductAttention::new(2).forward(
            q.clone().swap_dims(0, 1),
            k.clone().flip([1]).expand([2, 9, 8]),
            v.clone().slice([0..2, 1..10, 8..16]),
            Some(mask.swap_dims(0, 2).expand([2, 5, 9])),
        );
        let gradients = weighed(out.clone()).backward();
        vec![
            out.into_data(),
            gradient(&q, &gradients),
            gradient(&k, &gradients),
            gradient(&v, &gradients),
        ]
    });
}

/// The kernel's dropout against Burn's operations with the mask that the kernel has applied: with the unit matrix as
/// values, the output is the weights.
#[test]
fn dropout_is_a_mask_of_the_weights() {
    let device = fast();
    let (batch, queries, keys, n_heads) = (2, 41, 37, 3);
    let d = n_heads * keys;
    let attention = DotProductAttention {
        dropout: 0.25,
        ..DotProductAttention::new(n_heads)
    };
    let q = leaf::<3>(&random([batch, queries, d], 1), &device);
    let k = leaf::<3>(&random([batch, keys, d], 2), &device);
    let v = leaf::<3>(&random([batch, keys, d], 3), &device);
    let run = |v: Tensor<3>| {
        let _alone = crate::support::seeded(&device, 11);
        attention.forward(q.clone() * 3.0, k.clone(), v, None)
    };
    let by_heads = |x: Tensor<3>| {
        let [batch, rows, d] = x.dims();
        x.reshape([batch, rows, n_heads, d / n_heads])
            .swap_dims(1, 2)
    };
    let units = Tensor::<2>::eye(keys, &device)
        .repeat(&[1, n_heads])
        .unsqueeze::<3>()
        .expand([batch, keys, d]);
    let found = by_heads(run(units));
    let scores = by_heads(q.clone() * 3.0).matmul(by_heads(k.clone()).swap_dims(2, 3));
    let weights = softmax(scores / (keys as f64).sqrt(), 3);
    let kept = found.clone().detach().not_equal_elem(0.0);
    let share = kept.clone().float().mean().into_scalar::<f32>();
    // Four standard deviations of the mean of 9,102 draws.
    assert!(
        (share - 0.75).abs() < 4.0 * (0.75f32 * 0.25 / 9102.0).sqrt(),
        "{share}"
    );
    let expected = weights * kept.float() / 0.75;
    close(
        "weights",
        &found.into_data(),
        &expected.clone().into_data(),
        1e-5,
    );

    let composed = expected.matmul(by_heads(v.clone())).swap_dims(1, 2);
    let composed = composed.reshape([batch, queries, d]);
    let ours = run(v.clone());
    close(
        "output",
        &ours.clone().into_data(),
        &composed.clone().into_data(),
        1e-5,
    );
    let (ours, composed) = (weighed(ours).backward(), weighed(composed).backward());
    for (name, leaf) in [("q", &q), ("k", &k), ("v", &v)] {
        close(
            name,
            &gradient(leaf, &ours),
            &gradient(leaf, &composed),
            1e-5,
        );
    }
}

/// The factors of `[batch · heads, queries, keys]` weights that are all equal.
fn factors(dropout: f64, seed: u64, [rows, queries, keys]: [usize; 3]) -> Vec<bool> {
    let device = Device::flex();
    let _alone = crate::support::seeded(&device, seed);
    let zeros = |n: usize| Tensor::<3>::zeros([rows, n, keys], &device);
    let units = Tensor::<2>::eye(keys, &device)
        .unsqueeze::<3>()
        .expand([rows, keys, keys]);
    let attention = DotProductAttention {
        dropout,
        ..DotProductAttention::new(1)
    };
    let out = attention.forward(zeros(queries), zeros(keys), units, None);
    let whole = (1.0 / (1.0 - dropout)) as f32 / keys as f32;
    out.into_data()
        .iter::<f32>()
        .map(|weight| {
            assert!(
                weight == 0.0 || (weight / whole - 1.0).abs() < 1e-5,
                "{weight}"
            );
            weight != 0.0
        })
        .collect()
}

/// As many weights are dropped as the probability says, and neighbours are dropped independently: keys, queries,
/// heads and calls with other seeds.
#[test]
fn dropped_weights_are_independent() {
    let shape = [8, 100, 250];
    let n = shape.iter().product::<usize>() as f64;
    let strides = [1, 2, 250, 500, 25_000];
    for p in [0.05, 0.1, 0.5, 0.9] {
        let kept = factors(p, 3, shape);
        assert_eq!(
            kept,
            factors(p, 3, shape),
            "the same seed gives the same mask"
        );
        let other = factors(p, 4, shape);
        // Five standard deviations of a mean of n draws of variance σ².
        let bound = |variance: f64| 5.0 * (variance / n).sqrt();
        let mean = kept.iter().filter(|kept| **kept).count() as f64 / n;
        assert!(
            (mean - (1.0 - p)).abs() < bound(p * (1.0 - p)),
            "{p}: {mean}"
        );
        let centred = |kept: &bool| f64::from(u8::from(*kept)) - (1.0 - p);
        let covariance = |a: &[bool], b: &[bool]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| centred(a) * centred(b))
                .sum::<f64>()
                / n
        };
        for stride in strides {
            let found = covariance(&kept, &kept[stride..]);
            assert!(
                found.abs() < bound((p * (1.0 - p)).powi(2)),
                "{p} {stride}: {found}"
            );
        }
        let found = covariance(&kept, &other);
        assert!(found.abs() < bound((p * (1.0 - p)).powi(2)), "{p}: {found}");
        // Each row has its own number of kept weights, with the binomial distribution's variance.
        let rows: Vec<f64> = kept
            .chunks_exact(shape[2])
            .map(|row| row.iter().map(centred).sum())
            .collect();
        let variance = rows.iter().map(|sum| sum * sum).sum::<f64>() / rows.len() as f64;
        let expected = shape[2] as f64 * p * (1.0 - p);
        let off = variance / expected - 1.0;
        assert!(
            off.abs() < 5.0 * (2.0 / rows.len() as f64).sqrt(),
            "{p}: {off}"
        );
    }
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    let attention = DotProductAttention {
        causal: true,
        rotary: Some(100.0),
        ..DotProductAttention::new(2)
    };
    finite_differences("attention", [random([2 * 5 * 24], 1)], |[qkv]| {
        weighed(attention.forward_self(qkv.clone().reshape([2, 5, 24]), None))
    });
    let attention = DotProductAttention {
        dropout: 0.3,
        ..attention
    };
    let inputs = [
        random([2 * 3 * 8], 1),
        random([2 * 7 * 8], 2),
        random([2 * 7 * 8], 3),
    ];
    finite_differences("dropout and a mask", inputs, |[q, k, v]| {
        let _alone = crate::support::seeded(&q.device(), 2);
        let mask = Masked::Each.tensor([2, 3, 7], &q.device());
        let keys = |x: &Tensor<1>| x.clone().reshape([2, 7, 8]);
        weighed(attention.forward(q.clone().reshape([2, 3, 8]), keys(k), keys(v), mask))
    });
}

#[test]
fn what_follows_a_position_does_not_change_it() {
    let attention = DotProductAttention {
        causal: true,
        ..DotProductAttention::new(2)
    };
    let device = Device::flex();
    let qkv = Tensor::<3>::from_data(random([1, 40, 48], 1), &device);
    let all = attention
        .forward_self(qkv.clone(), None)
        .slice_dim(1, 0..17);
    let some = attention.forward_self(qkv.slice_dim(1, 0..17), None);
    close("a prefix", &some.into_data(), &all.into_data(), 1e-6);
}

/// The last queries with all keys, as in decoding, give the last rows of self-attention.
#[test]
fn the_last_queries_are_those_of_the_whole() {
    let device = Device::flex();
    let qkv = Tensor::<3>::from_data(random([2, 40, 48], 1), &device);
    for rotary in [None, Some(100.0)] {
        let attention = DotProductAttention {
            causal: true,
            rotary,
            ..DotProductAttention::new(2)
        };
        let whole = attention.forward_self(qkv.clone(), None);
        for last in [1, 3, 20, 40] {
            let part = |i: usize| qkv.clone().slice_dim(2, i * 16..(i + 1) * 16);
            let q = part(0).slice_dim(1, 40 - last..40);
            let found = attention.forward(q, part(1), part(2), None);
            let expected = whole.clone().slice_dim(1, 40 - last..40);
            close("the last", &found.into_data(), &expected.into_data(), 1e-6);
        }
    }
}

/// Zeros, and no gradient, with the kernel and without; NaN in a key that nothing may attend to stays there.
#[test]
fn a_query_without_keys_gets_zeros() {
    for device in [fast(), crate::support::composed()] {
        let q = leaf::<3>(&random([1, 3, 4], 1), &device);
        let k = leaf::<3>(&random([1, 2, 4], 2), &device);
        let v = leaf::<3>(&random([1, 2, 4], 3), &device);
        let cells = TensorData::from([[[true, true], [false, true], [true, true]]]);
        let mask = Tensor::<3, Bool>::from_data(cells, &device);
        for (attention, mask, empty) in [
            (DotProductAttention::new(1), Some(mask), [true, false, true]),
            // Three queries at the end of two keys: the first is before them.
            (
                DotProductAttention {
                    causal: true,
                    ..DotProductAttention::new(1)
                },
                None,
                [true, false, false],
            ),
        ] {
            let out = attention.forward(q.clone(), k.clone(), v.clone(), mask);
            let gradients = weighed(out.clone()).backward();
            let out = out.into_data();
            let d_q = gradient(&q, &gradients);
            for (i, empty) in empty.into_iter().enumerate() {
                let row = &out.as_slice::<f32>().unwrap()[4 * i..][..4];
                let d_row = &d_q.as_slice::<f32>().unwrap()[4 * i..][..4];
                assert_eq!(row.iter().all(|x| *x == 0.0), empty, "{row:?}");
                assert!(!empty || d_row.iter().all(|x| *x == 0.0), "{d_row:?}");
                assert!(row.iter().chain(d_row).all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let device = Device::flex();
    let x = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    let mask = |shape: [usize; 3]| Some(Tensor::<3, Bool>::full(shape, false, &device));
    let two = DotProductAttention::new(2);
    let rotary = DotProductAttention {
        rotary: Some(10.0),
        ..two
    };
    let dropped = DotProductAttention {
        dropout: 1.0,
        ..two
    };
    type Run<'a> = Box<dyn Fn() -> Tensor<3> + 'a>;
    let cases: [(&str, Run); 9] = [
        (
            "share the last axis, got 10",
            Box::new(|| two.forward_self(x([1, 2, 10]), None)),
        ),
        (
            "queries of [1, 2, 4] need keys and values of [1, keys, 4], got [1, 3, 6]",
            Box::new(|| two.forward(x([1, 2, 4]), x([1, 3, 6]), x([1, 3, 6]), None)),
        ),
        (
            "and [1, 4, 4]",
            Box::new(|| two.forward(x([1, 2, 4]), x([1, 3, 4]), x([1, 4, 4]), None)),
        ),
        (
            "got [2, 3, 4]",
            Box::new(|| two.forward(x([1, 2, 4]), x([2, 3, 4]), x([2, 3, 4]), None)),
        ),
        (
            "a multiple of the 2 heads, got 3",
            Box::new(|| two.forward(x([1, 2, 3]), x([1, 3, 3]), x([1, 3, 3]), None)),
        ),
        (
            "got 3 queries and 2 keys",
            Box::new(|| rotary.forward(x([1, 3, 4]), x([1, 2, 4]), x([1, 2, 4]), None)),
        ),
        (
            "even width, got 1",
            Box::new(|| rotary.forward_self(x([1, 3, 6]), None)),
        ),
        (
            "in [0, 1), got 1",
            Box::new(|| dropped.forward_self(x([1, 3, 6]), None)),
        ),
        (
            "[1 or 2, 1 or 3, 3], got [2, 2, 3]",
            Box::new(|| two.forward_self(x([2, 3, 6]), mask([2, 2, 3]))),
        ),
    ];
    for (message, run) in cases {
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
        let found = refused.downcast_ref::<String>().unwrap();
        assert!(found.contains(message), "{found}");
    }
}

proptest! {
    #![proptest_config(crate::support::cases(32))]

    #[test]
    fn any_shape(
        batch in 1usize..4,
        length in 1usize..80,
        n_heads in 1usize..4,
        half in 1usize..20,
        causal: bool,
        turned: bool,
    ) {
        let rotary = turned.then_some(50.0);
        let attention = DotProductAttention {
            causal,
            rotary,
            ..DotProductAttention::new(n_heads)
        };
        check(batch, length, 2 * half, attention);
    }

    #[test]
    fn any_shape_of_parts(
        batch in 1usize..4,
        queries in 1usize..70,
        keys in 1usize..70,
        n_heads in 1usize..4,
        half in 1usize..10,
        causal: bool,
        turned: bool,
        dropped: bool,
        masked in 0usize..4,
    ) {
        let attention = DotProductAttention {
            causal,
            rotary: (turned && queries <= keys).then_some(50.0),
            dropout: if dropped { 0.2 } else { 0.0 },
            ..DotProductAttention::new(n_heads)
        };
        check_parts([batch, queries, keys, 2 * half], attention, MASKS[masked]);
    }
}
