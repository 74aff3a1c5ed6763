//! ResNets without gates.

use burn::module::Module;

use super::{BasicBlock, CifarResNet, PreActBlock, PreActResNet};
use crate::fold::{Fold, scale_conv, scale_norm};

impl Fold for CifarResNet {
    fn fold(self) -> Self {
        let mut net = self.valid();
        for block in &mut net.blocks {
            let BasicBlock {
                branch,
                residual,
                relu_in_branch,
                ..
            } = block;
            let Some(folded) = residual.fold(None, *relu_in_branch) else {
                continue;
            };
            match &mut branch.norm2 {
                Some(norm) => scale_norm(norm, &folded.factor()),
                None => scale_conv(&mut branch.conv2, &folded.factor()),
            }
        }
        net
    }
}

impl Fold for PreActResNet {
    fn fold(self) -> Self {
        let mut net = self.valid();
        for PreActBlock {
            convs, residual, ..
        } in &mut net.blocks
        {
            let last = convs.last_mut().expect("a block has convolutions");
            if let Some(folded) = residual.fold(None, false) {
                scale_conv(last, &folded.factor());
            }
        }
        net
    }
}
