//! The weights of a module on their way into a file.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::store::RecordError;
use burn::tensor::{Bool, Int, Tensor, TensorData};

/// The weights and running statistics of a module, under the names that burn's record of it has.
///
/// [`Module::into_record`] copies all values at once. Here those of a floating-point tensor are
/// copied when they are written, so that a checkpoint needs no second copy of the weights in memory.
pub struct Weights(Vec<burn_pack::Tensor>);

impl Weights {
    /// The weights of `module`, which share their memory with it.
    pub fn of<M: Module>(module: &M) -> Self {
        let mut all = Collected::default();
        module.visit(&mut all);
        Self(all.tensors)
    }

    /// Writes a file that [`burn::store::ModuleRecord`] reads.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(super) fn save(self, path: &std::path::Path) -> Result<(), RecordError> {
        Ok(burn_pack::Writer::new(self.0).write_to_file(path)?)
    }
}

#[derive(Default)]
struct Collected {
    path: Vec<String>,
    tensors: Vec<burn_pack::Tensor>,
}

impl Collected {
    /// Integers and booleans are few, and a device may keep them in another type than a record.
    fn now(&mut self, id: ParamId, data: TensorData) {
        let (bytes, shape, dtype) = data.into_parts();
        let name = self.path.join(".");
        let tensor = burn_pack::Tensor::new(name, dtype, shape, Some(id.val()), bytes);
        self.tensors.push(tensor);
    }
}

impl ModuleVisitor for Collected {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.transform_for_save().val();
        let (shape, dtype) = (value.shape(), value.dtype());
        let bytes = shape.num_elements() * dtype.size();
        let read = move || Ok(value.clone().into_data().into_parts().0);
        let (name, id) = (self.path.join("."), Some(param.id.val()));
        let tensor = burn_pack::Tensor::deferred(name, dtype, shape, id, bytes, read);
        self.tensors.push(tensor);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.now(param.id, param.transform_for_save().val().into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.now(param.id, param.transform_for_save().val().into_data());
    }
}
