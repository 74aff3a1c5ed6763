//! Network families, a folder each: configuration, module, forward pass, and beside it how the family
//! grows and folds, and its names in PyTorch.

pub mod mlp;
pub mod resnet;
pub mod transformer;
