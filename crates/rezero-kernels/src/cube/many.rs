//! Operations on any number of tensors in few launches.
//!
//! A launch takes the tensors of as many parameters as the device binds buffers. Its cubes are dealt out among the parameters. A kernel cannot
//! index its buffers by a number that it computes, so each cube compares its own number with those of every parameter of the launch.
//!
//! Burn's macro for operations of a backend takes no list of tensors. So these are queued in Burn's fusion by hand.

use burn::backend::fusion::Fusion;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr,
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::{norms, optim, running};

/// Buffers of a launch, at most: their addresses are parameters of a CUDA kernel, which has room for 4 kB with the numbers beside them.
const BUFFERS: usize = 128;
/// Bytes of a launch's numbers, at most. CubeCL keeps as many from launch to launch, as recorded launches need on some devices.
const NUMBERS: usize = 1 << 11;

/// An operation on a list of tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Many {
    /// Of the numbers of a step, and of weights, gradient and state of each parameter. Without results.
    Update(optim::Rule),
    /// Of an old and a new tensor each: the old one moved by this share of the way to the new one. Without results.
    Towards(f32),
    /// The sum of squares of each tensor.
    SquareSums,
    /// Of a factor and tensors: their products.
    Scaled,
}

impl Many {
    fn name(self) -> &'static str {
        match self {
            Self::Update(rule) => rule.name(),
            Self::Towards(_) => "rezero_towards",
            Self::SquareSums => "rezero_square_sums",
            Self::Scaled => "rezero_scaled",
        }
    }

    /// The shapes of the results.
    fn results(self, tensors: &[Shape]) -> Vec<Shape> {
        match self {
            Self::Update(_) | Self::Towards(_) => Vec::new(),
            Self::SquareSums => vec![[tensors.len()].into()],
            Self::Scaled => tensors[1..].to_vec(),
        }
    }
}

/// A backend with operations on lists of f32 tensors.
pub(crate) trait ManyOps: Backend {
    fn rezero_many(op: Many, tensors: Vec<FloatTensor<Self>>) -> Vec<FloatTensor<Self>>;
}

impl ManyOps for CubeBackend {
    fn rezero_many(op: Many, tensors: Vec<CubeTensor>) -> Vec<CubeTensor> {
        match op {
            Many::Update(rule) => {
                optim::update(rule, &tensors);
                Vec::new()
            }
            Many::Towards(share) => {
                running::moved(share, &tensors);
                Vec::new()
            }
            Many::SquareSums => vec![norms::square_sums(tensors)],
            Many::Scaled => norms::scaled(tensors),
        }
    }
}

impl ManyOps for Fusion<CubeBackend> {
    fn rezero_many(op: Many, tensors: Vec<FloatTensor<Self>>) -> Vec<FloatTensor<Self>> {
        let Some(first) = tensors.first() else {
            return Vec::new();
        };
        let client = first.client.clone();
        let shapes: Vec<Shape> = tensors.iter().map(|tensor| tensor.shape()).collect();
        let inputs: Vec<TensorIr> = tensors.into_iter().map(|tensor| tensor.into_ir()).collect();
        let outputs: Vec<TensorIr> = op
            .results(&shapes)
            .into_iter()
            .map(|shape| TensorIr::uninit(client.create_empty_handle(), shape, DType::F32))
            .collect();
        let ids: Vec<_> = outputs.iter().map(|output| output.id).collect();
        let description = CustomOpIr::new(op.name(), &inputs, &outputs);
        let run = OperationFn(move |handles: &mut HandleContainer<_>| {
            let tensors = inputs.iter();
            let tensors = tensors.map(|tensor| handles.get_float_tensor::<CubeBackend>(tensor));
            let found = CubeBackend::rezero_many(op, tensors.collect());
            for (id, tensor) in ids.iter().zip(found) {
                handles.register_float_tensor::<CubeBackend>(id, tensor);
            }
            Ok(())
        });
        client.register(StreamId::current(), OperationIr::Custom(description), run)
    }
}

/// How many parameters share a launch, if a parameter has `each` buffers and `numbers` numbers, and the launch has `more` buffers.
pub(super) fn most(client: &Client, each: usize, more: usize, numbers: usize) -> usize {
    let device = client.properties().hardware.max_bindings as usize;
    let buffers = device.min(BUFFERS).saturating_sub(more) / each;
    // The length of a buffer is a number, too.
    let bytes = NUMBERS / (size_of::<u32>() * (each + numbers));
    buffers.min(bytes).max(1)
}

/// The numbers of a [`Cut`] besides its places.
pub(super) const CUT: usize = 4;

/// A parameter's part of a launch.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Cut {
    /// The first cube that works on it.
    pub first: u32,
    /// The first cube that does not.
    pub end: u32,
    /// Its elements.
    pub count: u32,
    /// Its number among those that have a row of parts.
    pub row: u32,
    /// Its shape and the strides of each of its tensors, unless the elements of all of them lie in the same order without gaps.
    pub places: Sequence<u32>,
}

/// Deals cubes out to the parameters of a launch.
#[derive(Default)]
pub(super) struct Cuts {
    pub all: SequenceArg<Cut>,
    /// The number of parameters.
    count: usize,
    cubes: usize,
    rows: usize,
}

impl Cuts {
    /// With rows of parts from number `rows`.
    pub fn from_row(rows: usize) -> Self {
        Self {
            rows,
            ..Self::default()
        }
    }

    /// Another parameter with as many elements, which has as many cubes.
    pub fn push(&mut self, count: usize, cubes: usize, places: SequenceArg<u32>) {
        let first = self.cubes;
        self.cubes += cubes;
        self.all.push(CutLaunch::new(
            first as u32,
            self.cubes as u32,
            count as u32,
            (self.rows + self.count) as u32,
            places,
        ));
        self.count += 1;
    }

    /// The cubes of the launch.
    pub fn grid(&self) -> CubeCount {
        super::grid_of(self.cubes)
    }
}
