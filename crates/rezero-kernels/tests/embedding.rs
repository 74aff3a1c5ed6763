use burn::tensor::{Device, Int, Tensor, TensorData};
use rezero_kernels::embedding;

use crate::support::{fast, finite_differences, gradient, leaf, random, same, weighed};

fn ids(batch: usize, length: usize, rows: usize) -> TensorData {
    // One number in three is frequent.
    let id = |i: usize| {
        if i.is_multiple_of(3) {
            rows / 2
        } else {
            i * 7919 % rows
        }
    };
    let ids: Vec<i32> = (0..batch * length).map(|i| id(i) as i32).collect();
    TensorData::new(ids, [batch, length])
}

#[test]
fn sizes_and_scales() {
    for (batch, length, rows, width) in [
        (1, 1, 1, 1),
        (2, 3, 5, 7),
        (16, 64, 256, 64),
        (4, 37, 256, 300),
        (3, 50, 1_001, 129),
    ] {
        for scale in [1.0, 8.0] {
            let what = format!("embedding [{batch}, {length}] of [{rows}, {width}] × {scale}");
            same(&what, |device| {
                let weight = leaf::<2>(&random([rows, width], 1), device);
                let ids = Tensor::<2, Int>::from_data(ids(batch, length, rows), device);
                let x = embedding(weight.clone(), ids, scale);
                let gradients = weighed(x.clone()).backward();
                vec![x.into_data(), gradient(&weight, &gradients)]
            });
        }
    }
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    finite_differences("embedding", [random([5 * 3], 1)], |[weight]| {
        let ids = Tensor::from_data(ids(2, 4, 5), &fast());
        weighed(embedding(weight.clone().reshape([5, 3]), ids, 1.5))
    });
}

#[test]
fn without_numbers_there_is_an_empty_result() {
    let weight = Tensor::<2>::ones([4, 3], &Device::flex());
    let ids = Tensor::<2, Int>::zeros([2, 0], &Device::flex());
    assert_eq!(embedding(weight, ids, 1.0).dims(), [2, 0, 3]);
}

#[test]
#[should_panic = "must be from 0 to 3, got 4"]
fn a_number_beyond_the_table_panics() {
    let weight = Tensor::<2>::ones([4, 3], &Device::flex());
    let ids = Tensor::<2, Int>::full([1, 2], 4, &Device::flex());
    let _ = embedding(weight, ids, 1.0);
}
