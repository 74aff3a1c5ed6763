//! A sweep: which values of the tuned keys are best for each arm.

use std::collections::BTreeMap;
use std::path::Path;

use super::read::reaches;
use super::{Figure, Group, Mean, Report, RunData, group, read};
use crate::error::{Error, Result};
use crate::plot::{Axis, Lines, Scale, Series, cell, quoted};
use crate::recipe::Override;
use crate::record::sweep::{Plan, Trial, folder};
use crate::record::{Described, inside, metrics};
use crate::words::on_a_line;

/// The runs of a sweep, and what they say about the tuned keys.
#[derive(Clone, Debug)]
pub struct SweepData {
    /// The tuned keys; none if no key is tuned.
    pub tuning: Option<Tuning>,
    /// The arms, each with its runs at its own best values.
    pub groups: Vec<Group>,
    /// The trials that are not complete, of all trials.
    pub missing: [usize; 2],
}

/// The results of every value.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The tuned keys by their short names.
    pub keys: Vec<String>,
    /// Arms with values, in the order of the trials.
    pub settings: Vec<Setting>,
    /// What to know about the choice.
    pub notes: Vec<String>,
}

/// The trials of an arm with the same values: one for each seed.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The arm.
    pub arm: String,
    /// The values of the tuned keys, as they were typed.
    pub values: Vec<String>,
    /// The number of trials.
    pub trials: usize,
    /// The last validation of those that are complete.
    pub last: Vec<f64>,
    /// The best validation of those that are complete.
    pub best: Vec<f64>,
    /// The number of trials that diverged.
    pub diverged: usize,
    /// The number of trials that are not complete and did not diverge.
    pub unfinished: usize,
    /// Whether the arm did best with these values.
    pub chosen: bool,
}

/// Reads the sweep in `dir`.
///
/// The best values of an arm are those with the best mean of the last validations over seeds, among those at which all
/// trials are complete; else among those at which the fewest diverged or are not complete.
///
/// # Errors
///
/// If there is no plan, a run is not the trial of its name, or no trial has a validation.
pub fn read_sweep(dir: &Path) -> Result<SweepData> {
    let plan = Plan::read(dir)?;
    let mut settings: Vec<(Setting, Vec<RunData>)> = Vec::new();
    let mut unfinished = 0;
    for trial in &plan.trials {
        let arm = on_a_line(&trial.arm).into_owned();
        let at = settings
            .iter()
            .position(|(s, _)| {
                let mut pairs = s.values.iter().zip(&trial.values);
                s.arm == arm && pairs.all(|(a, b)| is_same(a, b))
            })
            .unwrap_or_else(|| {
                let values = trial.values.clone();
                let setting = Setting {
                    arm,
                    values,
                    ..Setting::default()
                };
                settings.push((setting, Vec::new()));
                settings.len() - 1
            });
        let (setting, runs) = &mut settings[at];
        setting.trials += 1;
        let run = match run(dir, &plan, trial)? {
            Some(run) if run.diverged => {
                setting.diverged += 1;
                run
            }
            Some(run) if run.done => {
                setting.last.extend(run.last());
                setting.best.extend(run.best());
                run
            }
            other => {
                setting.unfinished += 1;
                unfinished += 1;
                match other {
                    Some(run) => run,
                    None => continue,
                }
            }
        };
        runs.push(run);
    }
    let all: Vec<&RunData> = settings.iter().flat_map(|(_, runs)| runs).collect();
    let Some(first) = all.first() else {
        return Err(Error::Sweep {
            dir: dir.to_owned(),
            message: "has no trial with a result yet; the command that began it goes on with it"
                .to_owned(),
        });
    };
    group::must_be_of_one_task(&all)?;
    let task = first.task.clone();
    let keys: Vec<String> = plan.tuned.iter().map(|key| short(key)).collect();
    let mut notes = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut arms: Vec<String> = Vec::new();
    for (setting, _) in &settings {
        if !arms.contains(&setting.arm) {
            arms.push(setting.arm.clone());
        }
    }
    for arm in arms {
        let own: Vec<usize> = (0..settings.len())
            .filter(|at| settings[*at].0.arm == arm && !settings[*at].1.is_empty())
            .collect();
        let best = best(own.iter().map(|at| (*at, &settings[*at].0)), &task);
        let Some(at) = best.or(own.first().copied()) else {
            notes.push(format!("{arm}: no trial has a result yet."));
            continue;
        };
        let (setting, runs) = &mut settings[at];
        setting.chosen = best.is_some();
        if !keys.is_empty() {
            match (setting.chosen, setting.trials - setting.last.len()) {
                (true, 0) => {}
                (true, n) => notes.push(format!(
                    "{arm}: no values have all trials complete; of {} at the chosen ones, {n} diverged or are not complete.",
                    setting.trials
                )),
                (false, _) => notes.push(format!("{arm}: no trial is complete without a divergence.")),
            }
        }
        let words = keys.iter().zip(&setting.values);
        let words: String = words
            .map(|(key, value)| format!(" {key}={value}"))
            .collect();
        groups.push(Group {
            label: on_a_line(&format!("{arm}{words}")).into_owned(),
            runs: runs.clone(),
        });
    }
    let settings: Vec<Setting> = settings.into_iter().map(|(setting, _)| setting).collect();
    notes.extend(edges(&keys, &settings));
    Ok(SweepData {
        tuning: (!keys.is_empty()).then_some(Tuning {
            keys,
            settings,
            notes,
        }),
        groups,
        missing: [unfinished, plan.trials.len()],
    })
}

