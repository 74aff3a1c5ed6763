//! `rezero export`

use rezero_nn::NormKind;
use rezero_nn::ResidualScheme;
use rezero_nn::torch::export;
use rezero_nn::transformer::{Activation, Positions};

use super::{say, scored};
use crate::cli::Export;
use crate::device;
use crate::error::{Error, Result};
use crate::recipe::{Gates, Recipe, TaskRecipe};
use crate::record::checkpoint::choose;
use crate::record::write_named;
use crate::task::{Domain, Text};
use crate::zoo::text::{Family, Network};
use crate::zoo::{self, ByteLm};

pub fn run(args: &Export) -> Result<()> {
    let recipe = Recipe::of_run(&args.run)?.recipe;
    let identity = recipe.identity();
    let TaskRecipe::Text(of) = &recipe.task else {
        return Err(Error::Run {
            dir: args.run.clone(),
            message: format!("only language models are exported to PyTorch; it holds {identity}"),
        });
    };
    let (Family::ByteLm(section), settings) = (&of.model, &recipe.settings);
    // Nothing is computed, so the run's device, which may be gone or another machine, is not needed.
    let device = device::select("auto")?;
    let reader = choose(&args.run, &args.checkpoint, &identity)?;
    let Network::ByteLm(model) = scored(
        &args.run,
        &reader,
        zoo::draw(of, settings, &Text::form(&of.data), &device),
        args.raw,
    )?;
    let step = reader.state()?.step;
    let metadata = described(section, &settings.gates).into_iter().chain([
        ("rezero", env!("CARGO_PKG_VERSION").to_owned()),
        ("step", step.to_string()),
    ]);
    let bytes = export(&model, metadata.map(|(key, value)| (key.to_owned(), value)))?;
    write_named(&args.out, &bytes)?;
    say!(
        "{identity} · step {step} · {} bytes to {}",
        bytes.len(),
        args.out.display()
    );
    let foreign = beyond_the_authors_layers(section, &settings.gates);
    if !foreign.is_empty() {
        say!(
            "the authors' PyTorch layers compute something else from these weights: they know nothing \
             of {}",
            foreign.join(", ")
        );
    }
    Ok(())
}

/// The settings that do not follow from shapes, by their recipe keys: metadata for code that builds
/// the module.
pub fn described(section: &ByteLm, gates: &Gates) -> [(&'static str, String); 12] {
    [
        ("scheme", section.scheme.to_string()),
        ("depth", section.depth.to_string()),
        ("d_model", section.d_model.to_string()),
        ("n_heads", section.n_heads.to_string()),
        ("d_ff", section.d_ff.to_string()),
        ("context", section.context.to_string()),
        ("activation", section.activation.to_string()),
        ("norm", section.norm.to_string()),
        ("positions", section.positions.to_string()),
        ("embedding_scale", section.embedding_scale.to_string()),
        ("alpha_bound", gates.alpha_bound.to_string()),
        ("alpha_shared", gates.alpha_shared.to_string()),
    ]
}

/// The parts of a recipe that the package `rezero` 0.1.0 cannot express.
fn beyond_the_authors_layers(section: &ByteLm, gates: &Gates) -> Vec<String> {
    let gated = section.scheme.has_gate();
    let checks = [
        (
            section.scheme == ResidualScheme::ReZero,
            format!("scheme={}", section.scheme),
        ),
        (
            section.positions != Positions::Rotary,
            "positions=rotary".to_owned(),
        ),
        (
            matches!(section.activation, Activation::Relu | Activation::Gelu),
            format!("activation={}", section.activation),
        ),
        (
            section.norm == NormKind::Auto,
            format!("norm={}", section.norm),
        ),
        (section.bias, "bias=false".to_owned()),
        (
            !gated || gates.alpha_bound == 0.0,
            format!("alpha_bound={}", gates.alpha_bound),
        ),
        (
            !gated || gates.alpha_shared,
            "alpha_shared=false".to_owned(),
        ),
        (
            !gated || !gates.alpha_per_channel,
            "alpha_per_channel=true".to_owned(),
        ),
    ];
    let foreign = checks.into_iter().filter(|(known, _)| !known);
    foreign.map(|(_, what)| what).collect()
}
