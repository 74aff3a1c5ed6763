//! The tasks of the recipes: what a batch is, where it comes from, and what is measured.

mod data_set;
mod images;
mod text;

use std::fmt::Debug;
use std::path::Path;

use burn::tensor::Device;
use rezero_data::Split;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use data_set::{DEFAULT_DIR, DataSet, Places};
pub use images::{ImageForm, Images};
pub use text::{ByteForm, Text, Windows};

pub(crate) use images::sums as image_sums;
pub(crate) use text::sums as text_sums;

use crate::error::Result;
use crate::fit;
use crate::recipe::{Settings, TaskOf};
use crate::record::Totals;
use crate::zoo::{Families, Zoo};

/// A kind of task: images or text.
pub trait Domain: Clone + Debug + PartialEq + Sized + 'static {
    /// What one step learns from.
    type Batch: fit::Batch;
    /// The networks of its families.
    type Network: Zoo<Batch = Self::Batch>;
    /// The `[model]` sections of its families.
    type Family: Families<Self>;
    /// The `[data]` section.
    type Data: Clone
        + Debug
        + PartialEq
        + Default
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + Send
        + Sync;
    /// A split of a data set.
    type Set: DataSet;
    /// Batches of it.
    type Source: fit::Source<Batch = Self::Batch>;
    /// What a network must know of its data.
    type Form: Clone + Debug;
    /// What the data must know of its network.
    type Needs;

    /// What is counted, and what is measured.
    fn task() -> fit::Task;

    /// A split of the data set, cut to the recipe's limits.
    ///
    /// # Errors
    ///
    /// If the data is absent and cannot be downloaded, or is damaged.
    fn open(data: &Self::Data, places: &Places, split: Split) -> Result<Self::Set>;

    /// What a network must know of the data, without opening it.
    fn form(data: &Self::Data) -> Self::Form;

    /// How many passes over its training batches a run of these settings is.
    fn epochs(settings: &Settings) -> usize;

    /// Batches for training.
    ///
    /// # Errors
    ///
    /// If the set is too small for a batch.
    fn for_training(
        of: &TaskOf<Self>,
        settings: &Settings,
        set: Self::Set,
        device: &Device,
    ) -> Result<Self::Source>;

    /// Batches over a whole split in order, as it is.
    ///
    /// # Errors
    ///
    /// If the set is empty.
    fn for_scoring(
        of: &TaskOf<Self>,
        settings: &Settings,
        set: Self::Set,
        device: &Device,
    ) -> Result<Self::Source>;

    /// Checks what the network, its data and the settings ask of each other.
    ///
    /// # Errors
    ///
    /// What does not go together.
    fn check(of: &TaskOf<Self>, settings: &Settings) -> Result<()>;

    /// Keys of `[run]` and `[schedule]` that have no effect in this task, each with the reason.
    fn idle() -> &'static [(&'static str, &'static str)];

    /// Checks that a network that was trained as `trained` can be scored as `wanted`.
    ///
    /// # Errors
    ///
    /// What it cannot do.
    fn may_score(trained: &TaskOf<Self>, wanted: &TaskOf<Self>) -> Result<()>;

    /// What `rezero eval` says: a key and a value for JSON, and words.
    fn shown_of_scoring(
        of: &TaskOf<Self>,
        totals: &Totals,
    ) -> Vec<(&'static str, serde_json::Value, String)>;

    /// What one may do with a run that is done, as a line.
    fn next_command(of: &TaskOf<Self>, run: &Path) -> Option<String>;

    /// Whether a file that may change is the data set, so that its fingerprint is worth a look.
    fn reads_a_file(data: &Self::Data) -> bool;
}
