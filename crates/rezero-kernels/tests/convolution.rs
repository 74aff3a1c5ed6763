use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;
use rezero_kernels::conv2d;

use crate::support::{finite_differences, gradient, leaf, random, same, weighed};

#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    channels: [usize; 2],
    image: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
}

fn check(case: Case) {
    let Case {
        batch,
        channels: [c_in, c_out],
        image: [h, w],
        kernel: [kh, kw],
        stride,
        padding,
    } = case;
    same(&format!("{case:?}"), |device| {
        let x = leaf::<4>(&random([batch, c_in, h, w], 1), device);
        let weight = leaf::<4>(&random([c_out, c_in, kh, kw], 2), device);
        let y = conv2d(x.clone(), weight.clone(), stride, padding);
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&weight, &gradients),
        ]
    });
}

#[test]
fn the_layers_of_a_resnet() {
    for (channels, image, kernel, stride, padding) in [
        ([3, 16], [32, 32], [3, 3], 1, 1),
        ([16, 16], [32, 32], [3, 3], 1, 1),
        ([16, 32], [32, 32], [3, 3], 2, 1),
        ([32, 32], [16, 16], [3, 3], 1, 1),
        ([64, 64], [8, 8], [3, 3], 1, 1),
        ([64, 128], [8, 8], [1, 1], 2, 0),
        ([3, 8], [32, 32], [7, 7], 2, 3),
    ] {
        check(Case {
            batch: 3,
            channels,
            image,
            kernel,
            stride,
            padding,
        });
    }
}

/// Shapes for which Winograd's algorithm pays: heights that are no multiple of four, all paddings and widths of kernels, rows
/// shorter and longer than a vector, outputs that fill no block, batches of several tasks.
#[test]
fn three_rows_of_weights() {
    for (batch, channels, image, width, padding) in [
        (16, [16, 16], [8, 8], 3, 1),
        (64, [12, 9], [9, 33], 3, 1),
        (16, [16, 18], [7, 5], 3, 2),
        (16, [16, 17], [10, 12], 3, 0),
        (16, [20, 16], [10, 17], 1, 0),
        (32, [16, 16], [7, 20], 5, 2),
        (16, [9, 8], [6, 20], 4, 1),
        (80, [16, 24], [3, 3], 3, 1),
        (16, [6, 70], [13, 40], 3, 1),
        (2, [40, 40], [40, 15], 2, 1),
    ] {
        check(Case {
            batch,
            channels,
            image,
            kernel: [3, width],
            stride: 1,
            padding,
        });
    }
}

