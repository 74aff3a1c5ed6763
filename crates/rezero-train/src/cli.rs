//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
use rezero_data::Split;
use rezero_nn::torch::StoredAs;

use crate::fit::OnTerm;
use crate::recipe::{self, Meant, Override};
use crate::sweep::Word;
use crate::words::on_a_line;

/// Train and evaluate very deep networks with ReZero, x + α·F(x).
#[derive(Debug, Parser)]
#[command(name = "rezero", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Command {
    /// Whether it must not use the network.
    pub(crate) fn is_offline(&self) -> bool {
        match self {
            Self::Train(args) => args.offline,
            Self::Sweep(args) => args.offline,
            Self::Eval(args) => args.offline,
            Self::Predict(args) => args.offline,
            Self::Fetch(args) => args.offline,
            Self::Jacobian(args) => args.offline,
            Self::Grow(args) => args.offline,
            _ => false,
        }
    }
}

impl Cli {
    /// Reads this process's command line.
    ///
    /// # Errors
    ///
    /// As [`Parser::try_parse`]. A key of recipes that is written as a flag, `--lr 0.02`, gets a tip.
    pub fn read() -> Result<Self, clap::Error> {
        let words: Vec<OsString> = std::env::args_os().collect();
        Self::try_parse_from(&words).map_err(|error| {
            // The message quotes the words, of which one may be a name that a shell's `*` stands for.
            let shown = |word: &OsString| on_a_line(&word.to_string_lossy()).into_owned().into();
            let words: Vec<OsString> = words.iter().map(shown).collect();
            let mut error = Self::try_parse_from(&words).err().unwrap_or(error);
            if let Some(tip) = tip(&error, &words) {
                error.insert(
                    ContextKind::Suggested,
                    ContextValue::StyledStrs(vec![tip.into()]),
                );
            }
            error
        })
    }
}

