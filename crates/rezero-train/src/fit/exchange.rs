//! The step of several ranks: the gradients, sums and running statistics of each become those of all.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rezero_kernels::Group;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::freeze::Frozen;
use super::model::{Model, Sums};
use super::step::Trainee;
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::recipe::{Reduce, Train};
use crate::record::Totals;

/// What a step has on one rank.
pub(super) struct Step {
    /// The sums of the step's parts, in the order of the batch.
    pub parts: Vec<Sums>,
    /// Those of frozen parameters are not exchanged.
    pub grads: GradientsParams,
    /// Whether the run is to stop after this step.
    pub stop: bool,
    /// The number of ranks whose rows count, the first ones.
    pub givers: usize,
    /// The number type in which the gradients travel.
    pub reduce: Reduce,
}

/// What a step has on all ranks together.
pub(super) struct Whole {
    pub parts: Vec<Sums>,
    pub grads: GradientsParams,
    /// Whether a rank asks to stop.
    pub stop: bool,
    /// The running statistics of batch norms.
    running: Vec<f32>,
}

impl Whole {
    /// `model` with the running statistics of all ranks.
    pub fn apply<M: Module>(&mut self, model: M) -> M {
        let mut values = std::mem::take(&mut self.running);
        if values.is_empty() {
            return model;
        }
        values.reverse();
        model.map(&mut SetRunning {
            values,
            path: Vec::new(),
        })
    }
}

/// Checks that each rank computes its share in one part, so that all ranks call the same batch norms.
///
/// # Errors
///
/// If it may not.
pub(crate) fn of_whole_batches(train: &Train) -> Result<()> {
    match train.accumulate == 1 && !train.recompute {
        true => Ok(()),
        false => Err(Error::RecipeValue {
            key: "data.sync_batch_norm".to_owned(),
            message: "is not combined with accumulate or recompute, which compute a share in parts"
                .to_owned(),
        }),
    }
}

/// Checks that the batch norms of `model` can take the statistics of all ranks.
///
/// # Errors
///
/// If it has none, or there are several ranks and not one Flex device in each.
pub(crate) fn may_synchronise<M: Module>(
    model: &M,
    devices: &[Device],
    ranks: &Ranks,
) -> Result<()> {
    let bad = |message: &str| {
        Err(Error::RecipeValue {
            key: "data.sync_batch_norm".to_owned(),
            message: message.to_owned(),
        })
    };
    let mut running = Running::default();
    model.visit(&mut running);
    if running.values.is_empty() {
        return bad("has no effect: the network has no batch norm");
    }
    match devices {
        _ if ranks.size() == 1 => Ok(()),
        [device] if *device == Device::flex() => Ok(()),
        _ => bad("works between processes with one device each, flex"),
    }
}

