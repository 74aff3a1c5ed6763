//! Blocks and networks against PyTorch: outputs, losses and the gradients of every parameter and of
//! the input. The numbers come from `fixtures/generate.py`, computed there in float64.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rezero_nn::resnet::{
    BasicBlock, CifarResNet, CifarResNetConfig, Definition, PreActBlock, PreActDepth, PreActResNet,
    PreActResNetConfig,
};
use rezero_nn::{ResidualConfig, ResidualScheme};

use super::backend::{device, every};
use super::support::{
    Array, Checks, Fixture, Named, cross_entropy, images, set_closed_form, targets,
};

/// Blocks: float32 PyTorch is within 3e-6 of the stored values, as is Flex, and another order of
/// summation may cost a few times as much; the smallest real mistake, the unbiased running variance
/// for the biased one, is above 1e-4.
const BLOCK: f64 = 2e-5;

/// Networks: twenty layers deepen float32 PyTorch's own error to 1e-5 and Flex's to 3e-5, mostly in
/// sums of tens of thousands of terms of both signs; a wrong shortcut, gate or order is above 1e-2.
const NETWORK: f64 = 1e-4;
/// For pre-activation ResNets, whose batch of a few images and 512 channels round most: the sum of the gradient of
/// `layer4.0.conv1` is off by 9.6e-5 with direct convolutions and by 1.1e-4 with Winograd's.
const PREACT_NETWORK: f64 = 2e-4;

trait Forward: Module + Named {
    fn apply(&self, x: Tensor<4>) -> Tensor<4>;
}

impl Forward for BasicBlock {
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward(x)
    }
}

impl Forward for PreActBlock {
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward(x)
    }
}

/// Runs `block` with the parameters of `case` and compares all that the fixture has of it.
fn check_block(fixture: &Fixture, case: &str, mut block: impl Forward, device: &Device) {
    let get = |key: &str| fixture.get(&format!("{case}/{key}"));
    let (mut params, mut buffers) = (BTreeSet::new(), BTreeSet::new());
    for (name, mut slot) in block.slots() {
        let (kind, seen) = match slot.is_param() {
            true => ("param", &mut params),
            false => ("buffer", &mut buffers),
        };
        slot.set(&get(&format!("{kind}/{name}")), device);
        seen.insert(name);
    }
    assert_eq!(params, fixture.names(&format!("{case}/param/")), "{case}");
    assert_eq!(buffers, fixture.names(&format!("{case}/buffer/")), "{case}");

    let mut checks = Checks::new(BLOCK);
    let inner = device.clone().inner();
    let evaluated = block.valid().apply(get("input").tensor(&inner));
    checks.near("output_eval", &Array::of(evaluated), &get("output_eval"));

    let input = get("input").tensor::<4>(device).require_grad();
    let output = block.apply(input.clone());
    let loss = (output.clone() * get("cotangent").tensor(device)).sum();
    let gradients = loss.backward();
    checks.near("output", &Array::of(output), &get("output"));
    checks.near("loss", &Array::of(loss), &get("loss"));
    match input.grad(&gradients) {
        Some(gradient) => checks.near("grad_input", &Array::of(gradient), &get("grad_input")),
        None => checks.fail("grad_input", "no gradient"),
    }
    for (name, slot) in block.slots() {
        let key = match slot.is_param() {
            true => format!("grad/{name}"),
            // Burn's running variance averages the biased batch variance.
            false if name.ends_with("running_var") => format!("after/{name}_biased"),
            false => format!("after/{name}"),
        };
        match slot.grad(&gradients) {
            _ if !slot.is_param() => checks.near(&key, &slot.get(), &get(&key)),
            Some(gradient) => checks.near(&key, &gradient, &get(&key)),
            None => checks.fail(&key, "no gradient"),
        }
    }
    checks.finish(case);
}