/// The tip for a key of recipes that is not written as `key=value`.
fn tip(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let command = words.get(1)?.to_str()?;
    if !["train", "sweep", "import", "grow"].contains(&command) {
        return None;
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let is_flag = error.kind() == ErrorKind::UnknownArgument;
    let named = match error.kind() {
        ErrorKind::UnknownArgument => context(ContextKind::InvalidArg)?,
        ErrorKind::ValueValidation => context(ContextKind::InvalidValue)?,
        _ => return None,
    };
    // The word as it was typed: clap's has no value, and one letter of `-lr`.
    let at = words.iter().position(|word| {
        let word = word.to_string_lossy();
        match named.starts_with("--") || !is_flag {
            true => word.split('=').next() == Some(named),
            false => word.starts_with(named),
        }
    })?;
    let typed = words[at].to_string_lossy();
    let (name, value) = match typed.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (&*typed, None),
    };
    let name = name.trim_start_matches('-');
    let next = words.get(at + 1).map(|word| word.to_string_lossy());
    let next = next.filter(|word| !word.contains('=') && !word.starts_with("--"));
    let value = value.or(next.map(|word| word.into_owned()));
    let write = |key: &str| format!("write {key}={}", value.as_deref().unwrap_or("VALUE"));
    let Some(key) = recipe::key(name) else {
        // Not clap's advice, to write `-- --gpu`.
        let none = error.get(ContextKind::SuggestedArg).is_none();
        return (none && is_flag).then(|| {
            "write a key of the recipe as KEY=VALUE; `rezero recipes --keys` lists them".to_owned()
        });
    };
    match key {
        Meant::Same(key) => Some(format!("{key} is a key of the recipe: {}", write(&key))),
        Meant::Renamed(key) => Some(format!(
            "the recipe's key for {name} is {key}: {}",
            write(&key)
        )),
        // A flag that resembles a flag is no key.
        Meant::Near(_) if error.get(ContextKind::SuggestedArg).is_some() || !is_flag => None,
        Meant::Near(key) => Some(format!(
            "the recipe has a similar key, {key}: {}",
            write(&key)
        )),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a recipe, or continue a run
    Train(Train),
    /// Train a recipe with every combination of some values, several runs at a time
    Sweep(Sweep),
    /// Score a run's checkpoint on a split
    Eval(Eval),
    /// Classify image files, or score files of text
    Predict(Predict),
    /// Let a language model continue a text
    Sample(Sample),
    /// Import PyTorch weights as a run
    Import(Import),
    /// Export a run's weights for PyTorch
    Export(Export),
    /// Download and verify data sets
    Fetch(Fetch),
    /// Measure how a network carries signals: the singular values of its Jacobian
    Jacobian(Jacobian),
    /// Make a run's network deeper without changing its output, and train on
    Grow(Grow),
    /// Compare runs: tables, figures and a web page
    Report(Report),
    /// List runs with their state, or remove what is no longer needed
    Runs(Runs),
    /// List the models that have weights, or show a model's card
    Models(Models),
    /// List the recipes, or show one in full
    Recipes(Recipes),
    /// List the devices that this binary can use, or check them against Flex
    Devices(Devices),
    /// Run the tests that must hold on every backend
    Conformance(Conformance),
    /// Let other machines train on this machine's devices
    Serve(Serve),
    /// Time training steps, decoding and classification
    Bench(Bench),
}

/// Arguments of `rezero train`.
#[derive(Debug, clap::Args)]
pub struct Train {
    /// A recipe (see `rezero recipes`), a path to a .toml file, or with --resume a run directory
    pub recipe: OsString,
    /// Recipe values to change, for example: scheme=residual epochs=10 optimizer.lr=0.2. If a key
    /// is given twice, the last value counts
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<Override>,
    /// Folder of the data; nothing is downloaded into it [default: datasets/, with a download if
    /// needed]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Train a language model on the bytes of this file: 90 % to train, 5 % to validate, 5 % to test
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// The run's directory [default: runs/ and a name made of the recipe and its overrides]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Continue the run from its last checkpoint
    #[arg(long)]
    pub resume: bool,
    /// The device to train on, the same as device=NAME; see `rezero devices`. For remote:HOST:PORT,
    /// set REZERO_TOKEN to the server's token, or to HOST:PORT=TOKEN for that server alone [default:
    /// auto]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Train on several devices at once, separated by commas: names, or indices of --device's
    /// backend. Each computes an equal part of every batch
    #[arg(long, value_name = "LIST")]
    pub devices: Option<String>,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
    /// Print lines instead of the terminal interface; the default without a terminal
    #[arg(long)]
    pub plain: bool,
    /// What SIGTERM does: stop with a checkpoint, or go on to the end
    #[arg(long, value_enum, default_value_t)]
    pub on_term: OnTerm,
    /// Train in this process alone, though mpirun or srun has started others beside it, which then need run directories
    /// of their own
    #[arg(long)]
    pub alone: bool,
    /// With several processes (mpirun, srun): the seconds after which one that does not answer ends the run. Kernels are
    /// compiled in a first step, and a validation's batch is waited for, too
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub rank_timeout: Duration,
    /// Train in a process of its own, which is started again, at most so many times, where it was lost: by a signal, a crash,
    /// a rank that died or did not answer. It continues from the last checkpoint. An error that would come again, a
    /// divergence and a stop that was asked for are the end
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "of_sweep")]
    pub restarts: Option<usize>,
    /// With --restarts: the command that starts the run's processes, for example "mpirun -n 8 --host a:4,b:4" [default: one
    /// process]
    #[arg(long, value_name = "COMMAND", requires = "restarts")]
    pub launcher: Option<String>,
    /// Be the process of `rezero train --restarts`, which wants to know an error that would come again
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// Be a child of `rezero sweep`, which stops it by way of standard input
    #[arg(long, hide = true)]
    pub of_sweep: bool,
    /// The hash of the data that the sweep's other trials have
    #[arg(long, hide = true)]
    pub data_of_sweep: Option<String>,
}

