//! A run with weights from elsewhere.

use std::path::Path;

use burn::optim::lr_scheduler::LrScheduler;

use crate::error::Result;
use crate::fit::{Model, Rates, Scheduler, Trainee, build_optimizer};
use crate::recipe::{Recipe, TaskOf};
use crate::record::{Environment, NewRun, Opening, OptimizerState, RunDir, State, checkpoint};
use crate::task::Domain;

/// Makes a run at `place` whose checkpoint, of step `step`, has the weights of `network`: it can be scored, sampled, exported and, at
/// step 0, trained on.
///
/// # Errors
///
/// If `place` holds a run already, or cannot be written.
pub(super) fn begin_at<D: Domain>(
    place: NewRun,
    name: &str,
    recipe: &Recipe,
    of: &TaskOf<D>,
    network: &D::Network,
    step: usize,
    environment: Environment,
) -> Result<RunDir> {
    let settings = &recipe.settings;
    let state = State {
        recipe: recipe.fingerprint(),
        step,
        ..State::default()
    };
    let rates = Rates::default();
    let trainee = Trainee::new(network.clone(), &settings.train);
    let optimizer = build_optimizer(&settings.optimizer, &settings.gates, &rates, &trainee);
    let schedule = Scheduler::new(settings, settings.run.steps, 1, rates);
    let parameters = rezero_nn::parameter_count(network);
    let environment = Environment {
        parameters,
        task: Some(D::task().described()),
        ..environment
    };
    let identity = crate::zoo::identity(of, &settings.gates);
    let write = |run: &Path| {
        let writer = checkpoint::Writer::new(run, identity.clone(), parameters, settings.run.keep);
        let optimizer = OptimizerState::of(&optimizer);
        writer.save(
            &state,
            network.to_weights(),
            None,
            optimizer,
            schedule.to_record(),
        )
    };
    Opening::new(place).begin_with(
        name,
        &recipe.to_toml(),
        settings.train.seed,
        &environment,
        write,
    )
}
