//! Deeper Transformers.

use super::{RztxEncoder, RztxEncoderConfig, RztxLm, RztxLmConfig};
use crate::grow::{Grow, GrowError, Place, device_of, identity, insert, same, same_parameters};

impl Grow for RztxEncoderConfig {
    type Network = RztxEncoder;

    fn grow(&self, mut network: RztxEncoder, place: Place) -> Result<RztxEncoder, GrowError> {
        let config = self.clone().with_residual(identity(&self.residual)?);
        if let Some(old) = network.layers.first() {
            let [d_model, d_ff] = old.feed_forward.linear1.weight.lazy_shape().dims();
            same("d_model", d_model, config.d_model)?;
            same("d_ff", d_ff, config.d_ff)?;
            same("n_heads", old.attention.n_heads, config.n_heads)?;
            let gates = (
                old.residual.rezero.is_some(),
                config.residual.gate_is_shared(),
            );
            same("shared gates", gates.0, gates.1)?;
            if let Some(sub_layer) = old.residual.sub_layers.first() {
                same("scheme", sub_layer.scheme, config.residual.scheme)?;
            }
        }
        let fresh = config.init(&device_of(&network)).layers;
        if let (Some(old), Some(new)) = (network.layers.first(), fresh.first()) {
            same_parameters(old, new)?;
            let activations = [old, new].map(|layer| layer.feed_forward.activation);
            same("activation", activations[0], activations[1])?;
            let rotary = [old, new].map(|layer| layer.attention.rotary);
            same("rotary", rotary[0], rotary[1])?;
        }
        network.layers = insert(network.layers, fresh, place)?;
        Ok(network)
    }
}

impl Grow for RztxLmConfig {
    type Network = RztxLm;

    fn grow(&self, mut network: RztxLm, place: Place) -> Result<RztxLm, GrowError> {
        let [vocab_size, d_model] = network.embedding.weight.lazy_shape().dims();
        same("vocab_size", vocab_size, self.vocab_size)?;
        same("d_model", d_model, self.encoder.d_model)?;
        same("context", network.context, self.context)?;
        same("tied", network.head.is_none(), self.tied)?;
        network.encoder = self.stack().grow(network.encoder, place)?;
        Ok(network)
    }
}
