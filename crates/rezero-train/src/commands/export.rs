//! `rezero export`

use std::io::Write;
use std::path::Path;

use rezero_nn::import::export;

use super::eval::choose;
use super::say;
use crate::cli::Export;
use crate::device;
use crate::error::{Error, Result};
use crate::model::Network;
use crate::recipe::{Activation, Arm, LayerNorm, Positions, Recipe};
use crate::run_dir;

pub fn run(args: &Export) -> Result<()> {
    let recipe = run_dir::recipe(&args.run)?.recipe;
    if !recipe.is_text() {
        return Err(Error::Run {
            dir: args.run.clone(),
            message: format!(
                "holds a {}; only language models are exported to PyTorch",
                recipe.model
            ),
        });
    }
    let device = device::select(&recipe.device)?;
    let reader = choose(&args.run, &args.checkpoint, &recipe.model_id())?;
    let Network::Lm(model) = reader.load_network(Network::new(&recipe, 256, &device))? else {
        unreachable!("a recipe of text has a language model");
    };
    let step = reader.state()?.step;
    let metadata = described(&recipe).into_iter().chain([
        ("rezero", env!("CARGO_PKG_VERSION").to_owned()),
        ("step", step.to_string()),
    ]);
    let bytes = export(&model, metadata.map(|(key, value)| (key.to_owned(), value)))?;
    write(&args.out, &bytes)?;
    say!(
        "{} · step {} · {} bytes to {}",
        recipe.model_id(),
        step,
        bytes.len(),
        args.out.display()
    );
    let foreign = beyond_the_authors_layers(&recipe);
    if !foreign.is_empty() {
        say!(
            "the authors' PyTorch layers compute something else from these weights: they know nothing \
             of {}",
            foreign.join(", ")
        );
    }
    Ok(())
}

/// Replaces a plain file, at once and whole; anything else that stands there is left alone.
fn write(out: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| Error::io("write", out, e);
    if std::fs::symlink_metadata(out).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::io(
            "replace",
            out,
            std::io::Error::other("it is not a plain file; choose another name"),
        ));
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty());
    let mut file =
        tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new("."))).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    // Temporary files are private; what is exported is not.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let shared = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(shared).map_err(fail)?;
    }
    file.persist(out).map_err(|e| fail(e.error))?;
    Ok(())
}

/// The settings that shapes do not tell, by their recipe keys: metadata for whoever builds the module.
pub fn described(recipe: &Recipe) -> [(&'static str, String); 12] {
    [
        ("arm", recipe.arm.to_string()),
        ("depth", recipe.depth.to_string()),
        ("d_model", recipe.d_model.to_string()),
        ("n_heads", recipe.n_heads.to_string()),
        ("d_ff", recipe.d_ff.to_string()),
        ("context", recipe.context.to_string()),
        ("activation", recipe.activation.to_string()),
        ("norm", recipe.norm.to_string()),
        ("positions", recipe.positions.to_string()),
        ("embedding_scale", recipe.embedding_scale.to_string()),
        ("alpha_bound", recipe.alpha_bound.to_string()),
        ("alpha_shared", recipe.alpha_shared.to_string()),
    ]
}

/// What of a recipe the package `rezero` 0.1.0 cannot express.
fn beyond_the_authors_layers(recipe: &Recipe) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |ok: bool, what: String| {
        if !ok {
            found.push(what);
        }
    };
    check(recipe.arm == Arm::ReZero, format!("arm={}", recipe.arm));
    check(
        recipe.positions != Positions::Rotary,
        "positions=rotary".to_owned(),
    );
    check(
        matches!(recipe.activation, Activation::Relu | Activation::Gelu),
        format!("activation={}", recipe.activation),
    );
    check(
        recipe.norm == LayerNorm::Auto,
        format!("norm={}", recipe.norm),
    );
    check(recipe.bias, "bias=false".to_owned());
    check(
        recipe.alpha_bound == 0.0,
        format!("alpha_bound={}", recipe.alpha_bound),
    );
    check(recipe.alpha_shared, "alpha_shared=false".to_owned());
    check(
        !recipe.alpha_per_channel,
        "alpha_per_channel=true".to_owned(),
    );
    found
}
