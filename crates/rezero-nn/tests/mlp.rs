//! The fully connected network against its formula.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Int, Tensor};
use rezero_nn::{MlpConfig, ResidualScheme, gates, parameter_count};

use crate::helpers::{opened, random, scheme, values};

fn input(device: &Device) -> Tensor<2> {
    random([5, 12], device)
}

#[test]
fn a_new_network_is_its_first_and_last_layer() {
    let device = Device::flex();
    let mlp = MlpConfig::new(12, 16, 300, 3).init(&device);
    let x = input(&device);
    let expected = mlp.output.forward(relu(mlp.input.forward(x.clone())));
    assert!(
        mlp.forward(x)
            .into_data()
            .iter::<f32>()
            .zip(expected.into_data().iter::<f32>())
            .all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0))
    );
    let layers = 300 * (16 * 16 + 16 + 1);
    assert_eq!(parameter_count(&mlp), 12 * 16 + 16 + layers + 16 * 3 + 3);
}

#[test]
fn every_scheme_is_its_formula() {
    let device = Device::flex().autodiff();
    for scheme in [
        ResidualScheme::Plain,
        ResidualScheme::Residual,
        ResidualScheme::ReZero,
        ResidualScheme::PostNorm,
        ResidualScheme::PreNorm,
    ] {
        let mlp = MlpConfig::new(12, 16, 4, 3)
            .with_residual(opened(scheme, 0.3))
            .init(&device);
        let x = input(&device);
        let mut y = relu(mlp.input.forward(x.clone()));
        for layer in &mlp.layers {
            let branch = |x: Tensor<2>| relu(layer.linear.forward(x));
            let norm = |x: Tensor<2>| layer.residual.norm.as_ref().unwrap().forward(x);
            y = match scheme {
                ResidualScheme::Plain => branch(y),
                ResidualScheme::Residual => y.clone() + branch(y),
                ResidualScheme::ReZero => y.clone() + branch(y) * 0.3,
                ResidualScheme::PostNorm => norm(y.clone() + branch(y)),
                _ => y.clone() + branch(norm(y)),
            };
        }
        if let Some(norm) = &mlp.norm {
            y = norm.forward(y);
        }
        let expected = mlp.output.forward(y).into_data();
        let found = mlp.forward(x).into_data();
        for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-5, "{scheme:?}: {found} for {expected}");
        }
    }
}

/// `0.4 · sin(1.3 i + phase)`: the same in every run.
fn wave<const D: usize>(shape: [usize; D], phase: f32, device: &Device) -> Tensor<D> {
    let n = shape.iter().product::<usize>() as i64;
    let i = Tensor::<1, Int>::arange(0..n, device).float();
    ((i * 1.3 + phase).sin() * 0.4).reshape(shape)
}

/// Where parameter number `i` is moved to, to take the loss's slope there.
fn direction<const D: usize>(i: usize, shape: [usize; D], device: &Device) -> Tensor<D> {
    wave(shape, 11.0 + i as f32, device)
}

/// Sets every parameter to a wave of its own, and adds `step` times the direction to number `moved`.
struct Place {
    seen: usize,
    moved: usize,
    step: f32,
}

impl ModuleMapper for Place {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (i, step) = (self.seen, self.step);
        self.seen += 1;
        let moved = i == self.moved;
        param.map(|old| {
            let (shape, device) = (old.dims(), Device::flex());
            let new = wave(shape, i as f32, &device);
            let new = match moved {
                true => new + direction(i, shape, &device) * step,
                false => new,
            };
            Tensor::from_data(new.into_data(), &old.device()).require_grad()
        })
    }
}

/// The slope of the loss along the direction of each parameter.
struct Slopes {
    gradients: GradientsParams,
    slopes: Vec<f32>,
}

impl ModuleVisitor for Slopes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(param.id).expect("a gradient");
        let direction = direction(self.slopes.len(), gradient.dims(), &gradient.device());
        let slope = (gradient * direction).sum();
        self.slopes.push(slope.into_scalar());
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let device = Device::flex().autodiff();
    for rule in [
        ResidualScheme::Plain,
        ResidualScheme::Residual,
        ResidualScheme::ReZero,
    ] {
        let mlp = MlpConfig::new(5, 7, 3, 2)
            .with_residual(scheme(rule))
            .init(&device);
        let at = |moved: usize, step: f32| {
            mlp.clone().map(&mut Place {
                seen: 0,
                moved,
                step,
            })
        };
        // Squares, so that the gradient that enters differs from logit to logit.
        let loss = |mlp: &rezero_nn::Mlp| {
            let x = wave([3, 5], 2.0, &device);
            (mlp.forward(x) + wave([3, 2], 5.0, &device)).square().sum()
        };
        let placed = at(usize::MAX, 0.0);
        let mut slopes = Slopes {
            gradients: GradientsParams::from_grads(loss(&placed).backward(), &placed),
            slopes: Vec::new(),
        };
        placed.visit(&mut slopes);
        // Input, output and three layers: a weight and a bias each, and α.
        let gates = if rule.has_gate() { 3 } else { 0 };
        assert_eq!(slopes.slopes.len(), 10 + gates);
        // Small enough that no ReLU changes sides.
        let step = 2e-3;
        for (i, slope) in slopes.slopes.into_iter().enumerate() {
            let at = |step: f32| loss(&at(i, step)).into_scalar::<f32>();
            let measured = (at(step) - at(-step)) / (2.0 * step);
            assert!(
                (slope - measured).abs() <= 2e-3 * measured.abs().max(0.1),
                "{rule}, parameter {i}: {slope}, measured {measured}"
            );
        }
    }
}

