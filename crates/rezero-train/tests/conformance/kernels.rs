//! The kernels on the device, compared with the same operations composed of Burn's own on Flex.

use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use rezero_data::rng::mix;
use rezero_kernels::{
    AdaGradStep, AdamStep, BatchNormed, DotProductAttention, Epilogue, LambStep, NUMBERS, Seed,
    SgdStep, Tensors, batch_norm, batch_norm_gated_sum, can_overwrite, conv2d, cross_entropy,
    draw_from, dropout, fused, gated_sum, in_place, launches, layer_norm, rms_norm, seeded,
    together,
};

use super::backend::{device, every, flex, name, tolerance};
use super::helpers::values;
use super::with_flex::{close, error};

fn random<const D: usize>(shape: [usize; D], seed: u64) -> TensorData {
    let value = |i| 2.0 * (mix(seed, i) >> 11) as f64 / (1u64 << 53) as f64 - 1.0;
    let count = shape.iter().product::<usize>() as u64;
    TensorData::new(
        (0..count).map(|i| value(i) as f32).collect::<Vec<_>>(),
        shape,
    )
}

fn leaf<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(random(shape, seed), device).require_grad()
}

/// The results on the device and those of the composed operations.
fn same(what: &str, run: impl Fn(&Device) -> Vec<(&'static str, Vec<f32>)>) {
    let got = run(&device().autodiff());
    let want = run(&flex().autodiff().gradient_checkpointing());
    for ((name, got), (_, want)) in got.iter().zip(&want) {
        close(&format!("{what}: {name}"), got, want, 4.0 * tolerance());
    }
}

/// A loss with a gradient of its own at each value.
fn weighed<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let weights = Tensor::from_data(random(x.dims(), 77), &x.device());
    (x * weights).sum()
}

/// The tensor, or a view of the same values in NHWC, as Burn's convolutions give it.
fn laid(x: Tensor<4>, channels_last: bool) -> Tensor<4> {
    match channels_last {
        // A product, so that the memory is in this order.
        true => (x.permute([0, 2, 3, 1]) * 1.0).permute([0, 3, 1, 2]),
        false => x,
    }
}

#[cfg_attr(test, test)]
pub fn batch_norms() {
    for (shape, epilogue, offset) in [
        ([4, 16, 8, 8], Epilogue::Relu, 0.0),
        ([3, 5, 7, 3], Epilogue::Identity, 300.0),
        ([9, 40, 9, 9], Epilogue::Relu, -2.0),
        ([1, 1, 1, 1], Epilogue::Identity, 0.0),
    ] {
        for channels_last in [false, true] {
            let what = format!("{shape:?} {epilogue:?} + {offset}, NHWC: {channels_last}");
            same(&what, |device| {
                let x = leaf(shape, 1, device);
                let (gamma, beta) = (leaf([shape[1]], 2, device), leaf([shape[1]], 3, device));
                let (skip, alpha) = (leaf(shape, 4, device), leaf([1], 5, device));
                let image = laid(x.clone() + offset, channels_last);
                let BatchNormed {
                    output,
                    mean,
                    variance,
                } = batch_norm(image, gamma.clone(), beta.clone(), 1e-5, epilogue);
                let gated = batch_norm_gated_sum(
                    laid(skip.clone(), channels_last),
                    output.clone(),
                    gamma.clone(),
                    beta.clone(),
                    1e-5,
                    epilogue,
                    alpha.clone(),
                );
                let grads = weighed(gated.output.clone()).backward();
                let grad = |x: &Tensor<4>| x.grad(&grads).map(values).unwrap_or_default();
                let grad_1 = |x: &Tensor<1>| x.grad(&grads).map(values).unwrap_or_default();
                let mut all = vec![
                    ("output", values(output)),
                    ("mean", values(mean)),
                    ("variance", values(variance)),
                    ("gated", values(gated.output)),
                    ("skip's gradient", grad(&skip)),
                    ("gate's gradient", grad_1(&alpha)),
                ];
                // Of one value, the gradients are the rounding of zero.
                if shape[0] > 1 {
                    all.extend([
                        ("gradient", grad(&x)),
                        ("gamma's gradient", grad_1(&gamma)),
                        ("beta's gradient", grad_1(&beta)),
                    ]);
                }
                all
            });
        }
    }
}

#[cfg_attr(test, test)]
pub fn gated_sums() {
    for n in [1, 7, 5_000] {
        same(&format!("{n} values"), |device| {
            let (x, f) = (leaf([2, n], 1, device), leaf([2, n], 2, device));
            let alpha = leaf([1], 3, device);
            let y = gated_sum(x.clone(), f.clone(), alpha.clone());
            let grads = weighed(y.clone()).backward();
            let grad = |x: &Tensor<2>| x.grad(&grads).map(values).unwrap_or_default();
            vec![
                ("output", values(y)),
                ("x's gradient", grad(&x)),
                ("f's gradient", grad(&f)),
                (
                    "gate's gradient",
                    alpha.grad(&grads).map(values).unwrap_or_default(),
                ),
            ]
        });
    }
}

