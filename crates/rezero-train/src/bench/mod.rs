//! The workloads of `rezero bench`: the meaning of their names, and one step of each.

use std::hint::black_box;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor, TensorData};
use rezero_data::nearest;
use rezero_kernels::{
    Captured, Launch, Tasks, can_overwrite, capture, cross_entropy, device_memory, in_place,
    launches, together,
};
use rezero_nn::mixer::{Mixer, MixerConfig};
use rezero_nn::resnet::{CifarResNet, CifarResNetConfig};
use rezero_nn::transformer::{Activation, LmCache, RztxEncoderConfig, RztxLm, RztxLmConfig};
use rezero_nn::vit::{Pooling, Vit, VitConfig};
use rezero_nn::{Mlp, MlpConfig, WeightInit, in_precision, initialized};

use crate::error::{Error, Result};
use crate::fit::{AdaGrad, Adam, InPlace, Numbers, Rate, Sgd};

/// Steps before the timed steps.
const WARM_UP: usize = 2;
const KNOWN: &str = "mlp-L, lm-small, lm-paper, resnet-N, vit, mixer, decode, latency, and \
                     each with :key=value,…";
const KINDS: [&str; 7] = ["mlp", "lm", "resnet", "vit", "mixer", "decode", "latency"];
const VOCAB: usize = 256;
/// The largest size. The product of two sizes fits into a number, and a typing error is noticed.
const LARGEST: usize = 1_000_000;
/// The same limit as for recipes: deeper ResNets take more memory than most machines have.
const DEEPEST: usize = 9_998;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A training step of a fully connected network, AdaGrad.
    Mlp,
    /// A training step of a byte-level language model, Adam.
    Lm,
    /// A training step of a CIFAR ResNet, SGD with momentum.
    ResNet,
    /// A training step of a Vision Transformer, Adam.
    Vit,
    /// A training step of an MLP-Mixer, Adam.
    Mixer,
    /// Generation of bytes after a prompt, which is read in one pass. Each is the most likely byte after those before
    /// it.
    Decode,
    /// Classifying images.
    Latency,
}

/// A workload with its sizes.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The requested name.
    pub name: String,
    kind: Kind,
    sizes: Vec<(&'static str, usize)>,
}

/// The times of a workload's steps, in milliseconds.
pub struct Timed {
    /// The time of the first step, which compiles kernels on some backends. It is not in `ms`.
    pub first_ms: f64,
    /// The times of the timed steps.
    pub ms: Vec<f64>,
    /// Images, tokens or rows per step.
    pub items: usize,
    /// What the kernels ran in the timed steps.
    pub tasks: Tasks,
    /// Whether the timed steps were replays of a captured step.
    pub captured: bool,
    /// The bytes that are reserved on the device after the timed training steps, on CubeCL's backends.
    pub device_bytes: Option<u64>,
    /// The launches of a training step after the timed ones, if they were asked for.
    pub launches: Vec<Launch>,
}

/// How a workload is run.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// The number of timed steps.
    pub steps: usize,
    /// The type of the products of training steps, if it is not f32.
    pub half: Option<FloatDType>,
    /// Whether a training step is captured, where the backend can do so.
    pub capture: bool,
    /// Whether the launches of one more step are observed.
    pub profile: bool,
}

/// Splits `a,b:x=1,y=2,c` into workloads: a part with `=` but without `:` belongs to the workload
/// before it.
///
/// # Errors
///
/// If a name or a key is unknown, or the model cannot have a size.
pub fn parse(list: &str) -> Result<Vec<Workload>> {
    let mut names: Vec<String> = Vec::new();
    for item in list.split(',').map(str::trim) {
        match names.last_mut() {
            Some(last) if item.contains('=') && !item.contains(':') => {
                last.push(',');
                last.push_str(item);
            }
            _ => names.push(item.to_owned()),
        }
    }
    names.iter().map(|name| Workload::parse(name)).collect()
}

