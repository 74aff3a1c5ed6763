//! The exponential moving average of a model's weights.

use std::any::Any;
use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor};

/// An average e of the weights w of each step, with the decay d: `e ← d·e + (1 − d)·w`, after the first
/// step `e ← w`. As PyTorch's `AveragedModel` with `get_ema_multi_avg_fn(d)` and `use_buffers=True`:
/// running statistics are averaged too, and integers are copied.
///
/// Its parameters are outside autodiff.
#[derive(Clone, Debug)]
pub struct Average<M> {
    /// d, from 0 to below 1.
    decay: f64,
    /// None before the first step.
    model: Option<M>,
}

impl<M: Module> Average<M> {
    /// An average with this decay, before the first step, or as a checkpoint has it.
    pub fn new(decay: f64, model: Option<M>) -> Self {
        Self { decay, model }
    }

    /// The averaged model, after a first step.
    pub fn model(&self) -> Option<&M> {
        self.model.as_ref()
    }

    /// Takes in the weights of `model` after a step.
    pub fn update(&mut self, model: &M) {
        // Writes back the statistics of the last step of a batch norm, and leaves autodiff.
        let now = model.valid();
        self.model = Some(match self.model.take() {
            None => now,
            Some(average) => {
                let mut values = Values::default();
                now.visit(&mut values);
                drop(now);
                average.map(&mut Mix {
                    values,
                    decay: self.decay,
                })
            }
        });
    }
}

/// The tensors of a module in the order of its fields, of any rank and type.
#[derive(Default)]
struct Values(VecDeque<Box<dyn Any>>);

impl Values {
    /// The next tensor. A module of the same structure has one of this type there.
    fn next<T: 'static>(&mut self) -> Option<T> {
        let value = self.0.pop_front()?.downcast().ok()?;
        Some(*value)
    }
}

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push_back(Box::new(param.val()));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.push_back(Box::new(param.val()));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.push_back(Box::new(param.val()));
    }
}

struct Mix {
    values: Values,
    decay: f64,
}

impl ModuleMapper for Mix {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let decay = self.decay;
        match self.values.next::<Tensor<D>>() {
            Some(now) => param.map(|average| average.clone() + (now - average) * (1.0 - decay)),
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        match self.values.next() {
            Some(now) => param.map(|_| now),
            None => param,
        }
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        match self.values.next() {
            Some(now) => param.map(|_| now),
            None => param,
        }
    }
}
