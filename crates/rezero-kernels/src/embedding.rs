//! Rows of a table, chosen by numbers.

use burn::tensor::{Int, Tensor, module};

/// `scale · weight[ids]`: the row of the table for each number.
///
/// On Flex, the gradient of a row is the sum over its numbers in their order, whatever the number of threads.
///
/// # Shapes
///
/// - `weight`: `[n, d_model]`
/// - `ids`: `[batch, length]`, from 0 to n − 1
/// - output: `[batch, length, d_model]`
///
/// # Panics
///
/// If a number has no row and the tensors run the kernel.
pub fn embedding(weight: Tensor<2>, ids: Tensor<2, Int>, scale: f64) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if ids.shape().num_elements() > 0
        && let Some(inputs) = crate::flex::values([weight.clone().into_dispatch()])
    {
        let kernel = crate::flex::embedding::Lookup {
            shape: ids.dims(),
            ids: ids.into_data().iter::<i64>().collect(),
            scale: scale as f32,
        };
        return crate::op::run(kernel, inputs).0;
    }
    let rows = module::embedding(weight, ids);
    match scale == 1.0 {
        true => rows,
        false => rows * scale,
    }
}
