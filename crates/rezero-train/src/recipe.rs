//! A recipe: everything that decides a run's numbers, in one flat TOML table.
//!
//! The recipes that ship are files in `recipes/`, embedded in the binary; their bodies hold only
//! what differs from [`Recipe::default`]. Every key can be overridden as `key=value`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::FloatDType;
use rezero_nn::resnet::{
    Arm as NnArm, CifarResNetConfig, Definition as NnDefinition, PreActDepth, PreActResNetConfig,
};
use rezero_nn::transformer::{
    Activation as NnActivation, Positions as NnPositions, RztxInit, RztxLayerConfig, RztxLmConfig,
};
use rezero_nn::{MlpArm, MlpConfig, NormKind, ReZeroConfig, ResidualConfig, ResidualScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::nearest::nearest;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// The recipes that ship with the binary: name and file text.
        pub const EMBEDDED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../recipes/", $name, ".toml")))),*];
    };
}
embedded!(
    "quickstart",
    "cifar10-resnet20",
    "cifar10-resnet56",
    "cifar10-resnet110",
    "cifar10-resnet20-notebook",
    "cifar10-resnet56-notebook",
    "cifar10-resnet110-notebook",
    "cifar10-preact18",
    "cifar10-mlp64",
    "cifar10-mlp10000",
    "enwik8-small",
    "enwik8-tiny",
    "enwik8-rztx12",
    "enwik8-rztx64",
    "enwik8-rztx128",
);

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),* }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),* })
            }
        }
    };
}

names! {
    /// The network family.
    Model {
        /// [`rezero_nn::resnet::CifarResNet`], depth 6n+2.
        CifarResNet = "cifar-resnet",
        /// [`rezero_nn::resnet::PreActResNet`], depth 18, 34 or 50.
        PreActResNet = "preact-resnet",
        /// [`rezero_nn::Mlp`], any number of residual layers.
        Mlp = "mlp",
        /// [`rezero_nn::transformer::RztxLm`], any depth.
        ByteLm = "byte-lm",
    }
}
names! {
    /// The residual scheme, see [`rezero_nn::resnet::Arm`] for ResNets, [`MlpArm`] for fully
    /// connected networks and [`ResidualScheme`] for text.
    Arm {
        /// Batch norm with γ = 1; of an `mlp`, `F(x)`.
        Vanilla = "vanilla",
        /// γ = 0 in the last norm of each branch.
        ZeroGamma = "zero-gamma",
        /// `x + α · F(x)`.
        ReZero = "rezero",
        /// `α · F(x) + (1 − α) · x`.
        Gated = "gated",
        /// Without norm, rescaled weights.
        FixUp = "fixup",
        /// `x + α · F(x)`: in a ResNet without norm, in a Transformer with an α for each sub-layer.
        SkipInit = "skipinit",
        /// `F(x)` (text).
        Plain = "plain",
        /// `x + F(x)` (mlp, text).
        Residual = "residual",
        /// `Norm(F(x))`, one norm for all layers (mlp).
        LayerNorm = "layer-norm",
        /// `Norm(F(x))`, a norm for each layer (mlp).
        LayerNormEach = "layer-norm-each",
        /// `Norm(x + F(x))` (mlp, text).
        PostNorm = "post-norm",
        /// `x + F(Norm(x))` and a final norm (mlp, text).
        PreNorm = "pre-norm",
        /// Pre-norm as in the authors' notebook: one norm a layer, none at the end (text).
        PreNormNotebook = "pre-norm-notebook",
        /// `x + Norm(F(x))` (text).
        Gpt2Norm = "gpt2-norm",
        /// `x + λ ⊙ F(Norm(x))` and a final norm (text).
        LayerScale = "layerscale",
        /// `Norm(c · x + F(x))`, branches scaled down (text).
        DeepNorm = "deepnorm",
    }
}
names! {
    /// Which of the authors' code bases defines a CIFAR ResNet's details.
    Definition {
        /// See [`rezero_nn::resnet::Definition::Notebook`].
        Notebook = "notebook",
        /// See [`rezero_nn::resnet::Definition::Table`].
        Table = "table",
    }
}
names! {
    /// The data set.
    Data {
        /// CIFAR-10, 32×32 RGB, ten classes.
        Cifar10 = "cifar10",
        /// Drawn shapes and textures, 32×32 RGB, ten classes; built in.
        Shapes = "shapes",
        /// The first 100 MB of a Wikipedia dump, as bytes.
        Enwik8 = "enwik8",
        /// The bytes of the file that `--text` names.
        Text = "text",
        /// Pages of made-up words in the form of enwik8; built in.
        WikiLike = "wiki-like",
    }
}
names! {
    /// How a Transformer knows positions.
    Positions {
        /// A learned vector for each.
        Learned = "learned",
        /// Sines and cosines.
        Sinusoidal = "sinusoidal",
        /// Queries and keys are turned.
        Rotary = "rotary",
        /// Not at all.
        None = "none",
    }
}
names! {
    /// The non-linearity of a Transformer's feed-forward branch.
    Activation {
        /// max(x, 0).
        Relu = "relu",
        /// x · Φ(x).
        Gelu = "gelu",
        /// x · σ(x).
        Silu = "silu",
        /// silu(x W₁) ⊙ (x W_gate).
        SwiGlu = "swiglu",
    }
}
names! {
    /// The normalisation of a Transformer.
    LayerNorm {
        /// A layer norm where the arm has one; none in `rezero`.
        Auto = "auto",
        /// Layer norm; in `rezero` on top of it, `x + α · F(Norm(x))`.
        Layer = "layer",
        /// RMS norm, likewise.
        Rms = "rms",
    }
}
names! {
    /// How a Transformer's weights are drawn, see [`RztxInit`].
    Init {
        /// PyTorch's defaults, which the authors' layers keep.
        PyTorch = "pytorch",
        /// The authors' notebook.
        Notebook = "notebook",
    }
}
names! {
    /// Per-channel mean and standard deviation that images are normalised by.
    Norm {
        /// The constants of the data set: `table` for CIFAR-10.
        Auto = "auto",
        /// The CIFAR constants of the authors' table code.
        Table = "table",
        /// The ImageNet constants of the authors' notebook.
        Notebook = "notebook",
        /// The CIFAR constants of the authors' superconvergence code.
        Superconvergence = "superconvergence",
        /// Mean and standard deviation 0.5, of the authors' fully connected notebook.
        Half = "half",
    }
}
names! {
    /// What matrix products and convolutions are computed in; gates, norms, the residual stream, the loss
    /// and the optimizer's numbers are f32 throughout, see [`rezero_nn::in_precision`].
    DType {
        /// 32 bits.
        F32 = "f32",
        /// bfloat16: the range of f32 with 8 bits of precision.
        BF16 = "bf16",
        /// IEEE half: 11 bits of precision up to 65,504; the loss is scaled.
        F16 = "f16",
    }
}
names! {
    /// The optimizer of a parameter group.
    Optim {
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
        /// AdaGrad: Duchi, Hazan and Singer, 2011.
        AdaGrad = "adagrad",
        /// Adam: Kingma and Ba, arXiv 1412.6980.
        Adam = "adam",
        /// Adam with decoupled weight decay: Loshchilov and Hutter, arXiv 1711.05101.
        AdamW = "adamw",
        /// LAMB: You et al., arXiv 1904.00962; trust ratio without a clamp.
        Lamb = "lamb",
    }
}
names! {
    /// The optimizer of the gates.
    AlphaOptim {
        /// Gates share the weights' group.
        Shared = "shared",
        /// A group of their own with `alpha_lr` and `alpha_weight_decay`, scheduled like the weights.
        Sgd = "sgd",
        /// AdaGrad at a constant `alpha_lr`.
        AdaGrad = "adagrad",
        /// Adam with `alpha_lr`, scheduled like the weights.
        Adam = "adam",
    }
}
names! {
    /// How learning rates move over a run.
    ScheduleKind {
        /// Fixed.
        Constant = "constant",
        /// Multiplied by `gamma` at each epoch in `milestones`.
        MultiStep = "multi-step",
        /// `lr_start` → `lr` → `lr_low` → `lr_end`, piecewise linear over the run.
        OneCycle = "one-cycle",
    }
}

