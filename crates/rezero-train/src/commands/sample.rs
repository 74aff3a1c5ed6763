//! `rezero sample`

use std::io::{IsTerminal, Read, Write};

use rezero_nn::transformer::SamplingConfig;

use super::scored;
use super::source::NamedRun;
use crate::cli::Sample;
use crate::device;
use crate::error::{Error, Result};
use crate::recipe::{Recipe, TaskRecipe};
use crate::record::checkpoint::choose;
use crate::task::{Domain, Text};
use crate::words::Shown;
use crate::zoo::{self, text::Network};

pub fn run(args: &Sample) -> Result<()> {
    let source = NamedRun::find(&args.run)?;
    let recipe = Recipe::of_run(source.dir())?.recipe;
    let TaskRecipe::Text(of) = &recipe.task else {
        return Err(Error::Run {
            dir: args.run.clone(),
            message: format!("holds a network that writes no text: {}", recipe.identity()),
        });
    };
    let sampler = SamplingConfig::new()
        .with_temperature(args.temperature)
        .with_top_k(args.top_k)
        .with_top_p(args.top_p)
        .with_seed(args.seed)
        .init()?;
    let prompt = prompt(args)?;
    let settings = &recipe.settings;
    let device = device::chosen(args.device.as_deref(), &settings.run.device)?;
    let device = device::select(device)?;
    let reader = choose(source.dir(), &args.checkpoint, &recipe.identity())?;
    let Network::ByteLm(model) = scored(
        &args.run,
        &reader,
        zoo::draw(of, settings, &Text::form(&of.data), &device),
        args.raw,
    )?;

    let mut out = std::io::stdout().lock();
    // A pipe or a file gets the bytes. A terminal would obey them.
    let mut shown = out.is_terminal().then(Shown::default);
    let mut write = |bytes: &[u8], is_last: bool| {
        let text = shown.as_mut().map(|shown| {
            let end = if is_last {
                shown.finish()
            } else {
                String::new()
            };
            end + &shown.push(bytes)
        });
        let bytes = text.as_ref().map_or(bytes, |text| text.as_bytes());
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // The reader has closed the pipe.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(Error::Output(e)),
            Ok(()) => Ok(true),
        }
    };
    // The network sees no more than its context; what was before it is written all the same.
    let seen = &prompt[prompt.len().saturating_sub(model.context)..];
    let text = model.generate(seen, sampler, args.stop, &device)?;
    if !write(&prompt, false)? {
        return Ok(());
    }
    for byte in text.take(args.bytes) {
        if !write(&[byte], false)? {
            return Ok(());
        }
    }
    write(b"\n", true)?;
    Ok(())
}

/// The bytes to continue, from the command line, a file or standard input.
fn prompt(args: &Sample) -> Result<Vec<u8>> {
    match &args.prompt_file {
        None => Ok(args.prompt.as_encoded_bytes().to_vec()),
        Some(file) if file.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|e| Error::io("read", "standard input", e))?;
            Ok(bytes)
        }
        Some(file) => std::fs::read(file).map_err(|e| Error::io("read", file, e)),
    }
}
