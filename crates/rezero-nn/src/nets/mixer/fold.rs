//! MLP-Mixers without gates.

use burn::module::Module;

use super::{Mixer, MixerLayer};
use crate::fold::{Fold, Last};

impl Fold for Mixer {
    fn fold(self) -> Self {
        let mut net = self.valid();
        for MixerLayer {
            tokens,
            channels,
            residual,
        } in &mut net.layers
        {
            residual.fold([
                Last::Other(&mut tokens.linear2),
                Last::Channels(&mut channels.linear2),
            ]);
        }
        net
    }
}
