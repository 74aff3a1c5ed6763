//! The classes of images.

use std::path::{Path, PathBuf};

use burn::tensor::activation::softmax;
use rezero_data::picture::{self, MAX_FILE_BYTES};
use rezero_data::{ImageSet, ImageShape, Split};
use serde_json::{Value, json};

use super::{Opened, STDIN, once, out, refused, standard_input};
use crate::cli::Predict;
use crate::commands::places;
use crate::error::{Error, Result};
use crate::fit::Source;
use crate::plot::{Grid, Tile};
use crate::recipe::{ImageData, Settings, TaskOf};
use crate::record::{run_dir, write_named};
use crate::task::{Domain, Images, Places, class_names, preparation};
use crate::words::{self, on_a_line};
use crate::zoo::Zoo;

/// The most files of folders.
const MOST_FILES: usize = 1 << 20;
/// How deep folders may be in folders.
const DEEPEST: usize = 32;
/// The most files whose images are in memory together.
const CHUNK: usize = 256;
/// The most images of a grid.
const TILES: usize = 40;
/// The classes of an image that are shown, unless `--top-k` says otherwise.
const TOP: usize = 3;

/// What the network says of an image.
struct Prediction {
    /// The file's path, or the record's number.
    name: String,
    /// The classes with their probabilities, the most likely first.
    classes: Vec<(usize, f32)>,
    label: Option<usize>,
}

pub fn run(args: &Predict, run: &Path, of: &TaskOf<Images>, settings: &Settings) -> Result<()> {
    once(&args.files)?;
    let top = args.top_k.unwrap_or(TOP);
    if top == 0 || args.items == Some(0) {
        let flag = if top == 0 { "--top-k" } else { "--items" };
        return Err(refused(
            Path::new(flag),
            "must be at least 1, got 0".to_owned(),
        ));
    }
    let format = args.grid.as_deref().map(Format::of).transpose()?;
    let mut files = expanded(&args.files)?;
    files.truncate(args.items.unwrap_or(usize::MAX));
    let opened = Opened::new(args, run, of, settings)?;
    let names = class_names(&of.data);
    let mut report = Report {
        names,
        predictions: Vec::new(),
        tiles: Vec::new(),
        top,
        with_tiles: format.is_some(),
    };
    let data = match args.split {
        Some(split) => {
            let set = of_split(args, run, of, split, &opened.name)?;
            let set = set.take(args.items.unwrap_or(usize::MAX));
            report.add(of, settings, &opened, &set, |i| {
                (format!("#{i}"), Some(set.label(i)))
            })?;
            Some(format!("{} {split}", set.name()))
        }
        None => {
            for chunk in files.chunks(settings.train.batch.min(CHUNK)) {
                let set = decoded(of, chunk, &report.names)?;
                report.add(of, settings, &opened, &set, |i| {
                    (chunk[i].display().to_string(), None)
                })?;
            }
            None
        }
    };
    if let (Some(path), Some(format)) = (&args.grid, format) {
        let title = format!("{} · step {}", opened.identity, opened.step);
        let grid = Grid {
            title: title.trim().to_owned(),
            subtitle: match &data {
                Some(data) => format!("{data}; a green frame: right, an orange frame: wrong"),
                None => "the most likely class of each image".to_owned(),
            },
            tiles: std::mem::take(&mut report.tiles),
        };
        write_named(path, &format.drawn(&grid))?;
    }
    report.print(args, &opened, data.as_deref())
}

/// The format of a grid's file.
#[derive(Clone, Copy)]
enum Format {
    Svg,
    #[cfg(feature = "png")]
    Png,
}

impl Format {
    /// As the path's extension says.
    fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        match extension.to_lowercase().as_str() {
            "svg" => Ok(Self::Svg),
            #[cfg(feature = "png")]
            "png" => Ok(Self::Png),
            #[cfg(not(feature = "png"))]
            "png" => Err(refused(
                path,
                "is a PNG, which this binary does not write: name a file that ends in .svg, or build it with `--features png`"
                    .to_owned(),
            )),
            _ => Err(refused(path, "must end in .svg or .png".to_owned())),
        }
    }

    fn drawn(self, grid: &Grid) -> Vec<u8> {
        match self {
            Self::Svg => grid.svg().into_bytes(),
            #[cfg(feature = "png")]
            Self::Png => crate::plot::png(&grid.svg(), &grid.placed()),
        }
    }
}

