//! The kernels for Burn's CubeCL backends, f32 but for [`conv`]: one source for CUDA, ROCm, Metal, Vulkan, WebGPU and CubeCL's CPU.
//!
//! [`ops`] declares the kernels as operations of a backend, which Burn's fusion queues between its own, and [`many`] those on lists of tensors. [`sums`] adds
//! numbers within a cube. Each other module is one operation. All memory is contiguous and indexed by u32.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{BackendTensor, Cube, DispatchTensor, DispatchTensorKind, TensorMetadata};
use burn::tensor::{DType, Device, Shape, Tensor as BurnTensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl_runtime::memory_management::MemoryScope;

use self::ops::CubeOps;
use crate::op::{Host, Values};

pub(crate) mod attention;
pub(crate) mod batch_norm;
pub(crate) mod conv;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod gate;
pub(crate) mod images;
pub(crate) mod launches;
mod layout;
pub(crate) mod many;
mod norms;
pub(crate) mod ops;
pub(crate) mod optim;
pub(crate) mod row_norm;
pub(crate) mod running;
mod sums;

/// Units of a cube: every device has as many.
const UNITS: u32 = 256;

impl Host for Cube {
    // The last arm is for other backends, where they are compiled in.
    #[allow(unreachable_patterns)]
    fn of(kind: DispatchTensorKind) -> Option<BackendTensor<Self>> {
        match kind {
            DispatchTensorKind::Cube(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// Whether a tensor is on a CubeCL backend, or on autodiff above one.
fn holds(kind: &DispatchTensorKind) -> bool {
    // The last arm is for other backends, where they are compiled in.
    #[allow(unreachable_patterns)]
    match kind {
        DispatchTensorKind::Cube(_) => true,
        DispatchTensorKind::Autodiff(inner) => holds(inner),
        _ => false,
    }
}

/// Whether a device is one of CubeCL's.
pub(crate) fn serves(device: &Device) -> bool {
    holds(&BurnTensor::<1>::empty([1], device).into_dispatch().kind)
}

/// The client of a tensor's device.
fn client(tensor: DispatchTensor) -> Option<Client> {
    match untracked(tensor.kind)? {
        BackendTensor::Float(tensor) => Some(tensor.device().client()),
        _ => None,
    }
}

/// See [`device_memory`](crate::device_memory).
pub(crate) fn reserved(device: &Device) -> Option<u64> {
    let client = client(BurnTensor::<1>::empty([1], device).into_dispatch())?;
    let report = client.memory_report(MemoryScope::Device);
    Some(report.usage().bytes_reserved)
}

/// See [`values`](crate::op::values). The kernels count in u32.
pub(crate) fn values<const N: usize>(tensors: [DispatchTensor; N]) -> Option<Values<Cube, N>> {
    values_of(tensors, &[DType::F32])
}

/// See [`values_of`](crate::op::values_of).
pub(crate) fn values_of<const N: usize>(
    tensors: [DispatchTensor; N],
    types: &[DType],
) -> Option<Values<Cube, N>> {
    match tensors.iter().all(countable) {
        true => crate::op::values_of(tensors, types),
        false => None,
    }
}

/// See [`overwrite`](crate::overwrite).
pub(crate) fn overwrite(old: DispatchTensor, new: DispatchTensor) -> bool {
    if old.dtype() != new.dtype() || !countable(&old) {
        return false;
    }
    match (untracked(old.kind), untracked(new.kind)) {
        (Some(BackendTensor::Float(old)), Some(BackendTensor::Float(new))) => {
            Cube::rezero_overwrite(old, new);
            true
        }
        (Some(BackendTensor::Int(old)), Some(BackendTensor::Int(new))) => {
            Cube::rezero_overwrite_int(old, new);
            true
        }
        _ => false,
    }
}

/// The primitive, also of a tensor under autodiff.
fn untracked(kind: DispatchTensorKind) -> Option<BackendTensor<Cube>> {
    match kind {
        DispatchTensorKind::Autodiff(inner) => match Cube::of(*inner)? {
            BackendTensor::Autodiff(tensor) => {
                let (primitive, _guard) = tensor.into_parts();
                Some(BackendTensor::Float(primitive))
            }
            _ => None,
        },
        kind => Cube::of(kind),
    }
}

/// Moves both statistics, `[old, new, old, new]`, by `share` of the way to the new ones, in the memory of the old ones, at the end of
/// [`in_place`](crate::in_place). False, and nothing is moved, if they are not f32 on a CubeCL backend, outside autodiff.
pub(crate) fn towards(pairs: [DispatchTensor; 4], share: f32) -> bool {
    let pairs = plain(pairs);
    pairs.map(|pairs| running::towards(pairs, share)).is_some()
}

/// The tensors' primitives, if all are f32 on a CubeCL backend, outside autodiff.
pub(crate) fn plain<const N: usize>(
    tensors: [DispatchTensor; N],
) -> Option<[FloatTensor<Cube>; N]> {
    match values(tensors) {
        Some(Values::Plain(tensors)) => Some(tensors),
        _ => None,
    }
}

/// The primitive of integers on a CubeCL backend.
pub(crate) fn integers(tensor: DispatchTensor) -> Option<IntTensor<Cube>> {
    match untracked(tensor.kind) {
        Some(BackendTensor::Int(tensor)) => Some(tensor),
        _ => None,
    }
}

/// The inverse of [`plain`].
pub(crate) fn tensor_of<const D: usize>(primitive: FloatTensor<Cube>) -> BurnTensor<D> {
    BurnTensor::from_primitive::<Cube>(primitive)
}

/// Whether the kernels can count the tensor's elements, in u32.
fn countable(tensor: &DispatchTensor) -> bool {
    let elements = tensor.shape().num_elements();
    elements > 0 && u32::try_from(elements).is_ok()
}

/// A kernel's argument.
fn buffer(tensor: &CubeTensor) -> BufferArg {
    tensor.clone().into_buffer_arg()
}

fn contiguous<const N: usize>(tensors: [CubeTensor; N]) -> [CubeTensor; N] {
    tensors.map(into_contiguous)
}

/// Memory for f32, to be written.
fn fresh(like: &CubeTensor, shape: Shape) -> CubeTensor {
    fresh_of(like, shape, DType::F32)
}

/// Memory for numbers of a type, to be written.
fn fresh_of(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let handle = like.client.empty(shape.num_elements() * dtype.size());
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, shape, handle, dtype)
}

/// Rows of `len` numbers in one piece of memory, so that a kernel binds one buffer for all. Rows begin at multiples of 256 bytes,
/// which every device accepts as the beginning of a buffer.
struct Rows {
    all: CubeTensor,
    count: usize,
    len: usize,
}

impl Rows {
    fn new(like: &CubeTensor, count: usize, len: usize) -> Self {
        let all = fresh(like, Shape::new([count * Self::stride_of(len)]));
        Self { all, count, len }
    }

    fn stride_of(len: usize) -> usize {
        len.next_multiple_of(64)
    }

    fn stride(&self) -> u32 {
        Self::stride_of(self.len) as u32
    }

    /// A row as a tensor.
    fn row(&self, i: usize) -> CubeTensor {
        self.part(i, self.len)
    }

    /// The first `len` numbers of a row.
    fn part(&self, i: usize, len: usize) -> CubeTensor {
        self.shaped(i, Shape::new([len]))
    }

    /// The first numbers of a row, as a tensor of this shape.
    fn shaped(&self, i: usize, shape: Shape) -> CubeTensor {
        let len = shape.num_elements();
        let stride = Self::stride_of(self.len);
        let bytes = |numbers: usize| (numbers * size_of::<f32>()) as u64;
        let rest = self.count * stride - i * stride - len;
        let handle = self.all.handle.clone();
        let handle = handle
            .offset_start(bytes(i * stride))
            .offset_end(bytes(rest));
        let (client, device) = (self.all.client.clone(), self.all.device.clone());
        CubeTensor::new_contiguous(client, device, shape, handle, DType::F32)
    }
}

/// Neighbouring units that share a row of `len` numbers, a power of two: each has some four of them, and more of a long row.
fn group_of(len: usize) -> usize {
    len.div_ceil(4).next_power_of_two().min(UNITS as usize)
}

/// A grid of cubes that covers `n` units.
fn grid(n: usize) -> CubeCount {
    grid_of(n.div_ceil(UNITS as usize))
}

/// A grid of so many cubes, or some more.
fn grid_of(cubes: usize) -> CubeCount {
    const LARGEST: usize = 1 << 15;
    let rows = cubes.div_ceil(LARGEST);
    CubeCount::Static(cubes.div_ceil(rows) as u32, rows as u32, 1)
}
