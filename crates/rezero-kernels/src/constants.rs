//! Tensors that a forward pass needs again and again, and that no data changes: masks and positions.
//!
//! They are made once and kept, since a [captured](crate::capture) step may not write to its device, and a launch of a write for
//! every layer takes longer than reading them.

use std::cell::RefCell;

use burn::tensor::{Bool, Device, Tensor, TensorData};
#[cfg(feature = "cube")]
use burn::tensor::{DType, Int};

/// More are not kept: positions of cached decoding change in each step.
const MOST: usize = 64;
/// Tensors of more values are not kept.
const LARGEST: usize = 1 << 22;

type Key = (&'static str, Vec<u64>, Device);

enum Kept {
    /// Of any rank, as its inner vector and its shape.
    Float(Tensor<1>, Vec<usize>),
    Bool(Tensor<2, Bool>),
    #[cfg(feature = "cube")]
    Int(Tensor<1, Int>),
}

thread_local! {
    // Some backends have a stream for each thread.
    static ALL: RefCell<Vec<(Key, Kept)>> = const { RefCell::new(Vec::new()) };
}

/// The values that `make` gives for these `numbers`, in f32 on `device`, outside autodiff: beside tensors under autodiff, they are constants. `make` must give the same ones each time: it is
/// called once, as long as they are kept. `name` distinguishes tensors with equal `numbers`.
pub fn constant<const D: usize>(
    name: &'static str,
    numbers: &[u64],
    device: &Device,
    make: impl FnOnce() -> TensorData,
) -> Tensor<D> {
    let inner = device.clone().inner();
    // The rank, too: a tensor of another one is another tensor.
    let numbers = numbers.iter().copied().chain([D as u64]).collect();
    let key = (name, numbers, inner.clone());
    let found = ALL.with_borrow(|all| match find(all, &key)? {
        Kept::Float(values, shape) => Some((values.clone(), shape.clone())),
        _ => None,
    });
    let (values, shape) = found.unwrap_or_else(|| {
        let data = make();
        let shape: Vec<usize> = data.shape().iter().copied().collect();
        let count = shape.iter().product::<usize>();
        let values = Tensor::<D>::from_data(data, &inner).reshape([count]);
        keep(key, Kept::Float(values.clone(), shape.clone()));
        (values, shape)
    });
    let shape: [usize; D] = shape.try_into().expect("the rank is part of the key");
    values.reshape(shape)
}

/// True above the diagonal that ends in the last corner, `[queries, keys]`: where causal attention is forbidden.
pub(crate) fn causal(queries: usize, keys: usize, device: &Device) -> Tensor<2, Bool> {
    let inner = device.clone().inner();
    let key = ("causal", vec![queries as u64, keys as u64], inner.clone());
    let found = ALL.with_borrow(|all| match find(all, &key)? {
        Kept::Bool(mask) => Some(mask.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| {
        // Burn's mask is false in the lower triangle and true above it.
        let offset = keys as i64 - queries as i64;
        let mask = Tensor::<2, Bool>::tril_mask([queries, keys], offset, &inner);
        keep(key, Kept::Bool(mask.clone()));
        mask
    })
}

/// An integer that no kernel reads, where one takes a mask or a seed.
#[cfg(feature = "cube")]
pub(crate) fn nothing(device: &Device) -> Tensor<1, Int> {
    let inner = device.clone().inner();
    let key = ("nothing", Vec::new(), inner.clone());
    let found = ALL.with_borrow(|all| match find(all, &key)? {
        Kept::Int(nothing) => Some(nothing.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| {
        let nothing = Tensor::zeros([1], (&inner, DType::U32));
        keep(key, Kept::Int(nothing.clone()));
        nothing
    })
}

fn find<'a>(all: &'a [(Key, Kept)], key: &Key) -> Option<&'a Kept> {
    all.iter()
        .find(|(known, _)| known == key)
        .map(|(_, kept)| kept)
}

/// Keeps it in the place of the one that was made first.
fn keep(key: Key, kept: Kept) {
    let size = match &kept {
        Kept::Float(values, _) => values.dims()[0],
        Kept::Bool(mask) => mask.dims().iter().product(),
        #[cfg(feature = "cube")]
        Kept::Int(values) => values.dims()[0],
    };
    if size > LARGEST {
        return;
    }
    ALL.with_borrow_mut(|all| {
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push((key, kept));
    });
}
