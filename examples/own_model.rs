//! Your own module on your own data, with a run directory, exact resume and a report. If you kill
//! it and start it again, it continues from its last checkpoint.
//! `cargo run --release -p rezero-examples --example own_model`

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig, Relu};
use burn::tensor::{Device, Int, Tensor};
use rezero_nn::{ReZeroBlock, ReZeroConfig};
use rezero_train::error::Result;
use rezero_train::fit::{DatasetSource, Model, Sums, Task, Trainer};
use rezero_train::ranks::{PATIENCE, Ranks};
use rezero_train::recipe::Settings;
use rezero_train::report::{self, Report};

/// Residual blocks between two linear layers.
#[derive(Module, Debug)]
struct Net {
    input: Linear,
    blocks: Vec<ReZeroBlock<(Linear, Relu)>>,
    output: Linear,
}

impl Net {
    fn new(depth: usize, device: &Device) -> Self {
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(device);
        let branch = || (linear(32, 32), Relu::new());
        Self {
            input: linear(2, 32),
            blocks: (0..depth)
                .map(|_| ReZeroConfig::new().init_block(branch(), device))
                .collect(),
            output: linear(32, 2),
        }
    }
}

/// The only trait that the trainer needs.
impl Model for Net {
    /// Points, `[batch, 2]`, and which spiral they are on, `[batch]`.
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, (points, spirals): &Self::Batch) -> Sums {
        let x = self.input.forward(points.clone());
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        Sums::of_logits(self.output.forward(x), spirals.clone(), None)
    }
}

/// A point on one of two spirals.
type Point = ([f32; 2], i32);

fn spirals(points: std::ops::Range<usize>) -> InMemDataset<Point> {
    let point = |i: usize| {
        let (t, spiral) = (i as f32 * 0.618_034 % 1.0, (i % 2) as i32);
        let angle = 9.0 * t + std::f32::consts::PI * spiral as f32;
        ([t * angle.cos(), t * angle.sin()], spiral)
    };
    InMemDataset::new(points.map(point).collect())
}

fn batch(points: Vec<Point>, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let (points, spirals): (Vec<_>, Vec<i32>) = points.into_iter().unzip();
    let xy: Vec<f32> = points.into_iter().flatten().collect();
    let n = spirals.len();
    (
        Tensor::<1>::from_floats(xy.as_slice(), device).reshape([n, 2]),
        Tensor::from_ints(spirals.as_slice(), device),
    )
}

fn main() -> Result<()> {
    const DEPTH: usize = 24;
    // This process, or all that mpirun has started, with feature `mpi` of rezero-train.
    let ranks = Ranks::join(PATIENCE, &[])?;
    let settings = Settings::parse(
        "[optimizer]\nkind = 'adam'\nlr = 3e-3\n[train]\nbatch = 50\n[run]\nepochs = 20\nlog_every = 10",
    )?;
    let train = DatasetSource::training(spirals(0..2_000), &settings, batch);
    let valid = DatasetSource::scoring(spirals(2_000..2_500), &settings, batch);
    let finished = Trainer::new("runs/own_model", settings, Task::classification("points"))
        .with_model("depth", DEPTH as i64)
        .with_resume(true)
        .with_ranks(ranks.clone())
        .fit(|device| Net::new(DEPTH, device), train, valid);
    let finished = finished.map_err(|error| ranks.clone().end(error))?;
    if !ranks.leads() {
        return Ok(());
    }
    let valid = finished.state.valid.map_or(0.0, |score| score.measure);
    println!("{:.1} % of the validation points", 100.0 * valid);

    let groups = report::group(vec![report::read("ReZero=runs/own_model")?])?;
    let page = Report::new("Two spirals", groups, None, None)?.write("runs/own_model/report")?;
    println!("the report: {}", page.display());
    Ok(())
}