#[cfg_attr(test, test)]
pub fn convolutions() {
    for ([n, c, h, w], out, stride) in [
        ([2, 16, 8, 8], 16, 1),
        ([3, 5, 7, 3], 40, 1),
        ([2, 20, 6, 12], 70, 1),
        ([2, 16, 8, 8], 32, 2),
        ([1, 400, 3, 4], 390, 1),
    ] {
        let what = format!("[{n}, {c}, {h}, {w}] to {out}, stride {stride}");
        same(&what, |device| {
            let (x, weight) = (
                leaf([n, c, h, w], 1, device),
                leaf([out, c, 3, 3], 2, device),
            );
            let y = conv2d(x.clone(), weight.clone(), stride, 1);
            let grads = weighed(y.clone()).backward();
            let grad = |x: &Tensor<4>| x.grad(&grads).map(values).unwrap_or_default();
            vec![
                ("output", values(y)),
                ("x's gradient", grad(&x)),
                ("weight's gradient", grad(&weight)),
            ]
        });
    }
}

/// Multiples of 1/64, which f16 and bf16 hold exactly.
fn coarse(shape: [usize; 4], seed: u64, device: &Device, dtype: DType) -> Tensor<4> {
    let value = |i| (mix(seed, i) % 129) as f32 / 64.0 - 1.0;
    let all: Vec<f32> = (0..shape.iter().product::<usize>() as u64)
        .map(value)
        .collect();
    Tensor::from_data(TensorData::new(all, shape), (device, dtype)).require_grad()
}

/// The gradient of a weight of f16 or bf16. In f32 the sums of these products are exact in any order, so only the result is rounded.
#[cfg_attr(test, test)]
pub fn half_convolutions() {
    let device = device().autodiff();
    // The distance from 1 to the next number.
    for (dtype, epsilon) in [(DType::BF16, 2f64.powi(-7)), (DType::F16, 2f64.powi(-10))] {
        if !device.supports_dtype(dtype) {
            eprintln!("{device:?} does not compute in {dtype:?}");
            continue;
        }
        // On CubeCL's CPU a unit is a thread, and 256 of them take seconds for a few barriers.
        let few = if name() == "cpu" { 1 } else { 4 };
        for ([n, c, h, w], out, turned) in [
            ([1, 2, 3, 5], 3, true),
            ([1, 5, 7, 3], 40, false),
            ([2, 16, 4, 8], 16, false),
            ([3, 20, 3, 5], 70, true),
        ]
        .into_iter()
        .take(few)
        {
            // Images of f32 are cast; those of the weight's type are used as they are.
            for of_x in [dtype, DType::F32] {
                let what = format!("[{n}, {c}, {h}, {w}] in {of_x:?} to {out} in {dtype:?}");
                let run = |device: &Device, of_x, dtype| {
                    let (x, weight, image, kernel);
                    if turned {
                        x = coarse([w, n, c, h], 1, device, of_x);
                        weight = coarse([c, out, 3, 3], 2, device, dtype);
                        image = x.clone().permute([1, 2, 3, 0]);
                        kernel = weight.clone().swap_dims(0, 1);
                    } else {
                        x = coarse([n, c, h, w], 1, device, of_x);
                        weight = coarse([out, c, 3, 3], 2, device, dtype);
                        (image, kernel) = (x.clone(), weight.clone());
                    }
                    let y = conv2d(image, kernel, 1, 1);
                    assert_eq!(y.dtype(), of_x, "{what}");
                    let weights = coarse([h, n, out, w], 3, device, DType::F32).detach();
                    let loss = y.clone().permute([2, 0, 1, 3]).cast(DType::F32) * weights;
                    let grads = loss.sum().backward();
                    let grad = |x: &Tensor<4>| {
                        let grad = x.grad(&grads).expect("a gradient");
                        assert_eq!(grad.dtype(), x.dtype(), "{what}");
                        values(grad.cast(DType::F32))
                    };
                    [grad(&weight), grad(&x), values(y.cast(DType::F32))]
                };
                let (got, made) = launches(|| run(&device, of_x, dtype));
                let want = run(&flex().autodiff(), DType::F32, DType::F32);
                println!("{what}: {} launches", made.len());
                for (got, want) in got.iter().zip(&want) {
                    close(&what, got, want, 8.0 * epsilon);
                }
                if can_overwrite(&device.clone().inner()) {
                    for (got, want) in got[0].iter().zip(&want[0]) {
                        let error = f64::from((got - want).abs());
                        assert!(
                            error <= epsilon * f64::from(want.abs()),
                            "{what}: {got}, not {want}"
                        );
                    }
                }
            }
        }
    }
}

/// The tensor, or a view of the same values in the order of columns.
fn by_columns(x: Tensor<2>, yes: bool) -> Tensor<2> {
    match yes {
        true => (x.transpose() * 1.0).transpose(),
        false => x,
    }
}

