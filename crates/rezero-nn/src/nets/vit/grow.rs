//! Deeper Vision Transformers.

use super::{Vit, VitConfig};
use crate::grow::{Grow, GrowError, Place, same};
use crate::nets::patches::grid;

impl Grow for VitConfig {
    type Network = Vit;

    fn grow(&self, mut network: Vit, place: Place) -> Result<Vit, GrowError> {
        let patches = &network.patches;
        let [inputs, d_model] = patches.linear.weight.lazy_shape().dims();
        let [_, classes] = network.head.weight.lazy_shape().dims();
        let p = self.patch_size;
        same("d_model", d_model, self.encoder.d_model)?;
        same("patch_size", patches.patch_size, p)?;
        same("in_channels", inputs, self.in_channels * p * p)?;
        same("num_classes", classes, self.num_classes)?;
        same("positions", network.positions, self.positions)?;
        same("pooling", network.pooling(), self.pooling)?;
        same(
            "image size in patches",
            network.grid,
            grid(self.image_size, p),
        )?;
        network.encoder = self.encoder.grow(network.encoder, place)?;
        Ok(network)
    }
}