impl Workload {
    fn parse(name: &str) -> Result<Self> {
        let fail = |message: String| Error::Workload {
            name: name.to_owned(),
            message,
        };
        if name.is_empty() {
            return Err(fail(format!("no name; known: {KNOWN}")));
        }
        let (base, settings) = match name.split_once(':') {
            Some((base, settings)) => (base, settings.split(',').collect()),
            None => (name, Vec::new()),
        };
        let (word, number) = match base.split_once('-') {
            Some((word, rest)) => (word, Some(rest)),
            None => (base, None),
        };
        let lm = |sizes: [usize; 6]| {
            ["layers", "d_model", "n_heads", "d_ff", "length", "batch"]
                .into_iter()
                .zip(sizes)
                .collect()
        };
        let small = [6, 256, 8, 1024, 128, 8];
        let count = |what: &str| match number {
            Some(number) => number
                .parse()
                .map_err(|_| fail(format!("{what} must be a number, got `{number}`"))),
            None => Ok(0),
        };
        let unnumbered = |sizes| match number {
            Some(_) => Err(fail(format!(
                "`{word}` takes no number; give {word}:key=value"
            ))),
            None => Ok(sizes),
        };
        let (kind, sizes): (Kind, Vec<(&'static str, usize)>) = match word {
            "mlp" => {
                let layers = number.map_or(Ok(64), |_| count("the number of layers"))?;
                let sizes = [("layers", layers), ("width", 256), ("batch", 100)];
                (Kind::Mlp, sizes.into())
            }
            "resnet" => {
                let depth = number.map_or(Ok(20), |_| count("the depth"))?;
                (Kind::ResNet, vec![("depth", depth), ("batch", 128)])
            }
            "lm" => {
                let sizes = match number {
                    None | Some("small") => small,
                    Some("paper") => [12, 512, 8, 2048, 512, 16],
                    Some(other) => {
                        return Err(fail(format!("lm-small or lm-paper, not `{other}`")));
                    }
                };
                (Kind::Lm, lm(sizes))
            }
            "vit" => {
                let sizes = [
                    ("layers", 12),
                    ("d_model", 64),
                    ("n_heads", 4),
                    ("d_ff", 256),
                    ("image", 32),
                    ("patch", 4),
                    ("batch", 128),
                ];
                (Kind::Vit, unnumbered(sizes.into())?)
            }
            "mixer" => {
                let sizes = [
                    ("layers", 12),
                    ("d_model", 64),
                    ("d_tokens", 64),
                    ("d_ff", 256),
                    ("image", 32),
                    ("patch", 4),
                    ("batch", 128),
                ];
                (Kind::Mixer, unnumbered(sizes.into())?)
            }
            "decode" => {
                let mut sizes: Vec<_> = lm(small);
                sizes.retain(|(key, _)| *key != "batch");
                sizes.extend([("prompt", 1), ("batch", 1)]);
                (Kind::Decode, unnumbered(sizes)?)
            }
            "latency" => (
                Kind::Latency,
                unnumbered(vec![("depth", 20), ("batch", 1)])?,
            ),
            _ => {
                let hint = nearest(word, KINDS).map(|n| format!(", did you mean `{n}`?"));
                let hint = hint.unwrap_or_default();
                return Err(fail(format!("unknown{hint} (known: {KNOWN})")));
            }
        };
        let mut workload = Self {
            name: name.to_owned(),
            kind,
            sizes,
        };
        let mut d_ff_given = false;
        for setting in settings {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(fail(format!("`{setting}` is not key=value")));
            };
            let value = match value.parse() {
                Ok(value) if (1..=LARGEST).contains(&value) => value,
                _ => {
                    return Err(fail(format!(
                        "{key} must be a whole number from 1 to {LARGEST}, got `{value}`"
                    )));
                }
            };
            let keys: Vec<_> = workload.sizes.iter().map(|(key, _)| *key).collect();
            let Some((_, size)) = workload.sizes.iter_mut().find(|(k, _)| *k == key) else {
                let hint = nearest(key, keys.iter().copied())
                    .map(|n| format!(", did you mean `{n}`?"))
                    .unwrap_or_default();
                let keys = keys.join(", ");
                return Err(fail(format!("unknown key `{key}`{hint} (known: {keys})")));
            };
            *size = value;
            d_ff_given |= key == "d_ff";
            if key == "d_model" && !d_ff_given {
                workload.set("d_ff", 4 * value);
            }
        }
        workload.check().map_err(fail)?;
        Ok(workload)
    }

    /// A size, or 0 if this kind has no size of that name.
    fn get(&self, key: &str) -> usize {
        let size = self.sizes.iter().find(|(k, _)| *k == key);
        size.map_or(0, |(_, size)| *size)
    }

    fn set(&mut self, key: &str, value: usize) {
        if let Some((_, size)) = self.sizes.iter_mut().find(|(k, _)| *k == key) {
            *size = value;
        }
    }