#[cfg_attr(test, test)]
pub fn cross_entropies() {
    for ([n, classes], offset, turned) in [
        ([1, 1], 0.0, false),
        ([300, 1], 5.0, false),
        ([1, 10], 0.0, false),
        ([37, 10], 300.0, true),
        ([130, 100], -1e4, false),
        ([33, 256], 0.0, true),
        ([3, 1023], 0.0, false),
        ([5, 3001], 20.0, false),
    ] {
        same(&format!("[{n}, {classes}] + {offset}"), |device| {
            // Some rows have one logit far above the others. A device may round a product and a sum once, so they are computed here.
            let logit = |(i, x): (usize, f32)| x * (1 + i / classes % 30) as f32 + offset;
            let flat = random([n, classes], 1);
            let all: Vec<f32> = flat.iter::<f32>().enumerate().map(logit).collect();
            let x = Tensor::<2>::from_data(TensorData::new(all, [n, classes]), device);
            let x = x.require_grad();
            let logits = by_columns(x.clone(), turned);
            let target = |i| (mix(3, i) % classes as u64) as i32;
            let targets: Vec<i32> = (0..n as u64).map(target).collect();
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), device);
            let losses = cross_entropy(logits.clone(), targets.clone());
            // Targets that are a view, and a gradient that is one.
            let twice = Tensor::cat(vec![targets.clone(), targets.flip([0])], 0);
            let view = cross_entropy(logits, twice.slice_dim(0, n..2 * n));
            let grads = (weighed(losses.clone()) + view.clone().mean()).backward();
            vec![
                ("losses", values(losses)),
                ("losses of other targets", values(view)),
                ("gradient", x.grad(&grads).map(values).unwrap_or_default()),
            ]
        });
    }
}

#[cfg_attr(test, test)]
pub fn row_norms() {
    for ([rows, channels], offset, turned) in [
        ([1, 1], 0.0, false),
        ([1, 5], 0.0, false),
        ([70, 1], 3.0, false),
        ([9, 7], 30.0, true),
        ([1000, 33], -2.0, false),
        ([40, 64], 0.0, true),
        ([6, 1025], 30.0, false),
        ([2, 5003], 0.0, false),
    ] {
        for centred in [true, false] {
            let what = format!("[{rows}, {channels}] + {offset}, centred: {centred}");
            same(&what, |device| {
                let x = leaf([rows, channels], 1, device);
                let (gamma, beta) = (leaf([channels], 2, device), leaf([channels], 3, device));
                let input = by_columns(x.clone() + offset, turned).unsqueeze_dim::<3>(1);
                let y = match centred {
                    true => layer_norm(input, gamma.clone(), beta.clone(), 1e-5),
                    false => rms_norm(input, gamma.clone(), 1e-5),
                };
                let grads = weighed(y.clone()).backward();
                let grad = |x: &Tensor<1>| x.grad(&grads).map(values).unwrap_or_default();
                let mut all = vec![("output", values(y)), ("gamma's gradient", grad(&gamma))];
                if centred {
                    all.push(("beta's gradient", grad(&beta)));
                }
                // Of one channel, the gradient is zero but for rounding.
                if channels > 1 {
                    all.push(("gradient", x.grad(&grads).map(values).unwrap_or_default()));
                }
                all
            });
        }
    }
}

/// A channel far from all others, as Transformers have, costs no accuracy.
#[cfg_attr(test, test)]
pub fn row_norms_of_outliers() {
    for at in [0, 40] {
        same(&format!("an outlier at {at}"), |device| {
            let mut far = vec![0.0f32; 64];
            far[at] = 1000.0;
            let x = leaf([5, 64], 1, device);
            let far = Tensor::<1>::from_floats(far.as_slice(), device).unsqueeze::<2>();
            let (gamma, beta) = (leaf([64], 2, device), leaf([64], 3, device));
            let y = layer_norm(x.clone() + far, gamma, beta, 1e-5);
            let others = y.clone().slice_dim(1, 1..40);
            let grads = weighed(y.clone()).backward();
            vec![
                ("output", values(y)),
                ("the others", values(others)),
                ("gradient", x.grad(&grads).map(values).unwrap_or_default()),
            ]
        });
    }
}

/// Attention of `[batch, queries, keys, width of a head]`.
type Sizes = [usize; 4];

/// Where attention is forbidden: in padding, whose last sequence is nothing else, or in pairs that each sequence has, or in pairs of its own.
fn mask(kind: usize, [batch, queries, keys, _]: Sizes, device: &Device) -> Option<Tensor<3, Bool>> {
    let (n, q) = [(batch, 1), (1, queries), (batch, queries)][kind.checked_sub(1)?];
    let mut cells = Vec::with_capacity(n * q * keys);
    for b in 0..n {
        for i in 0..q {
            cells.extend((0..keys).map(|j| match kind {
                1 => (b + 1) * j >= keys || (b > 0 && b + 1 == n),
                2 => (i * 7 + j * 5) % 3 == 0,
                _ => (b + i * 3 + j * 7) % 4 == 0 || (b + i) % 5 == 4,
            }));
        }
    }
    Some(Tensor::from_data(
        TensorData::new(cells, [n, q, keys]),
        device,
    ))
}

/// The output and the gradients of queries, keys and values. Queries are larger, so that the softmax is not uniform.
fn attended(
    attention: DotProductAttention,
    sizes: Sizes,
    masked: usize,
    device: &Device,
) -> Vec<(&'static str, Vec<f32>)> {
    let [batch, queries, keys, width] = sizes;
    let d_model = attention.n_heads * width;
    let q = leaf([batch, queries, d_model], 1, device);
    let k = leaf([batch, keys, d_model], 2, device);
    let v = leaf([batch, keys, d_model], 3, device);
    let mask = mask(masked, sizes, device);
    let y = seeded(5, 2, || {
        attention.forward(q.clone() * 3.0, k.clone(), v.clone(), mask)
    });
    let grads = weighed(y.clone()).backward();
    let grad = |x: &Tensor<3>| x.grad(&grads).map(values).expect("a gradient");
    let mut all = vec![("output", values(y)), ("v's gradient", grad(&v))];
    // A single key has the weight 1 whatever its score: these gradients are 0 and rounding.
    if keys > 1 {
        all.extend([("q's gradient", grad(&q)), ("k's gradient", grad(&k))]);
    }
    all
}

