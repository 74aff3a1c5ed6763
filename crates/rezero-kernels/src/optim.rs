//! Optimizer updates in one pass over a parameter, its gradient and the optimizer's state.
//!
//! They take tensors outside autodiff. They overwrite a tensor's memory where no other tensor
//! shares it.

use burn::tensor::Tensor;

#[cfg(feature = "cube")]
use crate::cube::optim::Rule;

/// Stochastic gradient descent with momentum, as in PyTorch:
///
/// `g ← g + λ·w`, `v ← μ·v + g` (`v ← g` at the first step), `w ← w − lr·v`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// The learning rate lr.
    pub lr: f64,
    /// μ.
    pub momentum: f64,
    /// λ.
    pub weight_decay: f64,
}

/// AdaGrad (Duchi et al. 2011): `g ← g + λ·w`, `s ← s + g²`, `w ← w − lr · g / (√s + ε)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaGradStep {
    /// The learning rate lr.
    pub lr: f64,
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
}

/// Adam: Kingma and Ba, [arXiv 1412.6980](https://arxiv.org/abs/1412.6980), algorithm 1:
///
/// `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`,
/// `w ← w − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// The learning rate lr.
    pub lr: f64,
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
    /// If true, the weights are multiplied by `1 − lr·λ` before the update (AdamW: Loshchilov and
    /// Hutter, [arXiv 1711.05101](https://arxiv.org/abs/1711.05101)); if false, `λ·w` is added to
    /// the gradient.
    pub decoupled: bool,
    /// The number t of this step, counted from 1.
    pub time: usize,
}

/// What a step of [`SgdStep`], [`AdaGradStep`], [`AdamStep`] or [`LambStep`] reads from the device, if it is taken in place: learning rate, momentum and the like. A
/// [captured](crate::capture) step then follows its schedule, which launches with constants would not. The last of them is 1; if it is 0, the step
/// writes nothing.
pub const NUMBERS: usize = 9;

/// LAMB: You et al., [arXiv 1904.00962](https://arxiv.org/abs/1904.00962), algorithm 2. With Adam's moments m and v:
///
/// `u ← m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε) + λ·w`, `w ← w − lr · ‖w‖ / ‖u‖ · u`,
///
/// where the quotient of the norms, over the whole parameter, is 1 if either is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LambStep {
    /// The learning rate lr.
    pub lr: f64,
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
    /// The number t of this step, counted from 1.
    pub time: usize,
}

/// Lion: Chen et al., [arXiv 2302.06675](https://arxiv.org/abs/2302.06675), algorithm 2:
///
/// `w ← w·(1 − lr·λ) − lr·sign(β₁·m + (1 − β₁)·g)`, `m ← β₂·m + (1 − β₂)·g`, where m starts at 0
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionStep {
    /// The learning rate lr.
    pub lr: f64,
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// λ.
    pub weight_decay: f64,
}

impl SgdStep {
    /// The updated weights and velocity.
    ///
    /// # Shapes
    ///
    /// - all: the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn update<const D: usize>(
        &self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Tensor<D>) {
        check(&weights, &gradient);
        #[cfg(feature = "flex")]
        if crate::flex::optim::serves(&[Some(&weights), Some(&gradient), velocity.as_ref()]) {
            use crate::flex::optim::{primitive, sgd, tensor_of};
            let (weights, gradient) = (primitive(weights), primitive(gradient));
            let (weights, velocity) = sgd(*self, weights, gradient, velocity.map(primitive));
            return (tensor_of(weights), tensor_of(velocity));
        }
        let gradient = decayed(gradient, &weights, self.weight_decay);
        let velocity = match velocity {
            Some(velocity) => velocity * self.momentum + gradient,
            None => gradient,
        };
        (weights - velocity.clone() * self.lr, velocity)
    }
}

impl SgdStep {
    /// The numbers that [`in_place`](Self::in_place) reads.
    pub fn numbers(&self) -> [f32; NUMBERS] {
        padded([self.lr, self.momentum, self.weight_decay])
    }

