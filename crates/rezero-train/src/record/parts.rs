//! The tensors of a network, without their values: what a checkpoint of it may hold.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Int, Tensor};

/// Room for the name of a tensor, its shape, and the gap before its data; 256 bytes of it are the gap.
const BESIDE_A_TENSOR: u64 = 2 << 10;
/// Room for the rest of a file.
const BESIDE_ALL: u64 = 1 << 20;

/// A tensor of a network.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its path in the module.
    pub path: String,
    /// The number of its parameter.
    pub id: u64,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type of its values.
    pub dtype: DType,
}

/// The tensors of a network.
#[derive(Default)]
pub(super) struct Parts {
    path: Vec<String>,
    /// Whether the outermost module is an enum. The record of a network of the zoo is that of its variant.
    of_enum: bool,
    all: Vec<Part>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<u64, usize>,
}

impl Parts {
    pub fn of<M: Module>(model: &M) -> Self {
        let mut parts = Self::default();
        model.visit(&mut parts);
        parts
    }

    /// The tensor that a record of the network names so.
    pub fn named(&self, name: &str) -> Option<&Part> {
        self.by_name.get(name).map(|at| &self.all[*at])
    }

    /// The names of all tensors as a record has them, with their shapes.
    pub fn names(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.all.iter().map(|part| {
            let inner = part.path.split_once('.').map(|(_, inner)| inner);
            let name = inner.filter(|_| self.of_enum).unwrap_or(&part.path);
            (name.to_owned(), part.shape.clone())
        })
    }

    /// The tensor of that parameter.
    pub fn of_id(&self, id: u64) -> Option<&Part> {
        self.by_id.get(&id).map(|at| &self.all[*at])
    }

    /// The most bytes of a file that holds `times` tensors like each of these.
    pub fn most_bytes(&self, times: u64) -> u64 {
        let bytes = |part: &Part| {
            let values = part.shape.iter().product::<usize>() * part.dtype.size();
            values as u64 + BESIDE_A_TENSOR + part.path.len() as u64
        };
        BESIDE_ALL + times * self.all.iter().map(bytes).sum::<u64>()
    }

    fn add(&mut self, id: u64, shape: Vec<usize>, dtype: DType) {
        let (at, path) = (self.all.len(), self.path.join("."));
        if self.of_enum {
            self.by_name.insert(self.path[1..].join("."), at);
        }
        self.by_name.insert(path.clone(), at);
        self.by_id.insert(id, at);
        self.all.push(Part {
            path,
            id,
            shape,
            dtype,
        });
    }
}

impl ModuleVisitor for Parts {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if self.path.is_empty() {
            self.of_enum = container_type.starts_with("Enum:");
        }
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.add(param.id.val(), value.dims().to_vec(), value.dtype());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let value = param.val();
        self.add(param.id.val(), value.dims().to_vec(), value.dtype());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let value = param.val();
        self.add(param.id.val(), value.dims().to_vec(), value.dtype());
    }
}
