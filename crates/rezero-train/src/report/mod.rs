//! Comparison of several runs: arms side by side, each over its seeds.

mod figures;
mod group;
mod page;
mod place;
mod read;
mod stats;
mod tuning;
mod write;

use crate::error::{Error, Result};
use crate::record::Described;
use crate::words::on_a_line;

pub use figures::{Figure, figures};
pub use group::group;
pub use page::{csv, curves, html, markdown};
pub use read::{RunData, read};
pub use stats::{Mean, welch};
pub use tuning::{Setting, SweepData, Tuning, read_sweep};

use read::{reaches, result};

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
    /// The last validation, over the runs that did not diverge.
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
    /// The number of runs that are not complete and did not diverge.
    pub unfinished: usize,
    /// The number of runs that diverged.
    pub diverged: usize,
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
    /// Whether the target is the best result that all runs reached.
    is_common: bool,
    /// The label of the group against which the others are tested.
    pub baseline: Option<String>,
    /// The table.
    pub table: Vec<Summary>,
    /// The values among which the arms' own were chosen, in the report of a sweep.
    pub tuning: Option<Tuning>,
}

impl Report {
    /// Compares groups.
    ///
    /// Without a `target`, the best result that every run reached which did not diverge is the target,
    /// rounded to the task's digits so that all of them still reach it. `baseline` is the label of a
    /// group, or the first words of a label that no other group begins with.
    ///
    /// # Errors
    ///
    /// If there are no groups, or the baseline is none or several of them.
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
            Some(name) => Some(find(&groups, name).ok_or_else(|| {
                let several = groups.iter().any(|group| begins(&group.label, name));
                let found = match several {
                    true => "several arms begin with",
                    false => "there is no arm",
                };
                Error::Report(format!(
                    "{found} `{name}` to compare with; choose of: {}",
                    labels.join(", ")
                ))
            })?),
        };
        let is_common = target.is_none();
        let target = target.or_else(|| common(&groups, &task));
        let table = groups
            .iter()
            .map(|group| summarise(group, base, target))
            .collect();
        Ok(Self {
            title: on_a_line(title).into_owned(),
            task,
            target,
            is_common,
            baseline: base.map(|group| group.label.clone()),
            table,
            tuning: None,
            groups,
        })
    }

    /// The same with the tuning that chose the runs.
    #[must_use]
    pub fn with_tuning(self, tuning: Option<Tuning>) -> Self {
        Self { tuning, ..self }
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

    /// The target as text: as it was given, or with the digits of the table.
    pub fn target_text(&self) -> Option<String> {
        let target = self.target?;
        let number = match self.is_common {
            true => format!("{target:.*}", self.digits()),
            false => target.to_string(),
        };
        Some(number + &self.task.sign)
    }
}

/// Whether `label` is `name` or continues it with further words.
fn begins(label: &str, name: &str) -> bool {
    let rest = label.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// The group of that label, else the only one whose label begins with it.
fn find<'a>(groups: &'a [Group], name: &str) -> Option<&'a Group> {
    let named = groups.iter().find(|group| group.label == name);
    named.or_else(|| {
        let mut found = groups.iter().filter(|group| begins(&group.label, name));
        found.next().filter(|_| found.next().is_none())
    })
}

/// The best result that all runs reached which did not diverge, rounded as it is printed, so that all
/// still reach it.
fn common(groups: &[Group], task: &Described) -> Option<f64> {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let bests = runs.filter(|run| !run.diverged).map(RunData::best);
    let bests: Vec<f64> = bests.collect::<Option<_>>()?;
    let bests = bests.into_iter();
    let (worst, easier) = match task.higher_is_better {
        true => (bests.min_by(f64::total_cmp)?, -1.0),
        false => (bests.max_by(f64::total_cmp)?, 1.0),
    };
    // By way of its text, so that the number that is printed is the one that is compared with.
    let digits = task.digits;
    let rounded = |value: f64| format!("{value:.digits$}").parse().unwrap_or(value);
    let near = rounded(worst);
    Some(match reaches(worst, near, task) {
        true => near,
        false => rounded(near + easier * 0.1f64.powi(digits as i32)),
    })
}

fn lasts(group: &Group) -> Vec<f64> {
    group.runs.iter().filter_map(RunData::last).collect()
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
    let count = |is: &dyn Fn(&RunData) -> bool| runs.iter().filter(|run| is(run)).count();
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
        unfinished: count(&|run| !run.done && !run.diverged),
        diverged: count(&|run| run.diverged),
    }
}