/// The largest error of the output and of both gradients, against sums in double precision, relative to the largest value.
fn error(x: &[f32], w: &[f32], g: &[f32], [n, c, o, h]: [usize; 4]) -> [f64; 3] {
    let device = crate::support::fast();
    let data = |values: &[f32], shape: [usize; 4]| TensorData::new(values.to_vec(), shape);
    let tx = leaf::<4>(&data(x, [n, c, h, h]), &device);
    let tw = leaf::<4>(&data(w, [o, c, 3, 3]), &device);
    let y = conv2d(tx.clone(), tw.clone(), 1, 1);
    let tg = Tensor::<4>::from_data(data(g, [n, o, h, h]), &device);
    let gradients = (y.clone() * tg).sum().backward();
    let (mut dy, mut dx, mut dw) = (vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
    for m in 0..n * o * c * h * h * 9 {
        let (l, k, m) = (m % 3, m / 3 % 3, m / 9);
        let (j, i, m) = (m % h, m / h % h, m / h / h);
        let (a, b, m) = (m % c, m / c % o, m / c / o);
        let (Some(row), Some(col)) = ((i + k).checked_sub(1), (j + l).checked_sub(1)) else {
            continue;
        };
        if row < h && col < h {
            let at_y = ((m * o + b) * h + i) * h + j;
            let at_x = ((m * c + a) * h + row) * h + col;
            let at_w = (b * c + a) * 9 + k * 3 + l;
            let [x, w, g] = [x[at_x], w[at_w], g[at_y]].map(f64::from);
            dy[at_y] += w * x;
            dx[at_x] += w * g;
            dw[at_w] += x * g;
        }
    }
    let worst = |found: TensorData, expected: &[f64]| {
        let scale = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let found = found.iter::<f64>();
        found
            .zip(expected)
            .map(|(found, x)| (found - x).abs() / scale)
            .fold(0.0, f64::max)
    };
    [
        worst(y.into_data(), &dy),
        worst(gradient(&tx, &gradients), &dx),
        worst(gradient(&tw, &gradients), &dw),
    ]
}

/// Winograd's error stays that of f32 for values that are not random around zero, too.
#[test]
fn winograds_error_is_small() {
    let extents @ [n, c, o, h] = [16, 16, 16, 16];
    let values = |len: usize, seed| random([len], seed).iter::<f32>().collect::<Vec<_>>();
    let x = values(n * c * h * h, 1);
    let (w, g) = (values(o * c * 9, 2), values(n * o * h * h, 3));
    let of = |f: &dyn Fn(usize, f32) -> f32, x: &[f32]| -> Vec<f32> {
        x.iter().enumerate().map(|(i, x)| f(i, *x)).collect()
    };
    let far = |_: usize, x: f32| 1000.0 + x;
    // Rows, columns and channels of a million beside ones.
    let rows = |i: usize, x: f32| {
        if (i / h).is_multiple_of(5) {
            1e6 * x
        } else {
            x
        }
    };
    let pixels = |i: usize, x: f32| if i.is_multiple_of(7) { 1e6 * x } else { x };
    let channels = |i: usize, x: f32| {
        if (i / h / h).is_multiple_of(3) {
            1e6 * x
        } else {
            x
        }
    };
    let turns = |i: usize, x: f32| {
        if (i / h).is_multiple_of(2) {
            100.0 + x
        } else {
            x - 100.0
        }
    };
    let huge = |_: usize, x: f32| 1e15 * x;
    let tiny = |_: usize, x: f32| 1e-15 * x;
    type Kind<'a> = &'a dyn Fn(usize, f32) -> f32;
    let kinds: [(&str, Kind); 8] = [
        ("random", &|_, x| x),
        ("far from zero", &far),
        ("rows of another size", &rows),
        ("pixels of another size", &pixels),
        ("channels of another size", &channels),
        ("rows of alternating signs", &turns),
        ("huge", &huge),
        ("tiny", &tiny),
    ];
    for (name, kind) in kinds {
        for (what, errors) in [
            ("images", error(&of(kind, &x), &w, &g, extents)),
            ("gradients", error(&x, &w, &of(kind, &g), extents)),
        ] {
            let [y, dx, dw] = errors;
            println!("{name} {what}: {y:.1e} {dx:.1e} {dw:.1e}");
            assert!(
                errors.iter().all(|e| *e < 1e-5),
                "{name} {what}: {errors:?}"
            );
        }
    }
    // Weights that cancel: the result of a constant is the border's alone.
    let flat: Vec<f32> = of(&|i, x| if i % 9 == 8 { -8.0 } else { 1.0 + 0.0 * x }, &w);
    let errors = error(&of(&far, &x), &flat, &g, extents);
    assert!(
        errors.iter().all(|e| *e < 1e-5),
        "cancelling weights: {errors:?}"
    );
}

#[test]
fn edges() {
    for (batch, channels, image, kernel, stride, padding) in [
        (1, [1, 1], [1, 1], [1, 1], 1, 0),
        (1, [1, 1], [1, 1], [3, 3], 1, 1),
        (2, [1, 9], [1, 17], [1, 5], 1, 0),
        (2, [5, 1], [13, 2], [3, 1], 2, 0),
        (1, [2, 3], [7, 7], [2, 2], 5, 0),
        (1, [2, 3], [4, 4], [3, 3], 3, 4),
        (17, [7, 11], [5, 3], [3, 2], 1, 1),
        (1, [257, 3], [3, 3], [3, 3], 1, 1),
    ] {
        check(Case {
            batch,
            channels,
            image,
            kernel,
            stride,
            padding,
        });
    }
}

#[test]
fn views_are_read_as_they_are_laid_out() {
    same("a transposed image and weight", |device| {
        let x = leaf::<4>(&random([2, 6, 9, 3], 1), device);
        let weight = leaf::<4>(&random([3, 3, 3, 5], 2), device);
        let y = conv2d(
            x.clone().swap_dims(1, 3),
            weight.clone().swap_dims(0, 3),
            1,
            1,
        );
        let gradients = weighed(y.clone()).backward();
        vec![
            y.into_data(),
            gradient(&x, &gradients),
            gradient(&weight, &gradients),
        ]
    });
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    for stride in [1, 2] {
        let inputs = [random([2 * 3 * 7 * 6], 1), random([4 * 3 * 3 * 3], 2)];
        finite_differences("convolution", inputs, |[x, w]| {
            let (x, w) = (
                x.clone().reshape([2, 3, 7, 6]),
                w.clone().reshape([4, 3, 3, 3]),
            );
            weighed::<4>(conv2d(x, w, stride, 1))
        });
    }
}

#[test]
fn nothing_in_nothing_out() {
    let device = crate::support::fast();
    let x = Tensor::<4>::from_data(TensorData::new(Vec::<f32>::new(), [0, 3, 4, 4]), &device);
    let weight = Tensor::<4>::ones([2, 3, 3, 3], &device);
    assert_eq!(conv2d(x, weight, 1, 1).dims(), [0, 2, 4, 4]);
}

proptest! {
    #![proptest_config(crate::support::cases(48))]

    #[test]
    fn any_shape(
        batch in 1usize..5,
        channels in prop::array::uniform2(1usize..20),
        image in prop::array::uniform2(1usize..20),
        kernel in prop::array::uniform2(1usize..6),
        stride in 1usize..4,
        padding in 0usize..4,
    ) {
        prop_assume!(image[0] + 2 * padding >= kernel[0] && image[1] + 2 * padding >= kernel[1]);
        check(Case { batch, channels, image, kernel, stride, padding });
    }
}
