use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::{AdaGradStep, AdamStep, LambStep, LionStep, SgdStep};

use crate::support::{close, random};

type Update = fn(Tensor<2>, Tensor<2>, Vec<Tensor<2>>, usize) -> (Tensor<2>, Vec<Tensor<2>>);

fn sgd(w: Tensor<2>, g: Tensor<2>, state: Vec<Tensor<2>>, _: usize) -> (Tensor<2>, Vec<Tensor<2>>) {
    let step = SgdStep {
        lr: 0.1,
        momentum: 0.9,
        weight_decay: 1e-2,
    };
    let (w, v) = step.update(w, g, state.into_iter().next());
    (w, vec![v])
}

fn adagrad(
    w: Tensor<2>,
    g: Tensor<2>,
    state: Vec<Tensor<2>>,
    _: usize,
) -> (Tensor<2>, Vec<Tensor<2>>) {
    let step = AdaGradStep {
        lr: 0.1,
        epsilon: 1e-10,
        weight_decay: 0.0,
    };
    let (w, s) = step.update(w, g, state.into_iter().next());
    (w, vec![s])
}

fn adam(
    w: Tensor<2>,
    g: Tensor<2>,
    state: Vec<Tensor<2>>,
    time: usize,
) -> (Tensor<2>, Vec<Tensor<2>>) {
    adam_like(w, g, state, time, false)
}

fn adamw(
    w: Tensor<2>,
    g: Tensor<2>,
    state: Vec<Tensor<2>>,
    time: usize,
) -> (Tensor<2>, Vec<Tensor<2>>) {
    adam_like(w, g, state, time, true)
}

fn adam_like(
    w: Tensor<2>,
    g: Tensor<2>,
    state: Vec<Tensor<2>>,
    time: usize,
    decoupled: bool,
) -> (Tensor<2>, Vec<Tensor<2>>) {
    let step = AdamStep {
        lr: 1e-2,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        decoupled,
        time,
    };
    let moments: Option<[Tensor<2>; 2]> = state.try_into().ok();
    let (w, moments) = step.update(w, g, moments);
    (w, moments.to_vec())
}

fn lamb(
    w: Tensor<2>,
    g: Tensor<2>,
    state: Vec<Tensor<2>>,
    time: usize,
) -> (Tensor<2>, Vec<Tensor<2>>) {
    let moments: Option<[Tensor<2>; 2]> = state.try_into().ok();
    let (w, moments) = LambStep { time, ..LAMB }.update(w, g, moments);
    (w, moments.to_vec())
}

fn lion(
    w: Tensor<2>,
    g: Tensor<2>,
    state: Vec<Tensor<2>>,
    _: usize,
) -> (Tensor<2>, Vec<Tensor<2>>) {
    let step = LionStep {
        lr: 1e-2,
        beta_1: 0.9,
        beta_2: 0.99,
        weight_decay: 0.1,
    };
    let (w, m) = step.update(w, g, state.into_iter().next());
    (w, vec![m])
}

const LAMB: LambStep = LambStep {
    lr: 1e-2,
    beta_1: 0.9,
    beta_2: 0.999,
    epsilon: 1e-6,
    weight_decay: 0.1,
    time: 1,
};

/// The first step by hand: with bias correction, m and v are g and g².
#[test]
fn lambs_first_step_is_the_formula() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let (w, g) = ([1.0f32, -2.0, 3.0], [0.1f32, -0.2, 0.3]);
        let u: Vec<f32> = w
            .iter()
            .zip(g)
            .map(|(w, g)| g / (g.abs() + 1e-6) + 0.1 * w)
            .collect();
        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        let rate = 1e-2 * norm(&w) / norm(&u);
        let expected: Vec<f32> = w.iter().zip(&u).map(|(w, u)| w - rate * u).collect();
        let tensor = |x: [f32; 3]| Tensor::<1>::from_data(x, &device);
        let (after, _) = LAMB.update(tensor(w), tensor(g), None);
        close(
            "w",
            &after.into_data(),
            &TensorData::new(expected, [3]),
            1e-6,
        );
        // A gate of 0 has no norm: its quotient is 1.
        let (gate, _) = LAMB.update(tensor([0.0; 3]), tensor(g), None);
        close(
            "α",
            &gate.into_data(),
            &TensorData::new(vec![-1e-2f32, 1e-2, -1e-2], [3]),
            1e-4,
        );
        let (still, _) = LAMB.update(tensor([0.0; 3]), tensor([0.0; 3]), None);
        assert_eq!(still.into_data(), TensorData::new(vec![0.0f32; 3], [3]));
    }
}

#[test]
fn lion_does_not_move_weights_without_a_gradient() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let w = Tensor::<2>::from_data(random([3, 7], 1), &device);
        let (after, _) = lion(w.clone(), w.zeros_like(), Vec::new(), 1);
        close(
            "w",
            &after.into_data(),
            &(w * (1.0 - 1e-3)).into_data(),
            1e-7,
        );
    }
}

/// Five updates. On an autodiff device the composed operations run: the kernels do not serve it.
fn steps(update: Update, shape: [usize; 2], device: &Device) -> TensorData {
    let mut w = Tensor::<2>::from_data(random(shape, 1), device);
    let mut state = Vec::new();
    for time in 1..=5 {
        let g = Tensor::<2>::from_data(random(shape, 10 + time as u64), device);
        (w, state) = update(w, g, state, time);
    }
    w.into_data()
}

#[test]
fn five_steps_of_each_optimizer() {
    let updates: [(&str, Update); 6] = [
        ("sgd", sgd),
        ("adagrad", adagrad),
        ("adam", adam),
        ("adamw", adamw),
        ("lamb", lamb),
        ("lion", lion),
    ];
    for (name, update) in updates {
        for shape in [[1, 1], [3, 7], [257, 301]] {
            close(
                &format!("{name} on {shape:?}"),
                &steps(update, shape, &Device::flex()),
                &steps(update, shape, &Device::flex().autodiff()),
                1e-5,
            );
        }
    }
}

#[test]
fn what_others_hold_is_not_written_over() {
    let device = Device::flex();
    let data = random([5, 5], 1);
    let w = Tensor::<2>::from_data(data.clone(), &device);
    let (after, _) = sgd(w.clone(), w.clone(), Vec::new(), 1);
    assert_eq!(w.into_data(), data);
    assert_ne!(after.into_data(), data);
    let view = Tensor::<2>::from_data(data.clone(), &device).transpose();
    let (after, _) = sgd(view.clone(), view.clone() * 0.0, Vec::new(), 1);
    close(
        "a view",
        &after.into_data(),
        &(view * (1.0 - 1e-3)).into_data(),
        1e-6,
    );
}
