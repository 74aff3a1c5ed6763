//! A report as text: Markdown, CSV and one HTML page.

use super::figures::mean_curve;
use super::{Figure, Mean, Report, Summary, place};
use crate::lens;
use crate::plot::{cell, number, quoted};
use crate::record::Row;
use crate::words::in_lines;

const DASH: &str = "–";

/// The head of the table of runs.
const RUNS: [&str; 5] = ["arm", "seed", "command", "device", "data"];

impl Report {
    fn head(&self) -> Vec<String> {
        let mut head = vec![
            "arm".to_owned(),
            "seeds".to_owned(),
            format!("{}, last validation", self.measure()),
            "best".to_owned(),
        ];
        if let Some(base) = &self.baseline {
            head.push(format!("p against {base}"));
        }
        if let Some(target) = self.target_text() {
            head.push(format!("steps to {target}"));
            if self.baseline.is_some() {
                head.push("p".to_owned());
            }
            head.push(format!("seconds to {target}"));
        }
        head.extend(["steps", "wall time, s", "parameters"].map(str::to_owned));
        head
    }

    fn cells(&self, row: &Summary) -> Vec<String> {
        let digits = self.digits();
        // Over fewer than all runs, it says over how many.
        let mean = |mean: &Option<Mean>, digits| match mean {
            None => DASH.to_owned(),
            Some(mean) if mean.n == row.seeds => mean.text(digits),
            Some(mean) => format!("{} ({} of {})", mean.text(digits), mean.n, row.seeds),
        };
        let p = |p: Option<f64>| match p {
            Some(p) if p < 0.001 => "< 0.001".to_owned(),
            Some(p) => format!("{p:.3}"),
            None => DASH.to_owned(),
        };
        let mut cells = vec![
            row.label.clone(),
            match (row.diverged, row.unfinished) {
                (0, 0) => row.seeds.to_string(),
                (n, 0) => format!("{} ({n} diverged)", row.seeds),
                (0, n) => format!("{} ({n} stopped early)", row.seeds),
                (n, m) => format!("{} ({n} diverged, {m} stopped early)", row.seeds),
            },
            mean(&row.last, digits),
            mean(&row.best, digits),
        ];
        let base = self.baseline.is_some();
        if base {
            cells.push(p(row.p_last));
        }
        if self.target.is_some() {
            cells.push(mean(&row.steps, 0));
            if base {
                cells.push(p(row.p_steps));
            }
            cells.push(mean(&row.seconds, 0));
        }
        cells.push(row.total_steps.to_string());
        cells.push(mean(&row.wall, 0));
        cells.push(
            row.parameters
                .map_or_else(|| DASH.to_owned(), |n| n.to_string()),
        );
        cells
    }