/// The run of a trial, if it has rows.
fn run(dir: &Path, plan: &Plan, trial: &Trial) -> Result<Option<RunData>> {
    let path = folder(dir, trial)?;
    let rows = path.join(metrics::FILE);
    if !inside::is_there(&path.join("recipe.toml")) || !inside::is_there(&rows) {
        return Ok(None);
    }
    if metrics::read(&path)?.is_empty() {
        return Ok(None);
    }
    let run = read(&path)?;
    let wrong = |what: String| {
        Err(Error::Run {
            dir: path.clone(),
            message: format!("is not the trial of that name: it has {what}"),
        })
    };
    if run.seed != trial.seed {
        return wrong(format!("the seed {}, not {}", run.seed, trial.seed));
    }
    for (key, value) in plan.tuned.iter().zip(&trial.values) {
        let wanted = Override::new(key, value).parsed();
        let found = run.settings.get(key);
        let number = |value: &toml::Value| match value {
            toml::Value::Integer(n) => Some(*n as f64),
            toml::Value::Float(x) => Some(*x),
            _ => None,
        };
        let same = found.is_some_and(|found| *found == wanted)
            || found
                .and_then(number)
                .is_some_and(|x| Some(x) == number(&wanted));
        if !same {
            let found = found.map_or_else(|| "no".to_owned(), ToString::to_string);
            return wrong(format!("{found} {key}, not {value}"));
        }
    }
    Ok(Some(run))
}

/// The word for a key on the command line.
fn short(key: &str) -> String {
    let word = match key.split_once('.') {
        Some((section, "kind" | "family")) => section,
        Some((_, short)) => short,
        None => key,
    };
    on_a_line(word).into_owned()
}

/// The best of some settings: of those with the fewest trials that diverged or are not complete, that with the best mean.
fn best<'a>(
    settings: impl Iterator<Item = (usize, &'a Setting)>,
    task: &Described,
) -> Option<usize> {
    let mut best: Option<(usize, usize, f64)> = None;
    for (at, setting) in settings {
        let Some(mean) = Mean::of(&setting.last) else {
            continue;
        };
        let (lost, mean) = (setting.trials - setting.last.len(), mean.mean);
        let better = best.is_none_or(|(_, fewest, value)| {
            lost < fewest || (lost == fewest && mean != value && reaches(mean, value, task))
        });
        if better {
            best = Some((at, lost, mean));
        }
    }
    best.map(|(at, _, _)| at)
}

fn number(value: &str) -> Option<f64> {
    value.parse().ok().filter(|x: &f64| x.is_finite())
}

/// A warning for each arm whose best value is the smallest or the largest of the grid.
fn edges(keys: &[String], settings: &[Setting]) -> Vec<String> {
    let mut notes = Vec::new();
    for setting in settings.iter().filter(|setting| setting.chosen) {
        for (i, key) in keys.iter().enumerate() {
            let own = settings.iter().filter(|other| other.arm == setting.arm);
            let all: Option<Vec<f64>> = own.map(|other| number(&other.values[i])).collect();
            let (Some(all), Some(value)) = (all, number(&setting.values[i])) else {
                continue;
            };
            let mut all = all;
            all.sort_by(f64::total_cmp);
            all.dedup();
            // Of two values each is at an edge, which says nothing.
            let [low, _, .., high] = all[..] else {
                continue;
            };
            let (edge, beyond) = match () {
                () if value == high => ("largest", "larger"),
                // No key that is tuned has a meaning below 0.
                () if value == low && low > 0.0 => ("smallest", "smaller"),
                () => continue,
            };
            notes.push(format!(
                "Warning: {}: {key}={} is the {edge} value of the grid; a {beyond} one may be better.",
                setting.arm, setting.values[i]
            ));
        }
    }
    notes
}

/// `mean ± standard deviation`.
fn spread(values: &[f64], digits: usize) -> Option<String> {
    let mean = Mean::of(values)?;
    Some(match deviation(&mean) {
        Some(sd) => format!("{:.digits$} ± {sd:.digits$}", mean.mean),
        None => format!("{:.digits$}", mean.mean),
    })
}

