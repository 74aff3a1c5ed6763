//! Comparison of several runs: arms side by side, each over its seeds.

mod figures;
mod group;
mod page;
mod read;
mod stats;
mod write;

use crate::error::{Error, Result};
use crate::record::Described;

pub use figures::{Figure, figures};
pub use group::group;
pub use page::{csv, curves, html, markdown};
pub use read::{RunData, read};
pub use stats::{Mean, welch};

use read::result;

/// The runs of one arm, one run per seed.
#[derive(Clone, Debug)]
pub struct Group {
    /// The arm, and the settings that distinguish it from the other groups.
    pub label: String,
    /// The runs.
    pub runs: Vec<RunData>,
}

/// A row of the report's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The group's label.
    pub label: String,
    /// The number of runs.
    pub seeds: usize,
    /// The last validation.
    pub last: Option<Mean>,
    /// The best validation.
    pub best: Option<Mean>,
    /// The p value of Welch's test of `last` against the baseline.
    pub p_last: Option<f64>,
    /// The number of runs that reached the target.
    pub reached: usize,
    /// The steps to the target, over the runs that reached it.
    pub steps: Option<Mean>,
    /// The p value of Welch's test of `steps` against the baseline, if all runs of both reached the
    /// target.
    pub p_steps: Option<f64>,
    /// The seconds to the target, over the runs that reached it.
    pub seconds: Option<Mean>,
    /// Optimizer steps of the longest run.
    pub total_steps: usize,
    /// Wall time of training, seconds.
    pub wall: Option<Mean>,
    /// The number of the network's parameters.
    pub parameters: Option<usize>,
    /// The number of runs that are not complete.
    pub unfinished: usize,
}

/// The numbers of a report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The title.
    pub title: String,
    /// The groups, in the order that their first runs were given in.
    pub groups: Vec<Group>,
    /// The task of the runs, with its measure.
    pub task: Described,
    /// The validation result up to which steps and seconds are counted.
    pub target: Option<f64>,
    /// The label of the group against which the others are tested.
    pub baseline: Option<String>,
    /// The table.
    pub table: Vec<Summary>,
}

impl Report {
    /// Compares groups.
    ///
    /// Without a `target`, the best result that every run reached is the target. `baseline` is the
    /// label of a group.
    ///
    /// # Errors
    ///
    /// If there are no groups, or none has the baseline's label.
    pub fn new(
        title: &str,
        groups: Vec<Group>,
        target: Option<f64>,
        baseline: Option<&str>,
    ) -> Result<Self> {
        let Some(first) = groups.first() else {
            return Err(Error::Report("there are no runs to report on".to_owned()));
        };
        let task = first.runs[0].task.clone();
        let labels: Vec<&str> = groups.iter().map(|g| g.label.as_str()).collect();
        let base = match baseline {
            None => None,
            Some(name) => Some(groups.iter().find(|g| g.label == name).ok_or_else(|| {
                Error::Report(format!(
                    "there is no group `{name}` to compare with; choose of: {}",
                    labels.join(", ")
                ))
            })?),
        };
        let target = target.or_else(|| common(&groups, &task));
        let table = groups
            .iter()
            .map(|group| summarise(group, base, target))
            .collect();
        Ok(Self {
            title: title.replace(char::is_control, " "),
            task,
            target,
            baseline: base.map(|group| group.label.clone()),
            table,
            groups,
        })
    }

    /// The name of the measure, with its unit.
    pub fn measure(&self) -> String {
        let label = self.task.label.to_lowercase();
        match self.task.sign.trim() {
            "%" => format!("{label} (%)"),
            _ => label,
        }
    }

    fn digits(&self) -> usize {
        self.task.digits
    }

    /// The target as text.
    pub fn target_text(&self) -> Option<String> {
        Some(format!("{}{}", self.target?, self.task.sign))
    }
}

/// The best result that all runs reached, rounded so that it is still reached.
fn common(groups: &[Group], task: &Described) -> Option<f64> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let bests: Option<Vec<f64>> = runs().map(RunData::best).collect();
    let bests = bests?.into_iter();
    // Where higher is better (percent), it is rounded to the digits of tables, else to one digit
    // less. It is never harder to reach than the value before rounding.
    match task.higher_is_better {
        true => {
            let worst = bests.min_by(f64::total_cmp)?;
            let scale = 10f64.powi(task.digits as i32);
            Some(((worst * scale).floor() / scale).min(worst))
        }
        false => {
            let worst = bests.max_by(f64::total_cmp)?;
            let scale = 10f64.powi(task.digits as i32 - 1);
            Some(((worst * scale).ceil() / scale).max(worst))
        }
    }
}

fn lasts(group: &Group) -> Vec<f64> {
    let last = |run: &RunData| Some(run.validations().last()?.2);
    group.runs.iter().filter_map(last).collect()
}

fn to_target(group: &Group, target: Option<f64>) -> Vec<(f64, f64)> {
    let reached = |run: &RunData| run.reaches(target?);
    let found = group.runs.iter().filter_map(reached);
    found
        .map(|(step, seconds)| (step as f64, seconds))
        .collect()
}

fn summarise(group: &Group, base: Option<&Group>, target: Option<f64>) -> Summary {
    let runs = &group.runs;
    let last = lasts(group);
    let best: Vec<f64> = runs.iter().filter_map(RunData::best).collect();
    let reached = to_target(group, target);
    let steps: Vec<f64> = reached.iter().map(|(step, _)| *step).collect();
    let seconds: Vec<f64> = reached.iter().map(|(_, seconds)| *seconds).collect();
    let ends = || runs.iter().filter_map(|run| run.rows.last());
    let wall: Vec<f64> = ends().map(|row| row.seconds).collect();
    let base = base.filter(|base| base.label != group.label);
    Summary {
        label: group.label.clone(),
        seeds: runs.len(),
        p_last: base.and_then(|base| welch(&last, &lasts(base))),
        last: Mean::of(&last),
        best: Mean::of(&best),
        reached: reached.len(),
        p_steps: base.and_then(|base| {
            let others = to_target(base, target);
            let all = reached.len() == runs.len() && others.len() == base.runs.len();
            let others: Vec<f64> = others.into_iter().map(|(step, _)| step).collect();
            welch(&steps, &others).filter(|_| all)
        }),
        steps: Mean::of(&steps),
        seconds: Mean::of(&seconds),
        total_steps: ends().map(|row| row.step).max().unwrap_or(0),
        wall: Mean::of(&wall),
        parameters: runs[0].environment.as_ref().map(|e| e.parameters),
        unfinished: runs.iter().filter(|run| !run.done).count(),
    }
}
