//! What the comparisons with PyTorch share: fixtures, PyTorch's names for our fields, the closed
//! form of `fixtures/closed_form.py`, and the measure of difference.

use std::collections::BTreeSet;

use super::backend;
use burn::module::{Param, RunningState};
use burn::nn::conv::Conv2d;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, Linear};
use burn::tensor::{Bool, Device, Gradients, Int, Tensor, TensorData};
use rezero_nn::resnet::{BasicBlock, CifarResNet, PreActBlock, PreActResNet};
use rezero_nn::transformer::{Attention, FeedForward, RztxDecoderLayer, RztxEncoderLayer, RztxLm};
use safetensors::{Dtype, SafeTensors};

/// A tensor on the host, in PyTorch's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Array {
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        Self {
            shape: tensor.dims().to_vec(),
            values: tensor.into_data().iter::<f32>().collect(),
        }
    }

    pub fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        let shape: [usize; D] = self.shape.clone().try_into().expect("the rank is D");
        Tensor::from_data(TensorData::new(self.values.clone(), shape), device)
    }
}

/// One `.safetensors` file of `fixtures`.
pub struct Fixture(SafeTensors<'static>);

impl Fixture {
    pub fn parse(bytes: &'static [u8]) -> Self {
        Self(SafeTensors::deserialize(bytes).expect("a fixture is a safetensors file"))
    }

    fn view(&self, key: &str) -> safetensors::tensor::TensorView<'static> {
        let found = self.0.tensor(key);
        found.unwrap_or_else(|_| panic!("the fixture has no {key}"))
    }

    pub fn get(&self, key: &str) -> Array {
        let view = self.view(key);
        assert_eq!(view.dtype(), Dtype::F32, "{key}");
        let (numbers, rest) = view.data().as_chunks::<4>();
        assert!(rest.is_empty(), "{key}");
        Array {
            shape: view.shape().to_vec(),
            values: numbers.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }
    }

    pub fn integers(&self, key: &str) -> Vec<usize> {
        let view = self.view(key);
        assert_eq!(view.dtype(), Dtype::I32, "{key}");
        let (numbers, _) = view.data().as_chunks::<4>();
        let integers = numbers.iter().map(|b| i32::from_le_bytes(*b));
        integers
            .map(|i| i.try_into().expect("not negative"))
            .collect()
    }

    /// Bytes of 0 and 1.
    pub fn mask(&self, key: &str, device: &Device) -> Tensor<2, Bool> {
        let view = self.view(key);
        assert_eq!(view.dtype(), Dtype::U8, "{key}");
        let values: Vec<bool> = view.data().iter().map(|byte| *byte != 0).collect();
        Tensor::from_data(TensorData::new(values, view.shape().to_vec()), device)
    }

    /// The first components of all keys.
    pub fn cases(&self) -> BTreeSet<String> {
        let keys = self.0.names().into_iter();
        keys.filter_map(|key| Some(key.split_once('/')?.0.to_owned()))
            .collect()
    }

    /// What follows `prefix` in the keys that start with it.
    pub fn names(&self, prefix: &str) -> BTreeSet<String> {
        let keys = self.0.names().into_iter();
        keys.filter_map(|key| Some(key.strip_prefix(prefix)?.to_owned()))
            .collect()
    }
}