/// Arguments of `rezero sweep`.
#[derive(Debug, clap::Args)]
pub struct Sweep {
    /// A recipe (see `rezero recipes`), a path to a recipe's .toml file, or a path to a .toml file that
    /// describes a sweep (recipe = "NAME", set = ["KEY=VALUE,VALUE"], see docs/SWEEPS.md)
    pub recipe: OsString,
    /// Values of recipe keys, for example: lr=1e-3,3e-3 scheme=rezero,pre-norm seed=1..3 steps=500.
    /// Every combination is a trial
    #[arg(value_name = "KEY=VALUE,VALUE")]
    pub words: Vec<Word>,
    /// The sweep's directory, which gets a run directory for each trial [default: sweeps/NAME]. The
    /// same command continues a sweep; more values extend it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The keys that are tuned, separated by commas: a report compares the arms, each at its own best
    /// values of these. Other keys with several values distinguish arms, and seeds repeat a trial
    /// [default: keys of the optimizer and the schedule with several numbers]
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub tune: Vec<String>,
    /// Trials at a time, on each device
    #[arg(long, short, default_value_t = 1, value_parser = at_least_one)]
    pub jobs: usize,
    /// Threads of each trial on CPU backends [default: the processors, divided among the trials]
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Devices, separated by commas: each trains trials of its own [default: the recipe's]
    #[arg(long, value_name = "LIST")]
    pub device: Option<String>,
    /// Folder of the data; nothing is downloaded into it [default: datasets/, with a download if
    /// needed]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Train language models on the bytes of this file
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
    /// With several processes (mpirun, srun), each of which trains trials of its own: the seconds after which one that does
    /// not answer ends all
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub rank_timeout: Duration,
    /// List the trials without training them
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object per trial, at the end
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rezero eval`.
#[derive(Debug, clap::Args)]
pub struct Eval {
    /// A run directory, or zoo:NAME (see `rezero models`)
    pub run: PathBuf,
    /// train, valid or test [default: valid; of zoo:NAME test, since other data than its own may have validation images that it was
    /// trained on]
    #[arg(long)]
    pub split: Option<Split>,
    /// best (on validation: highest accuracy; for text, lowest bits per byte), last, or a step
    #[arg(long, default_value = "best")]
    pub checkpoint: String,
    /// Take the weights of the checkpoint's last step, not their average (train.ema)
    #[arg(long)]
    pub raw: bool,
    /// For text: bytes that the model reads at a time [default: the run's context]
    #[arg(long)]
    pub context: Option<usize>,
    /// For text: bytes from the start of one window to the start of the next. A smaller stride
    /// takes longer and gives each byte more context [default: the run's]
    #[arg(long)]
    pub stride: Option<usize>,
    /// Windows or images at a time [default: the run's batch / accumulate]
    #[arg(long)]
    pub batch: Option<usize>,
    /// Where the data is [default: where the run had it]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Score the split of this file instead of the run's text
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// The device to compute on [default: the run's, if it is of this machine]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
    /// Score in this process alone, though mpirun or srun has started others beside it, which would score a part each
    #[arg(long)]
    pub alone: bool,
    /// With several processes (mpirun, srun): the seconds after which one that does not answer ends all
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub rank_timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rezero predict`.
#[derive(Debug, clap::Args)]
pub struct Predict {
    /// A run directory, or zoo:NAME (see `rezero models`)
    pub run: PathBuf,
    /// For a run on images: PNG and JPEG files, or folders of them. For a run on text: files. - reads
    /// standard input
    #[arg(value_name = "FILE", required_unless_present = "split")]
    pub files: Vec<PathBuf>,
    /// Instead of files: the images of this split of the run's data, with their labels: train, valid
    /// or test
    #[arg(long, conflicts_with = "files")]
    pub split: Option<Split>,
    /// For images: only the first images
    #[arg(long, value_name = "N")]
    pub items: Option<usize>,
    /// For images: how many of the most likely classes are shown [default: 3]
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// For images: draw the first 40 with their most likely class; .svg, or .png with feature png
    #[arg(long, value_name = "FILE")]
    pub grid: Option<PathBuf>,
    /// best, last, or a step
    #[arg(long, default_value = "best")]
    pub checkpoint: String,
    /// Take the weights of the checkpoint's last step, not their average (train.ema)
    #[arg(long)]
    pub raw: bool,
    /// With --split: where the data is [default: where the run had it]
    #[arg(long, value_name = "DIR", requires = "split")]
    pub data_dir: Option<PathBuf>,
    /// The device to compute on [default: the run's, if it is of this machine]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// With --split: never use the network
    #[arg(long, requires = "split")]
    pub offline: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rezero sample`.
#[derive(Debug, clap::Args)]
pub struct Sample {
    /// A run directory, or zoo:NAME (see `rezero models`)
    pub run: PathBuf,
    /// The text to continue, of any bytes; the network sees the end of it that fits the run's
    /// context [default: a newline]
    #[arg(
        long,
        default_value = "\n",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub prompt: OsString,
    /// A file with the text to continue; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// How many bytes to write
    #[arg(long, default_value_t = 1000)]
    pub bytes: usize,
    /// Logits are divided by this; 0 always takes the most likely byte
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Sample from this many of the most likely bytes [default: all]
    #[arg(long, allow_negative_numbers = true)]
    pub top_k: Option<usize>,
    /// Sample from the fewest most likely bytes whose probabilities sum to at least this
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// The same seed writes the same bytes
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// End at this byte, which is not written: a character, `\n`, `\t` or a number from 10 to 255
    #[arg(long, value_name = "BYTE", value_parser = parse_byte)]
    pub stop: Option<u8>,
    /// best, last, or a step
    #[arg(long, default_value = "best")]
    pub checkpoint: String,
    /// Take the weights of the checkpoint's last step, not their average (train.ema)
    #[arg(long)]
    pub raw: bool,
    /// The device to compute on [default: the run's, if it is of this machine]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

/// Arguments of `rezero import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// A file of PyTorch weights: .pt as torch.save writes it, .safetensors, or the .index.json of
    /// several; nothing in it is executed
    pub weights: PathBuf,
    /// The recipe of the network that the weights belong to: a name or a path to a .toml file
    /// [default: one of the family that the file holds]
    pub recipe: Option<OsString>,
    /// Recipe values that the file does not tell, for example: n_heads=2 activation=relu
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<Override>,
    /// The text before the names of the network's tensors, where a file holds several networks
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Tensors to leave out, by their names in the file; * stands for any text. May be repeated
    #[arg(long, value_name = "PATTERN")]
    pub ignore: Vec<String>,
    /// The run's directory [default: runs/ and a name made of the recipe and its overrides]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The text to score the run or to train it on
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
}

/// Arguments of `rezero export`.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// A run directory, or zoo:NAME (see `rezero models`)
    pub run: PathBuf,
    /// The file to write, safetensors in PyTorch's layout
    #[arg(long, value_name = "FILE", default_value = "model.safetensors")]
    pub out: PathBuf,
    /// best, last, or a step
    #[arg(long, default_value = "best")]
    pub checkpoint: String,
    /// Take the weights of the checkpoint's last step, not their average (train.ema)
    #[arg(long)]
    pub raw: bool,
    /// The type of the file's numbers: f32, or bf16 for half the size
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: StoredAs,
}

/// A single character of one byte (`\n` and `\t` too), or a number of at least two digits.
fn parse_byte(text: &str) -> Result<u8, String> {
    match text {
        "\\n" => return Ok(b'\n'),
        "\\t" => return Ok(b'\t'),
        _ => {}
    }
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => text.parse().map_err(|_| {
            "give one character of one byte, \\n, \\t or a number from 10 to 255".to_owned()
        }),
    }
}

