//! Operations without a counterpart in PyTorch, compared with Flex.

use burn::data::dataloader::DataLoader;
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use rezero_data::rng::mix;
use rezero_data::{Augment, ImageLoader, LoaderConfig, Split, shapes};
use rezero_nn::transformer::{LmCache, RztxEncoderConfig, RztxEncoderInput, RztxLm, RztxLmConfig};
use rezero_nn::{Mlp, MlpConfig, ReZeroConfig, ResidualConfig, ResidualScheme, in_precision};

use super::backend::{device, flex, tolerance};
use super::helpers::values;

/// `max |got − want| / max |want|`.
pub fn error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().all(|x| x.is_finite()));
    let largest = want.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let apart = got
        .iter()
        .zip(want)
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    f64::from(apart / largest)
}

pub fn close(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let error = error(got, want);
    assert!(error <= tolerance, "{what}: {error:.1e} > {tolerance:.1e}");
}

/// Gives every matrix values that are a function of its place. Flex's random numbers are not: it
/// has one random stream per process, which other tests use at the same time.
struct Known(u64);

impl ModuleMapper for Known {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 {
            return param;
        }
        self.0 += 1;
        let seed = self.0;
        param.map(|old| {
            let (shape, scale) = (old.shape(), (3.0 / old.dims()[0] as f64).sqrt());
            let value = |i| 2.0 * (mix(seed, i) >> 11) as f64 / (1u64 << 53) as f64 - 1.0;
            let values = (0..shape.num_elements() as u64).map(|i| (scale * value(i)) as f32);
            let new = TensorData::new(values.collect::<Vec<_>>(), shape);
            Tensor::from_data(new, &old.device()).require_grad()
        })
    }
}

fn lm(scheme: ResidualScheme) -> RztxLm {
    let residual = ResidualConfig::new(scheme).with_rezero(ReZeroConfig::new().with_alpha(0.4));
    let encoder = RztxEncoderConfig::new(16, 24, 2, 2)
        .with_dropout(0.0)
        .with_residual(residual);
    RztxLmConfig::new(encoder, 10)
        .init(&flex().autodiff())
        .map(&mut Known(3))
}

fn tokens(n: usize, on: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = (0..n as i32).map(|i| (i * 37 + 5) % 256).collect();
    Tensor::from_data(TensorData::new(ids, [1, n]), on)
}

/// The gates and norms of every scheme of a Transformer.
#[cfg_attr(test, test)]
pub fn residual_schemes() {
    for &scheme in RztxEncoderConfig::SCHEMES {
        let model = lm(scheme);
        let on = |device: &Device| {
            let device = device.clone().autodiff();
            let model = model.clone().fork(&device);
            let logits = model.forward(tokens(10, &device));
            let all = values(logits.clone());
            let grads = logits.powi_scalar(2).mean().backward();
            let grads = GradientsParams::from_grads(grads, &model);
            let weight = &model.encoder.layers[0].attention.in_proj.weight;
            let gradient = grads.get::<2>(weight.id).expect("a gradient");
            (all, values(gradient))
        };
        let ((got, got_grad), (want, want_grad)) = (on(&device()), on(&flex()));
        close(&format!("{scheme:?}"), &got, &want, tolerance());
        close(
            &format!("{scheme:?}, gradient"),
            &got_grad,
            &want_grad,
            4.0 * tolerance(),
        );
    }
}

/// Decoding byte by byte with a cache gives the same result as the whole text at once.
#[cfg_attr(test, test)]
pub fn decoding_with_a_cache() {
    let device = device();
    let reference = lm(ResidualScheme::ReZero).valid();
    let model = reference.clone().fork(&device);
    let all = values(model.forward(tokens(10, &device)));
    let mut cache = LmCache::default();
    let mut steps = Vec::new();
    for i in 0..10 {
        let token = tokens(10, &device).slice_dim(1, i..i + 1);
        steps.extend(values(model.forward_cached(token, &mut cache)));
    }
    close("cached logits", &steps, &all, 2.0 * tolerance());
    close(
        "logits",
        &all,
        &values(reference.forward(tokens(10, &flex()))),
        tolerance(),
    );
}