/// A field of a module that PyTorch has a tensor for.
pub enum Slot<'a> {
    Vector(&'a mut Param<Tensor<1>>),
    Kernel(&'a mut Param<Tensor<4>>),
    Matrix(&'a mut Param<Tensor<2>>),
    /// Burn keeps `[d_in, d_out]`, PyTorch `[d_out, d_in]`.
    Linear(&'a mut Param<Tensor<2>>),
    Running(&'a mut RunningState<Tensor<1>>),
}

impl Slot<'_> {
    pub fn is_param(&self) -> bool {
        !matches!(self, Slot::Running(_))
    }

    /// In PyTorch's layout; of a parameter, without drawing its values.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Slot::Vector(param) => param.lazy_shape().dims::<1>().to_vec(),
            Slot::Kernel(param) => param.lazy_shape().dims::<4>().to_vec(),
            Slot::Matrix(param) => param.lazy_shape().dims::<2>().to_vec(),
            Slot::Linear(param) => {
                let [d_in, d_out] = param.lazy_shape().dims();
                vec![d_out, d_in]
            }
            Slot::Running(state) => state.value().dims().to_vec(),
        }
    }

    pub fn set(&mut self, array: &Array, device: &Device) {
        // Leaves of the graph: a transposed parameter has to be one as well.
        match self {
            Slot::Vector(param) => **param = Param::from_tensor(array.tensor(device)),
            Slot::Kernel(param) => **param = Param::from_tensor(array.tensor(device)),
            Slot::Matrix(param) => **param = Param::from_tensor(array.tensor(device)),
            Slot::Linear(param) => {
                let transposed = array.tensor::<2>(device).transpose();
                **param = Param::from_data(transposed.into_data(), device);
            }
            Slot::Running(state) => **state = RunningState::new(array.tensor(device)),
        }
    }

    pub fn get(&self) -> Array {
        match self {
            Slot::Vector(param) => Array::of(param.val()),
            Slot::Kernel(param) => Array::of(param.val()),
            Slot::Matrix(param) => Array::of(param.val()),
            Slot::Linear(param) => Array::of(param.val().transpose()),
            Slot::Running(state) => Array::of(state.value_sync()),
        }
    }

    pub fn grad(&self, gradients: &Gradients) -> Option<Array> {
        match self {
            Slot::Vector(param) => param.val().grad(gradients).map(Array::of),
            Slot::Kernel(param) => param.val().grad(gradients).map(Array::of),
            Slot::Matrix(param) => param.val().grad(gradients).map(Array::of),
            Slot::Linear(param) => {
                let gradient = param.val().grad(gradients)?;
                Some(Array::of(gradient.transpose()))
            }
            Slot::Running(_) => None,
        }
    }
}

pub type Slots<'a> = Vec<(String, Slot<'a>)>;

/// A module whose tensors have PyTorch names, in the order of `names()` in its generator (running
/// statistics follow their normalisation's parameters).
pub trait Named {
    fn slots(&mut self) -> Slots<'_>;
}

fn conv<'a>(slots: &mut Slots<'a>, name: &str, conv: &'a mut Conv2d) {
    slots.push((format!("{name}.weight"), Slot::Kernel(&mut conv.weight)));
    if let Some(bias) = &mut conv.bias {
        slots.push((format!("{name}.bias"), Slot::Vector(bias)));
    }
}

fn norm<'a>(slots: &mut Slots<'a>, name: &str, norm: &'a mut BatchNorm) {
    slots.extend([
        (format!("{name}.weight"), Slot::Vector(&mut norm.gamma)),
        (format!("{name}.bias"), Slot::Vector(&mut norm.beta)),
        (
            format!("{name}.running_mean"),
            Slot::Running(&mut norm.running_mean),
        ),
        (
            format!("{name}.running_var"),
            Slot::Running(&mut norm.running_var),
        ),
    ]);
}

/// `name` is all that precedes `weight` and `bias`.
fn linear<'a>(slots: &mut Slots<'a>, name: &str, linear: &'a mut Linear) {
    slots.push((format!("{name}weight"), Slot::Linear(&mut linear.weight)));
    let bias = linear.bias.as_mut().expect("the layer has a bias");
    slots.push((format!("{name}bias"), Slot::Vector(bias)));
}

fn attention<'a>(slots: &mut Slots<'a>, name: &str, attention: &'a mut Attention) {
    linear(slots, &format!("{name}.in_proj_"), &mut attention.in_proj);
    linear(slots, &format!("{name}.out_proj."), &mut attention.out_proj);
}

fn feed_forward<'a>(slots: &mut Slots<'a>, branch: &'a mut FeedForward) {
    linear(slots, "linear1.", &mut branch.linear1);
    linear(slots, "linear2.", &mut branch.linear2);
}

/// Appends the slots of each block as `layerS.B.NAME`, for stages of the given lengths.
fn stages<'a>(slots: &mut Slots<'a>, blocks: &'a mut [impl Named], lengths: &[usize]) {
    assert_eq!(blocks.len(), lengths.iter().sum::<usize>());
    let places = (1..).zip(lengths);
    let places = places.flat_map(|(stage, &n)| (0..n).map(move |b| format!("layer{stage}.{b}")));
    for (place, block) in places.zip(blocks) {
        let named = block.slots().into_iter();
        slots.extend(named.map(|(name, slot)| (format!("{place}.{name}"), slot)));
    }
}

