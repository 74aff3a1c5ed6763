//! Deeper ResNets.

use super::{
    BasicBlock, CifarResNet, CifarResNetConfig, PreActDepth, PreActResNet, PreActResNetConfig,
};
use crate::grow::{Grow, GrowError, Place, device_of, identity, same, stages};

impl Grow for CifarResNetConfig {
    type Network = CifarResNet;

    fn grow(&self, mut network: CifarResNet, place: Place) -> Result<CifarResNet, GrowError> {
        let [_, classes] = network.linear.weight.lazy_shape().dims();
        let [_, in_channels, ..] = network.conv.weight.lazy_shape().dims::<4>();
        same("scheme", network.scheme, self.residual.scheme)?;
        same("in_channels", in_channels, self.in_channels)?;
        same("num_classes", classes, self.num_classes)?;
        let config = self.clone().with_residual(identity(&self.residual)?);
        let fresh = config.init(&device_of(&network)).blocks;
        let parts = |blocks: &[BasicBlock]| {
            let gate = blocks
                .first()
                .and_then(|block| block.residual.rezero.as_ref());
            let shortcuts = blocks.iter().any(|block| block.shortcut.norm.is_some());
            (
                shortcuts,
                gate.map(|gate| gate.alpha.lazy_shape().num_elements() > 1),
            )
        };
        same("definition or gates", parts(&network.blocks), parts(&fresh))?;
        let have = [network.blocks.len() / 3; 3];
        let wanted = [self.blocks_of_stage(); 3];
        network.blocks = stages(network.blocks, &have, fresh, &wanted, place)?;
        Ok(network)
    }
}

impl Grow for PreActResNetConfig {
    type Network = PreActResNet;

    /// Depth 18 can become 34. Depth 50 has another kind of block.
    fn grow(&self, mut network: PreActResNet, place: Place) -> Result<PreActResNet, GrowError> {
        let residual = identity(&self.residual)?;
        let [_, classes] = network.linear.weight.lazy_shape().dims();
        let [_, in_channels, ..] = network.conv.weight.lazy_shape().dims::<4>();
        same("in_channels", in_channels, self.in_channels)?;
        same("num_classes", classes, self.num_classes)?;
        let fresh = self.clone().with_residual(residual);
        let fresh = fresh.init(&device_of(&network)).blocks;
        if let (Some(old), Some(new)) = (network.blocks.first(), fresh.first()) {
            same("scheme", old.residual.scheme, new.residual.scheme)?;
            same("layers in a block", old.convs.len(), new.convs.len())?;
        }
        let n = network.blocks.len();
        let mut of_depth = PreActDepth::ALL.iter().map(|depth| depth.blocks());
        let have = of_depth
            .find(|blocks| blocks.iter().sum::<usize>() == n)
            .ok_or_else(|| GrowError::Shape(format!("{n} blocks are those of no depth")))?;
        let wanted = self.depth.blocks();
        network.blocks = stages(network.blocks, &have, fresh, &wanted, place)?;
        Ok(network)
    }
}
