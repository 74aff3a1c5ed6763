//! Scoring a split, by one process or by ranks, each of which takes every n-th batch.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::tensor::Device;
use burn::train::InferenceStep;

use super::exchange::Scored;
use super::model::Model;
use super::source::{Cut, Loader, Source};
use super::step::{Input, Output, Trainee};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::record::Totals;

/// Scores the next batch of each rank. Returns them in the order of the batches, so that what is added up has the bits of
/// one process; none at the end. Also whether a rank wants to `stop`.
pub(super) fn next<M: Model>(
    ranks: &Ranks,
    trainee: &Trainee<M>,
    batches: &mut dyn DataLoaderIterator<Input<M::Batch>>,
    stop: bool,
) -> Result<(Vec<Output>, bool)> {
    let own = match batches.next() {
        Some(input) => {
            let input = input.map_err(|e| Error::Training(e.to_string()))?;
            let mut output = InferenceStep::step(trainee, input);
            output.read();
            Some(output)
        }
        None => None,
    };
    if ranks.size() == 1 {
        return Ok((own.into_iter().collect(), stop));
    }
    let own = own.map(|output| Scored::of(&output.totals));
    let all: Vec<(Option<Scored>, bool)> = ranks.gather(&(own, stop))?;
    let (scored, stops): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let totals = scored.into_iter().flatten().map(Scored::totals);
    Ok((totals.map(Output::of).collect(), stops.contains(&true)))
}

/// The sums over all batches of `source`, the same on all ranks.
///
/// # Errors
///
/// If the data cannot be read, or a rank does not answer.
pub(crate) fn totals<S: Source, M: Model<Batch = S::Batch>>(
    ranks: &Ranks,
    trainee: &Trainee<M>,
    source: S,
    device: &Device,
) -> Result<Totals> {
    let (device, begin) = (device.clone(), Arc::default());
    let loader = Loader::new(source, device, begin, ranks.clone(), Cut::Batches);
    let (mut batches, mut total) = (loader.iter(), Totals::default());
    loop {
        let (scored, _) = next(ranks, trainee, &mut *batches, false)?;
        if scored.is_empty() {
            return Ok(total);
        }
        for output in scored {
            total.add(&output.totals);
        }
    }
}