impl Named for BasicBlock {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        let branch = &mut self.branch;
        // FixUp's scalars go where they are applied.
        let mut last = Vec::new();
        let mut before_conv2 = Vec::new();
        if let Some(fixup) = &mut branch.fixup {
            slots.push(("bias1a".into(), Slot::Vector(&mut fixup.bias1a)));
            before_conv2.push(("bias1b".into(), Slot::Vector(&mut fixup.bias1b)));
            before_conv2.push(("bias2a".into(), Slot::Vector(&mut fixup.bias2a)));
            last.push(("scale".into(), Slot::Vector(&mut fixup.scale)));
            last.push(("bias2b".into(), Slot::Vector(&mut fixup.bias2b)));
        }
        conv(&mut slots, "conv1", &mut branch.conv1);
        if let Some(bn) = &mut branch.norm1 {
            norm(&mut slots, "bn1", bn);
        }
        slots.extend(before_conv2);
        conv(&mut slots, "conv2", &mut branch.conv2);
        if let Some(bn) = &mut branch.norm2 {
            norm(&mut slots, "bn2", bn);
        }
        slots.extend(last);
        if let Some(shortcut) = &mut self.shortcut.norm {
            norm(&mut slots, "shortcut.bn", shortcut);
        }
        if let Some(gate) = &mut self.residual.rezero {
            slots.push(("alpha".into(), Slot::Vector(&mut gate.alpha)));
        }
        slots
    }
}

impl Named for PreActBlock {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        for (i, (bn, c)) in (1..).zip(self.norms.iter_mut().zip(&mut self.convs)) {
            norm(&mut slots, &format!("bn{i}"), bn);
            conv(&mut slots, &format!("conv{i}"), c);
        }
        if let Some(shortcut) = &mut self.shortcut {
            conv(&mut slots, "shortcut", shortcut);
        }
        if let Some(gate) = &mut self.residual.rezero {
            slots.push(("alpha".into(), Slot::Vector(&mut gate.alpha)));
        }
        slots
    }
}

impl Named for CifarResNet {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        conv(&mut slots, "conv1", &mut self.conv);
        if let Some(stem) = &mut self.norm {
            norm(&mut slots, "bn1", stem);
        }
        if let Some(bias) = &mut self.bias1 {
            slots.push(("bias1".into(), Slot::Vector(bias)));
        }
        let n = self.blocks.len() / 3;
        stages(&mut slots, &mut self.blocks, &[n; 3]);
        if let Some(bias) = &mut self.bias2 {
            slots.push(("bias2".into(), Slot::Vector(bias)));
        }
        linear(&mut slots, "linear.", &mut self.linear);
        slots
    }
}

impl Named for PreActResNet {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        conv(&mut slots, "conv1", &mut self.conv);
        let lengths = match self.blocks.len() {
            8 => [2, 2, 2, 2],
            16 => [3, 4, 6, 3],
            n => panic!("no pre-activation ResNet has {n} blocks"),
        };
        stages(&mut slots, &mut self.blocks, &lengths);
        linear(&mut slots, "linear.", &mut self.linear);
        slots
    }
}

impl Named for RztxEncoderLayer {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        attention(&mut slots, "self_attn", &mut self.attention);
        feed_forward(&mut slots, &mut self.feed_forward);
        let gate = self.residual.rezero.as_mut().expect("one α for all");
        slots.push(("resweight".into(), Slot::Vector(&mut gate.alpha)));
        slots
    }
}

impl Named for RztxDecoderLayer {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        attention(&mut slots, "self_attn", &mut self.attention);
        attention(&mut slots, "multihead_attn", &mut self.cross_attention);
        feed_forward(&mut slots, &mut self.feed_forward);
        let gate = self.residual.rezero.as_mut().expect("one α for all");
        slots.push(("resweight".into(), Slot::Vector(&mut gate.alpha)));
        slots
    }
}