/// A split of the run's data, the whole of it.
fn of_split(
    args: &Predict,
    run: &Path,
    of: &TaskOf<Images>,
    split: Split,
    device: &str,
) -> Result<ImageSet> {
    let saved = run_dir::environment(run);
    let given = Places {
        dir: args.data_dir.clone(),
        offline: args.offline,
        ..Places::default()
    };
    let places = places(run, of, saved.as_ref(), given, device)?;
    let data = ImageData {
        train_items: 0,
        valid_items: 0,
        ..of.data.clone()
    };
    Images::open(&data, &places, split)
}

/// Files as one set of images of the run's form.
fn decoded(of: &TaskOf<Images>, files: &[PathBuf], names: &[String]) -> Result<ImageSet> {
    let how = preparation(&of.data);
    let (mut pixels, shape) = (Vec::new(), Images::form(&of.data).shape);
    for file in files {
        let picture = match file.as_os_str() == STDIN {
            true => picture::decode(
                &standard_input(MAX_FILE_BYTES)?,
                Path::new("standard input"),
                &how,
            )?,
            false => picture::read(file, &how)?,
        };
        pixels.extend(picture.pixels);
    }
    let labels = vec![0u16; files.len()];
    Ok(ImageSet::from_raw(
        "files",
        shape,
        pixels,
        labels,
        names.to_vec(),
        0,
    )?)
}

/// Files as they are, folders as the PNG and JPEG files in them and in their folders, by name. A link
/// to a folder is not followed.
fn expanded(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == STDIN || !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        add_folder(path, 0, &mut files)?;
        if files.len() == before {
            return Err(refused(
                path,
                "holds no file that ends in .png, .jpg or .jpeg".to_owned(),
            ));
        }
    }
    Ok(files)
}

fn add_folder(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > DEEPEST {
        return Err(refused(dir, format!("is more than {DEEPEST} folders deep")));
    }
    let io = |e| Error::io("read", dir, e);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        entries.push((entry.path(), entry.file_type().map_err(io)?));
        if files.len() + entries.len() > MOST_FILES {
            return Err(refused(dir, format!("holds more than {MOST_FILES} files")));
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind) in entries {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let is_image = ["png", "jpg", "jpeg"].contains(&extension.to_lowercase().as_str());
        if kind.is_dir() {
            add_folder(&path, depth + 1, files)?;
        } else if is_image {
            files.push(path);
        }
    }
    Ok(())
}

/// The predictions so far.
struct Report {
    names: Vec<String>,
    predictions: Vec<Prediction>,
    tiles: Vec<Tile>,
    top: usize,
    with_tiles: bool,
}

impl Report {
    /// Classifies all of `set`. `named` gives a record's name and its label.
    fn add(
        &mut self,
        of: &TaskOf<Images>,
        settings: &Settings,
        opened: &Opened<Images>,
        set: &ImageSet,
        named: impl Fn(usize) -> (String, Option<u16>),
    ) -> Result<()> {
        let network = match settings.train.dtype.half() {
            Some(half) => rezero_nn::in_precision(opened.network.clone(), half),
            None => opened.network.clone(),
        };
        let source = Images::for_scoring(of, settings, set.clone(), &opened.device)?;
        let mut record = 0;
        for batch in source.batches_from(0, &opened.device) {
            let batch = batch.map_err(|e| Error::Training(e.to_string()))?;
            let probabilities = softmax(network.logits(&batch), 1).into_data();
            let probabilities: Vec<f32> = probabilities.iter::<f32>().collect();
            for row in probabilities.chunks(self.names.len()) {
                let (name, label) = named(record);
                let mut classes: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
                classes.sort_by(|a, b| b.1.total_cmp(&a.1));
                let label = label.map(usize::from);
                if self.with_tiles && self.tiles.len() < TILES {
                    self.tiles
                        .push(self.tile(set, record, &classes, &name, label)?);
                }
                classes.truncate(self.top);
                self.predictions.push(Prediction {
                    name,
                    classes,
                    label,
                });
                record += 1;
            }
        }
        Ok(())
    }