impl DType {
    /// The type, unless it is f32.
    pub fn half(self) -> Option<FloatDType> {
        match self {
            Self::F32 => None,
            Self::BF16 => Some(FloatDType::BF16),
            Self::F16 => Some(FloatDType::F16),
        }
    }
}

/// All settings of a run. See the field docs for units; every field is a recipe key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// The network family.
    pub model: Model,
    /// The number of weighted layers; of a Transformer or an `mlp`, of its residual layers.
    pub depth: usize,
    /// The residual scheme.
    pub arm: Arm,
    /// The authors' code base that defines a CIFAR ResNet's shortcut and initialisation.
    pub definition: Definition,
    /// α at the start.
    pub alpha_init: f64,
    /// One α per channel instead of one a block.
    pub alpha_per_channel: bool,
    /// Whether α is learned.
    pub alpha_trainable: bool,
    /// Whether the sub-layers of a Transformer layer share one α (arms `rezero` and `gated`).
    pub alpha_shared: bool,
    /// The gate is C · tanh(α / C) for this C; 0: α itself.
    pub alpha_bound: f64,

    /// The width of an `mlp`.
    pub width: usize,

    /// The width of a Transformer.
    pub d_model: usize,
    /// The attention heads of a Transformer; divides `d_model`.
    pub n_heads: usize,
    /// The width of a Transformer's feed-forward branch.
    pub d_ff: usize,
    /// Bytes that a Transformer is trained on at a time.
    pub context: usize,
    /// Dropout of a Transformer's embedding, attention and branches.
    pub dropout: f64,
    /// The non-linearity of a Transformer.
    pub activation: Activation,
    /// The normalisation of a Transformer.
    pub norm: LayerNorm,
    /// How a Transformer knows positions.
    pub positions: Positions,
    /// Whether a Transformer's output layer is its embedding's transpose.
    pub tied: bool,
    /// Whether a Transformer's linear layers have biases.
    pub bias: bool,
    /// What a Transformer's embedding is multiplied by.
    pub embedding_scale: f64,
    /// How a Transformer's weights are drawn.
    pub init: Init,

    /// The data set.
    pub data: Data,
    /// Normalisation constants.
    pub normalization: Norm,
    /// Train on the first so many training images or bytes only; 0: all.
    pub train_items: usize,
    /// Validate on the first so many validation images or bytes only; 0: all.
    pub valid_items: usize,
    /// Bytes between the windows of an evaluation, at most `context`; 0: `context`. Each byte is
    /// scored once, with at least `context − stride` bytes before it.
    pub stride: usize,
    /// Random crops of the zero-padded image, in pixels of padding; 0: none.
    pub crop_padding: usize,
    /// Random horizontal flips.
    pub flip: bool,

    /// Seeds weights, data order and augmentation.
    pub seed: u64,
    /// Passes over the training images; text has one, of `steps`.
    pub epochs: usize,
    /// Images: stop after so many steps, within `epochs`; 0: no limit; schedules still span
    /// `epochs`. Text: the length of the run.
    pub steps: usize,
    /// Images, or windows of text, a step.
    pub batch: usize,
    /// Computes each step's batch in so many parts, whose gradients are averaged: the same step in
    /// less memory. (Batch norm sees the parts.)
    pub accumulate: usize,
    /// Runs each Transformer layer, or each √depth layers of an `mlp`, again in the backward pass
    /// instead of keeping their activations; those of an `mlp` are updated there, too, so that their
    /// gradients are never held together.
    pub recompute: bool,
    /// What products are computed in; all else is f32.
    pub dtype: DType,
    /// Leave out an epoch's last, smaller batch.
    pub drop_last: bool,

    /// The optimizer of the weights.
    pub optimizer: Optim,
    /// Learning rate; the peak for `one-cycle`.
    pub lr: f64,
    /// Momentum of SGD; the highest for `one-cycle`.
    pub momentum: f64,
    /// L2 penalty on every parameter that has no group of its own; decoupled under `adamw`, added to
    /// the update before the trust ratio under `lamb`.
    pub weight_decay: f64,
    /// Decay of the first moment (`adam`, `adamw`, `lamb`).
    pub beta1: f64,
    /// Decay of the second moment (`adam`, `adamw`, `lamb`).
    pub beta2: f64,
    /// Added to the second moment's root (`adam`, `adamw`, `lamb`).
    pub epsilon: f64,
    /// The optimizer of the gates.
    pub alpha_optimizer: AlphaOptim,
    /// Learning rate of the gates, unless they share the weights' group.
    pub alpha_lr: f64,
    /// L2 penalty on the gates, unless they share the weights' group.
    pub alpha_weight_decay: f64,
    /// Learning rate of biases, batch-norm β and FixUp's scalars; 0: as the weights.
    pub bias_lr: f64,
    /// Multiplies `bias_lr` at each epoch in `bias_milestones`.
    pub bias_gamma: f64,
    /// Epochs at which `bias_lr` drops.
    pub bias_milestones: Vec<usize>,
    /// Largest global norm of all gradients together; 0: no clipping.
    pub clip_norm: f64,

    /// How learning rates move.
    pub schedule: ScheduleKind,
    /// Epochs at which the learning rate drops (`multi-step`).
    pub milestones: Vec<usize>,
    /// Factor at each milestone (`multi-step`).
    pub gamma: f64,
    /// Epochs of linear warm-up from 0 (`constant` and `multi-step`); fractions allowed.
    pub warmup_epochs: f64,
    /// The same in steps; 0: as `warmup_epochs` says.
    pub warmup_steps: usize,
    /// Learning rate at step 0 (`one-cycle`).
    pub lr_start: f64,
    /// Learning rate where the last phase begins (`one-cycle`).
    pub lr_low: f64,
    /// Learning rate at the end (`one-cycle`).
    pub lr_end: f64,
    /// Share of the run at which the peak is reached (`one-cycle`).
    pub peak_at: f64,
    /// Share of the run at which `lr_low` is reached (`one-cycle`).
    pub low_at: f64,
    /// Momentum at the peak of the learning rate (`one-cycle`).
    pub momentum_low: f64,

    /// Validate every so many steps; 0: after each epoch. Always at the end.
    pub eval_every: usize,
    /// The first validation with at most so many bits per byte is reported; 0: none is.
    pub target_bpb: f64,
    /// Checkpoint every so many steps; 0: after each validation. Always at the end.
    pub checkpoint_every: usize,
    /// How many of the newest checkpoints are kept, beside the best.
    pub keep: usize,
    /// Steps between rows of `metrics.jsonl`, each the mean over the steps since the last.
    pub log_every: usize,
    /// Batches prepared ahead by one thread; 0: none.
    pub prefetch: usize,
    /// Where to train, see `rezero devices`; of several devices, `A,B,…`, each takes an equal part of every
    /// batch.
    pub device: String,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            model: Model::CifarResNet,
            depth: 20,
            arm: Arm::ReZero,
            definition: Definition::Notebook,
            alpha_init: 0.0,
            alpha_per_channel: false,
            alpha_trainable: true,
            alpha_shared: true,
            alpha_bound: 0.0,
            width: 256,
            d_model: 256,
            n_heads: 4,
            d_ff: 1024,
            context: 256,
            dropout: 0.0,
            activation: Activation::Gelu,
            norm: LayerNorm::Auto,
            positions: Positions::Learned,
            tied: false,
            bias: true,
            embedding_scale: 1.0,
            init: Init::PyTorch,
            data: Data::Cifar10,
            normalization: Norm::Auto,
            train_items: 0,
            valid_items: 0,
            stride: 0,
            crop_padding: 4,
            flip: true,
            seed: 1,
            epochs: 200,
            steps: 0,
            batch: 128,
            accumulate: 1,
            recompute: false,
            dtype: DType::F32,
            drop_last: false,
            optimizer: Optim::Sgd,
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            alpha_optimizer: AlphaOptim::Shared,
            alpha_lr: 0.1,
            alpha_weight_decay: 0.0,
            bias_lr: 0.0,
            bias_gamma: 1.0,
            bias_milestones: Vec::new(),
            clip_norm: 0.0,
            schedule: ScheduleKind::MultiStep,
            milestones: vec![100, 150],
            gamma: 0.1,
            warmup_epochs: 0.0,
            warmup_steps: 0,
            lr_start: 0.0,
            lr_low: 0.0,
            lr_end: 0.0,
            peak_at: 0.3,
            low_at: 1.0,
            momentum_low: 0.85,
            eval_every: 0,
            target_bpb: 0.0,
            checkpoint_every: 0,
            keep: 2,
            log_every: 1,
            prefetch: 4,
            device: "auto".to_owned(),
        }
    }
}