/// Arguments of `rezero fetch`.
#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// Data sets to fetch [default: those of the built-in recipes]
    pub datasets: Vec<String>,
    /// Where to put them
    #[arg(long, value_name = "DIR", default_value = crate::task::DEFAULT_DIR)]
    pub data_dir: PathBuf,
    /// Never use the network: verify and unpack what was placed by hand
    #[arg(long)]
    pub offline: bool,
    /// Try this address before the registered ones (a mirror; the content is verified all the same)
    #[arg(long)]
    pub url: Option<String>,
}

/// Arguments of `rezero jacobian`.
#[derive(Debug, clap::Args)]
pub struct Jacobian {
    /// transformer or mlp, to measure new networks; or a run directory or zoo:NAME, to measure its network
    /// at the start and at a checkpoint
    #[arg(value_name = "MODEL|RUN")]
    pub what: OsString,
    /// Residual schemes of new networks, separated by commas; all stands for every scheme of an MLP, and
    /// for the paper's of a Transformer, which has more
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub scheme: Vec<String>,
    /// Depths of new networks, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "4,12,64,128", value_parser = at_least_one)]
    pub layers: Vec<usize>,
    /// Number of new networks per scheme and depth
    #[arg(long, default_value_t = 10, value_parser = at_least_one)]
    pub draws: usize,
    /// α of new ReZero networks; they are measured at α = 0 as well
    #[arg(long, default_value_t = 0.1, allow_negative_numbers = true)]
    pub alpha: f64,
    /// Seed of new networks and of their inputs
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// d_model of new Transformers, the width of new MLPs [default: 16 and 256]
    #[arg(long, value_parser = at_least_one)]
    pub width: Option<usize>,
    /// Attention heads of new Transformers
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub n_heads: usize,
    /// The feed-forward width of new Transformers [default: 4 times the width]
    #[arg(long, value_parser = at_least_one)]
    pub d_ff: Option<usize>,
    /// Positions that new Transformers see
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub length: usize,
    /// The checkpoint of a run: best, last, or a step
    #[arg(long, default_value = "last")]
    pub checkpoint: String,
    /// Number of inputs from a run's validation split
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub inputs: usize,
    /// The text of a language model's inputs [default: where the run had it]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Where the run's data is [default: where the run had it]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to write jacobian.json, .csv and .svg (with feature `png` also .png) [default: the
    /// run, or jacobian/MODEL]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The device to compute on [default: auto, or the run's if it is of this machine]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rezero grow`.
#[derive(Debug, clap::Args)]
pub struct Grow {
    /// A run directory, or zoo:NAME (see `rezero models`)
    pub run: PathBuf,
    /// The new depth: a value of the recipe's key `depth`
    #[arg(long, alias = "depth", value_name = "N", value_parser = at_least_one)]
    pub layers: usize,
    /// Recipe values of the new run, for example: steps=500 lr=5e-4 [default: the run's values,
    /// with the next seed]
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<Override>,
    /// Where the new layers go
    #[arg(long, value_enum, default_value = "end")]
    pub place: Place,
    /// The checkpoint to grow: last, best, or a step
    #[arg(long, default_value = "last")]
    pub checkpoint: String,
    /// The new run's directory [default: beside the old one, with _grown-N]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The folder of the data [default: where the run had it]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The text [default: where the run had it]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Write the new run without training it
    #[arg(long)]
    pub only: bool,
    /// Never use the network
    #[arg(long)]
    pub offline: bool,
    /// Print lines instead of the terminal interface
    #[arg(long)]
    pub plain: bool,
    /// What SIGTERM does: stop with a checkpoint, or go on to the end
    #[arg(long, value_enum, default_value_t)]
    pub on_term: OnTerm,
}

/// Where new layers go.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Place {
    /// After the old layers; in a ResNet, at the end of each stage
    End,
    /// Spread evenly between the old layers
    Even,
}