impl Named for RztxLm {
    fn slots(&mut self) -> Slots<'_> {
        let mut slots = Vec::new();
        let positions = self.positions.as_mut().expect("learned positions");
        for (name, table) in [("embedding", &mut self.embedding), ("positions", positions)] {
            slots.push((name.into(), Slot::Matrix(&mut table.weight)));
        }
        for (i, layer) in self.encoder.layers.iter_mut().enumerate() {
            let named = layer.slots().into_iter();
            slots.extend(named.map(|(name, slot)| (format!("layers.{i}.{name}"), slot)));
        }
        let head = self.head.as_mut().expect("an untied head");
        linear(&mut slots, "head.", head);
        slots
    }
}

/// The 32-bit integers behind [`h`].
pub fn mix(p: usize, n: usize) -> impl Iterator<Item = u32> {
    let start = (p as u32).wrapping_mul(40503).wrapping_add(1);
    (0..n as u32).map(move |k| {
        let mut x = k.wrapping_mul(2654435761).wrapping_add(start);
        x ^= x >> 16;
        x = x.wrapping_mul(0x85eb_ca6b);
        x ^= x >> 13;
        x = x.wrapping_mul(0xc2b2_ae35);
        x ^ (x >> 16)
    })
}

/// `h(p, 0..n)` of the closed form: uniform in [-0.5, 0.5).
pub fn h(p: usize, n: usize) -> impl Iterator<Item = f64> {
    mix(p, n).map(|x| f64::from(x) / 4294967296.0 - 0.5)
}

/// Sets every parameter and running statistic to the closed form, or to the `start` of the
/// trajectory.
pub fn set_closed_form(net: &mut impl Named, start: bool, device: &Device) {
    let (mut p, mut blocks, mut norms) = (0, 0, 0);
    for (name, mut slot) in net.slots() {
        let shape = slot.shape();
        let n = shape.iter().product();
        let (owner, leaf) = name.rsplit_once('.').unwrap_or(("", &name));
        let bn = owner
            .rsplit('.')
            .next()
            .is_some_and(|o| o.starts_with("bn"));
        let fill = |value: f64| vec![value; n];
        let values: Vec<f64> = match leaf {
            "running_mean" if start => fill(0.0),
            "running_var" if start => fill(1.0),
            "running_mean" => h(4000 + 2 * norms, n).map(|h| 0.5 * h).collect(),
            "running_var" => h(4001 + 2 * norms, n).map(|h| 1.0 + h).collect(),
            "alpha" if start => fill(0.0),
            "alpha" => {
                let sign = if blocks % 2 == 0 { 1.0 } else { -1.0 };
                fill(0.1 * (1 + blocks % 9) as f64 * sign)
            }
            _ if shape.len() > 1 => {
                let fan_in = (n / shape[0]) as f64;
                let gain = 12f64.sqrt() * (2.0 / fan_in).sqrt() * 0.7;
                h(p, n).map(|h| h * gain).collect()
            }
            "weight" | "scale" if start => fill(1.0),
            "weight" | "scale" => h(p, n).map(|h| 1.0 + 0.5 * h).collect(),
            _ if start && bn => fill(0.0),
            _ => h(p, n).map(|h| 0.5 * h).collect(),
        };
        p += usize::from(slot.is_param());
        blocks += usize::from(leaf == "alpha");
        norms += usize::from(leaf == "running_var");
        let values = values.into_iter().map(|v| v as f32).collect();
        slot.set(&Array { shape, values }, device);
    }
}

/// Sets every parameter of a Transformer to its closed form, and each α to `alpha`.
pub fn set_transformer(net: &mut impl Named, alpha: f32, device: &Device) {
    for (p, (name, mut slot)) in net.slots().into_iter().enumerate() {
        let shape = slot.shape();
        let gain = match (name.rsplit('.').next(), &shape[..]) {
            (Some("embedding" | "positions"), _) => 1.0,
            (_, [_, fan_in]) => 12f64.sqrt() * (2.0 / *fan_in as f64).sqrt() * 0.7,
            _ => 0.5,
        };
        let values = h(p, shape.iter().product()).map(|h| (h * gain) as f32);
        let values = match name.ends_with("resweight") {
            true => vec![alpha],
            false => values.collect(),
        };
        slot.set(&Array { shape, values }, device);
    }
}

