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
