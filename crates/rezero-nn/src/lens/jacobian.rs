//! The input–output Jacobian of any function and its singular values: how a network carries signals.
//!
//! Section 3 of the paper uses it to explain ReZero. A network passes signals and gradients
//! unchanged if all singular values of its Jacobian are near 1 (dynamical isometry; Saxe et al.,
//! [arXiv 1312.6120](https://arxiv.org/abs/1312.6120)). With α = 0 they are exactly 1.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use rezero_nn::JacobianProbe;
//!
//! let device = Device::flex();
//! let x = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
//! // y = (3 x₁, x₁ x₂), whose Jacobian at (1, 2) is ((3, 0), (2, 1)).
//! let f = |x: Tensor<2>| {
//!     let first = x.clone().narrow(1, 0, 1);
//!     let second = x.narrow(1, 1, 1);
//!     Tensor::cat(vec![first.clone() * 3.0, first * second], 1)
//! };
//! let jacobians = JacobianProbe::new().run(f, x).unwrap();
//! assert_eq!(jacobians[0].values(), [3.0, 0.0, 2.0, 1.0]);
//! ```

use burn::module::Module;
use burn::tensor::{Int, Tensor};

use super::parameters::not_finite;
use super::singular::singular_values;
use super::spectrum::Spectrum;

/// Computes Jacobians by reverse mode, a block of rows at a time.
#[derive(Clone, Debug)]
pub struct JacobianProbe {
    block: usize,
}

/// `J = ∂y/∂x` at one input: `[rows, columns]`, where row i is the gradient of output i.
#[derive(Clone, Debug, PartialEq)]
pub struct Jacobian {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

/// Why there is no Jacobian.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum JacobianError {
    /// The input has no items or no values, or the output of an item has none.
    Empty,
    /// The function does not keep the batch: `[batch, ..]` must become `[batch, ..]`.
    Batch {
        /// The number of items in the input.
        given: usize,
        /// The size of the output's first axis.
        found: usize,
    },
    /// An item's output depends on the other items of its batch, as under batch norm in training.
    NotIndependent,
    /// The output is NaN or infinite.
    Output {
        /// The index of the value, from 0.
        index: usize,
        /// The first parameter that is not finite. Only
        /// [`run_module`](JacobianProbe::run_module) looks for it.
        parameter: Option<String>,
    },
    /// An entry of the Jacobian is NaN or infinite.
    Entry {
        /// The index of the output that is differentiated, from 0.
        row: usize,
        /// The index of the input that it is differentiated by, from 0.
        column: usize,
    },
}

impl std::fmt::Display for JacobianError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("the input or the output is empty; give at least one item"),
            Self::Batch { given, found } => write!(
                f,
                "the function must keep the batch: {given} items went in, the output's first axis \
                 is {found}"
            ),
            Self::NotIndependent => f.write_str(
                "an item's output depends on the other items of its batch; use the module without \
                 training, `module.valid()`, or blocks of one row",
            ),
            Self::Output {
                index,
                parameter: Some(name),
            } => write!(
                f,
                "output {index} is not finite: parameter {name} is not finite"
            ),
            Self::Output {
                index,
                parameter: None,
            } => write!(
                f,
                "output {index} is not finite; the values overflow on the way, or the input is not \
                 finite"
            ),
            Self::Entry { row, column } => write!(
                f,
                "the derivative of output {row} by input {column} is not finite"
            ),
        }
    }
}

impl std::error::Error for JacobianError {}

impl Default for JacobianProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl JacobianProbe {
    /// A probe that takes 64 rows at a time.
    pub fn new() -> Self {
        Self { block: 64 }
    }

    /// Takes `rows` rows at a time. This needs the memory of a forward and a backward pass over a
    /// batch of `rows` items.
    ///
    /// A block of 1 row also allows a function whose items depend on each other, if the input has
    /// one item. Such a function must give the same output in each call, so it must not use
    /// dropout.
    ///
    /// # Panics
    ///
    /// If `rows` is 0.
    #[must_use]
    pub fn with_block(self, rows: usize) -> Self {
        assert!(rows > 0, "a block has at least one row.");
        Self { block: rows }
    }

    /// The Jacobian of `f` at each item of `x`, in order.
    ///
    /// `f` is called on an autodiff device with a whole block, the same item in every row. The
    /// parameters of a module may be on the autodiff device or on the plain device, as in
    /// [`module.valid()`](Module::valid). The plain device is faster, and batch norm then uses its
    /// running statistics.
    ///
    /// # Shapes
    ///
    /// - `x`: `[items, ..]`
    /// - `f`: `[batch, ..]` to `[batch, ..]`, each item independent of the others. A Jacobian has
    ///   one row per value of an item's output and one column per value of its input, both in
    ///   row-major order.
    ///
    /// # Errors
    ///
    /// If `x` is empty, `f` does not keep the batch size or mixes its items, or an output or a
    /// derivative is not finite.
    pub fn run<const D: usize, const E: usize>(
        &self,
        f: impl Fn(Tensor<D>) -> Tensor<E>,
        x: Tensor<D>,
    ) -> Result<Vec<Jacobian>, JacobianError> {
        let dims = x.dims();
        let (items, columns) = (dims[0], dims[1..].iter().product::<usize>());
        if items * columns == 0 {
            return Err(JacobianError::Empty);
        }
        let x = match x.device().is_autodiff() {
            true => x.inner(),
            false => x,
        };
        (0..items)
            .map(|i| self.at(&f, x.clone().narrow(0, i, 1)))
            .collect()
    }