/// Checks that batch norms have exchanged their statistics.
pub(super) fn must_have_exchanged(group: &Group) -> Result<()> {
    match group.exchanges() {
        0 => Err(Error::RecipeValue {
            key: "data.sync_batch_norm".to_owned(),
            message: "has no effect: no batch norm of the model is computed by rezero_kernels, as those of Burn's own \
                      module are not"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The ranks as a group whose batch norms take the statistics of all, in a step of `givers`.
pub(super) fn group(ranks: &Ranks, givers: usize) -> Group {
    let ranks = ranks.clone();
    Group::new(givers, move |own| match ranks.numbers(own) {
        Ok(all) => all,
        // A rank that is silent ends all processes here: within a pass there is nobody to hand the error to.
        Err(error) => panic!("{}", ranks.clone().end(error)),
    })
}

/// Adds up the step of all ranks in their order.
///
/// Running statistics become the mean of those of the ranks, as Burn's batch norm takes the mean of several threads.
pub(super) fn exchange<M: Model>(ranks: &Ranks, trainee: &Trainee<M>, step: Step) -> Result<Whole> {
    let (model, frozen) = (&trainee.model, &trainee.how.frozen);
    let Step {
        parts,
        grads,
        stop,
        givers,
        reduce,
    } = step;
    if ranks.size() == 1 {
        return Ok(Whole {
            parts,
            grads,
            stop,
            running: Vec::new(),
        });
    }
    // Makes batch norm write back the statistics of its last update.
    drop(model.valid());
    let mut running = Running::default();
    model.visit(&mut running);
    let mut flat = Flat::of(grads, frozen);
    model.visit(&mut flat);
    let (present, numbers) = (flat.present, values_of(Tensor::cat(flat.values, 0)));
    let device = parts
        .first()
        .map(|part| part.loss.device().inner())
        .ok_or_else(|| Error::Training("a step without a part".to_owned()))?;
    let names: Vec<&'static str> = parts[0].named.iter().map(|(name, _)| *name).collect();
    let mine = Words {
        stop,
        sums: numbers_of(&parts),
        present,
        running: running.values,
    };
    let (all, sum) = ranks.sum(mine.to_bytes(), numbers, givers, reduce)?;
    let all: Vec<Words> = all
        .iter()
        .map(|bytes| Words::from_bytes(bytes))
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Ranks("a message of another rank is damaged".to_owned()))?;
    let given = &all[..givers];

    let each = 1 + names.len();
    let sums = given.iter().flat_map(|words| words.sums.chunks(each));
    let parts = sums
        .filter(|sums| sums.len() == each)
        .map(|sums| {
            let on =
                |value: f32| Tensor::<1>::from_data(TensorData::new(vec![value], [1]), &device);
            Sums {
                loss: on(sums[0]),
                named: names
                    .iter()
                    .copied()
                    .zip(sums[1..].iter().map(|v| on(*v)))
                    .collect(),
            }
        })
        .collect();
    let present = (0..all[0].present.len())
        .map(|i| given.iter().any(|words| words.present.get(i) == Some(&1)));
    let mut filled = Filled {
        grads: GradientsParams::new(),
        present: present.collect::<Vec<_>>().into_iter(),
        values: &sum,
        frozen,
        path: Vec::new(),
    };
    model.visit(&mut filled);
    Ok(Whole {
        parts,
        grads: filled.grads,
        stop: all.iter().any(|words| words.stop),
        running: mean(given.iter().map(|words| &words.running[..])),
    })
}

/// The sums of a scored batch on their way to other ranks. JSON has no NaN, so numbers go as their bits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Scored {
    items: usize,
    loss: u64,
    named: BTreeMap<String, u64>,
}

impl Scored {
    pub fn of(totals: &Totals) -> Self {
        let named = totals.named.iter();
        Self {
            items: totals.items,
            loss: totals.loss.to_bits(),
            named: named
                .map(|(name, sum)| (name.clone(), sum.to_bits()))
                .collect(),
        }
    }

    pub fn totals(self) -> Totals {
        let named = self.named.into_iter();
        Totals {
            items: self.items,
            loss: f64::from_bits(self.loss),
            named: named
                .map(|(name, sum)| (name, f64::from_bits(sum)))
                .collect(),
        }
    }
}

/// Checks that all ranks have the same weights and running statistics, by their SHA-256.
///
/// # Errors
///
/// The first rank that has others than rank 0, the same error on all.
pub(super) fn must_be_alike<M: Module>(ranks: &Ranks, model: &M) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut digest = Digested(Sha256::new());
    model.visit(&mut digest);
    let sum = digest.0.finalize();
    let text: String = sum
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ranks.same(&[(
        "model after the same steps, since its processor or device rounds otherwise (use machines of one kind)",
        &text,
    )])
}

/// x₀ + ((x₁ − x₀) + (x₂ − x₀) + …) / n, which is exact where all are equal.
fn mean<'a>(mut lists: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let first = lists.next().unwrap_or_default();
    let mut rest = vec![0.0; first.len()];
    let mut n = 1.0;
    for list in lists {
        n += 1.0;
        for ((rest, value), first) in rest.iter_mut().zip(list).zip(first) {
            *rest += value - first;
        }
    }
    first
        .iter()
        .zip(rest)
        .map(|(first, rest)| first + rest / n)
        .collect()
}

/// The sums of each part, the loss first.
fn numbers_of(parts: &[Sums]) -> Vec<f32> {
    let tensors = parts.iter().flat_map(|part| {
        let named = part.named.iter().map(|(_, sum)| sum.clone());
        std::iter::once(part.loss.clone()).chain(named)
    });
    // Read from the device at once.
    values_of(Tensor::cat(tensors.map(Tensor::inner).collect(), 0))
}

fn values_of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert_dtype(DType::F32);
    data.try_into_vec().expect("they are f32 now")
}

/// What a rank tells the others in a step, beside its gradients.
#[derive(Debug, PartialEq)]
struct Words {
    stop: bool,
    sums: Vec<f32>,
    /// 1 for each parameter that has a gradient, else 0.
    present: Vec<u8>,
    running: Vec<f32>,
}