/// Weights of 16 GB, with as much again for gradients and twice that for Adam.
const MAX_PARAMETERS: u64 = 4_000_000_000;
/// Thirty times the paper's batch of 1080 windows of 512 bytes.
const MAX_STEP: usize = 1 << 24;

/// Keys that only a Transformer has.
const TEXT_KEYS: &[&str] = &[
    "alpha_shared",
    "d_model",
    "n_heads",
    "d_ff",
    "context",
    "dropout",
    "activation",
    "norm",
    "positions",
    "tied",
    "bias",
    "embedding_scale",
    "init",
    "stride",
    "target_bpb",
];
/// Keys that only images have.
const IMAGE_KEYS: &[&str] = &[
    "definition",
    "normalization",
    "crop_padding",
    "flip",
    "epochs",
    "drop_last",
    "milestones",
    "gamma",
];

/// One `key=value` from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The recipe key.
    pub key: String,
    /// The value as typed.
    pub value: String,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Self {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => Err(format!(
                "`{text}` is not of the form key=value (for example epochs=10)"
            )),
        }
    }
}

/// A recipe with the name it goes by and the changes that overrides made to it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The recipe's name, or the stem of its file.
    pub name: String,
    /// The final values.
    pub recipe: Recipe,
    /// `key: old -> new` for every override, in key order.
    pub changes: Vec<String>,
    /// The overrides by key, as TOML values.
    pub overrides: BTreeMap<String, toml::Value>,
}