    /// [`update`](Self::update) in the memory of the weights and of the velocity, with the numbers of a step, `[9]`, at once or at the end of
    /// [`together`](crate::together). The results share it. `None`, and nothing is written, if the tensors are not f32 on a CubeCL backend, outside autodiff.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn in_place<const D: usize>(
        numbers: &Tensor<1>,
        weights: &Tensor<D>,
        gradient: &Tensor<D>,
        velocity: &Tensor<D>,
    ) -> Option<(Tensor<D>, Tensor<D>)> {
        must_be_all(numbers);
        check(weights, gradient);
        check(weights, velocity);
        #[cfg(feature = "cube")]
        {
            in_place(Rule::Sgd, numbers, [weights, gradient, velocity])?;
            Some((weights.clone(), velocity.clone()))
        }
        #[cfg(not(feature = "cube"))]
        None
    }
}

impl AdaGradStep {
    /// The numbers that [`in_place`](Self::in_place) reads.
    pub fn numbers(&self) -> [f32; NUMBERS] {
        padded([self.lr, self.epsilon, self.weight_decay])
    }

    /// [`update`](Self::update) in the memory of the weights and of the sums, with the numbers of a step, `[9]`, at once or at the end of
    /// [`together`](crate::together). The results share it. `None`, and nothing is written, if the tensors are not f32 on a CubeCL backend, outside autodiff.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn in_place<const D: usize>(
        numbers: &Tensor<1>,
        weights: &Tensor<D>,
        gradient: &Tensor<D>,
        sums: &Tensor<D>,
    ) -> Option<(Tensor<D>, Tensor<D>)> {
        must_be_all(numbers);
        check(weights, gradient);
        check(weights, sums);
        #[cfg(feature = "cube")]
        {
            in_place(Rule::AdaGrad, numbers, [weights, gradient, sums])?;
            Some((weights.clone(), sums.clone()))
        }
        #[cfg(not(feature = "cube"))]
        None
    }

    /// The updated weights and sums of squares.
    ///
    /// # Shapes
    ///
    /// - all: the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn update<const D: usize>(
        &self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        sums: Option<Tensor<D>>,
    ) -> (Tensor<D>, Tensor<D>) {
        check(&weights, &gradient);
        #[cfg(feature = "flex")]
        if crate::flex::optim::serves(&[Some(&weights), Some(&gradient), sums.as_ref()]) {
            use crate::flex::optim::{adagrad, primitive, tensor_of};
            let (weights, gradient) = (primitive(weights), primitive(gradient));
            let (weights, sums) = adagrad(*self, weights, gradient, sums.map(primitive));
            return (tensor_of(weights), tensor_of(sums));
        }
        let gradient = decayed(gradient, &weights, self.weight_decay);
        let squares = gradient.clone().square();
        let sums = match sums {
            Some(sums) => sums + squares,
            None => squares,
        };
        let step = gradient / (sums.clone().sqrt() + self.epsilon);
        (weights - step * self.lr, sums)
    }
}

impl AdamStep {
    /// The updated weights and moments `[m, v]`.
    ///
    /// # Shapes
    ///
    /// - all: the same
    ///
    /// # Panics
    ///
    /// If the shapes differ, or `time` is 0.
    pub fn update<const D: usize>(
        &self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<[Tensor<D>; 2]>,
    ) -> (Tensor<D>, [Tensor<D>; 2]) {
        counted(self.time);
        check(&weights, &gradient);
        #[cfg(feature = "flex")]
        {
            let [m, v] = moments
                .as_ref()
                .map_or([None, None], |moments| moments.each_ref().map(Some));
            if crate::flex::optim::serves(&[Some(&weights), Some(&gradient), m, v]) {
                use crate::flex::optim::{adam, primitive, tensor_of};
                let (weights, gradient) = (primitive(weights), primitive(gradient));
                let moments = moments.map(|moments| moments.map(primitive));
                let (weights, moments) = adam(*self, weights, gradient, moments);
                return (tensor_of(weights), moments.map(tensor_of));
            }
        }
        let (weights, gradient) = match self.decoupled {
            true => (weights * (1.0 - self.lr * self.weight_decay), gradient),
            false => {
                let gradient = decayed(gradient, &weights, self.weight_decay);
                (weights, gradient)
            }
        };
        let [m, v] = next_moments(gradient, [self.beta_1, self.beta_2], moments);
        let [factor, epsilon] = self.corrections();
        let step = m.clone() / (v.clone().sqrt() + epsilon);
        (weights - step * (self.lr * factor), [m, v])
    }