/// The paper's depth. As in the trainer, on a thread with room for autodiff's recursion.
#[test]
fn ten_thousand_layers_have_gradients() {
    let test = || {
        let device = Device::flex().autodiff();
        let mlp = MlpConfig::new(12, 4, 10_000, 3).init(&device);
        let loss = mlp.forward(input(&device)).square().mean();
        let gradients = loss.backward();
        for layer in [&mlp.layers[0], &mlp.layers[9_999]] {
            let alpha = &layer.residual.rezero.as_ref().expect("a gate").alpha;
            let gradient = alpha.val().grad(&gradients).expect("a gradient");
            assert!(gradient.into_scalar::<f32>().is_finite());
        }
        let first = mlp.input.weight.val().grad(&gradients).expect("a gradient");
        let largest = first.abs().max().into_scalar::<f32>();
        assert!(largest > 0.0 && largest.is_finite(), "{largest}");
    };
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
#[should_panic(expected = "d_input, width and num_classes must be greater than zero")]
fn a_width_of_zero_is_refused() {
    MlpConfig::new(12, 0, 4, 3).init(&Device::flex());
}

/// 10,000 layers in a thread of 2 MiB, which a test has: nothing recurses over them.
#[test]
fn ten_thousand_layers_need_no_stack() {
    let device = Device::flex();
    let config = |n| MlpConfig::new(6, 4, n, 3);
    let build = |depth| config(depth).init(&device.clone().autodiff());
    let x = Tensor::<2>::random([2, 6], Distribution::Default, &device);
    let mut net = build(10_000);
    let mut optimizer: burn::optim::ModuleOptimizer = burn::optim::AdaGradConfig::new().init();
    let logits = net.forward(Tensor::from_inner(x.clone()));
    let gradients = GradientsParams::from_grads(logits.square().mean().backward(), &net);
    net = optimizer.step(0.01, net, gradients);
    let after = net.valid().forward(x.clone()).into_data();
    let record = net.into_record();
    let net = build(10_000).try_load_record(record).unwrap().valid();
    assert_eq!(net.forward(x.clone()).into_data(), after);
    let deeper = rezero_nn::Grow::grow(&config(10_100), net, rezero_nn::Place::Even).unwrap();
    assert_eq!(deeper.forward(x.clone()).into_data(), after);
    let jacobian = rezero_nn::JacobianProbe::new().run(|x| deeper.hidden(x), x.slice([0..1, 0..4]));
    assert_eq!(jacobian.unwrap()[0].dims(), [4, 4]);
    drop(rezero_nn::Fold::fold(deeper));
}

/// Plain gradient descent on the parts as they come.
struct Descend(f64);

impl rezero_nn::Update for Descend {
    fn update<M: Module>(
        &mut self,
        _first_layer: Option<usize>,
        part: M,
        gradients: GradientsParams,
    ) -> M {
        let mut sgd = burn::optim::SgdConfig::new().init();
        sgd.step(self.0, part, gradients)
    }
}

#[test]
fn segments_give_the_updates_of_a_whole_pass() {
    let device = Device::flex().autodiff();
    for &rule in MlpConfig::SCHEMES {
        // Norms without a skip path magnify what rounding leaves, by how much depends on the weights.
        let bound = match rule {
            ResidualScheme::PlainNorm => 2e-2,
            _ => 2e-4,
        };
        for segment in [1, 3, 7, 20] {
            let config = MlpConfig::new(12, 8, 7, 3).with_residual(opened(rule, 0.3));
            let net = config.init(&device);
            let x = input(&device);
            let loss = |logits: Tensor<2>| logits.square().mean();
            let gradients = loss(net.forward(x.clone())).backward();
            let gradients = GradientsParams::from_grads(gradients, &net);
            let whole = burn::optim::SgdConfig::new()
                .init()
                .step(0.1, net.clone(), gradients);
            let parts = net
                .clone()
                .train_by_segments(x.clone(), segment, loss, &mut Descend(0.1));
            let moved = |net: &rezero_nn::Mlp| -> Vec<f32> {
                values(net.valid().forward(x.clone().inner()))
            };
            for (found, expected) in moved(&parts).iter().zip(moved(&whole)) {
                let error = (found - expected).abs() / expected.abs().max(1.0);
                assert!(error < bound, "{rule} {segment}: {found} for {expected}");
            }
            assert!(moved(&parts) != moved(&net), "{rule}");
            for (found, expected) in gates(&parts).iter().zip(gates(&whole)) {
                assert_eq!((&found.path, found.id), (&expected.path, expected.id));
                assert!(
                    (found.raw[0] - expected.raw[0]).abs() < 1e-6,
                    "{rule} {segment}"
                );
            }
        }
    }
}
