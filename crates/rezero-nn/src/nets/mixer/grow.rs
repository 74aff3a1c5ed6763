//! Deeper MLP-Mixers.

use super::{Mixer, MixerConfig};
use crate::grow::{Grow, GrowError, Place, device_of, identity, insert, same, same_parameters};

impl Grow for MixerConfig {
    type Network = Mixer;

    fn grow(&self, mut network: Mixer, place: Place) -> Result<Mixer, GrowError> {
        let config = self.clone().with_residual(identity(&self.residual)?);
        let [inputs, d_model] = network.patches.linear.weight.lazy_shape().dims();
        let [_, classes] = network.head.weight.lazy_shape().dims();
        let p = self.patch_size;
        same("d_model", d_model, self.d_model)?;
        same("patch_size", network.patches.patch_size, p)?;
        same("in_channels", inputs, self.in_channels * p * p)?;
        same("num_classes", classes, self.num_classes)?;
        let fresh = config.init(&device_of(&network)).layers;
        if let (Some(old), Some(new)) = (network.layers.first(), fresh.first()) {
            same_parameters(old, new)?;
            let activations = [old, new].map(|layer| layer.channels.activation);
            same("activation", activations[0], activations[1])?;
            let parts = [old, new].map(|layer| layer.residual.sub_layers.first());
            let schemes = parts.map(|part| part.map(|residual| residual.scheme));
            same("scheme", schemes[0], schemes[1])?;
        }
        network.layers = insert(network.layers, fresh, place)?;
        Ok(network)
    }
}
