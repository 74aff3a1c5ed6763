//! Network families, one folder per family: configuration, module and forward pass, how its
//! networks grow and fold, and their names in PyTorch.

pub mod mlp;
pub mod resnet;
pub mod transformer;