    fn name(&self, class: usize) -> &str {
        &self.names[class]
    }

    fn tile(
        &self,
        set: &ImageSet,
        record: usize,
        classes: &[(usize, f32)],
        name: &str,
        label: Option<usize>,
    ) -> Result<Tile> {
        let ImageShape {
            channels,
            height,
            width,
        } = set.shape();
        let (pixels, size) = (set.pixels(record)?, height * width);
        // Grey, or red, green and blue; what follows is alpha.
        let plane = |c: usize| if channels < 3 { 0 } else { c * size };
        let rgb = (0..size).flat_map(|i| [0, 1, 2].map(|c| pixels[plane(c) + i]));
        let (class, probability) = classes[0];
        let file = Path::new(name).file_name().unwrap_or_default();
        let below = match label {
            Some(label) => format!("is {}", self.name(label)),
            None => file.to_string_lossy().into_owned(),
        };
        Ok(Tile {
            pixels: rgb.collect(),
            height,
            width,
            lines: vec![
                format!("{} {}", percent(probability, 0), self.name(class)),
                below,
            ],
            right: label.map(|label| label == class),
        })
    }

    fn print(&self, args: &Predict, opened: &Opened<Images>, data: Option<&str>) -> Result<()> {
        let labelled = self
            .predictions
            .iter()
            .filter(|p| p.label.is_some())
            .count();
        let right = self
            .predictions
            .iter()
            .filter(|p| p.label == Some(p.classes[0].0))
            .count();
        if args.json {
            let rows: Vec<Value> = self.predictions.iter().map(|p| self.json(p)).collect();
            let mut result = json!({
                "run": args.run.display().to_string(), "model": opened.identity, "step": opened.step,
                "predictions": rows,
            });
            if let Some(data) = data {
                result["data"] = data.into();
                result["accuracy"] = (right as f64 / labelled as f64).into();
            }
            out!(
                "{}",
                words::json(&result).expect("a table of values is JSON")
            );
            return Ok(());
        }
        let data = data.map_or(String::new(), |data| format!(" · {data}"));
        out!("{} · step {}{data}", opened.identity, opened.step);
        let rows: Vec<Vec<String>> = self.predictions.iter().map(|p| self.cells(p)).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let wide = |c: usize| rows.iter().map(move |row| row[c].chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| wide(c).unwrap_or_default()).collect();
        for row in &rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"));
            out!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
        }
        if labelled > 0 {
            let share = 100.0 * right as f64 / labelled as f64;
            out!("accuracy {share:.2} %  ({right} of {labelled})");
        }
        Ok(())
    }

    fn json(&self, of: &Prediction) -> Value {
        let classes = of.classes.iter().map(|(class, probability)| {
            json!({ "class": self.name(*class), "probability": probability })
        });
        let mut row = json!({ "file": of.name, "classes": classes.collect::<Vec<_>>() });
        if let (Some(label), Some(row)) = (of.label, row.as_object_mut()) {
            let record = row.remove("file").unwrap_or_default();
            row.insert("record".to_owned(), record);
            row.insert("label".to_owned(), self.name(label).into());
        }
        row
    }

    /// The cells of a row: name, label, classes.
    fn cells(&self, of: &Prediction) -> Vec<String> {
        let shown = |text: &str| on_a_line(text).into_owned();
        let label = of
            .label
            .map(|label| format!("is {}", shown(self.name(label))));
        let classes = of.classes.iter().map(|(class, probability)| {
            format!("{} {}", shown(self.name(*class)), percent(*probability, 1))
        });
        std::iter::once(shown(&of.name))
            .chain(label)
            .chain(classes)
            .collect()
    }
}

fn percent(probability: f32, digits: usize) -> String {
    format!("{:.digits$} %", 100.0 * probability)
}
