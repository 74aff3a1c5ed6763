//! The families of networks that recipes can name. Each is a file here: its `[model]` section, how
//! it makes a network from the section, and how the network serves its task.
//!
//! To add a family, add its file and its line in `families!` below.

mod byte_lm;
mod cifar_resnet;
mod family;
mod mixer;
mod mlp;
mod preact_resnet;
mod vit;

pub use byte_lm::Section as ByteLm;
pub use family::{Families, Family, ImagesOfFile, Recognised, Zoo};

use family::{of_layers, untold_of_layers};

use burn::module::Module;
use burn::tensor::Device;
use rezero_nn::{GrowError, Place, ResidualScheme};

use crate::error::Result;
use crate::recipe::check::check as require;
use crate::recipe::{Gates, Settings, TaskOf};
use crate::task::Domain;

/// The weights take 16 GB, the gradients as much again, and Adam's state twice as much.
const MAX_PARAMETERS: u64 = 4_000_000_000;

/// The most rows of a Jacobian between hidden values of a sequence, which is cut to fit.
const JACOBIAN_ROWS: usize = 512;

macro_rules! families {
    ($($task:ident: $Domain:ident { $($name:literal $file:ident $Variant:ident,)+ })+) => {
        $(
            #[doc = concat!("The families of the task `", stringify!($task), "`.")]
            pub mod $task {
                use burn::module::Module;
                use burn::optim::GradientsParams;
                use burn::store::ModuleRecord;
                use burn::tensor::Device;
                use rezero_nn::torch::{ImportError, LoadRules, Loaded, StoredAs, TorchWeights};
                use rezero_nn::{
                    Gate, GrowError, Jacobian, JacobianError, Place, ResidualScheme,
                };

                use super::Family as _;
                use crate::error::Result;
                use crate::fit::{self, PartUpdate, Pass, Sums};
                use crate::recipe::{Gates, Train};
                use crate::record::Weights;
                use crate::task::{$Domain as Task, Domain};

                /// The `[model]` section of a family of this task.
                #[derive(
                    Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize,
                    schemars::JsonSchema,
                )]
                #[serde(tag = "family")]
                pub enum Family {
                    $(
                        #[doc = concat!("`family = \"", $name, "\"`")]
                        #[serde(rename = $name)]
                        $Variant(super::$file::Section),
                    )+
                }

                /// A network of this task.
                #[derive(Module, Debug)]
                // There is one per run.
                #[allow(clippy::large_enum_variant)]
                pub enum Network {
                    $(
                        #[doc = concat!("Of `family = \"", $name, "\"`.")]
                        $Variant(super::$file::Network),
                    )+
                }

                impl super::Families<Task> for Family {
                    fn name(&self) -> &'static str {
                        match self { $(Self::$Variant(_) => $name),+ }
                    }

                    fn schemes(&self) -> &'static [ResidualScheme] {
                        match self { $(Self::$Variant(_) => super::$file::Section::schemes()),+ }
                    }

                    fn scheme(&self) -> ResidualScheme {
                        match self { $(Self::$Variant(section) => section.scheme()),+ }
                    }

                    fn depth(&self) -> usize {
                        match self { $(Self::$Variant(section) => section.depth()),+ }
                    }

                    fn with_depth(self, depth: usize) -> Self {
                        match self {
                            $(Self::$Variant(section) => {
                                Self::$Variant(section.with_depth(depth))
                            }),+
                        }
                    }

                    fn layers(&self) -> usize {
                        match self { $(Self::$Variant(section) => section.layers()),+ }
                    }

                    fn needs(&self) -> <Task as Domain>::Needs {
                        match self { $(Self::$Variant(section) => section.needs()),+ }
                    }

                    fn identity(&self) -> String {
                        match self { $(Self::$Variant(section) => section.identity()),+ }
                    }

                    fn jacobian(&self) -> &'static str {
                        match self { $(Self::$Variant(_) => super::$file::Section::JACOBIAN),+ }
                    }

                    fn sub_layers(&self) -> bool {
                        match self { $(Self::$Variant(_) => super::$file::Section::SUB_LAYERS),+ }
                    }

                    fn recomputes(&self) -> bool {
                        match self { $(Self::$Variant(_) => super::$file::Section::RECOMPUTES),+ }
                    }

                    fn reshapes(&self) -> &'static [&'static str] {
                        match self { $(Self::$Variant(_) => super::$file::Section::RESHAPES),+ }
                    }

                    fn check(&self, train: &Train) -> Result<()> {
                        match self { $(Self::$Variant(section) => section.check(train)),+ }
                    }

                    fn takes(&self, form: &<Task as Domain>::Form) -> Result<()> {
                        match self { $(Self::$Variant(section) => section.takes(form)),+ }
                    }

                    fn init(
                        &self,
                        gates: &Gates,
                        form: &<Task as Domain>::Form,
                        device: &Device,
                    ) -> Network {
                        match self {
                            $(Self::$Variant(section) => {
                                Network::$Variant(section.init(gates, form, device))
                            }),+
                        }
                    }

                    fn grow(
                        &self,
                        gates: &Gates,
                        form: &<Task as Domain>::Form,
                        network: Network,
                        place: Place,
                    ) -> Result<Network, GrowError> {
                        match (self, network) {
                            $((Self::$Variant(section), Network::$Variant(network)) => section
                                .grow(gates, form, network, place)
                                .map(Network::$Variant),)+
                            #[allow(unreachable_patterns)]
                            (section, _) => Err(GrowError::Shape(format!(
                                "the network is not a {}",
                                super::Families::<Task>::name(section)
                            ))),
                        }
                    }

                    fn recognised(
                        weights: &TorchWeights,
                    ) -> Option<(&'static str, &'static str, super::Recognised)> {
                        $(if let Some(mut found) = super::$file::Section::recognised(weights) {
                            let described =
                                super::$file::Section::default().described(&Gates::default());
                            found.keys = described.into_iter().map(|(key, _)| key).collect();
                            return Some(($name, super::$file::Section::RECIPE, found));
                        })+
                        None
                    }

                    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)> {
                        match self { $(Self::$Variant(section) => section.described(gates)),+ }
                    }

                    fn untold(&self) -> Vec<&'static str> {
                        match self { $(Self::$Variant(section) => section.untold()),+ }
                    }

                    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String> {
                        match self {
                            $(Self::$Variant(section) => section.unknown_in_pytorch(gates)),+
                        }
                    }

                    fn interpolates(
                        &self,
                        before: &<Task as Domain>::Form,
                        after: &<Task as Domain>::Form,
                    ) -> &'static [&'static str] {
                        match self {
                            $(Self::$Variant(section) => section.interpolates(before, after)),+
                        }
                    }
                }

                impl super::Zoo for Network {
                    type Logits = <Task as Domain>::Logits;

                    fn logits(&self, batch: &Self::Batch) -> Self::Logits {
                        match self {
                            $(Self::$Variant(net) => super::$file::Section::logits(net, batch)),+
                        }
                    }

                    fn with_torch(
                        self,
                        weights: &TorchWeights,
                        rules: &LoadRules,
                    ) -> Result<(Self, Loaded), ImportError> {
                        match self {
                            $(Self::$Variant(net) => {
                                rezero_nn::torch::load_with(net, weights, rules)
                                    .map(|(net, loaded)| (Self::$Variant(net), loaded))
                            }),+
                        }
                    }

                    fn to_torch(
                        &self,
                        stored: StoredAs,
                        metadata: Vec<(String, String)>,
                    ) -> Result<Vec<u8>, ImportError> {
                        match self {
                            $(Self::$Variant(net) => rezero_nn::torch::export_as(net, stored, metadata)),+
                        }
                    }

                    fn interpolate(self, source: Self) -> Self {
                        match (self, source) {
                            $((Self::$Variant(network), Self::$Variant(source)) => Self::$Variant(
                                super::$file::Section::interpolate(network, source),
                            ),)+
                            #[allow(unreachable_patterns)]
                            (network, _) => network,
                        }
                    }

                    fn jacobians(
                        &self,
                        batch: &Self::Batch,
                    ) -> Result<Vec<Jacobian>, JacobianError> {
                        match self {
                            $(Self::$Variant(net) => super::$file::Section::jacobians(net, batch)),+
                        }
                    }
                }

                impl fit::Model for Network {
                    type Batch = <Task as Domain>::Batch;

                    const HALF: bool = true;

                    fn recomputes(&self) -> bool {
                        match self {
                            $(Self::$Variant(_) => super::$file::Section::RECOMPUTES),+
                        }
                    }

                    fn loss(&self, batch: &Self::Batch) -> Sums {
                        Task::sums(super::Zoo::logits(self, batch), batch)
                    }

                    fn gradients(
                        &self,
                        batch: &Self::Batch,
                        pass: &Pass,
                    ) -> (Sums, GradientsParams) {
                        if pass.recompute {
                            let found = match self {
                                $(Self::$Variant(net) => {
                                    super::$file::Section::recomputed(net, batch, pass)
                                }),+
                            };
                            if let Some(found) = found {
                                return found;
                            }
                        }
                        fit::differentiate(self, batch, pass)
                    }

                    fn update_by_parts(
                        self,
                        batch: &Self::Batch,
                        pass: &Pass,
                        update: &mut PartUpdate<'_>,
                    ) -> Result<(Self, Sums), Self> {
                        match self {
                            $(Self::$Variant(net) => {
                                super::$file::Section::update_by_parts(net, batch, pass, update)
                                    .map(|(net, sums)| (Self::$Variant(net), sums))
                                    .map_err(Self::$Variant)
                            }),+
                        }
                    }

                    fn gates(&self) -> Vec<Gate> {
                        match self { $(Self::$Variant(net) => rezero_nn::gates(net)),+ }
                    }

                    fn diagnose(&self, gradients: &GradientsParams) -> String {
                        match self { $(Self::$Variant(net) => fit::diagnose(net, gradients)),+ }
                    }

                    /// The weights of the inner network, so that a checkpoint's paths are those of
                    /// rezero-nn.
                    fn to_weights(&self) -> Weights {
                        match self { $(Self::$Variant(net) => Weights::of(net)),+ }
                    }

                    fn with_weights(self, record: ModuleRecord) -> Result<Self, String> {
                        match self {
                            $(Self::$Variant(net) => net
                                .try_load_record(record)
                                .map(Self::$Variant)
                                .map_err(|e| e.to_string())),+
                        }
                    }
                }
            }
        )+

        /// A `[model]` section with the `given` keys and all others at their defaults, or the
        /// reason why it cannot be read.
        pub(crate) fn complete(given: toml::Table) -> Result<toml::Table, String> {
            match is_of_text(&given) {
                true => crate::recipe::complete::<text::Family>(given),
                false => crate::recipe::complete::<images::Family>(given),
            }
        }

        /// The JSON schema of all families, each with the schemes that it supports.
        pub(crate) fn schema() -> serde_json::Value {
            let kinds = vec![$($(
                of_family($name, crate::recipe::schema_of::<$file::Section>(), $file::Section::schemes()),
            )+)+];
            serde_json::json!({ "oneOf": kinds })
        }
    };
}
families! {
    images: Images {
        "cifar-resnet" cifar_resnet CifarResNet,
        "preact-resnet" preact_resnet PreActResNet,
        "mlp" mlp Mlp,
        "vit" vit Vit,
        "mixer" mixer Mixer,
    }
    text: Text {
        "byte-lm" byte_lm ByteLm,
    }
}