impl From<Place> for rezero_nn::Place {
    fn from(place: Place) -> Self {
        match place {
            Place::End => Self::End,
            Place::Even => Self::Even,
        }
    }
}

/// Arguments of `rezero report`.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Run directories, as DIR or LABEL=DIR; runs that differ in their seed alone are one arm. Or the
    /// directory of a sweep: the table of the tuned values, and the arms at their own best values
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<OsString>,
    /// Where to write report.md, report.csv, curves.csv, index.html and the figures
    #[arg(long, value_name = "DIR", default_value = "report")]
    pub out: PathBuf,
    /// The report's title [default: Runs]
    #[arg(long)]
    pub title: Option<String>,
    /// The arm to test the others against: its name in the table, or the first words of it
    #[arg(long, value_name = "ARM")]
    pub baseline: Option<String>,
    /// Count steps and seconds to this result: bits per byte, or percent correct
    /// [default: the best that all runs reached]
    #[arg(long, allow_negative_numbers = true)]
    pub target: Option<f64>,
    /// Write the table (of a sweep that tunes keys: the table of their values) into this file, between
    /// `<!-- report NAME -->` and `<!-- /report NAME -->`
    #[arg(long, value_name = "FILE", requires = "name")]
    pub into: Option<PathBuf>,
    /// The NAME for --into
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Also write TensorBoard's event file into each run directory, from its metrics.jsonl; of runs that are
    /// over (run.tensorboard=true writes it during the run)
    #[arg(long)]
    pub tensorboard: bool,
    /// Do not measure Jacobians; show those that runs already have
    #[arg(long)]
    pub no_jacobian: bool,
}

/// Arguments of `rezero runs`.
#[derive(Debug, clap::Args)]
pub struct Runs {
    /// Folders that are searched for runs [default: runs]
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Remove what is no longer needed, after asking: runs that diverged or were stopped before their
    /// first checkpoint, and of runs that are done the checkpoints that are neither the best nor the last
    #[arg(long)]
    pub clean: bool,
    /// Do not ask
    #[arg(long, requires = "clean")]
    pub yes: bool,
    /// Print one JSON object per run
    #[arg(long, conflicts_with = "clean")]
    pub json: bool,
}