fn deviation(mean: &Mean) -> Option<f64> {
    mean.error.map(|error| error * (mean.n as f64).sqrt())
}

impl Setting {
    /// The result in words.
    fn text(&self, values: &[f64], digits: usize) -> String {
        let n = self.trials;
        let mut lost = Vec::new();
        for (count, what) in [
            (self.diverged, "diverged"),
            (self.unfinished, "not complete"),
        ] {
            match count {
                0 => {}
                all if all == n => return what.to_owned(),
                some => lost.push(format!("{some} of {n} {what}")),
            }
        }
        match (spread(values, digits), lost.is_empty()) {
            (Some(text), true) => text,
            (Some(text), false) => format!("{text} ({})", lost.join(", ")),
            (None, _) => lost.join(", "),
        }
    }
}

impl Tuning {
    /// The heads of the columns, and the rows. With one key, a row for each arm and a column for each value; else a row
    /// for each arm and its values.
    pub(super) fn table(&self, report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
        let digits = report.task.digits;
        let marked = |setting: &Setting, text: String| match setting.chosen {
            true => format!("**{text}**"),
            false => text,
        };
        let [key] = self.keys.as_slice() else {
            let mut head = vec!["arm".to_owned()];
            head.extend(self.keys.iter().cloned());
            head.push(format!("{}, last validation", report.measure()));
            head.push("best".to_owned());
            let rows = self.settings.iter().map(|setting| {
                let mut row = vec![setting.arm.clone()];
                row.extend(
                    setting
                        .values
                        .iter()
                        .map(|value| on_a_line(value).into_owned()),
                );
                row.push(marked(setting, setting.text(&setting.last, digits)));
                row.push(setting.text(&setting.best, digits));
                row
            });
            return (head, rows.collect());
        };
        let mut columns: Vec<&String> = Vec::new();
        for setting in &self.settings {
            let same = |other: &&&String| is_same(other, &setting.values[0]);
            if !columns.iter().any(|column| same(&column)) {
                columns.push(&setting.values[0]);
            }
        }
        if columns.iter().all(|value| number(value).is_some()) {
            columns.sort_by(|a, b| number(a).partial_cmp(&number(b)).expect("finite numbers"));
        }
        let mut head = vec!["arm".to_owned()];
        head.extend(
            columns
                .iter()
                .map(|value| on_a_line(&format!("{key}={value}")).into_owned()),
        );
        let mut rows: Vec<Vec<String>> = Vec::new();
        for setting in &self.settings {
            if rows.iter().any(|row| row[0] == setting.arm) {
                continue;
            }
            let mut row = vec![setting.arm.clone()];
            for column in &columns {
                let found = self
                    .settings
                    .iter()
                    .find(|other| other.arm == setting.arm && is_same(column, &other.values[0]));
                row.push(match found {
                    Some(found) => marked(found, found.text(&found.last, digits)),
                    None => "–".to_owned(),
                });
            }
            rows.push(row);
        }
        (head, rows)
    }

    /// What the table shows, and what to know about the choice.
    pub(super) fn notes(&self, report: &Report) -> Vec<String> {
        let mut notes = vec![format!(
            "Last validation ({}), mean ± standard deviation over seeds. Bold: the values at which the arm did best on the \
             validation data. They were chosen on the data that scores them; the test split has not seen the choice.",
            report.measure()
        )];
        notes.extend(self.notes.iter().cloned());
        notes
    }