/// The schema of a family's section as one of the kinds of `[model]`.
fn of_family(
    name: &str,
    mut schema: serde_json::Value,
    schemes: &[ResidualScheme],
) -> serde_json::Value {
    schema["properties"]["family"] = serde_json::json!({ "type": "string", "const": name });
    schema["required"] = serde_json::json!(["family"]);
    if let Some(all) = schema["properties"]["scheme"]["oneOf"].as_array_mut() {
        all.retain(|scheme| schemes.iter().any(|s| scheme["const"] == s.name()));
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        schema.remove("title");
    }
    schema
}

/// Whether a `[model]` section is of a family of text.
pub(crate) fn is_of_text(model: &toml::Table) -> bool {
    let family = model.get("family").and_then(toml::Value::as_str);
    let schema = crate::recipe::schema_of::<text::Family>();
    let names = schema["oneOf"].as_array().into_iter().flatten();
    names
        .filter_map(|kind| kind["properties"]["family"]["const"].as_str())
        .any(|name| Some(name) == family)
}

/// The identity of a network: the weights of a checkpoint fit all networks with the same text.
pub(crate) fn identity<D: Domain>(of: &TaskOf<D>, gates: &Gates) -> String {
    let model = &of.model;
    format!(
        "{} depth={} scheme={}{}{}{}",
        model.name(),
        model.depth(),
        model.scheme(),
        model.identity(),
        D::identity(&D::form(&of.data)),
        gates.identity(model.scheme(), model.sub_layers())
    )
}

