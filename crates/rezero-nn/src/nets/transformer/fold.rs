//! Transformers without gates.

use burn::module::Module;

use super::{
    RztxDecoder, RztxDecoderLayer, RztxEncoder, RztxEncoderLayer, RztxLm, RztxTransformer,
};
use crate::fold::{Fold, Last};

impl Fold for RztxEncoder {
    fn fold(self) -> Self {
        let mut encoder = self.valid();
        for layer in &mut encoder.layers {
            let RztxEncoderLayer {
                attention,
                feed_forward,
                residual,
                ..
            } = layer;
            residual.fold([
                Last::Channels(&mut attention.out_proj),
                Last::Channels(&mut feed_forward.linear2),
            ]);
        }
        encoder
    }
}

impl Fold for RztxDecoder {
    fn fold(self) -> Self {
        let mut decoder = self.valid();
        for layer in &mut decoder.layers {
            let RztxDecoderLayer {
                attention,
                cross_attention,
                feed_forward,
                residual,
                ..
            } = layer;
            residual.fold([
                Last::Channels(&mut attention.out_proj),
                Last::Channels(&mut cross_attention.out_proj),
                Last::Channels(&mut feed_forward.linear2),
            ]);
        }
        decoder
    }
}

impl Fold for RztxLm {
    fn fold(self) -> Self {
        let mut net = self.valid();
        net.encoder = net.encoder.fold();
        net
    }
}

impl Fold for RztxTransformer {
    fn fold(self) -> Self {
        Self {
            encoder: self.encoder.fold(),
            decoder: self.decoder.fold(),
        }
    }
}
