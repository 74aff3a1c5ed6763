//! `rezero import`

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::str::FromStr;

use rezero_data::Split;
use rezero_nn::torch::{ImportError, LoadRules, Loaded, TorchWeights};

use super::export::RECIPE;
use super::given_weights::begin_at;
use super::train::reads_text;
use super::{RUNS, absolute, described_data, fingerprint, new_run, resume, say, short};
use crate::cli::Import;
use crate::device;
use crate::error::{Error, Result};
use crate::recipe::{
    ImageData, Override, Recipe, Resolved, Run, TaskOf, TaskRecipe, folder_name, with_task,
};
use crate::record::Environment;
use crate::task::{Domain, Images, Places, Text, data_of_file};
use crate::zoo::{Families, Recognised, Zoo};
use crate::{words, zoo};

/// The most characters of a changed setting that are shown.
const LONGEST: usize = 160;

/// The most names of a list that are shown.
const SHOWN: usize = 5;

pub fn run(args: &Import) -> Result<()> {
    let weights = TorchWeights::open(&args.weights)?;
    let part = match &args.prefix {
        Some(prefix) => weights.only(prefix).map_err(|source| Error::Import {
            source,
            hint: String::new(),
        })?,
        None => weights.clone(),
    };
    let found = recognised(&part);
    let of_file = args.weights.display();
    match &found {
        Some((family, _, told)) => say!("{of_file}: a {family}, {}", in_words(told)),
        None => say!("{of_file}: no network that is known by its names"),
    }
    let counters: Vec<String> = part.ignored().map(str::to_owned).collect();
    list("no floating-point values, so left out", &counters);
    let (recipe, mut given) = named(args);
    let name = name_of(&args.weights);
    let base = match (recipe, exported(&part, &name)?, &found) {
        (Some(recipe), _, _) => Recipe::resolve(recipe, &[])?,
        (None, Some(recipe), _) => recipe,
        (None, None, Some((_, recipe, _))) => Recipe::resolve(recipe, &[])?,
        (None, None, None) => return Err(unknown(&part)),
    };
    given.extend(reads_text(args.text.as_ref(), &given)?);
    let chosen = |o: &Override| ["family", "model", "model.family"].contains(&o.key.as_str());
    let in_recipe = with_task!(&base.recipe.task, of => of.model.name());
    if let Some((in_file, _, _)) = &found
        && *in_file != in_recipe
        && !given.iter().any(chosen)
    {
        return Err(other_family(in_file, in_recipe));
    }
    let told_by_file = told(&part, found.as_ref().map(|(_, _, told)| told), &given);
    let in_file = found.as_ref().map(|(family, _, _)| *family);
    let told = found.map(|(_, _, told)| told).unwrap_or_default();
    // Keys of a folder have an effect once the data is one.
    let of_a_folder = |o: &&Override| {
        let keys = || ImageData::OF_A_FOLDER.iter();
        keys().any(|key| o.key == *key || o.key == short(key))
    };
    let others: Vec<Override> = given.iter().filter(|o| !of_a_folder(o)).cloned().collect();
    let mut resolved = base.clone().with_found(&told_by_file, &others)?;
    let mut of_data = Vec::new();
    if let (TaskRecipe::Images(of), Some(images)) = (&resolved.recipe.task, &told.images) {
        of_data = data_of_file(&of.data, images);
        of_data.retain(|o| !is_given(&given, &o.key));
    }
    if !of_data.is_empty() || others.len() < given.len() {
        let all = [told_by_file, of_data.clone()].concat();
        resolved = base.with_found(&all, &given)?;
    }
    for change in &resolved.changes {
        // A thousand names of classes say no more than the first.
        match change.char_indices().nth(LONGEST) {
            Some((end, _)) => say!("{}…", &change[..end]),
            None => say!("{change}"),
        }
    }
    if !resolved.recipe.settings.train.from.is_empty() {
        return Err(Error::RecipeValue {
            key: "train.from".to_owned(),
            message: "has no effect: the weights are imported; leave it out".to_owned(),
        });
    }
    let family = with_task!(&resolved.recipe.task, of => of.model.name());
    if let Some(in_file) = in_file
        && in_file != family
    {
        return Err(other_family(in_file, family));
    }
    with_task!(&resolved.recipe.task, of => begin(args, &resolved, of, &weights, &told, &given))?;
    if of_data.iter().any(|o| o.key == "data.class_names") {
        say!(
            "the file does not tell the names of its classes, so they are numbers: give class_names=[…] in the order of \
             the labels"
        );
    }
    Ok(())
}

/// A name for the run: that of the file.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let stem = stem.trim_end_matches(".safetensors.index");
    folder_name(&format!("{stem}_imported"))
}