const BLOCKS: &[(&str, ResidualScheme, Definition)] = &[
    (
        "vanilla.same",
        ResidualScheme::Residual,
        Definition::Notebook,
    ),
    (
        "vanilla.notebook",
        ResidualScheme::Residual,
        Definition::Notebook,
    ),
    ("vanilla.table", ResidualScheme::Residual, Definition::Table),
    (
        "zero_gamma.same",
        ResidualScheme::ZeroGamma,
        Definition::Notebook,
    ),
    (
        "zero_gamma.notebook",
        ResidualScheme::ZeroGamma,
        Definition::Notebook,
    ),
    (
        "zero_gamma.table",
        ResidualScheme::ZeroGamma,
        Definition::Table,
    ),
    (
        "rezero_pos.same",
        ResidualScheme::ReZero,
        Definition::Notebook,
    ),
    (
        "rezero_pos.notebook",
        ResidualScheme::ReZero,
        Definition::Notebook,
    ),
    (
        "rezero_pos.table",
        ResidualScheme::ReZero,
        Definition::Table,
    ),
    ("rezero_neg.same", ResidualScheme::ReZero, Definition::Table),
    (
        "rezero_neg.notebook",
        ResidualScheme::ReZero,
        Definition::Notebook,
    ),
    (
        "rezero_neg.table",
        ResidualScheme::ReZero,
        Definition::Table,
    ),
    ("gated.same", ResidualScheme::Gated, Definition::Notebook),
    (
        "gated.notebook",
        ResidualScheme::Gated,
        Definition::Notebook,
    ),
    ("gated.table", ResidualScheme::Gated, Definition::Table),
    ("fixup.same", ResidualScheme::FixUp, Definition::Notebook),
    ("fixup.table", ResidualScheme::FixUp, Definition::Table),
    (
        "skipinit.same",
        ResidualScheme::SkipInit,
        Definition::Notebook,
    ),
    (
        "skipinit.notebook",
        ResidualScheme::SkipInit,
        Definition::Notebook,
    ),
];

fn blocks() -> Fixture {
    Fixture::parse(include_bytes!("fixtures/blocks.safetensors"))
}

fn check_residual_blocks(scheme: ResidualScheme) {
    let device = device().autodiff();
    let cases = BLOCKS.iter().filter(|(_, of, _)| *of == scheme);
    let mut seen = 0;
    for &(case, scheme, definition) in cases {
        let config = CifarResNetConfig::new(14)
            .with_residual(ResidualConfig::new(scheme))
            .with_definition(definition);
        // Blocks 0 and 1 have 16 channels, block 2 goes from 16 to 32 at stride 2.
        let down = !case.ends_with("same");
        let index = if down { 2 } else { 1 };
        let mut block = config.init(&device).blocks.swap_remove(index);
        if down {
            // The fixture goes from 4 channels to 8: the same shortcut, a quarter as wide.
            let both = definition == Definition::Notebook && scheme != ResidualScheme::FixUp;
            let zeros = (block.shortcut.before, block.shortcut.after);
            assert_eq!(zeros, if both { (8, 8) } else { (0, 16) }, "{case}");
            block.shortcut.before /= 4;
            block.shortcut.after /= 4;
        }
        check_block(&blocks(), case, block, &device);
        seen += 1;
    }
    assert!(seen > 0, "no case for {scheme}");
}

#[cfg_attr(test, test)]
pub fn vanilla_block() {
    check_residual_blocks(ResidualScheme::Residual);
}

#[cfg_attr(test, test)]
pub fn zero_gamma_block() {
    check_residual_blocks(ResidualScheme::ZeroGamma);
}

#[cfg_attr(test, test)]
pub fn rezero_block() {
    check_residual_blocks(ResidualScheme::ReZero);
}

#[cfg_attr(test, test)]
pub fn gated_block() {
    check_residual_blocks(ResidualScheme::Gated);
}

#[cfg_attr(test, test)]
pub fn fixup_block() {
    check_residual_blocks(ResidualScheme::FixUp);
}

/// Under both definitions: SkipInit keeps the padded shortcut.
#[cfg_attr(test, test)]
pub fn skipinit_block() {
    check_residual_blocks(ResidualScheme::SkipInit);
    let table = CifarResNetConfig::new(14)
        .with_residual(ResidualConfig::new(ResidualScheme::SkipInit))
        .with_definition(Definition::Table)
        .init(&device());
    let shortcut = &table.blocks[2].shortcut;
    assert_eq!((shortcut.before, shortcut.after), (8, 8));
    assert!(shortcut.norm.is_none());
}