    fn check(&self) -> Result<(), String> {
        // d_ff may be four times the largest d_model.
        let range = 1..=4 * LARGEST;
        if let Some((key, size)) = self.sizes.iter().find(|(_, size)| !range.contains(size)) {
            return Err(format!("{key} must be from 1 to {LARGEST}, got {size}"));
        }
        let (d_model, n_heads, depth) =
            (self.get("d_model"), self.get("n_heads"), self.get("depth"));
        if n_heads > 0 && !d_model.is_multiple_of(n_heads) {
            return Err(format!(
                "n_heads must divide d_model, got {n_heads} and {d_model}"
            ));
        }
        let (image, patch) = (self.get("image"), self.get("patch"));
        if patch > 0 && !image.is_multiple_of(patch) {
            return Err(format!("patch must divide image, got {patch} and {image}"));
        }
        if depth > 0 && (!(8..=DEEPEST).contains(&depth) || depth % 6 != 2) {
            return Err(format!(
                "depth must be 6n+2 from 8 to {DEEPEST}, got {depth}"
            ));
        }
        Ok(())
    }

    /// Whether its steps are training steps, for which [`run`](Self::run) takes `half`.
    pub fn trains(&self) -> bool {
        match self.kind {
            Kind::Mlp | Kind::Lm | Kind::ResNet | Kind::Vit | Kind::Mixer => true,
            Kind::Decode | Kind::Latency => false,
        }
    }

    /// Runs the workload on `device`, which is without autodiff.
    pub fn run(&self, device: &Device, how: How) -> Timed {
        let training = device.clone().autodiff();
        training.seed(0);
        match self.kind {
            Kind::Mlp => self.mlp(&training, how),
            Kind::Lm => self.lm(&training, how),
            Kind::ResNet => self.resnet(&training, how),
            Kind::Vit => self.vit(&training, how),
            Kind::Mixer => self.mixer(&training, how),
            Kind::Decode => self.decode(how.steps, device),
            Kind::Latency => self.latency(how.steps, device),
        }
    }

    fn mlp(&self, device: &Device, how: How) -> Timed {
        let [layers, width, batch] = ["layers", "width", "batch"].map(|key| self.get(key));
        // As in benches/pytorch.py, not as in the paper.
        let model: Mlp = MlpConfig::new(3072, width, layers, 10)
            .with_init(WeightInit::PyTorch)
            .with_input_relu(false)
            .init(device);
        let optimizer = AdaGrad {
            lr: Rate::at(0.01),
            epsilon: 1e-10,
            weight_decay: 0.0,
            numbers: Numbers::default(),
        };
        let x = normal([batch, 3072], device);
        let y = classes(batch, 10, device);
        train((how, batch), model, optimizer, move |model| {
            cross_entropy(model.forward(x.clone()), y.clone())
        })
    }

    fn lm(&self, device: &Device, how: How) -> Timed {
        let (batch, length) = (self.get("batch"), self.get("length"));
        let model = self.language_model(length, device);
        let n = batch * length;
        let x: Tensor<2, Int> = classes(n, VOCAB, device).reshape([batch, length]);
        let y = classes(n, VOCAB, device);
        train((how, n), model, adam(), move |model: &RztxLm| {
            let logits = model.forward(x.clone()).reshape([n, VOCAB]);
            cross_entropy(logits, y.clone())
        })
    }

    fn resnet(&self, device: &Device, how: How) -> Timed {
        let batch = self.get("batch");
        let model: CifarResNet = CifarResNetConfig::new(self.get("depth")).init(device);
        let optimizer = Sgd {
            lr: Rate::at(0.1),
            momentum: Rate::at(0.9),
            weight_decay: 1e-4,
            numbers: Numbers::default(),
        };
        let x = normal([batch, 3, 32, 32], device);
        let y = classes(batch, 10, device);
        train((how, batch), model, optimizer, move |model| {
            cross_entropy(model.forward(x.clone()), y.clone())
        })
    }

