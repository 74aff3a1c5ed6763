//! Dropout: what is dropped, its gradient, and that parts of a batch drop what the whole does.

use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::{DotProductAttention, draw_from, dropout, seeded};

use crate::support::{close, fast, gradient, leaf, random};

fn ones(shape: [usize; 3]) -> Tensor<3> {
    Tensor::ones(shape, &Device::flex())
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn a_value_is_zero_or_scaled() {
    // More than one task, and rows that end within one.
    let x = random([7, 55, 131], 1);
    let device = fast();
    for p in [0.1, 0.5, 0.9] {
        let x = leaf::<3>(&x, &device);
        let y = seeded(5, 0, || dropout(x.clone(), p));
        let (xs, ys) = (numbers(x.clone()), numbers(y.clone()));
        let scale = (1.0 / (1.0 - p)) as f32;
        let dropped = ys.iter().filter(|y| **y == 0.0).count() as f64 / ys.len() as f64;
        let n = ys.len() as f64;
        assert!(
            (dropped - p).abs() < 5.0 * (p * (1.0 - p) / n).sqrt(),
            "{dropped} of {p}"
        );
        for (x, y) in xs.iter().zip(&ys) {
            assert!(*y == 0.0 || *y == x * scale, "{x} {y}");
        }
        // The gradient of Σ y is the factor of each value.
        let found = gradient(&x, &y.sum().backward());
        for (g, y) in found.iter::<f32>().zip(&ys) {
            assert_eq!(g, if *y == 0.0 { 0.0 } else { scale });
        }
    }
}

#[test]
fn other_seeds_calls_and_streams_drop_others() {
    let x = || ones([4, 8, 64]);
    let [first, second, other] = seeded(1, 0, || {
        let both = [dropout(x(), 0.5), dropout(x(), 0.5)].map(numbers);
        draw_from(1);
        let other = numbers(dropout(x(), 0.5));
        let [first, second] = both;
        [first, second, other]
    });
    let seed = seeded(2, 0, || numbers(dropout(x(), 0.5)));
    let all = [&first, &second, &other, &seed];
    for (i, a) in all.iter().enumerate() {
        for b in &all[..i] {
            let same = a.iter().zip(*b).filter(|(a, b)| a == b).count();
            // Half of 2,048, within five standard deviations.
            assert!((same as f64 - 1024.0).abs() < 5.0 * 512f64.sqrt(), "{same}");
        }
    }
    let again = seeded(1, 0, || {
        draw_from(7);
        let _ = dropout(x(), 0.5);
        draw_from(1);
        numbers(dropout(x(), 0.5))
    });
    assert_eq!(again, other, "a stream begins again");
}

/// On the kernel's path and on that of composed operations, which gradient checkpointing takes.
#[test]
fn parts_of_a_batch_drop_what_the_whole_drops() {
    for device in [
        Device::flex(),
        Device::flex().autodiff(),
        Device::flex().autodiff().gradient_checkpointing(),
    ] {
        let of = |shape: [usize; 3], seed| Tensor::<3>::from_data(random(shape, seed), &device);
        let x = of([6, 5, 24], 1);
        let attention = DotProductAttention {
            dropout: 0.3,
            ..DotProductAttention::new(3)
        };
        let run = |x: Tensor<3>, first: usize| {
            seeded(9, first, || {
                let x = dropout(x, 0.2);
                let y = attention.forward(x.clone(), x.clone(), x.clone(), None);
                let y =
                    y + attention.forward_self(Tensor::cat(vec![x.clone(), x.clone(), x], 2), None);
                dropout(y.swap_dims(1, 2), 0.4)
            })
        };
        let whole = run(x.clone(), 0);
        let parts =
            [0..1, 1..4, 4..6].map(|rows| run(x.clone().slice_dim(0, rows.clone()), rows.start));
        let parts = Tensor::cat(parts.to_vec(), 0);
        close("parts", &parts.into_data(), &whole.into_data(), 1e-6);
    }
}

#[test]
fn nothing_and_little() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data(TensorData::new(vec![1.5f32, -2.0], [2, 1]), &device);
    assert_eq!(numbers(dropout(x, 0.0)), [1.5, -2.0]);
    let empty = Tensor::<2>::zeros([0, 4], &device);
    assert_eq!(dropout(empty, 0.5).dims(), [0, 4]);
    let one = numbers(seeded(3, 0, || {
        dropout(Tensor::<1>::ones([100], &device), 0.5)
    }));
    assert!(
        one.contains(&0.0) && one.contains(&2.0),
        "rows of one element"
    );
}

#[test]
fn a_scope_ends_with_its_panic() {
    let x = || Tensor::<1>::ones([64], &Device::flex());
    let outer = seeded(1, 0, || {
        let caught = std::panic::catch_unwind(|| seeded(2, 0, || panic!("within")));
        assert!(caught.is_err());
        numbers(dropout(x(), 0.5))
    });
    assert_eq!(outer, seeded(1, 0, || numbers(dropout(x(), 0.5))));
}

#[test]
#[should_panic = "must be in [0, 1), got 1"]
fn a_probability_of_one_panics() {
    let _ = dropout(ones([1, 1, 1]), 1.0);
}
