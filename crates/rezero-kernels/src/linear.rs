//! Linear layers, fused with the activation after them.

use burn::tensor::activation::relu;
use burn::tensor::{Tensor, module};

use crate::activation::Epilogue;

/// `act(x W + b)`.
///
/// If `weight` has another type than `x`, the product is computed in the type of `weight`, and bias
/// and `act` in the type of `x`.
///
/// # Shapes
///
/// - `x`: `[.., d_input]`
/// - `weight`: `[d_input, d_output]`
/// - `bias`: `[d_output]`
/// - output: `[.., d_output]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    epilogue: Epilogue,
) -> Tensor<D> {
    let [d_input, d_output] = weight.dims();
    check(x.dims()[D - 1], d_input, d_output, bias.as_ref());
    if weight.dtype() != x.dtype() {
        return mixed(x, weight, bias, epilogue);
    }
    #[cfg(feature = "flex")]
    {
        use crate::flex::{linear::Linear, values};
        use crate::op::run;
        let (x, w) = (x.clone().into_dispatch(), weight.clone().into_dispatch());
        match bias.clone() {
            Some(bias) => {
                if let Some(inputs) = values([x, w, bias.into_dispatch()]) {
                    return run(Linear::new(epilogue, inputs.tracked()), inputs).0;
                }
            }
            None => {
                if let Some(inputs) = values([x, w]) {
                    return run(Linear::new(epilogue, inputs.tracked()), inputs).0;
                }
            }
        }
    }
    epilogue.apply(module::linear(x, weight, bias))
}

fn mixed<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    epilogue: Epilogue,
) -> Tensor<D> {
    let own = x.dtype();
    let out = module::linear(x.cast(weight.dtype()), weight, None).cast(own);
    let out = match bias {
        Some(bias) => out + bias.unsqueeze(),
        None => out,
    };
    epilogue.apply(out)
}

/// `x + α · relu(x W + b)`: a layer of the paper's fully connected networks (section 4).
///
/// If `weight` has another type than `x`, the types are those of [`linear`].
///
/// # Shapes
///
/// - `x` and output: `[batch, width]`
/// - `weight`: `[width, width]`
/// - `bias`: `[width]`
/// - `alpha`: `[1]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn gated_linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    alpha: Tensor<1>,
) -> Tensor<2> {
    let [d_input, d_output] = weight.dims();
    check(x.dims()[1], d_input, d_output, Some(&bias));
    assert_eq!(
        d_input, d_output,
        "a residual layer's weight must be square, got [{d_input}, {d_output}]."
    );
    crate::gate::single(&alpha);
    if weight.dtype() != x.dtype() {
        let branch = mixed(x.clone(), weight, Some(bias), Epilogue::Relu);
        return crate::gated_sum(x, branch, alpha);
    }
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([
        x.clone().into_dispatch(),
        weight.clone().into_dispatch(),
        bias.clone().into_dispatch(),
        alpha.clone().into_dispatch(),
    ]) {
        return crate::op::run(crate::flex::linear::GatedLinear, inputs).0;
    }
    let branch = relu(module::linear(x.clone(), weight, Some(bias)));
    crate::gated_sum(x, branch, alpha)
}

fn check(width: usize, d_input: usize, d_output: usize, bias: Option<&Tensor<1>>) {
    assert_eq!(
        width, d_input,
        "the last axis of x must be the weight's first, got {width} and {d_input}."
    );
    if let Some(bias) = bias {
        let [values] = bias.dims();
        assert_eq!(
            values, d_output,
            "the bias must have {d_output} values, got {values}."
        );
    }
}