impl Recipe {
    /// The recipe keys in declaration order.
    pub fn keys() -> Vec<String> {
        let table = toml::Table::try_from(Recipe::default()).expect("a recipe is a TOML table");
        table.keys().cloned().collect()
    }

    /// Every key as a line of a recipe file with its default, below comments that say what it means:
    /// the field docs of this struct, which have one place.
    pub fn described() -> String {
        let source = include_str!("recipe.rs");
        let fields = source
            .split_once("pub struct Recipe {\n")
            .and_then(|(_, rest)| rest.split_once("\n}\n"))
            .map_or("", |(fields, _)| fields);
        let table = toml::Table::try_from(Recipe::default()).expect("a recipe is a TOML table");
        let mut text = String::new();
        for line in fields.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("///") {
                text.push_str(&format!("#{doc}\n"));
            } else if let Some((key, _)) = line.trim_start_matches("pub ").split_once(':') {
                // Setting what no enum has lists what it has.
                let none = toml::Value::String("?".to_owned());
                if let Err(Error::RecipeValue { message, .. }) = set(&mut table.clone(), key, none)
                {
                    let names: Vec<&str> = expected_names(&message).collect();
                    if !names.is_empty() {
                        text.push_str(&format!("# one of {}\n", names.join(", ")));
                    }
                }
                text.push_str(&format!("{key} = {}\n\n", table[key]));
            }
        }
        text
    }

    /// Finds `name` among the embedded recipes or, if it ends in `.toml`, on disk, applies
    /// `overrides` and validates the result.
    ///
    /// # Errors
    ///
    /// If there is no such recipe, it does not parse, a key is unknown, a value is of the wrong
    /// type or out of range. Messages name the nearest valid key.
    pub fn resolve(name: &str, overrides: &[Override]) -> Result<Resolved> {
        let (short, text) = if name.ends_with(".toml") {
            let text = read_file(name)?;
            let stem = Path::new(name).file_stem().unwrap_or_default();
            (stem.to_string_lossy().into_owned(), text)
        } else {
            let found = EMBEDDED.iter().find(|(n, _)| *n == name);
            let (_, text) = found.ok_or_else(|| Error::UnknownRecipe {
                name: name.to_owned(),
                nearest: nearest(name, EMBEDDED.iter().map(|(n, _)| *n)),
            })?;
            (name.to_owned(), (*text).to_owned())
        };
        Self::parse(&short, &text)?.with(overrides)
    }

    /// Parses the text of a recipe file.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn parse(name: &str, text: &str) -> Result<Resolved> {
        let bad = |message: String| Error::Recipe {
            name: name.to_owned(),
            message,
        };
        let table: toml::Table = text.parse().map_err(|e| bad(format!("{e}")))?;
        let mut recipe = toml::Table::try_from(Recipe::default()).expect("a recipe is a table");
        for (key, value) in table {
            set(&mut recipe, &key, value)?;
        }
        Ok(Resolved {
            name: name.to_owned(),
            recipe: recipe.try_into().map_err(|e| bad(format!("{e}")))?,
            changes: Vec::new(),
            overrides: BTreeMap::new(),
        })
    }

    /// Whether the recipe is about text, else images.
    pub fn is_text(&self) -> bool {
        self.model == Model::ByteLm
    }

    /// Whether `key` is one that the model has no use for.
    fn is_foreign(&self, key: &str) -> bool {
        let other_data = match self.is_text() {
            true => IMAGE_KEYS,
            false => TEXT_KEYS,
        };
        other_data.contains(&key)
            || (key == "width" && self.model != Model::Mlp)
            || (key == "recompute" && !matches!(self.model, Model::Mlp | Model::ByteLm))
            || (key == "definition" && self.model != Model::CifarResNet)
    }

    /// Checks ranges and combinations.
    fn validate(&self) -> Result<()> {
        match self.model {
            Model::CifarResNet => check(
                self.depth >= 8 && self.depth % 6 == 2 && self.depth <= 10_000,
                "depth",
                format!(
                    "a cifar-resnet has 6n+2 layers (8, 14, 20, 32, 44, 56, 110, 1202, at most 9,998), got {}",
                    self.depth
                ),
            )?,
            Model::PreActResNet => check(
                [18, 34, 50].contains(&self.depth),
                "depth",
                format!(
                    "a preact-resnet has 18, 34 or 50 layers, got {}",
                    self.depth
                ),
            )?,
            Model::Mlp => {
                for (key, value, most) in [
                    ("depth", self.depth, 1_000_000),
                    ("width", self.width, 1 << 16),
                ] {
                    check(
                        (1..=most).contains(&value),
                        key,
                        format!("must be between 1 and {most}, got {value}"),
                    )?;
                }
                check(
                    !self.recompute || (self.clip_norm == 0.0 && self.accumulate == 1),
                    "recompute",
                    "an mlp is updated while its gradients come, before their norm is known: \
                     needs clip_norm=0 and accumulate=1"
                        .to_owned(),
                )?;
                let parameters = self.depth as u64 * (self.width as u64).pow(2);
                check(
                    parameters <= MAX_PARAMETERS,
                    "width",
                    format!(
                        "at most {MAX_PARAMETERS} parameters, got {parameters} of depth={} width={}",
                        self.depth, self.width
                    ),
                )?;
            }
            Model::ByteLm => self.validate_text()?,
        }
        check(
            self.dtype == DType::F32 || !self.recompute,
            "dtype",
            "products in half precision are not combined with recompute=true".to_owned(),
        )?;
        let devices = self.device.split(',').count();
        check(
            devices == 1 || !self.recompute,
            "device",
            "recompute=true trains on one device".to_owned(),
        )?;
        check(
            self.batch.is_multiple_of(devices * self.accumulate) || devices == 1,
            "batch",
            format!(
                "{devices} devices and accumulate={} need equal parts: {} is no multiple of {}",
                self.accumulate,
                self.batch,
                devices * self.accumulate
            ),
        )?;
        use Arm::*;
        let arms: &[Arm] = match self.model {
            Model::CifarResNet => &[Vanilla, ZeroGamma, ReZero, Gated, FixUp, SkipInit],
            Model::PreActResNet => &[Vanilla, ReZero, Gated],
            Model::Mlp => &[
                Vanilla,
                Residual,
                LayerNorm,
                ReZero,
                LayerNormEach,
                PreNorm,
                PostNorm,
            ],
            Model::ByteLm => &[
                ReZero,
                PostNorm,
                PreNorm,
                PreNormNotebook,
                Gpt2Norm,
                SkipInit,
                LayerScale,
                DeepNorm,
                Gated,
                Residual,
                Plain,
            ],
        };
        let names: Vec<String> = arms.iter().map(Arm::to_string).collect();
        check(
            arms.contains(&self.arm),
            "arm",
            format!(
                "a {} comes in the arms {}, got {}",
                self.model,
                names.join(", "),
                self.arm
            ),
        )?;
        let texts = [Data::Enwik8, Data::Text, Data::WikiLike];
        check(
            texts.contains(&self.data) == self.is_text(),
            "data",
            match self.is_text() {
                true => format!(
                    "a byte-lm reads enwik8, text or wiki-like, got {}",
                    self.data
                ),
                false => format!(
                    "a {} reads cifar10 or shapes, got {}",
                    self.model, self.data
                ),
            },
        )?;
        check(
            self.alpha_bound.is_finite() && self.alpha_bound >= 0.0,
            "alpha_bound",
            format!("must be finite and at least 0, got {}", self.alpha_bound),
        )?;
        for (key, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check(
                // Optimizers compute in f32.
                (0.0..1.0).contains(&(value as f32)),
                key,
                format!("must be in [0, 1) as f32, got {value}"),
            )?;
        }
        let epsilon = self.epsilon as f32;
        check(
            epsilon.is_finite() && epsilon > 0.0,
            "epsilon",
            format!("must be finite and above 0 as f32, got {}", self.epsilon),
        )?;
        for (key, value) in [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("keep", self.keep),
            ("log_every", self.log_every),
        ] {
            check(value > 0, key, "must be at least 1, got 0".to_owned())?;
        }
        check(
            self.batch <= 1 << 20,
            "batch",
            format!("must be at most {}, got {}", 1 << 20, self.batch),
        )?;
        check(
            self.accumulate >= 1 && self.accumulate <= self.batch,
            "accumulate",
            format!(
                "must be between 1 and the batch of {}, got {}",
                self.batch, self.accumulate
            ),
        )?;
        for (key, value, most) in [
            ("crop_padding", self.crop_padding, 31),
            ("epochs", self.epochs, 1_000_000),
            ("prefetch", self.prefetch, 1_024),
        ] {
            check(
                value <= most,
                key,
                format!("must be at most {most}, got {value}"),
            )?;
        }
        check(
            self.alpha_init.is_finite(),
            "alpha_init",
            format!("must be finite, got {}", self.alpha_init),
        )?;
        let nonnegative = [
            ("weight_decay", self.weight_decay),
            ("alpha_lr", self.alpha_lr),
            ("alpha_weight_decay", self.alpha_weight_decay),
            ("bias_lr", self.bias_lr),
            ("bias_gamma", self.bias_gamma),
            ("clip_norm", self.clip_norm),
            ("gamma", self.gamma),
            ("warmup_epochs", self.warmup_epochs),
            ("lr", self.lr),
            ("lr_start", self.lr_start),
            ("lr_low", self.lr_low),
            ("lr_end", self.lr_end),
            ("target_bpb", self.target_bpb),
        ];
        for (key, value) in nonnegative {
            check(
                value.is_finite() && value >= 0.0,
                key,
                format!("must be finite and at least 0, got {value}"),
            )?;
        }
        for (key, value) in [
            ("momentum", self.momentum),
            ("momentum_low", self.momentum_low),
        ] {
            check(
                (0.0..1.0).contains(&value),
                key,
                format!("must be in [0, 1), got {value}"),
            )?;
        }
        check(
            0.0 < self.peak_at && self.peak_at < self.low_at && self.low_at <= 1.0,
            "peak_at",
            format!(
                "needs 0 < peak_at < low_at <= 1, got peak_at={} low_at={}",
                self.peak_at, self.low_at
            ),
        )?;
        for (key, list) in [
            ("milestones", &self.milestones),
            ("bias_milestones", &self.bias_milestones),
        ] {
            check(
                list.windows(2).all(|w| w[0] < w[1]),
                key,
                format!("must rise, got {list:?}"),
            )?;
        }
        check(
            self.schedule != ScheduleKind::OneCycle || self.optimizer == Optim::Sgd,
            "schedule",
            "one-cycle cycles the momentum of sgd; choose optimizer=sgd".to_owned(),
        )
    }

    /// Checks what only a [`Model::ByteLm`] has.
    fn validate_text(&self) -> Result<()> {
        for (key, value, most) in [
            ("depth", self.depth, 10_000),
            ("d_model", self.d_model, 1 << 16),
            ("n_heads", self.n_heads, 1 << 16),
            ("d_ff", self.d_ff, 1 << 20),
            ("context", self.context, 1 << 14),
            ("steps", self.steps, 1 << 40),
        ] {
            check(
                (1..=most).contains(&value),
                key,
                format!("must be between 1 and {most}, got {value}"),
            )?;
        }
        // Sizes that no machine has, before anything of them is allocated.
        let matrices = if self.activation == Activation::SwiGlu {
            3
        } else {
            2
        };
        let layer = 4 * self.d_model * self.d_model + matrices * self.d_model * self.d_ff;
        let parameters = (self.depth * layer) as u64;
        check(
            parameters <= MAX_PARAMETERS,
            "d_model",
            format!(
                "at most {MAX_PARAMETERS} parameters, got {parameters} of depth={} d_model={} d_ff={}",
                self.depth, self.d_model, self.d_ff
            ),
        )?;
        check(
            self.batch * self.context <= MAX_STEP,
            "batch",
            format!(
                "at most {MAX_STEP} bytes a step, got batch={} times context={}",
                self.batch, self.context
            ),
        )?;
        check(
            self.d_model.is_multiple_of(self.n_heads),
            "n_heads",
            format!(
                "must divide d_model, got d_model={} n_heads={}",
                self.d_model, self.n_heads
            ),
        )?;
        let d_head = self.d_model / self.n_heads;
        check(
            self.positions != Positions::Rotary || d_head.is_multiple_of(2),
            "positions",
            format!("rotary positions need heads of even width, got d_model / n_heads = {d_head}"),
        )?;
        check(
            self.positions != Positions::Sinusoidal || self.d_model.is_multiple_of(2),
            "positions",
            format!(
                "sinusoidal positions need an even d_model, got {}",
                self.d_model
            ),
        )?;
        check(
            self.stride <= self.context,
            "stride",
            format!(
                "must be at most the context of {}, got {}",
                self.context, self.stride
            ),
        )?;
        check(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            format!("must be in [0, 1), got {}", self.dropout),
        )?;
        check(
            self.embedding_scale.is_finite(),
            "embedding_scale",
            format!("must be finite, got {}", self.embedding_scale),
        )?;
        let normless = [Arm::Plain, Arm::Residual, Arm::Gated, Arm::SkipInit];
        check(
            self.norm == LayerNorm::Auto || !normless.contains(&self.arm),
            "norm",
            format!("the arm {} has no norm; leave norm=auto", self.arm),
        )
    }

    /// The configuration of a [`Model::CifarResNet`].
    pub fn cifar_resnet(&self, num_classes: usize) -> CifarResNetConfig {
        CifarResNetConfig::new(self.depth)
            .with_arm(match self.arm {
                Arm::Vanilla => NnArm::Vanilla,
                Arm::ZeroGamma => NnArm::ZeroGamma,
                Arm::ReZero => NnArm::ReZero,
                Arm::Gated => NnArm::Gated,
                Arm::FixUp => NnArm::FixUp,
                Arm::SkipInit => NnArm::SkipInit,
                // The others are not a ResNet's, which `validate` has seen to.
                _ => NnArm::Vanilla,
            })
            .with_definition(match self.definition {
                Definition::Notebook => NnDefinition::Notebook,
                Definition::Table => NnDefinition::Table,
            })
            .with_num_classes(num_classes)
            .with_rezero(self.rezero())
    }

    /// Classes of images, ten in all data sets here, or possible bytes.
    pub fn num_classes(&self) -> usize {
        match self.is_text() {
            true => 256,
            false => 10,
        }
    }

    /// How many residual layers, or blocks, the network has.
    pub fn layers(&self) -> usize {
        match (self.model, self.depth) {
            (Model::CifarResNet, depth) => (depth - 2) / 2,
            (Model::PreActResNet, 18) => 8,
            (Model::PreActResNet, _) => 16,
            (Model::Mlp | Model::ByteLm, depth) => depth,
        }
    }

    /// The configuration of a [`Model::Mlp`].
    pub fn mlp(&self, d_input: usize, num_classes: usize) -> MlpConfig {
        let config =
            MlpConfig::new(d_input, self.width, self.depth, num_classes).with_arm(match self.arm {
                Arm::Vanilla => MlpArm::Vanilla,
                Arm::Residual => MlpArm::Residual,
                Arm::LayerNorm => MlpArm::LayerNorm,
                Arm::LayerNormEach => MlpArm::LayerNormEach,
                Arm::PreNorm => MlpArm::PreNorm,
                Arm::PostNorm => MlpArm::PostNorm,
                // The others are not an MLP's, which `validate` has seen to.
                _ => MlpArm::ReZero,
            });
        let mut residual = config.residual.clone();
        residual.rezero = self
            .rezero()
            .with_channels(self.alpha_per_channel.then_some(self.width));
        config.with_residual(residual)
    }

    /// The configuration of a [`Model::PreActResNet`].
    pub fn preact_resnet(&self, num_classes: usize) -> PreActResNetConfig {
        let depth = match self.depth {
            18 => PreActDepth::D18,
            34 => PreActDepth::D34,
            _ => PreActDepth::D50,
        };
        PreActResNetConfig::new(depth)
            .with_scheme(match self.arm {
                Arm::ReZero => ResidualScheme::ReZero,
                Arm::Gated => ResidualScheme::Gated,
                _ => ResidualScheme::Sum,
            })
            .with_num_classes(num_classes)
            .with_rezero(self.rezero())
    }

    /// The configuration of a [`Model::ByteLm`].
    pub fn byte_lm(&self) -> RztxLmConfig {
        let scheme = match self.arm {
            Arm::ReZero => ResidualScheme::ReZero,
            Arm::Gated => ResidualScheme::Gated,
            Arm::SkipInit => ResidualScheme::SkipInit,
            Arm::Plain => ResidualScheme::Plain,
            Arm::PostNorm => ResidualScheme::PostNorm,
            Arm::PreNorm => ResidualScheme::PreNorm,
            Arm::PreNormNotebook => ResidualScheme::PreNormNotebook,
            Arm::Gpt2Norm => ResidualScheme::Gpt2Norm,
            Arm::LayerScale => ResidualScheme::LayerScale,
            Arm::DeepNorm => ResidualScheme::DeepNorm,
            _ => ResidualScheme::Sum,
        };
        let norm = match self.norm {
            LayerNorm::Auto => None,
            LayerNorm::Layer => Some(NormKind::Layer),
            LayerNorm::Rms => Some(NormKind::Rms),
        };
        let layer = RztxLayerConfig::new(self.d_model, self.n_heads)
            .with_d_ff(self.d_ff)
            .with_dropout(self.dropout)
            .with_activation(match self.activation {
                Activation::Relu => NnActivation::Relu,
                Activation::Gelu => NnActivation::Gelu,
                Activation::Silu => NnActivation::Silu,
                Activation::SwiGlu => NnActivation::SwiGlu,
            })
            .with_bias(self.bias)
            .with_residual(
                ResidualConfig::new(scheme)
                    .with_norm(norm)
                    .with_rezero(self.rezero().with_channels(None)),
            )
            .with_share_alpha(self.alpha_shared)
            .with_alpha_per_channel(self.alpha_per_channel)
            .with_init(match self.init {
                Init::PyTorch => RztxInit::pytorch(),
                Init::Notebook => RztxInit::notebook(),
            });
        RztxLmConfig::new(layer, self.depth, self.context)
            .with_positions(match self.positions {
                Positions::Learned => NnPositions::Learned,
                Positions::Sinusoidal => NnPositions::Sinusoidal,
                Positions::Rotary => NnPositions::Rotary,
                Positions::None => NnPositions::None,
            })
            .with_tied(self.tied)
            .with_embedding_scale(self.embedding_scale)
    }

    fn rezero(&self) -> ReZeroConfig {
        ReZeroConfig::new()
            .with_alpha(self.alpha_init)
            .with_trainable(self.alpha_trainable)
            // The network widens this to each block's channels.
            .with_channels(self.alpha_per_channel.then_some(1))
            .with_bound((self.alpha_bound > 0.0).then_some(self.alpha_bound))
    }

    /// What a checkpoint's weights fit: two recipes with the same text build the same network.
    pub fn model_id(&self) -> String {
        let mut text = format!("{} depth={} arm={}", self.model, self.depth, self.arm);
        let mut add = |wanted: bool, part: String| {
            if wanted {
                text.push(' ');
                text.push_str(&part);
            }
        };
        let gated = matches!(self.arm, Arm::ReZero | Arm::Gated | Arm::SkipInit);
        add(
            self.model == Model::CifarResNet,
            format!("definition={}", self.definition),
        );
        add(self.model == Model::Mlp, format!("width={}", self.width));
        if self.is_text() {
            add(true, format!("d_model={}", self.d_model));
            add(true, format!("n_heads={}", self.n_heads));
            add(true, format!("d_ff={}", self.d_ff));
            add(true, format!("context={}", self.context));
            add(true, format!("activation={}", self.activation));
            add(true, format!("positions={}", self.positions));
            add(self.norm != LayerNorm::Auto, format!("norm={}", self.norm));
            add(self.tied, "tied".to_owned());
            add(!self.bias, "bias=false".to_owned());
            add(
                self.embedding_scale != 1.0,
                format!("embedding_scale={}", self.embedding_scale),
            );
            add(
                gated && !self.alpha_shared,
                "alpha=per-sub-layer".to_owned(),
            );
        }
        add(
            gated && self.alpha_per_channel,
            "alpha=per-channel".to_owned(),
        );
        add(
            gated && self.alpha_bound > 0.0,
            format!("alpha_bound={}", self.alpha_bound),
        );
        text
    }

    /// SHA-256 of everything that decides the run's numbers: a run is continued with the same value.
    pub fn fingerprint(&self) -> String {
        let same = Self {
            // Where it computes and what it keeps may change in mid-run.
            device: String::new(),
            prefetch: 0,
            keep: 1,
            ..self.clone()
        };
        let digest = Sha256::digest(same.to_toml());
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The recipe as the text of a recipe file, every key given.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is a TOML table")
    }
}