    /// The numbers that [`in_place`](Self::in_place) reads.
    ///
    /// # Panics
    ///
    /// If `time` is 0.
    pub fn numbers(&self) -> [f32; NUMBERS] {
        counted(self.time);
        let [factor, epsilon] = self.corrections();
        let (shrink, decay) = match self.decoupled {
            true => (1.0 - self.lr * self.weight_decay, 0.0),
            false => (1.0, self.weight_decay),
        };
        let [beta_1, beta_2] = [self.beta_1, self.beta_2];
        padded([
            self.lr * factor,
            epsilon,
            shrink,
            decay,
            beta_1,
            beta_2,
            1.0 - beta_1,
            1.0 - beta_2,
        ])
    }

    /// [`update`](Self::update) in the memory of the weights and of the moments, with the numbers of a step, `[9]`, at once or at the end of
    /// [`together`](crate::together). The results share it. `None`, and nothing is written, if the tensors are not f32 on a CubeCL backend, outside autodiff.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn in_place<const D: usize>(
        numbers: &Tensor<1>,
        weights: &Tensor<D>,
        gradient: &Tensor<D>,
        [m, v]: &[Tensor<D>; 2],
    ) -> Option<(Tensor<D>, [Tensor<D>; 2])> {
        must_be_all(numbers);
        for other in [gradient, m, v] {
            check(weights, other);
        }
        #[cfg(feature = "cube")]
        {
            in_place(Rule::Adam, numbers, [weights, gradient, m, v])?;
            Some((weights.clone(), [m.clone(), v.clone()]))
        }
        #[cfg(not(feature = "cube"))]
        None
    }

    /// The factor of `m / (√v + ε')`, and ε'. They correct the bias of moments that start at zero.
    pub(crate) fn corrections(&self) -> [f64; 2] {
        let t = i32::try_from(self.time).unwrap_or(i32::MAX);
        let root = (1.0 - self.beta_2.powi(t)).sqrt();
        [root / (1.0 - self.beta_1.powi(t)), self.epsilon * root]
    }
}

impl LambStep {
    /// The updated weights and moments `[m, v]`.
    ///
    /// # Shapes
    ///
    /// - all: the same
    ///
    /// # Panics
    ///
    /// If the shapes differ, or `time` is 0.
    pub fn update<const D: usize>(
        &self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<[Tensor<D>; 2]>,
    ) -> (Tensor<D>, [Tensor<D>; 2]) {
        counted(self.time);
        check(&weights, &gradient);
        #[cfg(feature = "flex")]
        {
            let [m, v] = moments
                .as_ref()
                .map_or([None, None], |moments| moments.each_ref().map(Some));
            if crate::flex::optim::serves(&[Some(&weights), Some(&gradient), m, v]) {
                use crate::flex::optim::{lamb, primitive, tensor_of};
                let (weights, gradient) = (primitive(weights), primitive(gradient));
                let moments = moments.map(|moments| moments.map(primitive));
                let (weights, moments) = lamb(*self, weights, gradient, moments);
                return (tensor_of(weights), moments.map(tensor_of));
            }
        }
        let [m, v] = next_moments(gradient, [self.beta_1, self.beta_2], moments);
        let [of_m, of_v] = self.corrections();
        let step = m.clone() * of_m / ((v.clone() * of_v).sqrt() + self.epsilon);
        let step = decayed(step, &weights, self.weight_decay);
        let norm = |x: &Tensor<D>| x.clone().square().sum().sqrt();
        let (of_weights, of_step) = (norm(&weights), norm(&step));
        let none = of_weights
            .clone()
            .equal_elem(0.0)
            .bool_or(of_step.clone().equal_elem(0.0));
        let ratio = (of_weights / of_step).mask_fill(none, 1.0);
        (weights - step * ratio.unsqueeze() * self.lr, [m, v])
    }

    /// The numbers that [`in_place`](Self::in_place) reads.
    ///
    /// # Panics
    ///
    /// If `time` is 0.
    pub fn numbers(&self) -> [f32; NUMBERS] {
        counted(self.time);
        // m·a / (√(v·b) + ε) = a/√b · m / (√v + ε/√b)
        let [of_m, of_v] = self.corrections();
        let [beta_1, beta_2] = [self.beta_1, self.beta_2];
        padded([
            self.lr,
            of_m / of_v.sqrt(),
            self.epsilon / of_v.sqrt(),
            self.weight_decay,
            beta_1,
            beta_2,
            1.0 - beta_1,
            1.0 - beta_2,
        ])
    }

