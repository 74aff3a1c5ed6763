//! Deeper fully connected networks.

use super::{Mlp, MlpConfig};
use crate::grow::{Grow, GrowError, Place, device_of, identity, insert, same, same_parameters};

impl Grow for MlpConfig {
    type Network = Mlp;

    fn grow(&self, mut network: Mlp, place: Place) -> Result<Mlp, GrowError> {
        let config = self.clone().with_residual(identity(&self.residual)?);
        let [d_input, width] = network.input.weight.lazy_shape().dims();
        let [_, classes] = network.output.weight.lazy_shape().dims();
        same("d_input", d_input, self.d_input)?;
        same("width", width, self.width)?;
        same("num_classes", classes, self.num_classes)?;
        same("input_relu", network.input_relu, self.input_relu)?;
        if let Some(layer) = network.layers.first() {
            same("scheme", layer.residual.scheme, self.residual.scheme)?;
        }
        let fresh = config.init(&device_of(&network)).layers;
        if let (Some(old), Some(new)) = (network.layers.first(), fresh.first()) {
            same_parameters(old, new)?;
        }
        network.layers = insert(network.layers, fresh, place)?;
        Ok(network)
    }
}