/// Blocks that are full or not, fewer and more queries than keys, odd and wide heads; each mask with each option. Where kernels are compiled for each of them, one in 7.
#[cfg_attr(test, test)]
pub fn attentions() {
    let every = every().min(7);
    let mut number = 0;
    for sizes in [
        [2, 70, 70, 16],
        [1, 130, 130, 64],
        [3, 5, 70, 6],
        [2, 1, 33, 32],
        [3, 1, 1, 2],
        [2, 65, 3, 4],
        [4, 9, 1, 3],
        [1, 33, 40, 100],
        // Too wide for a kernel.
        [1, 3, 5, 300],
    ] {
        for masked in 0..4 {
            for (causal, rotary, dropout) in [
                (false, None, 0.0),
                (true, None, 0.0),
                (true, Some(50.0), 0.0),
                (true, None, 0.4),
                (false, Some(50.0), 0.3),
            ] {
                number += 1;
                if number % every != 0 {
                    continue;
                }
                let drops = name() == "flex" || can_overwrite(&device());
                let attention = DotProductAttention {
                    causal,
                    rotary: rotary.filter(|_| sizes[1] <= sizes[2] && sizes[3] % 2 == 0),
                    dropout: if drops { dropout } else { 0.0 },
                    ..DotProductAttention::new(3)
                };
                let got = attended(attention, sizes, masked, &device().autodiff());
                let want = attended(attention, sizes, masked, &flex().autodiff());
                for ((name, got), (_, want)) in got.iter().zip(&want) {
                    let what = format!("{attention:?}, mask {masked}, {sizes:?}: {name}");
                    close(&what, got, want, 4.0 * tolerance());
                }
            }
        }
    }
}

/// A projection is its three parts, also as views, and takes few launches.
#[cfg_attr(test, test)]
pub fn attention_of_a_projection() {
    for (width, masked) in [(12, 0), (32, 1), (7, 3)] {
        let sizes = [2, 37, 37, width];
        let attention = DotProductAttention {
            causal: true,
            ..DotProductAttention::new(2)
        };
        let d_model = 2 * width;
        let run = |fused: bool, device: &Device| {
            let qkv = leaf([37, 2, 3 * d_model], 1, device);
            let turned = qkv.clone().swap_dims(0, 1);
            let part = |i: usize| turned.clone().slice_dim(2, i * d_model..(i + 1) * d_model);
            let mask = mask(masked, sizes, device);
            let y = match fused {
                true => attention.forward_self(turned.clone(), mask),
                false => attention.forward(part(0), part(1), part(2), mask),
            };
            let grads = weighed(y.clone()).backward();
            let grad = qkv.grad(&grads).map(values).expect("a gradient");
            [values(y), grad]
        };
        let want = run(true, &flex().autodiff());
        for fused in [true, false] {
            let got = run(fused, &device().autodiff());
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let what = format!("width {width}, fused: {fused}, {i}");
                close(&what, got, want, 4.0 * tolerance());
            }
        }
    }
    if !can_overwrite(&device()) {
        return;
    }
    let device = device().autodiff();
    let qkv = leaf::<3>([2, 40, 3 * 64], 1, &device);
    let attention = DotProductAttention::new(2);
    let run = || {
        let y = attention.forward_self(qkv.clone(), None);
        let grads = y.sum().backward();
        values(qkv.grad(&grads).expect("a gradient"))
    };
    run();
    let (_, made) = launches(run);
    let of = |name: &str| {
        let own = made.iter().filter(|launch| launch.kernel.starts_with(name));
        own.count()
    };
    assert_eq!(
        [of("Forward"), of("Means"), of("Backward")],
        [1, 1, 2],
        "{made:?}"
    );
}

/// Products of bf16 round what they multiply and nothing else: close to those in f32 of rounded queries, keys and values, and not to others.
#[cfg_attr(test, test)]
pub fn attention_in_bf16() {
    if !can_overwrite(&device()) {
        return;
    }
    let sizes = [2, 50, 50, 32];
    let exact = DotProductAttention {
        causal: true,
        ..DotProductAttention::new(2)
    };
    let narrow = DotProductAttention {
        products: Some(DType::BF16),
        ..exact
    };
    let device = device().autodiff();
    let got = attended(narrow, sizes, 0, &device);
    let want = attended(exact, sizes, 0, &flex().autodiff());
    for ((name, got), (_, want)) in got.iter().zip(&want) {
        close(name, got, want, 3.0 * 2f64.powi(-8));
        assert!(error(got, want) > 2f64.powi(-13), "{name}");
    }
    // Values that bf16 has, whose sums have more digits: with weights of 1, they are kept.
    let [batch, length, _, width] = sizes;
    let zeros = Tensor::<3>::zeros([batch, 1, 2 * width], &device);
    let v = random([batch, 1, 2 * width], 3).convert_dtype(DType::BF16);
    let rounded = Tensor::<3>::from_data(v.convert_dtype(DType::F32), (&device, DType::F32));
    let q = Tensor::<3>::zeros([batch, length, 2 * width], &device);
    let all = DotProductAttention {
        causal: false,
        ..narrow
    };
    let y = values(all.forward(q, zeros, rounded.clone(), None));
    assert!(y == values(rounded.expand([batch, length, 2 * width])));
}