/// Arguments of `rezero models`.
#[derive(Debug, clap::Args)]
pub struct Models {
    /// Show the card of this model, or list those that match a pattern with * and ?
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rezero recipes`.
#[derive(Debug, clap::Args)]
pub struct Recipes {
    /// Show this recipe in full; with --keys, the keys of this section or kind (data, adam, byte-lm), or
    /// this key
    pub name: Option<OsString>,
    /// List the keys, by section, with their meaning, their values and their defaults: all, or those of
    /// NAME
    #[arg(long)]
    pub keys: bool,
    /// Print a JSON schema of recipe files, for editors
    #[arg(long, conflicts_with_all = ["name", "keys"])]
    pub schema: bool,
}

/// Arguments of `rezero devices`.
#[derive(Debug, clap::Args)]
pub struct Devices {
    /// Only these devices, for example vulkan:0 tch [default: all that are found]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Compute products, convolutions, norms, embeddings, their gradients and a training step on each, and
    /// compare with Flex
    #[arg(long)]
    pub check: bool,
    /// Under mpirun or srun: check and time the sums over all processes in place of the devices
    #[arg(long, conflicts_with = "names")]
    pub mpi: bool,
    /// With --mpi: print the times as JSON
    #[arg(long, requires = "mpi")]
    pub json: bool,
    /// Check the one device in this process
    #[arg(long, hide = true)]
    pub here: bool,
}

/// Arguments of `rezero conformance`.
#[derive(Debug, clap::Args)]
pub struct Conformance {
    /// Only the tests that have one of these texts in their names, for example kernels:: [default: all]
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// The device to test; see `rezero devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,
    /// Print the names of the tests
    #[arg(long)]
    pub list: bool,
}

/// Arguments of `rezero serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The devices to serve, separated by commas; a client picks one by its index, from 0, as
    /// remote:HOST:PORT#N
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,
    /// The address to listen on; only this machine can reach the default address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
    pub listen: String,
    /// A file with the token that clients must show [default: the variable REZERO_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<std::path::PathBuf>,
}

/// Arguments of `rezero bench`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Workloads, separated by commas: names, or kinds with your own sizes.
    /// The default sizes of a kind are those of its line (d_ff: 4 times d_model)
    ///   mlp-64      mlp:layers=64,width=256,batch=100
    ///   lm-small    lm:layers=6,d_model=256,n_heads=8,d_ff=1024,length=128,batch=8
    ///   lm-paper    lm:layers=12,d_model=512,n_heads=8,d_ff=2048,length=512,batch=16
    ///   resnet-20   resnet:depth=20,batch=128
    ///   decode      decode:layers=6,d_model=256,n_heads=8,d_ff=1024,length=128,prompt=1,batch=1
    ///   latency     latency:depth=20,batch=1
    ///   vit         vit:layers=12,d_model=64,n_heads=4,d_ff=256,image=32,patch=4,batch=128
    ///   mixer       mixer:layers=12,d_model=64,d_tokens=64,d_ff=256,image=32,patch=4,batch=128
    /// mlp-L and resnet-N are those of L layers and of depth N
    #[arg(verbatim_doc_comment)]
    pub workloads: String,
    /// The device to compute on; see `rezero devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: String,
    /// The number type of matrix products and convolutions in training steps: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: crate::recipe::DType,
    /// Number of timed steps. Two more run before them; the time of the first is shown apart
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pub steps: usize,
    /// Threads of CPU backends [default: one for each core]
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Launch every kernel of a training step on its own, also where the step could be captured once and replayed
    #[arg(long)]
    pub no_capture: bool,
    /// On a GPU backend, also show the launches of one training step that is not captured: how many, their time on the device, the time between
    /// them, and the dearest kernels
    #[arg(long)]
    pub profile: bool,
    /// Print one JSON object per workload
    #[arg(long)]
    pub json: bool,
    /// Run the one workload in this process
    #[arg(long, hide = true)]
    pub here: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n) if (1..=1_000_000).contains(&n) => Ok(Duration::from_secs(n)),
        _ => Err("give a whole number of seconds from 1 on".to_owned()),
    }
}

/// Some thousand threads take a minute to start.
fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("give a whole number from 1 to 1024".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1 on".to_owned()),
        Ok(n) => Ok(n),
    }
}