impl Resolved {
    /// Applies `overrides` and validates the result.
    ///
    /// # Errors
    ///
    /// As [`Recipe::resolve`].
    pub fn with(self, overrides: &[Override]) -> Result<Self> {
        let mut table = toml::Table::try_from(&self.recipe).expect("a recipe is a TOML table");
        let (mut changes, mut applied) = (BTreeMap::new(), self.overrides);
        let mut given = Vec::new();
        for Override { key, value } in overrides {
            let old = table.get(key).cloned();
            set(&mut table, key, parse_value(value))?;
            given.push(key);
            let new = &table[key];
            let old = old.expect("set() checked the key");
            if old != *new {
                changes.insert(key.clone(), format!("{key}: {old} -> {new}"));
            }
            applied.insert(key.clone(), new.clone());
        }
        let mut recipe: Recipe = table.try_into().map_err(|e| Error::Recipe {
            name: self.name.clone(),
            message: format!("{e}"),
        })?;
        if recipe.is_text() {
            recipe.epochs = 1;
            // Milestones are epochs, of which text has one.
            if recipe.schedule == ScheduleKind::MultiStep {
                check(
                    !given.iter().any(|key| *key == "schedule"),
                    "schedule",
                    "text takes constant or one-cycle, got multi-step".to_owned(),
                )?;
                recipe.schedule = ScheduleKind::Constant;
            }
        }
        // Silence would let someone believe in a setting that does nothing.
        if let Some(key) = given.iter().find(|key| recipe.is_foreign(key)) {
            return Err(Error::RecipeValue {
                key: (*key).clone(),
                message: format!("has no meaning for a {}; leave it out", recipe.model),
            });
        }
        recipe.validate()?;
        Ok(Self {
            name: self.name,
            recipe,
            changes: changes.into_values().collect(),
            overrides: applied,
        })
    }