    /// The table in Markdown.
    pub fn table_markdown(&self) -> String {
        let head = self.head();
        let rule: Vec<&str> = (0..head.len())
            .map(|i| if i == 0 { "-" } else { "-:" })
            .collect();
        let head: Vec<String> = head.iter().map(|text| cell(text)).collect();
        let mut text = format!("| {} |\n| {} |\n", head.join(" | "), rule.join(" | "));
        for row in &self.table {
            let cells: Vec<String> = self.cells(row).iter().map(|text| cell(text)).collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }

    fn notes(&self) -> String {
        let mut notes = Vec::new();
        let diverged = self.table.iter().any(|row| row.diverged > 0);
        if self.table.iter().any(|row| row.seeds > 1) {
            notes.push("± is one standard error over seeds.".to_owned());
        }
        if self.baseline.is_some() {
            notes.push(
                "p is that of Welch's test, two-sided, not corrected for the number of arms; there is \
                 none under three seeds."
                    .to_owned(),
            );
        }
        if let Some(target) = self.target_text() {
            let why = match (self.is_common, diverged) {
                (false, _) => "",
                (true, false) => ", the best that all runs reached",
                (true, true) => ", the best that all runs reached which did not diverge",
            };
            notes.push(match self.table.iter().any(|row| row.reached > 0) {
                true => format!(
                    "Steps and seconds are those of the first validation that reached {target}{why}."
                ),
                false => format!("No run reached {target}."),
            });
        }
        if diverged {
            notes.push(
                "A run has diverged if its loss, a metric, its learning rate or its gradient norm is not \
                 finite. It has no last validation, so that mean and its p are without it. Its best \
                 validation, its time and its steps to the target count."
                    .to_owned(),
            );
        }
        notes.join(" ")
    }

    /// `[arm, seed, command, device, data]` of each run.
    fn provenance(&self) -> Vec<[String; 5]> {
        let runs = self
            .groups
            .iter()
            .flat_map(|g| g.runs.iter().map(move |r| (g, r)));
        runs.map(|(group, run)| {
            let dash = || DASH.to_owned();
            let environment = run.environment.as_ref();
            [
                group.label.clone(),
                run.seed.to_string(),
                environment
                    .and_then(|e| e.commands.first())
                    .map_or_else(dash, |words| {
                        // The program's own path is of no interest.
                        let rest = words.get(1..).unwrap_or_default();
                        format!("rezero {}", rest.join(" "))
                    }),
                environment.map_or_else(dash, place::machine),
                environment.map_or_else(dash, |e| place::data(e, &run.task.items)),
            ]
        })
        .collect()
    }
}

/// The report in Markdown, with links to the figures' SVG files.
pub fn markdown(report: &Report, figures: &[Figure]) -> String {
    let mut text = format!("# {}\n\n", cell(&report.title));
    if report.tuning.is_some() {
        let (table, notes) = (
            report.tuning_markdown(),
            cell(&report.tuning_notes().join(" ")),
        );
        text.push_str(&format!(
            "## Tuning\n\n{table}\n{notes}\n\n## Each arm at its best\n\n"
        ));
    }
    text.push_str(&report.table_markdown());
    let notes = cell(&report.notes());
    if !notes.is_empty() {
        text.push_str(&format!("\n{notes}\n"));
    }
    for figure in figures {
        let caption = cell(&figure.caption);
        text.push_str(&format!("\n![{caption}]({}.svg)\n", figure.name));
    }
    let head = RUNS.join(" | ");
    text.push_str(&format!(
        "\n## Runs\n\n| {head} |\n| - | -: | - | - | - |\n"
    ));
    for row in report.provenance() {
        let cells = row.map(|text| cell(&text));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// The table as CSV, with unrounded numbers.
pub fn csv(report: &Report) -> String {
    let mut text = String::from(
        "arm,seeds,last,last_se,best,best_se,p_last,target,reached,steps,steps_se,p_steps,seconds,\
         seconds_se,total_steps,wall,wall_se,parameters,unfinished,diverged\n",
    );
    let value = |v: Option<f64>| v.map_or_else(String::new, |v| v.to_string());
    for row in &report.table {
        let mean = |m: Option<Mean>| {
            let error = value(m.and_then(|m| m.error));
            format!("{},{error}", value(m.map(|m| m.mean)))
        };
        let cells = [
            quoted(&row.label),
            row.seeds.to_string(),
            mean(row.last),
            mean(row.best),
            value(row.p_last),
            value(report.target),
            row.reached.to_string(),
            mean(row.steps),
            value(row.p_steps),
            mean(row.seconds),
            row.total_steps.to_string(),
            mean(row.wall),
            row.parameters.map_or_else(String::new, |n| n.to_string()),
            row.unfinished.to_string(),
            row.diverged.to_string(),
        ];
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// The curves as CSV: means over seeds, as in the figures; empty where a value is not finite.
pub fn curves(report: &Report) -> String {
    let mut text = String::from("arm,split,step,seconds,loss,result\n");
    let score = |row: &Row| super::result(row, &report.task);
    for group in &report.groups {
        for split in ["train", "valid"] {
            let column = |of: &dyn Fn(&Row) -> f64| {
                let series = mean_curve(group, split, &|row| row.step as f64, of);
                series.points
            };
            let seconds = column(&|row| row.seconds);
            let loss = column(&|row| row.loss);
            let result = column(&score);
            for ((at, seconds), ((_, loss), (_, result))) in
                seconds.into_iter().zip(loss.into_iter().zip(result))
            {
                let label = quoted(&group.label);
                let [loss, result] = [loss, result].map(|value| match value.is_finite() {
                    true => value.to_string(),
                    false => String::new(),
                });
                text.push_str(&format!("{label},{split},{at},{seconds},{loss},{result}\n"));
            }
        }
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fffffe; --rule: #dfdfe3; --soft: #f4f4f6 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ec; --paper: #17171b; --rule: #3a3a42; --soft: #222228 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1200px; margin: 0 auto; padding: 16px }
h1 { font-size: 1.6rem; line-height: 1.2 }
h2 { font-size: 1.2rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--rule); padding: 6px 10px; text-align: right; white-space: nowrap }
th { background: var(--soft); white-space: normal; vertical-align: bottom; min-width: 4.5rem }
th:first-child, td:first-child, .left td { text-align: left }
figure { margin: 1.5rem 0; overflow-x: auto }
figure svg { display: block; width: 100%; min-width: 640px; max-width: 900px; height: auto }
figcaption { font-size: 0.9rem; max-width: 900px; position: sticky; left: 0 }
code { font-size: 0.85rem }
";

/// The report as a single HTML page without external resources.
pub fn html(report: &Report, figures: &[Figure]) -> String {
    let title = escaped(&report.title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    let cells = |tag: &str, cells: &[String]| -> String {
        let cell = |c: &String| format!("<{tag}>{}</{tag}>", escaped(c));
        format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
    };
    if let Some(tuning) = &report.tuning {
        let (head, rows) = tuning.table(report);
        text.push_str("<h2>Tuning</h2>\n<div class=\"wide\">\n<table>\n<thead>\n");
        text.push_str(&cells("th", &head));
        text.push_str("</thead>\n<tbody>\n");
        for row in rows {
            let cell = |text: &String| {
                let inner = text
                    .strip_prefix("**")
                    .and_then(|text| text.strip_suffix("**"));
                inner.map_or_else(
                    || format!("<td>{}</td>", escaped(text)),
                    |inner| format!("<td><strong>{}</strong></td>", escaped(inner)),
                )
            };
            let cells: String = row.iter().map(cell).collect();
            text.push_str(&format!("<tr>{cells}</tr>\n"));
        }
        let notes = escaped(&report.tuning_notes().join(" "));
        text.push_str(&format!(
            "</tbody>\n</table>\n</div>\n<p>{notes}</p>\n<h2>Each arm at its best</h2>\n"
        ));
    }
    text.push_str("<div class=\"wide\">\n<table>\n<thead>\n");
    text.push_str(&cells("th", &report.head()));
    text.push_str("</thead>\n<tbody>\n");
    for row in &report.table {
        text.push_str(&cells("td", &report.cells(row)));
    }
    text.push_str("</tbody>\n</table>\n</div>\n");
    let notes = report.notes();
    if !notes.is_empty() {
        text.push_str(&format!("<p>{}</p>\n", escaped(&notes)));
    }
    for figure in figures {
        // Inside an HTML page, an SVG must have no XML declaration.
        let svg = figure.svg.trim_start();
        let svg = svg.find("<svg").map_or(svg, |at| &svg[at..]);
        let caption = escaped(&figure.caption);
        let svg = svg.replacen(
            "<svg ",
            &format!("<svg role=\"img\" aria-label=\"{caption}\" "),
            1,
        );
        text.push_str(&format!(
            "<figure id=\"{}\">\n{svg}<figcaption>{caption}</figcaption>\n</figure>\n",
            figure.name
        ));
    }
    let records: Vec<_> = report
        .groups
        .iter()
        .flat_map(|g| g.runs.iter().map(move |r| (g, r)))
        .flat_map(|(g, r)| r.jacobians.iter().map(move |j| (g, r, j)))
        .collect();
    if !records.is_empty() {
        let legend = lens::LEGEND;
        text.push_str(&format!("<h2>Jacobians</h2>\n<p>{legend}</p>\n"));
        text.push_str("<div class=\"wide\">\n<table>\n<thead>\n");
        let head = [
            "arm",
            "seed",
            "when",
            "Jacobian",
            "mean σ²",
            "vanishing, %",
            "σ_max / σ_min",
        ];
        text.push_str(&cells("th", &head.map(str::to_owned)));
        text.push_str("</thead>\n<tbody>\n");
        for (group, run, record) in records {
            let row = [
                group.label.clone(),
                run.seed.to_string(),
                record.name.clone(),
                record.of.clone(),
                record.mean_square.map_or_else(|| DASH.to_owned(), number),
                format!("{:.1}", 100.0 * record.vanishing.unwrap_or_default()),
                record.condition.map_or_else(|| "∞".to_owned(), number),
            ];
            text.push_str(&cells("td", &row));
        }
        text.push_str("</tbody>\n</table>\n</div>\n");
    }
    text.push_str("<h2>Runs</h2>\n<div class=\"wide\">\n<table class=\"left\">\n<thead>\n");
    text.push_str(&cells("th", &RUNS.map(str::to_owned)));
    text.push_str("</thead>\n<tbody>\n");
    for row in report.provenance() {
        text.push_str(&cells("td", &row));
    }
    text.push_str("</tbody>\n</table>\n</div>\n</body>\n</html>\n");
    in_lines(&text).into_owned()
}
