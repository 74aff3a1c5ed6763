//! Schedules, optimizers and averages of weights against PyTorch: `fixtures/generate_training.py`.

use burn::module::{Module, ModuleVisitor, Param, ParamId, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::optim::lr_scheduler::LrScheduler;
use burn::tensor::{Device, Tensor, TensorData};
use rezero_train::fit::{Average, Rates, Scheduler, build_optimizer};
use rezero_train::recipe::{Recipe, Settings, TaskRecipe};
use serde_json::Value;

use crate::support::{network, recipe};

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/training.json")).expect("the fixture is JSON")
}

fn list(value: &Value) -> Vec<f64> {
    let all = value.as_array().expect("a list").iter();
    all.map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn decays_are_those_of_pytorch() {
    let fixture = fixture();
    let cases = fixture["schedules"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    for case in cases {
        let [lr, lr_end, warmup] = ["lr", "lr_end", "warmup"].map(|key| &case[key]);
        let span = case["span"].as_u64().expect("a number") as usize;
        let kind = case["kind"].as_str().expect("a name");
        let wanted = list(&case["rates"]);
        assert_eq!(wanted.len(), span);
        // A run of `span` steps in one epoch, and the same run with its warm-up in epochs and its end
        // within the last epoch.
        let epochs = warmup.as_f64().expect("a number") / 4.0;
        for (run, warmup, per_epoch, epochs) in [
            ("epochs = 1", format!("warmup_steps = {warmup}"), span, 1),
            (
                &format!("steps = {span}"),
                format!("warmup_epochs = {epochs:?}"),
                4,
                1000,
            ),
        ] {
            let settings = Settings::parse(&format!(
                "[optimizer]\nkind = 'sgd'\nlr = {lr}\nmomentum = 0.7\n\
                 [schedule]\nkind = '{kind}'\nlr_end = {lr_end}\n{warmup}\n[run]\n{run}"
            ));
            let settings = settings.expect("settings");
            let schedule = Scheduler::new(&settings, per_epoch, epochs, Rates::default());
            for (step, wanted) in wanted.iter().enumerate() {
                let (got, momentum) = schedule.at(step);
                assert!(
                    (got - wanted).abs() <= 1e-6 * lr.as_f64().unwrap(),
                    "{case} {run}, step {step}: {got}, PyTorch {wanted}"
                );
                assert_eq!(momentum, 0.7);
            }
        }
    }
}

/// The values that the fixture's script makes of the same seed.
fn numbers<const D: usize>(shape: [usize; D], seed: usize) -> TensorData {
    let value = |i: usize| (1.3 * i as f64 + 0.7 * seed as f64).sin() as f32;
    TensorData::new(
        (0..shape.iter().product()).map(value).collect::<Vec<_>>(),
        shape,
    )
}

fn close(what: &str, got: TensorData, wanted: &[f64], tolerance: f64) {
    assert_eq!(got.num_elements(), wanted.len(), "{what}");
    for (i, (got, wanted)) in got.iter::<f64>().zip(wanted).enumerate() {
        assert!(
            (got - wanted).abs() <= tolerance,
            "{what}, value {i}: {got}, reference {wanted}"
        );
    }
}

/// A network with one residual layer.
#[derive(Module, Debug)]
struct Layers<const D: usize> {
    layers: Vec<Param<Tensor<D>>>,
}

/// Steps of the optimizer of `settings` with the gradients of the fixture.
fn after<const D: usize>(
    settings: &str,
    shape: [usize; D],
    steps: usize,
    device: &Device,
) -> TensorData {
    let settings = Settings::parse(settings).expect("settings");
    let weights = Tensor::<D>::from_data(numbers(shape, 1), device).require_grad();
    let id = ParamId::new();
    let mut net = Layers {
        layers: vec![Param::initialized(id, weights)],
    };
    let rates = Rates::default();
    let mut schedule = Scheduler::new(&settings, steps, 1, rates.clone());
    let mut optimizer = build_optimizer(&settings.optimizer, &settings.gates, &rates, &net);
    for step in 0..steps {
        let gradient = Tensor::<D>::from_data(numbers(shape, 10 + step), &device.clone().inner());
        let mut gradients = GradientsParams::new();
        gradients.register(id, gradient);
        net = optimizer.step(schedule.step(), net, gradients);
    }
    net.layers[0].val().into_data()
}

/// A hundred steps. PyTorch in float32 is 1.4e-6 from float64 too: each step rounds the weights.
#[test]
fn lion_is_the_formula_in_float64() {
    let settings =
        "[optimizer]\nkind = 'lion'\nlr = 0.01\nbeta1 = 0.9\nbeta2 = 0.99\nweight_decay = 0.1";
    let got = after(settings, [3, 7], 100, &Device::flex().autodiff());
    close("lion", got, &list(&fixture()["lion"]), 2e-6);
}

#[test]
fn muon_is_the_formula_in_float64() {
    let fixture = fixture();
    let cases = fixture["muon"].as_array().expect("cases");
    assert_eq!(cases.len(), 3);
    let device = Device::flex().autodiff();
    let settings = "[optimizer]\nkind = 'muon'\nlr = 0.02\nmomentum = 0.95\nweight_decay = 0.1";
    for case in cases {
        let shape = list(&case["shape"]);
        let shape: Vec<usize> = shape.into_iter().map(|side| side as usize).collect();
        let steps = case["steps"].as_u64().expect("a number") as usize;
        let got = match *shape {
            [a, b] => after(settings, [a, b], steps, &device),
            [a, b, c, d] => after(settings, [a, b, c, d], steps, &device),
            ref other => panic!("{other:?}"),
        };
        close(&format!("{shape:?}"), got, &list(&case["values"]), 1e-5);
    }
}

/// Matrices and kernels of residual layers have one tensor of state, all other parameters AdamW's two.
#[test]
fn muon_updates_the_matrices_of_residual_layers() {
    for name in ["cifar10-resnet20", "cifar10-mlp64", "enwik8-tiny"] {
        let recipe = recipe(name, &["optimizer=muon", "depth=8"]);
        let device = Device::flex().autodiff();
        match &recipe.task {
            TaskRecipe::Images(of) => states(name, network(of, &recipe.settings, &device), &recipe),
            TaskRecipe::Text(of) => states(name, network(of, &recipe.settings, &device), &recipe),
        }
    }
}

fn states<M: Module>(name: &str, net: M, recipe: &Recipe) {
    /// Of each parameter: its id, its path, its axes.
    #[derive(Default)]
    struct Parameters(Vec<String>, Vec<(ParamId, String, usize)>, GradientsParams);
    impl ModuleVisitor for Parameters {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.1.push((param.id, self.0.join("."), D));
                self.2.register(param.id, param.val().inner().ones_like());
            }
        }
    }
    let settings = &recipe.settings;
    let rates = Rates::default();
    let mut schedule = Scheduler::new(settings, 10, 1, rates.clone());
    let mut optimizer = build_optimizer(&settings.optimizer, &settings.gates, &rates, &net);
    let mut found = Parameters::default();
    net.visit(&mut found);
    let Parameters(_, parameters, gradients) = found;
    let _ = optimizer.step(schedule.step(), net, gradients);
    let file = tempfile::tempdir().expect("a folder");
    let file = file.path().join("optimizer.bpk");
    optimizer
        .to_record()
        .save(&file)
        .expect("the record is written");
    let pack = burn_pack::Reader::from_file_exact(&file).expect("a record");
    let tensors = pack.into_tensors().expect("tensors");
    let mut matrices = 0;
    for (id, path, axes) in parameters {
        let held = tensors
            .iter()
            .filter(|t| t.param_id == Some(id.val()))
            .count();
        let hidden = path.contains("layers.") || path.contains("blocks.");
        let is_matrix = hidden && axes > 1 && !path.ends_with("alpha");
        matrices += usize::from(is_matrix);
        assert_eq!(held, if is_matrix { 1 } else { 2 }, "{name}: {path}");
    }
    assert!(matrices >= 6, "{name}: {matrices}");
}