/// Tensors of some megabytes are on the device what they are on the host, alone and beside others.
#[cfg_attr(test, test)]
pub fn large_tensors() {
    let device = device();
    for rows in [100_000, 200_000, 300_000, 1_000_000] {
        let data: Vec<TensorData> = (1..4).map(|seed| random([rows, 8], seed)).collect();
        let all: Vec<Tensor<2>> = data
            .iter()
            .map(|data| Tensor::from_data(data.clone(), &device))
            .collect();
        for (i, (tensor, data)) in all.iter().zip(&data).enumerate() {
            let want: Vec<f32> = data.iter::<f32>().collect();
            assert!(values(tensor.clone()) == want, "tensor {i} of {rows} rows");
            let twice: Vec<f32> = want.iter().map(|x| 2.0 * x).collect();
            let got = values(tensor.clone() * 2.0);
            assert!(got == twice, "twice tensor {i} of {rows} rows");
        }
    }
}

/// Within a seed, the device drops what Flex drops.
#[cfg_attr(test, test)]
pub fn dropouts() {
    let drops = can_overwrite(&device());
    let on = |device: &Device| {
        let case = |shape: [usize; 3], probability, first_row, turned| {
            let x = leaf(shape, 1, device);
            let input = match turned {
                true => x.clone().swap_dims(1, 2),
                false => x.clone(),
            };
            let y = seeded(0xFEDC_BA98_7654_3210, first_row, || {
                let y = dropout(input, probability);
                draw_from(0x1_2345_6789);
                dropout(y.clone(), 0.1) + y
            });
            let grads = weighed(y.clone()).backward();
            [values(y), x.grad(&grads).map(values).expect("a gradient")]
        };
        let attention = DotProductAttention {
            dropout: 0.3,
            ..DotProductAttention::new(2)
        };
        let x = leaf([3, 7, 8], 4, device);
        let y = seeded(5, 2, || {
            attention.forward(x.clone(), x.clone(), x.clone(), None)
        });
        let grads = weighed(y.clone()).backward();
        let single = seeded(6, 0, || dropout(leaf([700], 5, device), 0.5));
        let mut all = vec![values(y), x.grad(&grads).map(values).expect("a gradient")];
        all.push(values(single));
        for (shape, probability, first_row, turned) in [
            ([1, 1, 1], 0.5, 0, false),
            ([7, 55, 131], 0.3, 12, false),
            ([3, 5, 600], 0.9, 0, true),
            ([2000, 3, 1], 0.5, 0xFFFF_FFF0, false),
            ([1, 1, 9001], 0.01, 1 << 40, false),
        ] {
            all.extend(case(shape, probability, first_row, turned));
        }
        all
    };
    let want = on(&flex().autodiff());
    for device in [
        device().autodiff(),
        device().autodiff().gradient_checkpointing(),
    ] {
        let got = if drops { on(&device) } else { want.clone() };
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            close(&format!("dropout {i}"), got, want, 4.0 * tolerance());
            let dropped = |all: &[f32]| all.iter().filter(|x| **x == 0.0).count();
            assert_eq!(dropped(got), dropped(want), "dropout {i}");
        }
    }
}

#[cfg_attr(test, test)]
pub fn dropouts_seeds() {
    let device = device();
    let x = Tensor::<2>::ones([16, 64], &device);
    let dropped = || values(dropout(x.clone(), 0.5));
    let kept = |all: &[f32]| all.iter().filter(|x| **x > 0.0).count() as f64;
    let within = |count: f64| assert!((count - 512.0).abs() < 5.0 * 256f64.sqrt(), "{count}");
    let (first, second) = (dropped(), dropped());
    within(kept(&first));
    within(first.iter().zip(&second).filter(|(a, b)| a == b).count() as f64);
    if !can_overwrite(&device) {
        return;
    }
    // From memory that is written between the calls.
    let seed = Seed::new(8, &device);
    let step = || seed.within(|| seeded(1, 3, dropped));
    for value in [8, 9, u64::MAX] {
        seed.set(value);
        assert_eq!(step(), seeded(value, 3, dropped), "{value}");
    }
    // A captured step reads it in each replay.
    let mut step = rezero_kernels::capture(&device, {
        let (seed, x) = (seed.clone(), x.clone());
        move || seed.within(|| seeded(1, 3, || dropout(x.clone(), 0.5)))
    });
    for value in [10, 11] {
        seed.set(value);
        let got = values(step.replay().clone());
        assert_eq!(got, seeded(value, 3, dropped), "{value}");
    }
}

/// Tensors without elements give such tensors.
#[cfg_attr(test, test)]
pub fn nothing_at_all() {
    let device = device().autodiff();
    let x = || Tensor::<2>::zeros([0, 6], &device).require_grad();
    let channels = || Tensor::<1>::ones([6], &device);
    let none = || Tensor::<1>::ones([0], &device);
    let thin = || Tensor::<2>::zeros([3, 0], &device).require_grad();
    let targets = Tensor::<1, Int>::zeros([0], &device);
    let losses = cross_entropy(x(), targets);
    assert_eq!(losses.dims(), [0]);
    assert!(values(losses.clone()).is_empty());
    losses.sum().backward();
    for y in [
        layer_norm(x(), channels(), channels(), 1e-5),
        rms_norm(x(), channels(), 1e-5),
        dropout(x(), 0.5),
        layer_norm(thin(), none(), none(), 1e-5),
        rms_norm(thin(), none(), 1e-5),
        dropout(thin(), 0.5),
    ] {
        assert!(values(y.clone()).is_empty());
        y.sum().backward();
    }
}