/// Masked positions do not affect the output.
#[cfg_attr(test, test)]
pub fn padding_is_not_seen() {
    let device = device();
    let model = lm(ResidualScheme::PreNorm).valid().fork(&device).encoder;
    let input = |last: f32| {
        let mut x: Vec<f32> = (0..6 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        x[5 * 16..].fill(last);
        Tensor::<3>::from_data(TensorData::new(x, [1, 6, 16]), &device)
    };
    let padding = TensorData::new((0..6).map(|i| i == 5).collect::<Vec<_>>(), [1, 6]);
    let mask = Tensor::from_data(padding, &device);
    let seen = |last| {
        let input = RztxEncoderInput::new(input(last)).mask_pad(mask.clone());
        values(model.forward(input).slice_dim(1, 0..5))
    };
    assert_eq!(seen(1.0), seen(-3.0));
}

fn mlp() -> Mlp {
    let gate = ReZeroConfig::new().with_alpha(0.3);
    let residual = ResidualConfig::new(ResidualScheme::ReZero).with_rezero(gate);
    let config = MlpConfig::new(20, 24, 6, 4).with_residual(residual);
    config.init(&flex().autodiff()).map(&mut Known(5))
}

/// Products in half precision give results near those of f32, and gradients of the parameters
/// themselves. A device without half precision returns an error.
#[cfg_attr(test, test)]
pub fn half_precision() {
    for (dtype, epsilon) in [
        (FloatDType::BF16, 2f64.powi(-8)),
        (FloatDType::F16, 2f64.powi(-11)),
    ] {
        let device = device().autodiff();
        if !device.supports_dtype(DType::from(dtype)) {
            eprintln!("{device:?} does not compute in {dtype:?}");
            continue;
        }
        let run = |model: &Mlp, used: &Mlp, device: &Device| {
            let x: Vec<f32> = (0..5 * 20).map(|i| (i as f32 * 0.9).cos()).collect();
            let y = used.forward(Tensor::from_data(TensorData::new(x, [5, 20]), device));
            assert_eq!(y.dtype(), DType::F32);
            let grads =
                GradientsParams::from_grads(y.clone().powi_scalar(2).sum().backward(), model);
            let gate = model.layers[2].residual.rezero.as_ref().expect("a gate");
            let gate = grads.get::<1>(gate.alpha.id).expect("a gradient");
            let weight = grads
                .get::<2>(model.layers[2].linear.weight.id)
                .expect("a gradient");
            assert_eq!((gate.dtype(), weight.dtype()), (DType::F32, DType::F32));
            [values(y), values(weight), values(gate)]
        };
        let exact = mlp();
        let model = exact.clone().fork(&device);
        let got = run(&model, &in_precision(model.clone(), dtype), &device);
        let want = run(&exact, &exact, &flex().autodiff());
        let mut largest = 0.0f64;
        for (got, want) in got.iter().zip(&want) {
            close(&format!("{dtype:?}"), got, want, 20.0 * epsilon);
            largest = largest.max(error(got, want));
        }
        // Products in f32 are a hundred times closer. (A single number, as the gate's gradient, may be close by chance.)
        assert!(largest > epsilon / 16.0, "{dtype:?} was not used");
    }
}

#[cfg_attr(test, test)]
pub fn batches_are_the_same_on_every_device() {
    let config = LoaderConfig {
        batch_size: 6,
        seed: 4,
        shuffle: true,
        drop_last: true,
        augment: Augment::STANDARD,
        label_smoothing: 0.0,
        normalization: shapes::normalization(),
        prefetch: 2,
    };
    let batches = |device: &Device| -> Vec<(Vec<f32>, Vec<i64>)> {
        let set = shapes::generate(Split::Train, 20, 7);
        let loader = ImageLoader::new(set, config.clone(), device).expect("a loader");
        let all = loader.iter().map(|batch| {
            let batch = batch.expect("a batch");
            let targets = batch.targets.into_data().iter::<i64>().collect();
            (values(batch.images), targets)
        });
        all.collect()
    };
    let got = batches(&device());
    assert_eq!(got.len(), 3);
    assert_eq!(got, batches(&flex()));
}