    fn vit(&self, device: &Device, how: How) -> Timed {
        let [d_model, d_ff, n_heads, layers] =
            ["d_model", "d_ff", "n_heads", "layers"].map(|key| self.get(key));
        let [image, patch, batch] = ["image", "patch", "batch"].map(|key| self.get(key));
        let encoder = RztxEncoderConfig::new(d_model, d_ff, n_heads, layers)
            .with_dropout(0.0)
            .with_activation(Activation::Gelu);
        let model: Vit = VitConfig::new(encoder, [image, image], patch)
            .with_pooling(Pooling::Mean)
            .init(device);
        let x = normal([batch, 3, image, image], device);
        let y = classes(batch, 10, device);
        train((how, batch), model, adam(), move |model: &Vit| {
            cross_entropy(model.forward(x.clone()), y.clone())
        })
    }

    fn mixer(&self, device: &Device, how: How) -> Timed {
        let [d_model, d_tokens, d_ff, layers] =
            ["d_model", "d_tokens", "d_ff", "layers"].map(|key| self.get(key));
        let [image, patch, batch] = ["image", "patch", "batch"].map(|key| self.get(key));
        let model: Mixer =
            MixerConfig::new(d_model, d_tokens, d_ff, layers, [image, image], patch).init(device);
        let x = normal([batch, 3, image, image], device);
        let y = classes(batch, 10, device);
        train((how, batch), model, adam(), move |model: &Mixer| {
            cross_entropy(model.forward(x.clone()), y.clone())
        })
    }

    fn decode(&self, steps: usize, device: &Device) -> Timed {
        let [length, prompt, batch] = ["length", "prompt", "batch"].map(|key| self.get(key));
        // The last byte that is written is not read.
        let model = initialized(self.language_model(prompt + length - 1, device));
        let prompts = classes(batch * prompt, VOCAB, device).reshape([batch, prompt]);
        time(steps, batch * length, || {
            let mut cache = LmCache::default();
            let mut tokens: Tensor<2, Int> = prompts.clone();
            for _ in 0..length {
                let [_, fed] = tokens.dims();
                let logits = model.forward_cached(tokens, &mut cache);
                let logits = logits.slice_dim(1, fed - 1..fed).into_data();
                let logits: Vec<f32> = logits.iter::<f32>().collect();
                let next = logits.chunks_exact(VOCAB).map(likeliest).collect();
                tokens = Tensor::from_data(TensorData::new(next, [batch, 1]), device);
            }
        })
    }

    fn latency(&self, steps: usize, device: &Device) -> Timed {
        let batch = self.get("batch");
        let model: CifarResNet =
            initialized(CifarResNetConfig::new(self.get("depth")).init(device));
        let x = normal([batch, 3, 32, 32], device);
        time(steps, batch, || {
            // Looked at, since data may be read when it is.
            let logits = model.forward(x.clone()).into_data();
            black_box(logits.iter::<f32>().next());
        })
    }

    fn language_model(&self, context: usize, device: &Device) -> RztxLm {
        let [d_model, d_ff, n_heads, layers] =
            ["d_model", "d_ff", "n_heads", "layers"].map(|key| self.get(key));
        let encoder = RztxEncoderConfig::new(d_model, d_ff, n_heads, layers).with_dropout(0.0);
        RztxLmConfig::new(encoder, context).init(device)
    }
}

/// The token with the largest logit.
fn likeliest(logits: &[f32]) -> i32 {
    let largest = logits
        .iter()
        .enumerate()
        .max_by(|(_, a), (_, b)| a.total_cmp(b));
    largest.map_or(0, |(token, _)| token as i32)
}

/// PyTorch's defaults.
fn adam() -> Adam {
    Adam {
        lr: Rate::at(1e-3),
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
        numbers: Numbers::default(),
    }
}

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn classes(n: usize, classes: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..n).map(|i| (i * 7919 % classes) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [n]), device)
}