impl Words {
    /// All numbers in 4 bytes, so that NaN and infinity arrive as they are.
    fn to_bytes(&self) -> Vec<u8> {
        let lens = [self.sums.len(), self.present.len(), self.running.len()];
        let mut bytes = vec![u8::from(self.stop)];
        lens.iter()
            .for_each(|len| bytes.extend((*len as u64).to_le_bytes()));
        let numbers = self.sums.iter().chain(&self.running);
        numbers.for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes.extend(&self.present);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stop, mut rest) = bytes.split_first()?;
        let mut len = || {
            let (len, after) = rest.split_first_chunk()?;
            rest = after;
            usize::try_from(u64::from_le_bytes(*len)).ok()
        };
        let [sums, present, running] = [len()?, len()?, len()?];
        let (numbers, ends) = rest.split_at_checked(rest.len().checked_sub(present)?)?;
        let (numbers, over) = numbers.as_chunks::<4>();
        let mut numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let words = Self {
            stop: *stop != 0,
            sums: numbers.by_ref().take(sums).collect(),
            running: numbers.by_ref().take(running).collect(),
            present: ends.to_vec(),
        };
        let whole = over.is_empty() && words.sums.len() == sums && words.running.len() == running;
        (whole && numbers.next().is_none()).then_some(words)
    }
}

/// Whether the tensor at `path` is a running statistic of a batch norm, which no gradient moves.
fn is_running(path: &[String]) -> bool {
    path.last().is_some_and(|name| name.starts_with("running_"))
}

macro_rules! with_path {
    () => {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
    };
}

/// Gradients in one list, in the order of the parameters: zeros where a parameter has none.
struct Flat<'a> {
    grads: GradientsParams,
    frozen: &'a Frozen,
    values: Vec<Tensor<1>>,
    present: Vec<u8>,
    path: Vec<String>,
}

impl<'a> Flat<'a> {
    fn of(grads: GradientsParams, frozen: &'a Frozen) -> Self {
        Self {
            grads,
            frozen,
            values: Vec::new(),
            present: Vec::new(),
            path: Vec::new(),
        }
    }
}

impl ModuleVisitor for Flat<'_> {
    with_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_running(&self.path) || self.frozen.has(param.id) {
            return;
        }
        let grad = self.grads.remove::<D>(param.id);
        self.present.push(u8::from(grad.is_some()));
        let values =
            grad.unwrap_or_else(|| Tensor::zeros(param.shape(), &param.val().device().inner()));
        self.values.push(values.flatten(0, D - 1));
    }
}

/// Makes gradients of such a list.
struct Filled<'a> {
    grads: GradientsParams,
    present: std::vec::IntoIter<bool>,
    values: &'a [f32],
    frozen: &'a Frozen,
    path: Vec<String>,
}

impl ModuleVisitor for Filled<'_> {
    with_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_running(&self.path) || self.frozen.has(param.id) {
            return;
        }
        let shape = param.shape();
        // Of other models than this one there is nothing: all ranks train one recipe.
        let Some((own, rest)) = self.values.split_at_checked(shape.num_elements()) else {
            return;
        };
        self.values = rest;
        if self.present.next() == Some(true) {
            let device: Device = param.val().device().inner();
            let data = TensorData::new(own.to_vec(), shape);
            self.grads
                .register(param.id, Tensor::<D>::from_data(data, &device));
        }
    }
}

/// The running statistics of batch norms.
#[derive(Default)]
struct Running {
    values: Vec<f32>,
    path: Vec<String>,
}

impl ModuleVisitor for Running {
    with_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_running(&self.path) {
            self.values.append(&mut values_of(param.val().inner()));
        }
    }
}

struct SetRunning {
    /// From the last to the first.
    values: Vec<f32>,
    path: Vec<String>,
}

impl ModuleMapper for SetRunning {
    with_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_running(&self.path) {
            return param;
        }
        let shape = param.shape();
        let from = self.values.len().saturating_sub(shape.num_elements());
        let mut own = self.values.split_off(from);
        own.reverse();
        param.map(|old| Tensor::from_data(TensorData::new(own, shape), &old.device()))
    }
}

struct Digested(Sha256);

impl ModuleVisitor for Digested {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        for value in values_of(param.val().inner()) {
            self.0.update(value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_are() {
        let words = Words {
            stop: true,
            sums: vec![f32::INFINITY, -0.0, 1.5],
            present: vec![1, 0, 1, 1, 1],
            running: vec![0.25; 7],
        };
        let bytes = words.to_bytes();
        assert_eq!(Words::from_bytes(&bytes), Some(words));
        for cut in 0..bytes.len() {
            assert_eq!(Words::from_bytes(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn the_mean_of_equal_numbers_is_exact() {
        let list = [0.1, f32::MIN_POSITIVE, 3.0e38, -7.3];
        assert_eq!(mean([&list[..]; 3].into_iter()), list);
        let two = [&[1.0_f32, 2.0][..], &[3.0, -2.0]];
        assert_eq!(mean(two.into_iter()), [2.0, 0.0]);
    }
}
