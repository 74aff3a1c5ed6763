//! `rezero sample`

use std::io::Write;

use super::eval::choose;
use crate::cli::Sample;
use crate::device;
use crate::error::{Error, Result};
use crate::model::Network;
use crate::run_dir;
use rezero_nn::transformer::SamplingConfig;

pub fn run(args: &Sample) -> Result<()> {
    let recipe = run_dir::recipe(&args.run)?.recipe;
    if !recipe.is_text() {
        return Err(Error::Run {
            dir: args.run.clone(),
            message: format!("holds a {}, which writes no text", recipe.model),
        });
    }
    let sampler = SamplingConfig::new()
        .with_temperature(args.temperature)
        .with_top_k(args.top_k)
        .with_top_p(args.top_p)
        .with_seed(args.seed)
        .init()?;
    let device = device::select(args.device.as_ref().unwrap_or(&recipe.device))?;
    let reader = choose(&args.run, &args.checkpoint, &recipe.model_id())?;
    let network = reader.load_network(Network::new(&recipe, 256, &device))?;
    let Network::Lm(model) = &network else {
        unreachable!("a recipe of text has a language model");
    };

    let mut out = std::io::stdout().lock();
    let mut write = |bytes: &[u8]| match out.write_all(bytes).and_then(|()| out.flush()) {
        // Whoever reads has had enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::io("write to", "standard output", e)),
        Ok(()) => Ok(true),
    };
    let prompt = args.prompt.as_bytes();
    let text = model.generate(prompt, sampler, args.stop, &device)?;
    if !write(prompt)? {
        return Ok(());
    }
    for byte in text.take(args.bytes) {
        if !write(&[byte])? {
            return Ok(());
        }
    }
    write(b"\n")?;
    Ok(())
}
