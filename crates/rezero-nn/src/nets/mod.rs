//! Network families, a folder each: configuration, module, forward pass, and what is particular to the
//! family in growing, folding and PyTorch's names.

pub mod mlp;
pub mod resnet;
pub mod transformer;