/// The recipe that `rezero export` has put beside the weights.
fn exported(weights: &TorchWeights, name: &str) -> Result<Option<Resolved>> {
    let Some(text) = weights.metadata().get(RECIPE) else {
        return Ok(None);
    };
    let resolved = Recipe::parse(name, text)?;
    let device = &resolved.recipe.settings.run.device;
    if *device != Run::default().device {
        // The file may come from somebody else, and a device may be another machine.
        return Err(Error::RecipeValue {
            key: "run.device".to_owned(),
            message: format!(
                "is \"{}\" in the file's recipe; a device is given on the command line: name a recipe",
                device.escape_debug()
            ),
        });
    }
    Ok(Some(resolved))
}

/// That the file's names are those of no family.
fn unknown(weights: &TorchWeights) -> Error {
    let names = weights
        .names()
        .map(|name| name.split('.').next().unwrap_or_default());
    let names: BTreeSet<&str> = names.collect();
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| name.escape_debug().to_string())
        .collect();
    let more = match names.len() > SHOWN {
        true => ", …",
        false => "",
    };
    Error::RecipeValue {
        key: "model.family".to_owned(),
        message: format!(
            "cannot be told: the names of the tensors begin with {}{more}, as in no family; README, PyTorch's weights, \
             has the names that are known",
            shown.join(", ")
        ),
    }
}

fn is_given(given: &[Override], key: &str) -> bool {
    given
        .iter()
        .any(|o| o.key == key || o.key == short(key) || (key == "data.set" && o.key == "data"))
}

fn other_family(in_file: &str, in_recipe: &str) -> Error {
    Error::RecipeValue {
        key: "model.family".to_owned(),
        message: format!("the file holds a {in_file}, and the recipe has a {in_recipe}"),
    }
}

/// The family in a file, its recipe, and what the file tells.
fn recognised(weights: &TorchWeights) -> Option<(&'static str, &'static str, Recognised)> {
    <zoo::images::Family as Families<Images>>::recognised(weights)
        .or_else(|| <zoo::text::Family as Families<Text>>::recognised(weights))
}

fn in_words(told: &Recognised) -> String {
    let settings = told.settings.iter();
    let settings: Vec<String> = settings
        .map(|(key, value)| format!("{}={value}", short(key)))
        .collect();
    format!("{} ({})", settings.join(" "), told.form)
}

/// The recipe and the overrides of the command line, whose recipe may be left out.
fn named(args: &Import) -> (Option<&OsStr>, Vec<Override>) {
    let mut overrides = args.overrides.clone();
    let recipe = args.recipe.as_deref();
    let text = recipe.and_then(OsStr::to_str);
    match text.map(Override::from_str) {
        Some(Ok(first)) if !text.is_some_and(|text| text.ends_with(".toml")) => {
            overrides.insert(0, first);
            (None, overrides)
        }
        _ => (recipe, overrides),
    }
}

/// The settings that the file tells, by its shapes and by the metadata of `rezero export`, except those
/// that are given.
fn told(weights: &TorchWeights, found: Option<&Recognised>, given: &[Override]) -> Vec<Override> {
    let Some(found) = found else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for key in &found.keys {
        let by_shape = found.settings.iter().find(|(k, _)| k == key);
        let by_shape = by_shape.map(|(_, value)| value);
        let said = weights.metadata().get(short(key));
        // Shapes are right, whatever the metadata says; but one shape may serve several schemes.
        let value = match *key == "model.scheme" {
            true => said.or(by_shape),
            false => by_shape.or(said),
        };
        all.extend(value.map(|value| Override::new(*key, value.as_str())));
    }
    for (key, value) in &found.settings {
        if !found.keys.contains(key) {
            all.push(Override::new(*key, value.as_str()));
        }
    }
    all.retain(|o| !is_given(given, &o.key));
    all
}