/// Times steps of forward, mean loss, backward and update, each until the loss has been read.
fn train<M: Module + 'static>(
    (how, items): (How, usize),
    model: M,
    rule: impl Optimizer + InPlace + 'static,
    losses: impl Fn(&M) -> Tensor<1> + 'static,
) -> Timed {
    let model = initialized(model);
    let device = inner_device(&model);
    let mut optimizer = ModuleOptimizer::from(rule.clone());
    let step = move |before: M| {
        let loss = match how.half {
            Some(half) => losses(&in_precision(before.clone(), half)).mean(),
            None => losses(&before).mean(),
        };
        let gradients = GradientsParams::from_grads(loss.backward(), &before);
        // The optimizer's rate holds the learning rate.
        let after = together(|| optimizer.step(0.0, before, gradients));
        (loss.inner(), after)
    };
    let mut captured: Option<Captured<(Tensor<1>, M)>> = None;
    let mut plain = Some((model, step));
    let mut taken = 0;
    let mut timed = time(how.steps, items, || {
        taken += 1;
        if let Some(captured) = &mut captured {
            rule.refresh(taken, true, &device);
            captured.replay().0.clone().into_scalar::<f32>();
            return;
        }
        let Some((before, mut step)) = plain.take() else {
            unreachable!("every plain step puts the model back")
        };
        let (loss, model) = step(before);
        // The value, since data may be read when it is looked at.
        loss.into_scalar::<f32>();
        if how.capture && taken == WARM_UP && can_overwrite(&device) {
            rule.refresh(taken, true, &device);
            let again = move || in_place(|| step(model.clone()));
            captured = Some(capture(&device, again));
        } else {
            plain = Some((model, step));
        }
    });
    timed.device_bytes = device_memory(&device);
    timed.captured = captured.is_some_and(|captured| captured.is_hardware());
    if let (true, Some((model, mut step))) = (how.profile, plain) {
        // The launches that a captured step would replay. The first step in place chooses among kernels.
        if can_overwrite(&device) {
            rule.refresh(taken, true, &device);
        }
        let (loss, model) = in_place(|| step(model));
        loss.into_scalar::<f32>();
        (_, timed.launches) = launches(|| in_place(|| step(model)).0.into_scalar::<f32>());
    }
    timed
}

/// The device of a model's parameters, without autodiff.
fn inner_device<M: Module>(model: &M) -> Device {
    let devices = model.devices();
    let device = devices.first().expect("every network has parameters");
    device.clone().inner()
}

fn time(steps: usize, items: usize, mut step: impl FnMut()) -> Timed {
    let mut ms = Vec::with_capacity(steps);
    let mut first_ms = 0.0;
    let mut before = Tasks::so_far();
    for i in 0..WARM_UP + steps {
        if i == WARM_UP {
            before = Tasks::so_far();
        }
        let start = Instant::now();
        step();
        let took = 1e3 * start.elapsed().as_secs_f64();
        match i {
            0 => first_ms = took,
            WARM_UP.. => ms.push(took),
            _ => {}
        }
    }
    Timed {
        first_ms,
        ms,
        items,
        tasks: Tasks::so_far().since(&before),
        captured: false,
        device_bytes: None,
        launches: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn message(list: &str) -> String {
        parse(list).unwrap_err().to_string()
    }

    #[test]
    fn names_and_keys() {
        let all = parse("mlp-64,lm:layers=4,d_model=192,n_heads=6,length=200,batch=5,resnet-20");
        let all = all.unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].get("layers"), all[0].get("width")), (64, 256));
        assert_eq!((all[1].get("d_model"), all[1].get("d_ff")), (192, 768));
        assert_eq!((all[1].get("length"), all[1].get("batch")), (200, 5));
        assert_eq!(all[2].get("depth"), 20);
        assert_eq!(parse("mlp-2, lm-small").unwrap()[1].name, "lm-small");
        assert_eq!(parse("lm:d_ff=7,d_model=64").unwrap()[0].get("d_ff"), 7);
        let decode = &parse("decode:batch=8").unwrap()[0];
        assert_eq!((decode.get("batch"), decode.get("prompt")), (8, 1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(message("resnt-20").contains("did you mean `resnet`?"));
        assert!(message("lm:d_modle=64").contains("did you mean `d_model`?"));
        assert!(message("lm:d_model=100,n_heads=8").contains("must divide"));
        assert!(message("vit:image=30").contains("patch must divide image, got 4 and 30"));
        assert!(message("mixer-3").contains("takes no number"));
        assert!(message("resnet-21").contains("6n+2"));
        assert!(message("mlp-0").contains("layers must be from 1 to"));
        assert!(message("mlp-99999999").contains("layers must be from 1 to"));
        assert!(message("resnet-99998").contains("from 8 to 9998"));
        assert!(message("lm:d_model=9223372036854775808").contains("from 1 to 1000000"));
        assert!(message("mlp-x").contains("must be a number"));
        assert!(message("lm-huge").contains("lm-small or lm-paper"));
        assert!(message("decode-3").contains("takes no number"));
        assert!(message("lm:length").contains("not key=value"));
        assert!(message("").contains("no name"));
        assert!(message("mlp-2,").contains("no name"));
    }
}
