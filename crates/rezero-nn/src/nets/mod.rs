//! Network families, one folder per family: configuration, module and forward pass, how its
//! networks grow and fold, and their names in PyTorch. [`patches`] is shared by the families that take
//! patches of images.

pub mod mixer;
pub mod mlp;
pub(crate) mod patches;
pub mod resnet;
#[cfg(feature = "import")]
pub(crate) mod timm;
pub mod transformer;
pub mod vit;