/// Checks that the metadata that `rezero export` wrote agrees with the settings.
fn agree(weights: &TorchWeights, described: &[(&'static str, String)]) -> Result<()> {
    let wrong: Vec<String> = described
        .iter()
        .filter_map(|(key, have)| {
            let said = weights.metadata().get(short(key))?;
            (said != have).then(|| format!("{}={said}", short(key)))
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Import {
            source: ImportError::Mismatch(Vec::new()),
            hint: format!("the file says {}; ", wrong.join(" ")),
        }),
    }
}

/// Begins a run with the weights.
fn begin<D: Domain>(
    args: &Import,
    resolved: &Resolved,
    of: &TaskOf<D>,
    weights: &TorchWeights,
    told: &Recognised,
    given: &[Override],
) -> Result<()> {
    let (recipe, settings) = (&resolved.recipe, &resolved.recipe.settings);
    let identity = recipe.identity();
    let described = of.model.described(&settings.gates);
    contradicted(told, &described)?;
    agree(weights, &described)?;
    let chosen = resolved
        .gives("run.device")
        .then_some(settings.run.device.as_str());
    let device = device::select(device::chosen(chosen, &settings.run.device)?)?;
    // Its initial values are never sampled, as every parameter is in the file.
    let network = of.model.init(&settings.gates, &D::form(&of.data), &device);
    let rules = LoadRules {
        prefix: args.prefix.clone(),
        ignore: args.ignore.clone(),
    };
    let (network, loaded) =
        network
            .with_torch(weights, &rules)
            .map_err(|source| Error::Import {
                hint: ignorable(&source).map_or_else(|| hint(told, &described), str::to_owned),
                source,
            })?;
    tell(&loaded);

    let name = name_of(&args.weights);
    let place = new_run(args.run_dir.as_ref(), Path::new(RUNS), name);
    let text = args.text.as_deref().map(absolute).transpose()?;
    let mut data = String::new();
    if text.is_some() {
        let places = Places {
            text: text.clone(),
            ..Places::default()
        };
        let set = D::open(&of.data, &places, Split::Train)?;
        data = described_data(&set, &fingerprint(of, &places)?);
    }
    let environment = Environment {
        text,
        data,
        device: device::in_words(&[device]),
        ..Environment::here(None)
    };
    let run = begin_at(place, &resolved.name, recipe, of, &network, 0, environment)?;
    let parameters = rezero_nn::parameter_count(&network);
    let dir = run.path();
    say!(
        "{identity} · {parameters} parameters from {} to {}",
        args.weights.display(),
        dir.display()
    );
    let metadata = weights.metadata();
    let untold: Vec<String> = described
        .iter()
        .filter(|(key, _)| of.model.untold().contains(key) && !metadata.contains_key(short(key)))
        .filter(|(key, _)| !given.iter().any(|o| o.key == *key || o.key == short(key)))
        .map(|(key, value)| format!("{}={value}", short(key)))
        .collect();
    if !untold.is_empty() {
        say!(
            "the file does not tell {}; wrong values give wrong numbers without an error",
            untold.join(" ")
        );
    }
    say!("score it with: {}", words::command("eval", dir, &[]));
    say!("train on from it with: {}", resume(dir));
    Ok(())
}

/// Refuses settings that the file rules out.
fn contradicted(told: &Recognised, described: &[(&'static str, String)]) -> Result<()> {
    for (key, value, others) in &told.not {
        if described.iter().any(|(k, v)| k == key && v == value) {
            return Err(Error::RecipeValue {
                key: (*key).to_owned(),
                message: format!("the file has no {}={value}; give {others}", short(key)),
            });
        }
    }
    Ok(())
}

/// The settings that the file's shapes need, where the recipe's differ.
fn hint(told: &Recognised, described: &[(&'static str, String)]) -> String {
    let differs =
        |key: &str, value: &String| described.iter().any(|(k, v)| *k == key && v != value);
    let wanted: Vec<String> = told
        .settings
        .iter()
        .filter(|(key, value)| differs(key, value))
        .map(|(key, value)| format!("{}={value}", short(key)))
        .collect();
    match (wanted.is_empty(), told.form.is_empty()) {
        (false, _) => format!("the file's shapes ask for {}\n", wanted.join(" ")),
        (true, false) => format!("the file has {}; ", told.form),
        (true, true) => String::new(),
    }
}

/// How to leave out what only the file has, if nothing else differs.
fn ignorable(error: &ImportError) -> Option<&'static str> {
    let unknown = |text: &String| text.contains(": unknown, ");
    match error {
        ImportError::Mismatch(all) if !all.is_empty() && all.iter().all(unknown) => Some(
            "the file has tensors that the network lacks; --ignore PATTERN leaves such out, as --ignore 'aux.*'\n",
        ),
        _ => None,
    }
}

/// Says which tensors were left out, and which parameters the file lacks.
fn tell(loaded: &Loaded) {
    if !loaded.prefix.is_empty() {
        say!("its names begin with {}", loaded.prefix);
    }
    if !loaded.others.is_empty() {
        say!(
            "other weights for the same network begin with {}; --prefix chooses them",
            loaded.others.join(", ")
        );
    }
    list("left out", &loaded.left_out);
    list("not in the file, so 0", &loaded.zeros);
}

/// Says the first of some names, if there are any.
fn list(what: &str, names: &[String]) {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => {}
        0 => say!("{what}: {shown}"),
        more => say!("{what}: {shown} and {more} more"),
    }
}