const PREACT_BLOCKS: &[(&str, PreActDepth, ResidualScheme, usize)] = &[
    (
        "basic.vanilla.same",
        PreActDepth::D18,
        ResidualScheme::Residual,
        0,
    ),
    (
        "basic.vanilla.down",
        PreActDepth::D34,
        ResidualScheme::Residual,
        3,
    ),
    (
        "basic.rezero.same",
        PreActDepth::D18,
        ResidualScheme::ReZero,
        1,
    ),
    (
        "basic.rezero.down",
        PreActDepth::D18,
        ResidualScheme::ReZero,
        2,
    ),
    (
        "bottleneck.vanilla.same",
        PreActDepth::D50,
        ResidualScheme::Residual,
        1,
    ),
    (
        "bottleneck.vanilla.widen",
        PreActDepth::D50,
        ResidualScheme::Residual,
        0,
    ),
    (
        "bottleneck.vanilla.down",
        PreActDepth::D50,
        ResidualScheme::Residual,
        3,
    ),
    (
        "bottleneck.rezero.same",
        PreActDepth::D50,
        ResidualScheme::ReZero,
        1,
    ),
    (
        "bottleneck.rezero.widen",
        PreActDepth::D50,
        ResidualScheme::ReZero,
        0,
    ),
    (
        "bottleneck.rezero.down",
        PreActDepth::D50,
        ResidualScheme::ReZero,
        3,
    ),
];

fn preact_blocks() -> Fixture {
    Fixture::parse(include_bytes!("fixtures/preact.safetensors"))
}

fn check_preact_blocks(kind: &str) {
    let device = device().autodiff();
    for &(case, depth, scheme, index) in PREACT_BLOCKS {
        if case.starts_with(kind) {
            let config = PreActResNetConfig::new(depth).with_residual(ResidualConfig::new(scheme));
            let block = config.init(&device).blocks.swap_remove(index);
            check_block(&preact_blocks(), case, block, &device);
        }
    }
}

#[cfg_attr(test, test)]
pub fn preact_basic_block() {
    check_preact_blocks("basic");
}

#[cfg_attr(test, test)]
pub fn preact_bottleneck_block() {
    check_preact_blocks("bottleneck");
}

trait Classify: Module + Named {
    fn classify(&self, x: Tensor<4>) -> Tensor<2>;
}

impl Classify for CifarResNet {
    fn classify(&self, x: Tensor<4>) -> Tensor<2> {
        self.forward(x)
    }
}

impl Classify for PreActResNet {
    fn classify(&self, x: Tensor<4>) -> Tensor<2> {
        self.forward(x)
    }
}

fn networks() -> Fixture {
    Fixture::parse(include_bytes!("fixtures/networks.safetensors"))
}

/// Compares a gradient in full, or its sum, norm, projection and beginning.
fn check_gradient(
    checks: &mut Checks,
    fixture: &Fixture,
    case: &str,
    (p, name): (usize, &str),
    got: Option<Array>,
    covered: &mut BTreeSet<String>,
) {
    let Some(got) = got else {
        checks.fail(name, "no gradient");
        return;
    };
    covered.insert(name.to_owned());
    if fixture.names(&format!("{case}/grad/")).contains(name) {
        let key = format!("grad/{name}");
        checks.near(&key, &got, &fixture.get(&format!("{case}/{key}")));
        return;
    }
    let summary = fixture.get(&format!("{case}/summary/{name}"));
    checks.summary(name, p, &got.values, &summary.values);
    let key = format!("first/{name}");
    let first = Array {
        shape: vec![32],
        values: got.values[..32].to_vec(),
    };
    checks.near(&key, &first, &fixture.get(&format!("{case}/{key}")));
}