/// A target that is no class is not taken for one.
#[cfg_attr(test, test)]
pub fn unknown_targets() {
    if !can_overwrite(&device()) {
        return;
    }
    let device = device().autodiff();
    let logits = leaf([3, 5], 1, &device);
    let targets = Tensor::<1, Int>::from_data([4, 5, -1], &device);
    let losses = values(cross_entropy(logits, targets));
    assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2].is_nan());
}

/// Updates in place of tensors that lie in memory in different orders are those of the composed operations.
#[cfg_attr(test, test)]
pub fn updates_in_place() {
    let device = device();
    if !can_overwrite(&device) {
        return;
    }
    let shape = [5, 3, 3, 4];
    let tensor = |seed| Tensor::<4>::from_data(random(shape, seed), &device);
    let flex = |seed| Tensor::<4>::from_data(random(shape, seed), &flex());
    for channels_last in [
        [false; 4],
        [true, false, false, false],
        [false, true, true, false],
    ] {
        let of = |i: usize| laid(tensor(i as u64), channels_last[i]);
        let (lr, weight_decay) = (0.1, 0.01);
        let sgd = SgdStep {
            lr,
            momentum: 0.9,
            weight_decay,
        };
        let adagrad = AdaGradStep {
            lr,
            epsilon: 1e-3,
            weight_decay,
        };
        let adam = AdamStep {
            lr,
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-3,
            weight_decay,
            decoupled: true,
            time: 3,
        };
        let lamb = LambStep {
            lr,
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-3,
            weight_decay,
            time: 3,
        };
        let what = format!("NHWC: {channels_last:?}");
        let check = |name: &str, got: Tensor<4>, want: Tensor<4>| {
            close(
                &format!("{what}: {name}"),
                &values(got),
                &values(want),
                4.0 * tolerance(),
            );
        };
        let square = |x: Tensor<4>| x.clone() * x;
        let numbers = |all: [f32; NUMBERS]| Tensor::<1>::from_floats(all, &device);

        let (w, v) = (of(0), of(2));
        SgdStep::in_place(&numbers(sgd.numbers()), &w, &of(1), &v).expect("in place");
        let (want_w, want_v) = sgd.update(flex(0), flex(1), Some(flex(2)));
        check("SGD's weight", w, want_w);
        check("SGD's velocity", v, want_v);

        let (w, s) = (of(0), square(of(2)));
        AdaGradStep::in_place(&numbers(adagrad.numbers()), &w, &of(1), &s).expect("in place");
        let (want_w, want_s) = adagrad.update(flex(0), flex(1), Some(square(flex(2))));
        check("AdaGrad's weight", w, want_w);
        check("AdaGrad's sums", s, want_s);

        let (w, m, v) = (of(0), of(2), square(of(3)));
        let mut off = adam.numbers();
        off[NUMBERS - 1] = 0.0;
        let moments = [m.clone(), v.clone()];
        AdamStep::in_place(&numbers(off), &w, &of(1), &moments).expect("in place");
        check("a weight that is not written", w.clone(), flex(0));
        AdamStep::in_place(&numbers(adam.numbers()), &w, &of(1), &moments).expect("in place");
        let (want_w, [want_m, want_v]) =
            adam.update(flex(0), flex(1), Some([flex(2), square(flex(3))]));
        check("Adam's weight", w, want_w);
        check("Adam's first moment", m, want_m);
        check("Adam's second moment", v, want_v);

        let (w, m, v) = (of(0), of(2), square(of(3)));
        let mut off = lamb.numbers();
        off[NUMBERS - 1] = 0.0;
        let moments = [m.clone(), v.clone()];
        LambStep::in_place(&numbers(off), &w, &of(1), &moments).expect("in place");
        check("a weight that is not written", w.clone(), flex(0));
        LambStep::in_place(&numbers(lamb.numbers()), &w, &of(1), &moments).expect("in place");
        let (want_w, [want_m, want_v]) =
            lamb.update(flex(0), flex(1), Some([flex(2), square(flex(3))]));
        check("LAMB's weight", w, want_w);
        check("LAMB's first moment", m, want_m);
        check("LAMB's second moment", v, want_v);

        // Without a norm, the ratio is 1.
        let w = of(0) * 0.0;
        LambStep::in_place(
            &numbers(lamb.numbers()),
            &w,
            &of(1),
            &[of(2), square(of(3))],
        )
        .expect("in place");
        let start = Some([flex(2), square(flex(3))]);
        let (want_w, _) = lamb.update(flex(0) * 0.0, flex(1), start);
        check("LAMB's weight from 0", w, want_w);
    }
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd,
    AdaGrad,
    Adam,
    Lamb,
}

/// A parameter's weights, gradient, and two tensors of state.
type Parameter = [Tensor<4>; 4];

impl Rule {
    const ALL: [Self; 4] = [Self::Sgd, Self::AdaGrad, Self::Adam, Self::Lamb];