/// A linear layer and a batch norm, with the numbers that the fixture's script sets before each update.
#[derive(Module, Debug)]
struct Normed {
    linear: Linear,
    norm: BatchNorm,
}

#[test]
fn averages_are_those_of_pytorch() {
    let device = Device::flex().autodiff();
    let fixture = fixture();
    let cases = fixture["ema"].as_array().expect("cases");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let decay = case["decay"].as_f64().expect("a number");
        let mut average = Average::new(decay, None);
        assert!(average.model().is_none());
        for step in 0..case["steps"].as_u64().expect("a number") as usize {
            let data = |i: usize| Tensor::from_data(numbers([3], 100 * step + i), &device);
            let matrix = Tensor::from_data(numbers([2, 3], 100 * step), &device);
            let mut model = Normed {
                linear: LinearConfig::new(2, 3).init(&device),
                norm: BatchNormConfig::new(3).init(&device),
            };
            model.linear.weight = Param::from_tensor(matrix);
            model.linear.bias = Some(Param::from_tensor(data(1)));
            model.norm.gamma = Param::from_tensor(data(2));
            model.norm.beta = Param::from_tensor(data(3));
            model.norm.running_mean = RunningState::new(data(4));
            model.norm.running_var = RunningState::new(data(5));
            average.update(&model);
        }
        let Normed { linear, norm } = average.model().expect("an average");
        let bias = linear.bias.as_ref().expect("a bias");
        for (name, got) in [
            ("0.weight", linear.weight.val().into_data()),
            ("0.bias", bias.val().into_data()),
            ("1.weight", norm.gamma.val().into_data()),
            ("1.bias", norm.beta.val().into_data()),
            ("1.running_mean", norm.running_mean.value().into_data()),
            ("1.running_var", norm.running_var.value().into_data()),
        ] {
            let wanted = list(&case["values"][name]);
            close(&format!("{decay} {name}"), got, &wanted, 1e-6);
        }
    }
}