fn check_network(case: &str, mut net: impl Classify, tolerance: f64, device: &Device) {
    let fixture = networks();
    let get = |key: &str| fixture.get(&format!("{case}/{key}"));
    let [j, n, side] = fixture.integers(&format!("{case}/data"))[..] else {
        panic!("{case}/data is [j, n, side]");
    };
    set_closed_form(&mut net, false, device);
    let mut checks = Checks::new(tolerance);
    let inner = device.clone().inner();
    let logits = net.valid().classify(images(j, n, side, &inner));
    checks.near("logits_eval", &Array::of(logits), &get("logits_eval"));

    let input = images(j, n, side, device).require_grad();
    let logits = net.classify(input.clone());
    let loss = cross_entropy(logits.clone(), targets(j, n, device));
    checks.near("logits", &Array::of(logits), &get("logits"));
    checks.near("loss", &Array::of(loss.clone()), &get("loss"));
    let gradients = loss.backward();
    let stored = |kind: &str| fixture.names(&format!("{case}/{kind}/"));
    let stored = &stored("grad") | &stored("summary");
    // Of one network the fixture has the forward pass alone.
    if !stored.is_empty() {
        let params = net.slots().into_iter().filter(|(_, slot)| slot.is_param());
        let mut found: Vec<_> = params
            .map(|(name, slot)| (name, slot.grad(&gradients)))
            .collect();
        found.push(("input".into(), input.grad(&gradients).map(Array::of)));
        let mut covered = BTreeSet::new();
        for (p, (name, gradient)) in found.into_iter().enumerate() {
            let place = (p, name.as_str());
            check_gradient(&mut checks, &fixture, case, place, gradient, &mut covered);
        }
        assert_eq!(
            covered, stored,
            "{case}: every gradient of the fixture is compared"
        );
    }
    checks.finish(case);
}

const NETWORKS: &[(&str, usize, ResidualScheme, Definition)] = &[
    (
        "cifar20.rezero.notebook",
        20,
        ResidualScheme::ReZero,
        Definition::Notebook,
    ),
    (
        "cifar8.vanilla.notebook",
        8,
        ResidualScheme::Residual,
        Definition::Notebook,
    ),
    (
        "cifar8.vanilla.table",
        8,
        ResidualScheme::Residual,
        Definition::Table,
    ),
    (
        "cifar8.rezero.notebook",
        8,
        ResidualScheme::ReZero,
        Definition::Notebook,
    ),
    (
        "cifar8.rezero.table",
        8,
        ResidualScheme::ReZero,
        Definition::Table,
    ),
    (
        "cifar8.gated.notebook",
        8,
        ResidualScheme::Gated,
        Definition::Notebook,
    ),
    (
        "cifar8.gated.table",
        8,
        ResidualScheme::Gated,
        Definition::Table,
    ),
    ("cifar8.fixup", 8, ResidualScheme::FixUp, Definition::Table),
    (
        "cifar8.skipinit",
        8,
        ResidualScheme::SkipInit,
        Definition::Notebook,
    ),
];

const PREACT_NETWORKS: &[(&str, PreActDepth, ResidualScheme)] = &[
    (
        "preact18.vanilla",
        PreActDepth::D18,
        ResidualScheme::Residual,
    ),
    ("preact18.rezero", PreActDepth::D18, ResidualScheme::ReZero),
    ("preact50.rezero", PreActDepth::D50, ResidualScheme::ReZero),
];

#[cfg_attr(test, test)]
pub fn cifar_networks() {
    let device = device().autodiff();
    for &(case, depth, scheme, definition) in NETWORKS.iter().step_by(every()) {
        let config = CifarResNetConfig::new(depth)
            .with_residual(ResidualConfig::new(scheme))
            .with_definition(definition);
        check_network(case, config.init(&device), NETWORK, &device);
    }
}

#[cfg_attr(test, test)]
pub fn preact_networks() {
    let device = device().autodiff();
    for &(case, depth, scheme) in PREACT_NETWORKS.iter().step_by(every()) {
        let config = PreActResNetConfig::new(depth).with_residual(ResidualConfig::new(scheme));
        check_network(case, config.init(&device), PREACT_NETWORK, &device);
    }
}

/// No case of a fixture lies unread.
#[cfg_attr(test, test)]
pub fn every_case_is_compared() {
    let own = |names: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> {
        names.map(str::to_owned).collect()
    };
    assert_eq!(blocks().cases(), own(&mut BLOCKS.iter().map(|case| case.0)));
    let preact = own(&mut PREACT_BLOCKS.iter().map(|case| case.0));
    assert_eq!(preact_blocks().cases(), preact);
    let cifar = NETWORKS.iter().map(|case| case.0);
    let all = own(&mut cifar.chain(PREACT_NETWORKS.iter().map(|case| case.0)));
    assert_eq!(networks().cases(), all);
}