    fn numbers(self) -> [f32; NUMBERS] {
        let (lr, weight_decay) = (0.1, 0.01);
        let (beta_1, beta_2, epsilon, time) = (0.9, 0.99, 1e-3, 3);
        match self {
            Self::Sgd => SgdStep {
                lr,
                momentum: 0.9,
                weight_decay,
            }
            .numbers(),
            Self::AdaGrad => AdaGradStep {
                lr,
                epsilon,
                weight_decay,
            }
            .numbers(),
            Self::Adam => AdamStep {
                lr,
                beta_1,
                beta_2,
                epsilon,
                weight_decay,
                decoupled: false,
                time,
            }
            .numbers(),
            Self::Lamb => LambStep {
                lr,
                beta_1,
                beta_2,
                epsilon,
                weight_decay,
                time,
            }
            .numbers(),
        }
    }

    fn update(self, numbers: &Tensor<1>, [w, g, a, b]: &Parameter) {
        let both = || [a.clone(), b.clone()];
        let done = match self {
            Self::Sgd => SgdStep::in_place(numbers, w, g, a).is_some(),
            Self::AdaGrad => AdaGradStep::in_place(numbers, w, g, b).is_some(),
            Self::Adam => AdamStep::in_place(numbers, w, g, &both()).is_some(),
            Self::Lamb => LambStep::in_place(numbers, w, g, &both()).is_some(),
        };
        assert!(done, "{self:?} in place");
    }
}

/// The shape of parameter `i` of many, and which of its tensors are in NHWC.
fn odd(i: usize) -> ([usize; 4], [bool; 4]) {
    let shape = match i % 50 {
        3 => [37, 16, 5, 3],
        _ => [1 + i % 5, 1 + i % 3, 1 + 7 * i % 11, 1 + i % 2],
    };
    let channels_last = match i % 10 {
        4 => [false, true, false, false],
        7 => [true, false, true, true],
        _ => [false; 4],
    };
    (shape, channels_last)
}

/// Updates of many parameters at once have the bits of the same updates one by one.
#[cfg_attr(test, test)]
pub fn updates_together() {
    let device = device();
    if !can_overwrite(&device) {
        return;
    }
    let parameters = |n: usize| -> Vec<Parameter> {
        let parameter = |i: usize| {
            let (shape, channels_last) = odd(i);
            [0, 1, 2, 3].map(|j| {
                let all = Tensor::<4>::from_data(random(shape, (4 * i + j) as u64), &device);
                let all = if j == 3 { all.clone() * all } else { all };
                laid(all, channels_last[j])
            })
        };
        (0..n).map(parameter).collect()
    };
    for n in [1, 7, 200] {
        let numbers = Rule::ALL.map(|rule| Tensor::<1>::from_floats(rule.numbers(), &device));
        let all = Rule::ALL.map(|_| parameters(n));
        let alone = Rule::ALL.map(|_| parameters(n));
        device.flush().expect("no error");
        let (_, made) = launches(|| {
            together(|| {
                for ((rule, numbers), own) in Rule::ALL.iter().zip(&numbers).zip(&all) {
                    own.iter().for_each(|own| rule.update(numbers, own));
                }
            });
            values(all[3][n - 1][0].clone())
        });
        let ((), made_alone) = launches(|| {
            for ((rule, numbers), own) in Rule::ALL.iter().zip(&numbers).zip(&alone) {
                own.iter().for_each(|own| rule.update(numbers, own));
            }
        });
        let (made, made_alone) = (made.len(), made_alone.len());
        println!("{n} parameters, four rules: {made} launches, alone {made_alone}");
        assert!(made <= made_alone);
        let before = parameters(n);
        for ((rule, all), alone) in Rule::ALL.iter().zip(all).zip(alone) {
            for (i, (all, alone)) in all.into_iter().zip(alone).enumerate() {
                for (j, (got, want)) in all.into_iter().zip(alone).enumerate() {
                    let bits = |x: Tensor<4>| -> Vec<u32> {
                        values(x).into_iter().map(f32::to_bits).collect()
                    };
                    let (got, want) = (bits(got), bits(want));
                    assert_eq!(got, want, "{rule:?}, tensor {j} of parameter {i} of {n}");
                    if j == 0 {
                        assert_ne!(got, bits(before[i][0].clone()), "{rule:?}: not updated");
                    }
                }
            }
        }
    }
}