/// Batch `j` of `n` square images.
pub fn images(j: usize, n: usize, side: usize, device: &Device) -> Tensor<4> {
    let shape = [n, 3, side, side];
    let values = h(100_000 + j, shape.iter().product());
    let values: Vec<f32> = values.map(|h| (12f64.sqrt() * h) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The classes of batch `j`.
pub fn targets(j: usize, n: usize, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = mix(200_000 + j, n).map(|x| (x >> 8) as i32 % 10).collect();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Mean cross-entropy.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let loss = CrossEntropyLossConfig::new().init(&logits.device());
    loss.forward(logits, targets)
}

/// Collects comparisons, and fails once for all of them.
pub struct Checks {
    tolerance: f64,
    failures: Vec<String>,
    worst: (f64, String),
    count: usize,
}

impl Checks {
    pub fn new(tolerance: f64) -> Self {
        Self {
            tolerance: tolerance * backend::slack(),
            failures: Vec::new(),
            worst: (0.0, String::new()),
            count: 0,
        }
    }

    /// `max |got - want| / max |want|` is within the tolerance.
    pub fn near(&mut self, name: &str, got: &Array, want: &Array) {
        if got.shape != want.shape {
            let (got, want) = (&got.shape, &want.shape);
            self.fail(name, &format!("shape {got:?}, PyTorch has {want:?}"));
            return;
        }
        let scale = want.values.iter().fold(0f32, |m, v| m.max(v.abs()));
        self.within(name, &got.values, &want.values, f64::from(scale));
    }

    /// `max |got - want| / scale` is within the tolerance.
    pub fn within(&mut self, name: &str, got: &[f32], want: &[f32], scale: f64) {
        assert_eq!(got.len(), want.len(), "{name}");
        let difference = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
        // A NaN must not vanish in `max`.
        let worst = |m: f64, d: f64| if d.is_nan() || d > m { d } else { m };
        let errors = got.iter().zip(want).map(difference);
        let error = errors.fold(0.0, worst) / scale.max(1e-30);
        self.count += 1;
        if error.is_nan() || error > self.tolerance {
            let first = |v: &[f32]| v[..v.len().min(4)].to_vec();
            let (got, want) = (first(got), first(want));
            let text = format!("relative error {error:.2e}, begins {got:?}, PyTorch {want:?}");
            self.fail(name, &text);
        }
        if error > self.worst.0 {
            self.worst = (error, name.to_owned());
        }
    }

    /// Compares the sum, norm and projection on h(3000 + p) of what was too large to store.
    pub fn summary(&mut self, name: &str, p: usize, got: &[f32], want: &[f32]) {
        let values = || got.iter().map(|v| f64::from(*v));
        let norm = values().map(|v| v * v).sum::<f64>().sqrt();
        let total: f64 = values().sum();
        let projection: f64 = values()
            .zip(h(3000 + p, got.len()))
            .map(|(v, h)| v * h)
            .sum();
        let own = f64::from(want[1]);
        // An error of relative size ε in a random direction moves the sum by ε · norm, and the
        // projection on numbers of size 1/√12 by that times as much.
        let parts = [
            ("sum", total, own),
            ("norm", norm, own),
            ("projection", projection, own / 12f64.sqrt()),
        ];
        for ((part, got, scale), want) in parts.into_iter().zip(want) {
            self.within(&format!("{name}, {part}"), &[got as f32], &[*want], scale);
        }
    }

    pub fn fail(&mut self, name: &str, text: &str) {
        self.failures.push(format!("{name}: {text}"));
    }

    pub fn finish(self, title: &str) {
        let (error, name) = &self.worst;
        println!(
            "{title}: {} tensors, largest relative error {error:.1e} ({name})",
            self.count
        );
        assert!(self.count > 0, "{title}: nothing was compared");
        assert!(
            self.failures.is_empty(),
            "{title}: {} of {} tensors differ from PyTorch by more than {:.0e}\n{}",
            self.failures.len(),
            self.count,
            self.tolerance,
            self.failures.join("\n")
        );
    }
}