    /// [`run`](Self::run) for a function of a module. If an output is not finite, the error names
    /// the module's first parameter that is not finite.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_module<M: Module, const D: usize, const E: usize>(
        &self,
        module: &M,
        f: impl Fn(&M, Tensor<D>) -> Tensor<E>,
        x: Tensor<D>,
    ) -> Result<Vec<Jacobian>, JacobianError> {
        self.run(|x| f(module, x), x).map_err(|error| match error {
            JacobianError::Output { index, .. } => JacobianError::Output {
                index,
                parameter: not_finite(module),
            },
            other => other,
        })
    }

    fn at<const D: usize, const E: usize>(
        &self,
        f: &impl Fn(Tensor<D>) -> Tensor<E>,
        item: Tensor<D>,
    ) -> Result<Jacobian, JacobianError> {
        let device = item.device().autodiff();
        let columns = item.dims().iter().product();
        let mut values = Vec::new();
        let (mut first, mut rows) = (0, 1);
        while first < rows {
            // The first block has one row: its output tells how many rows there are.
            let batch = match first {
                0 => 1,
                _ => self.block.min(rows - first),
            };
            let x = Tensor::from_inner(item.clone().repeat_dim(0, batch)).require_grad();
            let y = f(x.clone());
            let found = y.dims()[0];
            if found != batch {
                return Err(JacobianError::Batch {
                    given: batch,
                    found,
                });
            }
            if first == 0 {
                rows = y.dims()[1..].iter().product();
                if rows == 0 {
                    return Err(JacobianError::Empty);
                }
                check_output(&y, rows)?;
                self.check_independence(f, &item, &y)?;
            }
            let taken = batch.min(rows - first);
            // Item i of the block carries the gradient of output `first + i`.
            let y = y.reshape([batch as i32, -1]).narrow(0, 0, taken);
            let picked: Tensor<2, Int> =
                Tensor::<1, Int>::arange(first as i64..(first + taken) as i64, &device)
                    .reshape([taken, 1]);
            // Adds 0 to each entry, so that an output that does not depend on the input has a
            // gradient too.
            let anchor = x.clone().sum() * 0.0;
            let sum = y.gather(1, picked).sum() + anchor;
            let gradient = x.grad(&sum.backward()).expect("the sum depends on x");
            let block = gradient.narrow(0, 0, taken).into_data();
            values.extend(block.iter::<f32>());
            first += taken;
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(JacobianError::Entry {
                row: at / columns,
                column: at % columns,
            });
        }
        Ok(Jacobian {
            rows,
            columns,
            values,
        })
    }

    /// Checks that an item beside another one gives the same output as alone. The rows of a block
    /// are equal by construction, so the other item is displaced.
    fn check_independence<const D: usize, const E: usize>(
        &self,
        f: &impl Fn(Tensor<D>) -> Tensor<E>,
        item: &Tensor<D>,
        y: &Tensor<E>,
    ) -> Result<(), JacobianError> {
        if self.block == 1 {
            return Ok(());
        }
        let alone: Vec<f32> = y.clone().inner().into_data().iter().collect();
        // Two displacements, since one alone may by chance not change the output. The tolerance is
        // relative to each output, since other outputs may be much larger.
        for (factor, shift) in [(1.5, 0.25), (-2.5, 1.75)] {
            let moved = item.clone() * factor + shift;
            let x = Tensor::from_inner(Tensor::cat(vec![item.clone(), moved], 0));
            let y = f(x);
            let found = y.dims()[0];
            if found != 2 {
                return Err(JacobianError::Batch { given: 2, found });
            }
            let beside = y.inner().narrow(0, 0, 1).into_data();
            for (beside, alone) in beside.iter::<f32>().zip(&alone) {
                // A sum in another order rounds differently. Where large terms cancel, this error
                // is large beside the sum, so there is an absolute tolerance too.
                if (beside - alone).abs() > 1e-2 * alone.abs() + 1e-3 {
                    return Err(JacobianError::NotIndependent);
                }
            }
        }
        Ok(())
    }
}

fn check_output<const E: usize>(y: &Tensor<E>, rows: usize) -> Result<(), JacobianError> {
    let data = y.clone().inner().narrow(0, 0, 1).into_data();
    let bad = data.iter::<f32>().take(rows).position(|v| !v.is_finite());
    match bad {
        None => Ok(()),
        Some(index) => Err(JacobianError::Output {
            index,
            parameter: None,
        }),
    }
}

impl Jacobian {
    /// A Jacobian with the given values, in row-major order.
    ///
    /// # Panics
    ///
    /// If there are not `rows · columns` values.
    pub fn from_values(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "a Jacobian of {rows} by {columns} has as many values."
        );
        Self {
            rows,
            columns,
            values,
        }
    }

    /// The numbers of outputs and inputs.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The entries in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The singular values, computed in double precision: Householder bidiagonalisation, then
    /// bisection. This takes about `4 · max · min²` operations on one core, where max and min are
    /// the larger and the smaller of rows and columns.
    ///
    /// # Errors
    ///
    /// [`JacobianError::Entry`] if an entry is not finite.
    pub fn spectrum(&self) -> Result<Spectrum, JacobianError> {
        if let Some(at) = self.values.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / self.columns, at % self.columns);
            return Err(JacobianError::Entry { row, column });
        }
        let values = singular_values(self.rows, self.columns, &self.values);
        Ok(Spectrum::new(values, self.rows.max(self.columns)))
    }
}