/// The difference between two networks that keeps one from beginning with the weights of the other, given
/// their [`identity`]: `depth=20, not depth=14`. Input and output may differ, of which an identity says
/// nothing, and what the family can make anew.
pub(crate) fn differs<D: Domain>(of: &TaskOf<D>, own: &str, source: &str) -> Option<String> {
    let may = |word: &str| {
        let key = word.split_once('=').map_or(word, |(key, _)| key);
        D::FORM_KEYS.contains(&key) || of.model.reshapes().contains(&key)
    };
    let words = |text: &str| -> Vec<String> {
        let words = text.split(' ').filter(|word| !may(word));
        words.map(str::to_owned).collect()
    };
    let (own, source) = (words(own), words(source));
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|word| !b.contains(word)).cloned().collect()
    };
    let (has, lacks) = (only(&source, &own), only(&own, &source));
    let [has, lacks] = [has.join(" "), lacks.join(" ")];
    (own != source).then(|| match (has.is_empty(), lacks.is_empty()) {
        (true, _) => format!("nothing like {lacks}"),
        (false, true) => format!("also {has}"),
        (false, false) => format!("{has}, not {lacks}"),
    })
}

/// Checks ranges, and that the network, its data and the settings fit together.
pub(crate) fn check<D: Domain>(of: &TaskOf<D>, settings: &Settings) -> Result<()> {
    let (model, scheme) = (&of.model, of.model.scheme());
    let names: Vec<&str> = model.schemes().iter().map(|s| s.name()).collect();
    require(
        model.schemes().contains(&scheme),
        "model.scheme",
        format!(
            "a {} has the schemes {}, got {scheme}",
            model.name(),
            names.join(", ")
        ),
    )?;
    model.check(&settings.train)?;
    if D::is_complete(&of.data) {
        model.takes(&D::form(&of.data))?;
    }
    D::check(of, settings)
}

