use proptest::prelude::*;
use rezero_kernels::DotProductAttention;

use crate::support::{finite_differences, gradient, leaf, random, same, weighed};

fn check(batch: usize, length: usize, width: usize, attention: DotProductAttention) {
    let shape = [batch, length, 3 * attention.n_heads * width];
    same(&format!("{attention:?} on {shape:?}"), |device| {
        let qkv = leaf::<3>(&random(shape, 1), device);
        // Scores large enough that the softmax is not uniform.
        let out = attention.forward(qkv.clone() * 3.0);
        let gradients = weighed(out.clone()).backward();
        vec![out.into_data(), gradient(&qkv, &gradients)]
    });
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
                    n_heads,
                    causal,
                    rotary,
                };
                check(batch, length, width, attention);
            }
        }
    }
}

#[test]
fn the_backward_pass_is_the_slope_of_the_forward_pass() {
    let attention = DotProductAttention {
        n_heads: 2,
        causal: true,
        rotary: Some(100.0),
    };
    finite_differences("attention", [random([2 * 5 * 24], 1)], |[qkv]| {
        weighed(attention.forward(qkv.clone().reshape([2, 5, 24])))
    });
}

#[test]
fn what_follows_a_position_does_not_change_it() {
    let attention = DotProductAttention {
        n_heads: 2,
        causal: true,
        rotary: None,
    };
    let device = burn::tensor::Device::flex();
    let qkv = burn::tensor::Tensor::<3>::from_data(random([1, 40, 48], 1), &device);
    let all = attention.forward(qkv.clone()).slice_dim(1, 0..17);
    let some = attention.forward(qkv.slice_dim(1, 0..17));
    crate::support::close("a prefix", &some.into_data(), &all.into_data(), 1e-6);
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
        check(batch, length, 2 * half, DotProductAttention { n_heads, causal, rotary });
    }
}
