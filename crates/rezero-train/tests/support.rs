//! Shared by the tests of this crate: running the `rezero` command in its own directory, recipes
//! and networks of the zoo, and reading the parameters of modules.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rezero_nn::ResidualScheme;
use rezero_train::fit::{Model, Trainee, load, load_average};
use rezero_train::recipe::{Override, Recipe, Resolved, Settings, TaskOf, TaskRecipe, schema};
use rezero_train::record::{Reader, Row, Score, checkpoint, metrics};
use rezero_train::task::{Domain, Images, Text};
use rezero_train::zoo::{self, Families};
use serde_json::Value;

/// A directory that is removed after the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The program: cargo's, or this process, where `rezero conformance` runs a test.
fn program() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_rezero") {
        Some(program) => PathBuf::from(program),
        None => std::env::current_exe().expect("this program has a path"),
    }
}

/// The command, with `dir` as its working directory.
pub fn rezero(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// The output of a finished command.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the command to its end.
pub fn run(dir: &Path, args: &[&str]) -> Said {
    rezero(dir, args)
        .output()
        .expect("the command starts")
        .into()
}

/// Runs a command that must succeed.
pub fn succeed(dir: &Path, args: &[&str]) -> Said {
    let said = run(dir, args);
    assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
    said
}

/// Runs a command that must fail with `code` and a message that has every one of `parts`.
pub fn fail(dir: &Path, args: &[&str], code: i32, parts: &[&str]) -> Said {
    let said = run(dir, args);
    assert_eq!(said.code, Some(code), "{args:?}: {said:?}");
    for part in parts {
        assert!(
            said.err.contains(part),
            "{args:?}: no `{part}` in: {}",
            said.err
        );
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said
}

/// CIFAR-10's layout with `records` random images per batch file.
pub fn cifar_layout(dir: &Path, records: usize) -> PathBuf {
    let data = dir.join("data");
    rezero_data::shapes::write_cifar_layout(&data, records, 7).expect("the layout is written");
    data
}

/// The rows of a run without their wall-clock fields.
pub fn rows(run: &Path) -> Vec<Row> {
    let mut rows = metrics::read(run).expect("metrics are read");
    for row in &mut rows {
        (row.items_per_s, row.warm_up_s, row.seconds) = (None, None, 0.0);
    }
    rows
}

/// The rows of a split.
pub fn of_split(rows: &[Row], split: &str) -> Vec<Row> {
    let rows = rows.iter().filter(|row| row.split == split);
    rows.cloned().collect()
}

/// The losses of a run's training rows.
pub fn losses(run: &Path) -> Vec<f64> {
    let rows = of_split(&rows(run), "train");
    rows.iter().map(|row| row.loss).collect()
}

/// A run's last checkpoint.
#[derive(PartialEq)]
pub struct Last {
    pub step: usize,
    /// Weights and gates by value, for records carry random parameter ids.
    pub weights: Vec<u32>,
    /// The average of the weights, if the run keeps one.
    pub average: Option<Vec<u32>>,
    pub best: Option<Score>,
}

pub fn last(run: &Path) -> Last {
    let recipe = Recipe::of_run(run).expect("a recipe").recipe;
    let newest = checkpoint::list(run).expect("checkpoints").pop_last();
    let (step, dir) = newest.expect("a checkpoint");
    let reader = Reader::open(&dir, &recipe.identity()).expect("a whole checkpoint");
    let (settings, device) = (&recipe.settings, Device::flex());
    let both = match &recipe.task {
        TaskRecipe::Images(of) => values(&reader, || network(of, settings, &device)),
        TaskRecipe::Text(of) => values(&reader, || network(of, settings, &device)),
    };
    let (weights, average) = both;
    let best = reader.state().expect("a state").best;
    Last {
        step,
        weights,
        average,
        best,
    }
}

fn values<M: Model>(reader: &Reader, network: impl Fn() -> M) -> (Vec<u32>, Option<Vec<u32>>) {
    let raw = weights(&load(reader, network()).expect("weights"));
    let average = || weights(&load_average(reader, network()).expect("an average"));
    (raw, reader.has_average().then(average))
}

/// Makes the run one that was stopped after `step` steps.
pub fn rewind(run: &Path, step: usize) {
    std::fs::remove_file(run.join("DONE")).expect("the run was done");
    for (at, dir) in checkpoint::list(run).expect("checkpoints") {
        if at > step {
            std::fs::remove_dir_all(dir).expect("a checkpoint goes");
        }
    }
}

/// A recipe with changes, or the error of the changes.
pub fn resolve(name: &str, changes: &[&str]) -> Result<Resolved, String> {
    let changes: Result<Vec<Override>, String> = changes.iter().map(|c| c.parse()).collect();
    Recipe::resolve(name, &changes?).map_err(|e| e.to_string())
}

/// A recipe with changes.
pub fn recipe(name: &str, changes: &[&str]) -> Recipe {
    let resolved = resolve(name, changes);
    resolved
        .unwrap_or_else(|e| panic!("{name} {changes:?}: {e}"))
        .recipe
}

/// The sections of a recipe of images.
pub fn of_images(recipe: &Recipe) -> &TaskOf<Images> {
    match &recipe.task {
        TaskRecipe::Images(of) => of,
        TaskRecipe::Text(of) => panic!("of text: {of:?}"),
    }
}

/// The sections of a recipe of text.
pub fn of_text(recipe: &Recipe) -> &TaskOf<Text> {
    match &recipe.task {
        TaskRecipe::Text(of) => of,
        TaskRecipe::Images(of) => panic!("of images: {of:?}"),
    }
}

/// Held while random numbers are generated or seeded: the generator belongs to the process.
pub fn drawing() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

/// The text of a recipe file, with a family if it has no model. The family is added at the end, so
/// that line numbers stay the same.
pub fn with_family(text: &str) -> String {
    match text.contains("model") {
        true => text.to_owned(),
        false => format!("{text}\n[model]\nfamily = 'cifar-resnet'\n"),
    }
}

/// The network of a recipe.
pub fn network<D: Domain>(of: &TaskOf<D>, settings: &Settings, device: &Device) -> D::Network {
    let _drawing = drawing();
    zoo::draw(of, settings, &D::form(&of.data), device)
}

/// The network of a recipe, to be trained.
pub fn trainee<D: Domain>(
    of: &TaskOf<D>,
    settings: &Settings,
    device: &Device,
) -> Trainee<D::Network> {
    Trainee::new(network(of, settings, device), &settings.train)
}

/// A family of the zoo.
pub struct FamilyName {
    /// Its name in recipes.
    pub name: String,
    /// The schemes that it has.
    pub schemes: Vec<ResidualScheme>,
    /// Whether it learns from text.
    pub of_text: bool,
}

impl FamilyName {
    /// A recipe file of one of its networks, with the defaults.
    pub fn file(&self, scheme: ResidualScheme) -> String {
        let length = if self.of_text { "steps" } else { "epochs" };
        format!(
            "[model]\nfamily = \"{}\"\nscheme = \"{scheme}\"\n[run]\n{length} = 7\n",
            self.name
        )
    }
}

/// Every family, as the schema of recipes has them.
pub fn families() -> Vec<FamilyName> {
    let schema = schema();
    let kinds = schema["properties"]["model"]["oneOf"].as_array();
    let kinds = kinds.expect("the families").iter();
    kinds
        .map(|kind| {
            let name = kind["properties"]["family"]["const"].as_str();
            let name = name.expect("a family has a name").to_owned();
            // Text has no length of its own.
            let file = format!("[model]\nfamily = \"{name}\"\n[run]\nsteps = 7\n");
            let parsed = Recipe::parse(&name, &file).expect("defaults are a recipe");
            let (schemes, of_text) = match &parsed.recipe.task {
                TaskRecipe::Images(of) => (of.model.schemes().to_vec(), false),
                TaskRecipe::Text(of) => (of.model.schemes().to_vec(), true),
            };
            FamilyName {
                name,
                schemes,
                of_text,
            }
        })
        .collect()
}

/// The sections of a recipe, and the kinds that they come in: name, schema.
pub fn kinds(schema: &Value) -> Vec<(String, Value)> {
    let sections = schema["properties"].as_object().expect("sections");
    let mut all = Vec::new();
    for (section, schema) in sections {
        let several = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        match several {
            Some(kinds) => all.extend(kinds.iter().map(|kind| (section.clone(), kind.clone()))),
            None => all.push((section.clone(), schema.clone())),
        }
    }
    all
}

/// The values of a module's parameters, bit for bit and in forward order.
pub fn weights(module: &impl Module) -> Vec<u32> {
    #[derive(Default)]
    struct Values(Vec<u32>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            self.0.extend(data.iter::<f32>().map(f32::to_bits));
        }
    }
    let mut values = Values::default();
    module.visit(&mut values);
    values.0
}

/// The gradients of a module's parameters, in forward order.
pub fn gradients(module: &impl Module, gradients: &GradientsParams) -> Vec<f32> {
    struct Values<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Values<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.1.extend(gradient.into_data().iter::<f32>());
            }
        }
    }
    let mut values = Values(gradients, Vec::new());
    module.visit(&mut values);
    values.1
}

/// Whether a batch norm is somewhere in a module.
pub fn has_batch_norm(module: &impl Module) -> bool {
    #[derive(Default)]
    struct Search(bool);
    impl ModuleVisitor for Search {
        fn enter_module(&mut self, _name: &str, container_type: &str) {
            self.0 |= container_type.ends_with("BatchNorm");
        }
    }
    let mut search = Search::default();
    module.visit(&mut search);
    search.0
}
