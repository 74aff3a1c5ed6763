//! The state of an optimizer on its way into a file.

use std::cell::RefCell;
use std::path::Path;

use burn::optim::{ModuleOptimizer, OptimizerRecord, StateSink};
use burn::store::RecordError;
use burn::tensor::Tensor;

thread_local! {
    /// What [`push`] collects while [`OptimizerState::of`] runs.
    static COLLECTED: RefCell<Option<Vec<burn_pack::Tensor>>> = const { RefCell::new(None) };
}

/// The state of an optimizer, in the format of [`OptimizerRecord`].
///
/// [`ModuleOptimizer::to_record`] copies all tensors at once, with AdaGrad as many values as the model has, with Adam twice as many.
/// Here those that the optimizers give to [`push`] are copied when they are written.
pub struct OptimizerState {
    tensors: Vec<burn_pack::Tensor>,
    /// Everything else.
    rest: OptimizerRecord,
}

impl OptimizerState {
    /// The state of `optimizer`, which shares its memory with it.
    pub fn of(optimizer: &ModuleOptimizer) -> Self {
        COLLECTED.set(Some(Vec::new()));
        let rest = optimizer.to_record();
        let tensors = COLLECTED.take().unwrap_or_default();
        Self { tensors, rest }
    }

    /// Writes a file that [`OptimizerRecord`] reads.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(super) fn save(self, path: &Path) -> Result<(), RecordError> {
        // The record keeps its scalars and paths to itself, so they are read from its bytes.
        let rest = burn_pack::Reader::from_bytes(self.rest.into_bytes()?)?;
        let (scalars, paths) = (rest.scalars().clone(), rest.metadata().clone());
        let mut tensors = self.tensors;
        tensors.extend(rest.into_tensors()?);
        let mut writer = burn_pack::Writer::new(tensors);
        for (name, value) in &scalars {
            writer = writer.with_scalar(name, *value);
        }
        for (id, path) in &paths {
            writer = writer.with_metadata(id, path);
        }
        Ok(writer.write_to_file(path)?)
    }
}

impl From<OptimizerRecord> for OptimizerState {
    fn from(rest: OptimizerRecord) -> Self {
        Self {
            tensors: Vec::new(),
            rest,
        }
    }
}

/// Records a tensor of an optimizer's state under `{prefix}.{leaf}`; the prefix is the id of a parameter.
pub fn push<const D: usize>(out: &mut StateSink, prefix: &str, leaf: &str, tensor: &Tensor<D>) {
    let deferred = COLLECTED.with_borrow_mut(|collected| {
        let (Some(collected), Ok(id)) = (collected, prefix.parse()) else {
            return false;
        };
        let (shape, dtype) = (tensor.shape(), tensor.dtype());
        let bytes = shape.num_elements() * dtype.size();
        let value = tensor.clone();
        let read = move || Ok(value.clone().into_data().into_parts().0);
        let name = format!("{prefix}.{leaf}");
        collected.push(burn_pack::Tensor::deferred(
            name,
            dtype,
            shape,
            Some(id),
            bytes,
            read,
        ));
        true
    });
    if !deferred {
        out.push_tensor(prefix, leaf, tensor.to_data());
    }
}