/// Keys that have no effect on this network.
pub(crate) fn idle<D: Domain>(of: &TaskOf<D>) -> Vec<crate::recipe::Idle> {
    use crate::recipe::Idle;
    let (model, scheme) = (&of.model, of.model.scheme());
    let mut idle: Vec<Idle> = D::idle(&of.data)
        .into_iter()
        .map(|(key, why)| Idle {
            key: key.to_owned(),
            why,
        })
        .collect();
    if !scheme.has_gate() {
        let gates = crate::recipe::table(&Gates::default());
        let why = format!("the scheme {scheme} has no gate");
        idle.extend(
            gates
                .keys()
                .map(|key| Idle::new("gates", key, why.as_str())),
        );
    } else if !model.sub_layers() || !scheme.shares_gate() {
        let why = format!(
            "each gate of a {} with {scheme} is of one branch",
            model.name()
        );
        idle.push(Idle::new("gates", "alpha_shared", why));
    }
    if scheme.gates_channels() {
        let why = format!("the scheme {scheme} has one for each channel always");
        idle.push(Idle::new("gates", "alpha_per_channel", why));
    }
    if !model.recomputes() {
        let why = format!("a {} keeps its activations", model.name());
        idle.push(Idle::new("train", "recompute", why));
    }
    idle
}

/// The network of a recipe with its initial weights, sampled in the order of its parameters.
///
/// The weights are a function of the seed, see [`rezero_nn::initialized`]. With feature `flex` they
/// are sampled on the CPU and do not depend on the device.
pub fn draw<D: Domain>(
    of: &TaskOf<D>,
    settings: &Settings,
    form: &D::Form,
    device: &Device,
) -> D::Network {
    let host = drawing(device);
    host.seed(settings.train.seed);
    let network = of.model.init(&settings.gates, form, &host);
    rezero_nn::initialized(network).fork(device)
}

/// `network` with new layers up to the depth of the recipe; the new weights are a function of its
/// seed.
///
/// # Errors
///
/// As [`rezero_nn::Grow::grow`].
pub fn grow<D: Domain>(
    of: &TaskOf<D>,
    settings: &Settings,
    form: &D::Form,
    network: D::Network,
    place: Place,
) -> Result<D::Network, GrowError> {
    if let Some(device) = network.devices().first() {
        device.seed(settings.train.seed);
    }
    let network = of.model.grow(&settings.gates, form, network, place)?;
    Ok(rezero_nn::initialized(network))
}

/// The device that samples weights: every backend has its own random numbers.
#[cfg(feature = "flex")]
fn drawing(device: &Device) -> Device {
    match device.is_autodiff() {
        true => Device::flex().autodiff(),
        false => Device::flex(),
    }
}

#[cfg(not(feature = "flex"))]
fn drawing(device: &Device) -> Device {
    device.clone()
}
