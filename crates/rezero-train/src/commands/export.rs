//! `rezero export`

use rezero_nn::import::export;

use super::eval::choose;
use super::say;
use crate::checkpoint::write_atomic;
use crate::cli::Export;
use crate::device;
use crate::error::{Error, Result};
use crate::model::Network;
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
    // What shapes do not tell, for whoever builds the module.
    let metadata = [
        ("rezero", env!("CARGO_PKG_VERSION").to_owned()),
        ("arm", recipe.arm.to_string()),
        ("n_layers", recipe.depth.to_string()),
        ("d_model", recipe.d_model.to_string()),
        ("n_heads", recipe.n_heads.to_string()),
        ("d_ff", recipe.d_ff.to_string()),
        ("context", recipe.context.to_string()),
        ("activation", recipe.activation.to_string()),
        ("positions", recipe.positions.to_string()),
        ("embedding_scale", recipe.embedding_scale.to_string()),
        ("alpha_bound", recipe.alpha_bound.to_string()),
        ("step", reader.state()?.step.to_string()),
    ];
    let bytes = export(&model, metadata.map(|(key, value)| (key.to_owned(), value)))?;
    write_atomic(&args.out, &bytes)?;
    say!(
        "{} · step {} · {} bytes to {}",
        recipe.model_id(),
        reader.state()?.step,
        bytes.len(),
        args.out.display()
    );
    Ok(())
}