    /// [`update`](Self::update) in the memory of the weights and of the moments, with the numbers of a step, `[9]`, at once or at the end of
    /// [`together`](crate::together). The results share it. `None`, and nothing is written, if the tensors are not f32 on a CubeCL backend, outside autodiff.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn in_place<const D: usize>(
        numbers: &Tensor<1>,
        weights: &Tensor<D>,
        gradient: &Tensor<D>,
        [m, v]: &[Tensor<D>; 2],
    ) -> Option<(Tensor<D>, [Tensor<D>; 2])> {
        must_be_all(numbers);
        for other in [gradient, m, v] {
            check(weights, other);
        }
        #[cfg(feature = "cube")]
        {
            in_place(Rule::Lamb, numbers, [weights, gradient, m, v])?;
            Some((weights.clone(), [m.clone(), v.clone()]))
        }
        #[cfg(not(feature = "cube"))]
        None
    }

    /// The factors of m and v that correct the bias of moments that start at zero.
    pub(crate) fn corrections(&self) -> [f64; 2] {
        let t = i32::try_from(self.time).unwrap_or(i32::MAX);
        [self.beta_1, self.beta_2].map(|beta| 1.0 / (1.0 - beta.powi(t)))
    }
}

impl LionStep {
    /// The updated weights and momentum m.
    ///
    /// # Shapes
    ///
    /// - all: the same
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn update<const D: usize>(
        &self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        momentum: Option<Tensor<D>>,
    ) -> (Tensor<D>, Tensor<D>) {
        check(&weights, &gradient);
        #[cfg(feature = "flex")]
        if crate::flex::optim::serves(&[Some(&weights), Some(&gradient), momentum.as_ref()]) {
            use crate::flex::optim::{lion, primitive, tensor_of};
            let (weights, gradient) = (primitive(weights), primitive(gradient));
            let (weights, momentum) = lion(*self, weights, gradient, momentum.map(primitive));
            return (tensor_of(weights), tensor_of(momentum));
        }
        let [fresh_1, fresh_2] =
            [self.beta_1, self.beta_2].map(|beta| gradient.clone() * (1.0 - beta));
        let (mean, momentum) = match momentum {
            Some(m) => (m.clone() * self.beta_1 + fresh_1, m * self.beta_2 + fresh_2),
            None => (fresh_1, fresh_2),
        };
        let weights = weights * (1.0 - self.lr * self.weight_decay);
        (weights - mean.sign() * self.lr, momentum)
    }
}

/// `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`, from zero at first.
fn next_moments<const D: usize>(
    gradient: Tensor<D>,
    [beta_1, beta_2]: [f64; 2],
    moments: Option<[Tensor<D>; 2]>,
) -> [Tensor<D>; 2] {
    let fresh = gradient.clone() * (1.0 - beta_1);
    let fresh_squares = gradient.square() * (1.0 - beta_2);
    match moments {
        Some([m, v]) => [m * beta_1 + fresh, v * beta_2 + fresh_squares],
        None => [fresh, fresh_squares],
    }
}

#[cfg(feature = "cube")]
fn in_place<const D: usize, const N: usize>(
    rule: Rule,
    numbers: &Tensor<1>,
    tensors: [&Tensor<D>; N],
) -> Option<()> {
    use crate::cube::plain;
    let tensors = plain(tensors.map(|tensor| tensor.clone().into_dispatch()))?;
    let [numbers] = plain([numbers.clone().into_dispatch()])?;
    crate::cube::optim::update_in_place(rule, numbers, tensors);
    Some(())
}

fn padded<const N: usize>(values: [f64; N]) -> [f32; NUMBERS] {
    let mut all = [0.0; NUMBERS];
    for (to, from) in all.iter_mut().zip(values) {
        *to = from as f32;
    }
    all[NUMBERS - 1] = 1.0;
    all
}

fn must_be_all(numbers: &Tensor<1>) {
    let [given] = numbers.dims();
    assert_eq!(given, NUMBERS, "a step has {NUMBERS} numbers, got {given}.");
}

fn counted(time: usize) {
    assert!(
        time > 0,
        "time must be at least 1: it counts from the first step."
    );
}

fn check<const D: usize>(weights: &Tensor<D>, gradient: &Tensor<D>) {
    // Broadcasting would turn a mistake into a step.
    assert_eq!(
        weights.dims(),
        gradient.dims(),
        "a parameter and its gradient must have the same shape."
    );
}

fn decayed<const D: usize>(gradient: Tensor<D>, weights: &Tensor<D>, decay: f64) -> Tensor<D> {
    match decay {
        0.0 => gradient,
        _ => gradient + weights.clone() * decay,
    }
}
