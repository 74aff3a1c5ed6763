//! Half precision: what is in it, what is not, and whose the gradients are.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Distribution, FloatDType, Int, Tensor};
use rezero_nn::resnet::CifarResNetConfig;
use rezero_nn::transformer::{
    AttentionMask, RztxEncoderConfig, RztxEncoderLayerConfig, RztxLmConfig,
};
use rezero_nn::{ReZeroConfig, ResidualConfig, ResidualScheme, in_precision};

#[derive(Default)]
struct Types {
    path: Vec<String>,
    half: Vec<String>,
    full: Vec<String>,
}

impl ModuleVisitor for Types {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        match param.val().dtype() {
            DType::F32 => self.full.push(path),
            DType::BF16 => self.half.push(path),
            other => panic!("{path}: {other:?}"),
        }
    }
}

fn types<M: Module>(module: &M) -> Types {
    let mut types = Types::default();
    module.visit(&mut types);
    types
}

#[test]
fn weights_of_products_alone_are_half() {
    let device = Device::flex();
    let encoder = RztxEncoderConfig::new(8, 12, 2, 1)
        .with_residual(ResidualConfig::new(ResidualScheme::PreNorm));
    let lm = RztxLmConfig::new(encoder, 6).init(&device);
    let found = types(&in_precision(lm, FloatDType::BF16));
    let last = |path: &String| path.rsplit('.').take(2).collect::<Vec<_>>().join("<");
    let half: Vec<_> = found.half.iter().map(last).collect();
    assert_eq!(
        half,
        [
            "weight<in_proj",
            "weight<out_proj",
            "weight<linear1",
            "weight<linear2",
            "weight<head"
        ]
    );
    for part in ["embedding", "gamma", "bias", "positions"] {
        assert!(
            found.full.iter().any(|path| path.contains(part)),
            "{:?}",
            found.full
        );
    }

    let net = CifarResNetConfig::new(8).init(&device);
    let found = types(&in_precision(net, FloatDType::BF16));
    assert!(found.half.iter().all(|path| path.ends_with("weight")));
    assert_eq!(found.half.len(), 1 + 6 + 1);
    for part in ["alpha", "gamma", "running_mean", "linear.bias"] {
        assert!(
            found.full.iter().any(|path| path.contains(part)),
            "{:?}",
            found.full
        );
    }
}

/// A step in half precision: near the one in f32, with gradients for every parameter of the network itself,
/// whose batch-norm statistics move.
#[test]
fn gradients_and_statistics_are_the_networks_own() {
    let device = Device::flex().autodiff();
    device.seed(9);
    let gate = ReZeroConfig::new().with_alpha(0.5);
    let residual = ResidualConfig::new(ResidualScheme::ReZero).with_rezero(gate);
    let net = CifarResNetConfig::new(8)
        .with_residual(residual)
        .init(&device);
    let net = rezero_nn::initialized(net);
    let x = Tensor::random([4, 3, 8, 8], Distribution::Normal(0.0, 1.0), &device);
    let gradients = |half: bool| {
        let before = types(&net);
        let used = match half {
            true => in_precision(net.clone(), FloatDType::BF16),
            false => net.clone(),
        };
        let logits = used.forward(x.clone());
        assert_eq!(logits.dtype(), DType::F32);
        let loss = logits.square().mean();
        let grads = GradientsParams::from_grads(loss.clone().backward(), &net);
        assert!(before.half.is_empty());
        let kernel = grads.get::<4>(net.conv.weight.id).expect("a gradient");
        let alpha = &net.blocks[0]
            .residual
            .rezero
            .as_ref()
            .expect("a gate")
            .alpha;
        let gate = grads.get::<1>(alpha.id).expect("a gradient");
        assert_eq!((kernel.dtype(), gate.dtype()), (DType::F32, DType::F32));
        (
            grads.len(),
            loss.into_scalar::<f32>(),
            gate.into_scalar::<f32>(),
        )
    };
    let (count, loss, gate) = gradients(false);
    let (half_count, half_loss, half_gate) = gradients(true);
    assert_eq!(half_count, count);
    assert_ne!(half_loss, loss);
    assert!((half_loss / loss - 1.0).abs() < 0.02, "{half_loss} {loss}");
    assert!((half_gate / gate - 1.0).abs() < 0.1, "{half_gate} {gate}");

    let mean = |net: &rezero_nn::resnet::CifarResNet| {
        let norm = net.norm.as_ref().expect("a norm");
        norm.running_mean
            .value_sync()
            .abs()
            .sum()
            .into_scalar::<f32>()
    };
    let fresh = CifarResNetConfig::new(8).init(&device);
    assert_eq!(mean(&fresh), 0.0);
    in_precision(fresh.clone(), FloatDType::BF16).forward(x);
    assert!(mean(&fresh) > 0.0);
}

/// Attention with and without a mask that is given as a tensor takes the same products.
#[test]
fn both_ways_of_attention_agree() {
    let device = Device::flex();
    device.seed(2);
    let layer = RztxEncoderLayerConfig::new(8, 12, 2)
        .with_residual(ResidualConfig::new(ResidualScheme::Residual));
    let layer = in_precision(
        rezero_nn::initialized(layer.init(&device)),
        FloatDType::BF16,
    );
    let x = Tensor::<3>::random([2, 5, 8], Distribution::Normal(0.0, 1.0), &device);
    let none = Tensor::<2, Int>::zeros([5, 5], &device).bool();
    let flag = layer.forward(x.clone(), &AttentionMask::none());
    let tensor = layer.forward(x, &AttentionMask::none().with_attention(none));
    let apart = (flag - tensor).abs().max().into_scalar::<f32>();
    assert!(apart < 0.02, "{apart}");
}