/// The running statistics of many batch norms move in few launches, with the bits of moves one by one, and as those in new memory do.
#[cfg_attr(test, test)]
pub fn statistics_together() {
    let device = device().autodiff();
    if !can_overwrite(&device.clone().inner()) {
        return;
    }
    let channels = |i: usize| [1, 3, 16, 300][i % 4];
    let make = |n: usize| -> Vec<BatchNorm> {
        let norm = |i: usize| {
            let momentum = if i % 6 == 5 { 0.3 } else { 0.1 };
            let config = BatchNormConfig::new(channels(i)).with_momentum(momentum);
            config.init(&device)
        };
        (0..n).map(norm).collect()
    };
    let pass = |(i, norm): (usize, &BatchNorm)| {
        let x = random([2, channels(i), 3, 2], i as u64);
        let x = Tensor::<4>::from_data(x, &device) + 1.5;
        drop(fused::batch_norm(norm, x, Epilogue::Relu));
    };
    let statistics = |norms: &[BatchNorm]| -> Vec<Vec<f32>> {
        let both = norms.iter().flat_map(|n| [&n.running_mean, &n.running_var]);
        both.map(|state| values(state.value_sync())).collect()
    };
    for n in [1, 7, 60] {
        let [at_once, alone, anew] = [(); 3].map(|()| make(n));
        let moves = |work: &dyn Fn()| {
            let (_, made) = launches(|| {
                work();
                values(at_once[n - 1].running_var.value_sync())
            });
            let of_ours = made
                .iter()
                .filter(|l| l.kernel.to_lowercase().contains("towards"));
            of_ours.count()
        };
        // A norm that is applied twice moves twice.
        let twice = |norms: &[BatchNorm]| {
            norms
                .iter()
                .enumerate()
                .chain([(0, &norms[0])])
                .for_each(pass)
        };
        let made = moves(&|| in_place(|| twice(&at_once)));
        let made_alone = moves(&|| {
            alone
                .iter()
                .enumerate()
                .for_each(|own| in_place(|| pass(own)));
            in_place(|| pass((0, &alone[0])));
        });
        twice(&anew);
        println!("{n} batch norms: {made} launches, alone {made_alone}");
        assert_eq!(made_alone, n + 1);
        assert!(made <= made_alone && (n < 60 || 4 * made < n));
        let bits = |all: &[Vec<f32>]| -> Vec<Vec<u32>> {
            all.iter()
                .map(|all| all.iter().map(|x| x.to_bits()).collect())
                .collect()
        };
        let [at_once, alone, anew] = [&at_once, &alone, &anew].map(|norms| statistics(norms));
        assert_eq!(bits(&at_once), bits(&alone), "{n} norms");
        for (i, (got, want)) in at_once.iter().zip(&anew).enumerate() {
            close(
                &format!("statistic {i} of {n} norms"),
                got,
                want,
                4.0 * tolerance(),
            );
            let start = (i % 2) as f32;
            assert!(got.iter().all(|x| *x != start), "not moved");
        }
    }
}

/// Sums of squares, and products with a factor, of many tensors at once.
#[cfg_attr(test, test)]
pub fn norms_and_factors_together() {
    let (device, flex) = (device(), flex());
    if !can_overwrite(&device) {
        return;
    }
    for n in [1, 7, 250] {
        let make = |device: &Device, i: usize| {
            let (shape, channels_last) = odd(i);
            let x = Tensor::<4>::from_data(random(shape, i as u64), device);
            laid(x, channels_last[1])
        };
        let flat = |device: &Device| Tensor::<1>::from_data(random([100_001], 5), device);
        let expanded = |device: &Device| {
            let row = Tensor::<2>::from_data(random([1, 7], 6), device);
            row.expand([3, 7])
        };
        let mut all = Tensors::new();
        let mut want = Vec::new();
        for i in 0..n {
            assert!(all.push(&make(&device, i)));
            want.push(make(&flex, i).square().sum());
        }
        assert!(all.push(&flat(&device)) && all.push(&expanded(&device)));
        let composed: Vec<_> = (0..n).map(|i| make(&device, i)).collect();
        device.flush().expect("no error");
        let (_, made) = launches(|| {
            let sums = composed.into_iter().map(|x| x.square().sum()).collect();
            values(Tensor::cat(sums, 0))
        });
        println!(
            "{n} tensors, sums by Burn's operations: {} launches",
            made.len()
        );
        want.push(flat(&flex).square().sum());
        want.push(expanded(&flex).square().sum());
        device.flush().expect("no error");
        let (got, made) = launches(|| values(all.square_sums().expect("sums")));
        let (made, count) = (made.len(), n + 2);
        println!("{count} tensors, sums: {made} launches");
        assert!(made <= count + 2);
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let want: f32 = want.into_scalar();
            let error = (got / want - 1.0).abs();
            assert!(error < 1e-5, "tensor {i} of {n}: {got} {want}");
        }
        assert_eq!(
            got,
            values(all.square_sums().expect("sums")),
            "the order is fixed"
        );

        let factor = Tensor::<1>::from_floats([0.3], &device);
        let shared = make(&device, 0);
        assert!(all.push(&shared));
        device.flush().expect("no error");
        let (_, made) = launches(|| {
            all.scale(&factor);
            device.flush().expect("no error")
        });
        let (made, count) = (made.len(), n + 3);
        println!("{count} tensors, scaled: {made} launches");
        assert!(made <= count + 2);
        for i in 0..n {
            let got = all.pop::<4>().expect("as many as before");
            assert_eq!(
                values(got),
                values(make(&flex, i) * 0.3),
                "tensor {i} of {n}"
            );
        }
        assert!(all.pop::<2>().is_none(), "it has one axis");
        let got = all.pop::<1>().expect("the flat one");
        assert_eq!(values(got), values(flat(&flex) * 0.3));
        let got = all.pop::<2>().expect("the expanded one");
        assert_eq!(values(got), values(expanded(&flex) * 0.3));
        let got = all.pop::<4>().expect("the shared one");
        assert_eq!(values(got), values(make(&flex, 0) * 0.3));
        assert_eq!(values(shared), values(make(&flex, 0)), "another tensor");
        assert!(all.square_sums().is_none(), "there is none left");
    }
}