    pub(super) fn csv(&self) -> String {
        let value = |v: Option<f64>| v.map_or_else(String::new, |v| v.to_string());
        let keys: Vec<String> = self.keys.iter().map(|key| quoted(key)).collect();
        let mut text = format!(
            "arm,{},trials,last,last_sd,best,best_sd,diverged,unfinished,chosen\n",
            keys.join(",")
        );
        for setting in &self.settings {
            let mut cells = vec![quoted(&setting.arm)];
            cells.extend(setting.values.iter().map(|value| quoted(value)));
            cells.push(setting.trials.to_string());
            for values in [&setting.last, &setting.best] {
                let mean = Mean::of(values);
                cells.push(value(mean.map(|mean| mean.mean)));
                cells.push(value(mean.and_then(|mean| deviation(&mean))));
            }
            cells.push(setting.diverged.to_string());
            cells.push(setting.unfinished.to_string());
            cells.push(setting.chosen.to_string());
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }

    /// The result by the value of the tuned key, if there is one key and its values are numbers.
    pub(super) fn figure(&self, report: &Report) -> Option<Figure> {
        /// Values whose largest is so many times the smallest stand on a logarithmic axis.
        const SPREAD: f64 = 3.0;

        let [key] = self.keys.as_slice() else {
            return None;
        };
        // The means of an arm by value, and the value itself.
        type Means = BTreeMap<u64, (f64, Mean)>;
        // An arm, its means, and the values at which trials diverged.
        let mut arms: Vec<(&str, Means, Vec<f64>)> = Vec::new();
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for setting in &self.settings {
            let x = number(&setting.values[0])?;
            (low, high) = (low.min(x), high.max(x));
            let at = arms
                .iter()
                .position(|(arm, ..)| *arm == setting.arm)
                .unwrap_or_else(|| {
                    arms.push((&setting.arm, BTreeMap::new(), Vec::new()));
                    arms.len() - 1
                });
            if setting.diverged > 0 {
                arms[at].2.push(x);
            }
            if let Some(mean) = Mean::of(&setting.last) {
                // In the order of the numbers, also of those below 0.
                let order = x.to_bits() ^ (((x.to_bits() as i64 >> 63) as u64) | 1 << 63);
                arms[at].1.insert(order, (x, mean));
            }
        }
        if low == high {
            return None;
        }
        let any_diverged = arms.iter().any(|(.., diverged)| !diverged.is_empty());
        let series = arms.into_iter().map(|(arm, points, beyond)| {
            let band = |(x, mean): &(f64, Mean)| {
                let sd = deviation(mean)?;
                Some((*x, mean.mean - sd, mean.mean + sd))
            };
            let points: Vec<(f64, Mean)> = points.into_values().collect();
            Series {
                name: arm.to_owned(),
                band: points
                    .iter()
                    .map(band)
                    .collect::<Option<_>>()
                    .unwrap_or_default(),
                points: points.iter().map(|(x, mean)| (*x, mean.mean)).collect(),
                beyond,
            }
        });
        let lines = Lines {
            title: format!("{}: {} by {key}", report.title, report.measure()),
            x: Axis {
                label: key.clone(),
                scale: match low > 0.0 && high / low > SPREAD {
                    true => Scale::Log,
                    false => Scale::Linear,
                },
            },
            y: Axis::linear(&format!("last validation ({})", report.measure())),
            series: series.collect(),
        };
        Some(Figure {
            name: "tuning".to_owned(),
            caption: format!(
                "Last validation by {key}; mean over the seeds that did not diverge, the band one standard deviation.{}",
                match any_diverged {
                    true =>
                        " A cross at the upper edge: trials of this arm diverged at this value.",
                    false => "",
                }
            ),
            svg: lines.svg(),
        })
    }
}

/// Whether two values are the same, however a number is written.
fn is_same(a: &str, b: &str) -> bool {
    a == b || number(a).is_some_and(|x| number(b) == Some(x))
}

impl Report {
    /// The table of the tuned values in Markdown; empty if no key is tuned.
    pub fn tuning_markdown(&self) -> String {
        let Some(tuning) = &self.tuning else {
            return String::new();
        };
        let (head, rows) = tuning.table(self);
        let bold = |text: &String| {
            let inner = text
                .strip_prefix("**")
                .and_then(|text| text.strip_suffix("**"));
            inner.map_or_else(|| cell(text), |inner| format!("**{}**", cell(inner)))
        };
        let rule = vec!["-:"; head.len() - 1];
        let head: Vec<String> = head.iter().map(|text| cell(text)).collect();
        let mut text = format!("| {} |\n| - | {} |\n", head.join(" | "), rule.join(" | "));
        for row in rows {
            let cells: Vec<String> = row.iter().map(bold).collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }

    /// The notes below that table, as plain text.
    pub fn tuning_notes(&self) -> Vec<String> {
        self.tuning
            .as_ref()
            .map_or_else(Vec::new, |tuning| tuning.notes(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_best_value_at_an_edge_is_told_where_that_says_something() {
        let of = |values: &[&str], chosen: usize| {
            let settings: Vec<Setting> = values
                .iter()
                .enumerate()
                .map(|(i, value)| Setting {
                    arm: "a".to_owned(),
                    values: vec![(*value).to_owned()],
                    chosen: i == chosen,
                    ..Setting::default()
                })
                .collect();
            edges(&["lr".to_owned()], &settings).join("")
        };
        assert!(of(&["1", "2", "4"], 2).contains("lr=4 is the largest value of the grid"));
        assert!(of(&["1", "2", "4"], 0).contains("lr=1 is the smallest value of the grid"));
        assert_eq!(of(&["1", "2", "4"], 1), "");
        assert_eq!(of(&["1", "2"], 0) + &of(&["1", "2"], 1), "");
        // The same number twice is one value.
        assert_eq!(of(&["1", "1.0", "2"], 2), "");
        // Nothing is below 0.
        assert_eq!(of(&["0", "0.1", "0.2"], 0), "");
    }
}