    /// A folder name that tells runs of different settings apart: the recipe's name and every
    /// override.
    pub fn run_name(&self) -> String {
        let mut name = self.name.clone();
        for (key, value) in &self.overrides {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            name.push_str(&format!("_{key}={text}"));
        }
        name.chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '=' => c,
                _ => '-',
            })
            .take(200)
            .collect()
    }
}

fn check(ok: bool, key: &str, message: String) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::RecipeValue {
        key: key.to_owned(),
        message,
    })
}

/// The text of a recipe file, which is small: a larger file is not one.
fn read_file(path: &str) -> Result<String> {
    const MOST: u64 = 1 << 20;
    let meta = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    if !meta.is_file() {
        return Err(Error::Recipe {
            name: path.to_owned(),
            message: "is not a file".to_owned(),
        });
    }
    let length = meta.len();
    if length > MOST {
        return Err(Error::Recipe {
            name: path.to_owned(),
            message: format!("is {length} bytes, more than any recipe has ({MOST})"),
        });
    }
    std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

/// A value typed on the command line: TOML where it parses as such, else a bare string.
fn parse_value(text: &str) -> toml::Value {
    format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// Sets one key of a complete recipe table, checking key and type on their own so that the message
/// can name both.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<()> {
    if !table.contains_key(key) {
        return Err(Error::UnknownKey {
            key: key.to_owned(),
            nearest: nearest(key, table.keys().map(String::as_str)),
        });
    }
    let mut single = toml::Table::new();
    single.insert(key.to_owned(), value.clone());
    let parsed: Recipe = single.try_into().map_err(|e: toml::de::Error| {
        // The first line says what is wrong, the rest points into a text the user never wrote.
        let message = e.message().to_owned();
        let hint = suggestion(&message, &value).unwrap_or_default();
        Error::RecipeValue {
            key: key.to_owned(),
            message: format!("{message}{hint}"),
        }
    })?;
    // Take the value back from the typed recipe, so that `lr=1` is stored as the float it is.
    let mut typed = toml::Table::try_from(parsed).expect("a recipe is a TOML table");
    let typed = typed.remove(key).expect("every key of a recipe is written");
    table.insert(key.to_owned(), typed);
    Ok(())
}

/// The valid names of an enum, which serde lists in backticks.
fn expected_names(message: &str) -> impl Iterator<Item = &str> {
    let (_, list) = message.split_once("expected").unwrap_or_default();
    list.split('`').skip(1).step_by(2)
}

/// Which of the valid names was probably meant.
fn suggestion(message: &str, value: &toml::Value) -> Option<String> {
    let meant = nearest(value.as_str()?, expected_names(message))?;
    Some(format!("; did you mean `{meant}`?"))
}
