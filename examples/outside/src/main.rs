//! `outside RUN STEPS`: a module of somebody's own, a recurrent one, learns to tell the largest digit of
//! short sequences; the run at RUN is continued if there is one.

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, PRelu, PReluConfig};
use burn::tensor::{Device, Int, Tensor, activation::tanh};
use rezero_train::fit::{DatasetSource, Model, Sums, Task, Trainer};
use rezero_train::recipe::Settings;

const LENGTH: usize = 6;

/// `h ← tanh(W h + V x)` over the digits, then the largest of them as a class. The PReLU has a
/// parameter called `alpha` that is no gate.
#[derive(Module, Debug)]
struct Largest {
    input: Linear,
    hidden: Linear,
    slope: PRelu,
    dropout: Dropout,
    output: Linear,
}

impl Largest {
    fn new(device: &Device) -> Self {
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(device);
        Self {
            input: linear(1, 48),
            hidden: linear(48, 48),
            slope: PReluConfig::new().init(device),
            dropout: DropoutConfig::new(0.1).init(),
            output: linear(48, 10),
        }
    }
}

impl Model for Largest {
    type Batch = (Tensor<2>, Tensor<1, Int>);

    fn loss(&self, (digits, largest): &Self::Batch) -> Sums {
        let [rows, _] = digits.dims();
        let mut state = Tensor::<2>::zeros([rows, 48], &digits.device());
        for i in 0..LENGTH {
            let digit = digits.clone().slice_dim(1, i..i + 1);
            state = tanh(self.hidden.forward(state) + self.input.forward(digit));
        }
        let state = self.dropout.forward(self.slope.forward(state));
        Sums::of_logits(self.output.forward(state), largest.clone(), None)
    }
}

type Item = ([f32; LENGTH], i32);

fn items(range: std::ops::Range<u32>) -> InMemDataset<Item> {
    let item = |i: u32| {
        let digit = |k: u32| (i.wrapping_mul(2_654_435_761) >> (4 * k + 3)) % 10;
        let digits: [u32; LENGTH] = std::array::from_fn(|k| digit(k as u32));
        let largest = digits.iter().fold(0, |most, digit| most.max(*digit));
        (digits.map(|digit| digit as f32 / 10.0), largest as i32)
    };
    InMemDataset::new(range.map(item).collect())
}

fn batch(items: Vec<Item>, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let (digits, largest): (Vec<_>, Vec<i32>) = items.into_iter().unzip();
    let flat: Vec<f32> = digits.into_iter().flatten().collect();
    let digits = Tensor::<1>::from_floats(flat.as_slice(), device);
    let rows = largest.len();
    (
        digits.reshape([rows, LENGTH]),
        Tensor::from_ints(largest.as_slice(), device),
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(run), Some(steps)) = (args.next(), args.next()) else {
        return Err("usage: outside RUN STEPS".into());
    };
    let settings = Settings::parse(&format!(
        "[optimizer]\nkind = 'adamw'\nlr = 2e-3\n[schedule]\nkind = 'constant'\nwarmup_steps = 20\n\
         [train]\nbatch = 40\nseed = 3\nclip_norm = 1.0\naccumulate = 2\n\
         [run]\nsteps = {steps}\neval_every = 50\ncheckpoint_every = 20\nkeep = 3"
    ))?;
    let train = DatasetSource::training(items(0..3_000), &settings, batch);
    let valid = DatasetSource::scoring(items(3_000..3_400), &settings, batch);
    let finished = Trainer::new(run, settings, Task::classification("sequences"))
        .with_model("width", 48)
        .with_data("digits", "digits of Knuth's multiplicative hash, 1")
        .with_resume(true)
        .with_plain(true)
        .fit(Largest::new, train, valid)?;
    println!("{} steps", finished.state.step);
    Ok(())
}
