//! The gates of any module.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::Tensor;

use crate::rezero::Bound;

/// A [`ReZero`](crate::ReZero) gate inside a module.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The path of its α, such as `layers.3.residual.rezero.alpha`.
    pub path: String,
    /// The id of its α.
    pub id: ParamId,
    /// α: one value, or one per channel.
    pub raw: Vec<f32>,
    /// The factors of the branch: α, or `C · tanh(α / C)` where the gate is bounded.
    pub effective: Vec<f32>,
}

/// Every gate of `module`, in the order of its fields. Reads the values from the device.
///
/// A gate is the parameter `alpha` of a [`ReZero`](crate::ReZero) module. The name alone is not
/// enough: the slopes of Burn's `PRelu` are called `alpha` too.
///
/// ```
/// use burn::nn::{LinearConfig, PReluConfig};
/// use burn::tensor::Device;
/// use rezero_nn::{ReZeroConfig, gates};
///
/// let device = Device::flex();
/// let branch = (LinearConfig::new(4, 4).init(&device), LinearConfig::new(4, 4).init(&device));
/// let block = ReZeroConfig::new().with_alpha(0.5).init_block(branch, &device);
/// let net = (block, PReluConfig::new().init(&device));
/// let found = gates(&net);
/// assert_eq!(found.len(), 1);
/// assert_eq!((found[0].path.as_str(), found[0].raw[0]), ("0.rezero.alpha", 0.5));
/// ```
pub fn gates<M: Module>(module: &M) -> Vec<Gate> {
    let mut visitor = Values::default();
    module.visit(&mut visitor);
    visitor.found
}

/// The parameter group of all gates of `module`. It gives them an optimizer or a learning rate of
/// their own.
///
/// α is one number that scales a whole layer. So its gradient is a sum over the layer, and its
/// scale differs from that of a weight. The authors advise against weight decay on α
/// (github.com/majumderb/rezero, issue 14).
///
/// The group holds the ids of the gates, which a saved record stores. Take a new group for a
/// network that has [grown](crate::Grow).
///
/// ```
/// use burn::optim::{AdaGradConfig, SgdConfig};
/// use burn::tensor::Device;
/// use rezero_nn::{MlpConfig, gate_group};
///
/// let net = MlpConfig::new(8, 16, 4, 2).init(&Device::flex().autodiff());
/// let optimizer = SgdConfig::new()
///     .with_weight_decay(Some(burn::optim::decay::WeightDecayConfig::new(5e-4)))
///     .init()
///     .with_group(gate_group(&net), AdaGradConfig::new().build(), None);
/// ```
pub fn gate_group<M: Module>(module: &M) -> ParamGroup {
    let mut visitor = Ids::default();
    module.visit(&mut visitor);
    ParamGroup::from_ids(visitor.found)
}

/// The place of a visitor: the names of the fields that lead to it, and the types that hold them.
#[derive(Default)]
struct Path(Vec<(String, String)>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_owned(), container.to_owned()));
    }

    fn is_gate(&self) -> bool {
        let last = self.0.last();
        last.is_some_and(|(name, holder)| name == "alpha" && holder == "Struct:ReZero")
    }

    fn dotted(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.join(".")
    }
}

#[derive(Default)]
struct Values {
    path: Path,
    found: Vec<Gate>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        // A visitor sees a gate's bound after its α.
        if container_type == Bound::CONTAINER
            && let (Ok(c), Some(gate)) = (name.parse::<f32>(), self.found.last_mut())
        {
            gate.effective = gate
                .raw
                .iter()
                .map(|alpha| (alpha / c).tanh() * c)
                .collect();
        }
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.is_gate() {
            let raw: Vec<f32> = param.val().into_data().iter::<f32>().collect();
            self.found.push(Gate {
                path: self.path.dotted(),
                id: param.id,
                effective: raw.clone(),
                raw,
            });
        }
    }
}

#[derive(Default)]
struct Ids {
    path: Path,
    found: Vec<ParamId>,
}

impl ModuleVisitor for Ids {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.is_gate() {
            self.found.push(param.id);
        }
    }
}
