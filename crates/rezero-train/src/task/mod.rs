//! The tasks of the recipes: their batches, data sets and metrics.

mod data_set;
mod images;
mod on_device;
mod text;

use std::fmt::Debug;
use std::path::Path;

use burn::tensor::Device;
use rezero_data::Split;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use data_set::{DEFAULT_DIR, DataSet, Places};
pub(crate) use images::data_of_file;
pub use images::{ImageForm, Images, class_names, preparation};
pub use on_device::on_device;
pub use text::{ByteForm, Text, Windows};

use crate::error::Result;
use crate::fit;
use crate::recipe::{Settings, TaskOf, TaskRecipe};
use crate::record::Totals;
use crate::zoo::{Families, Zoo};

/// A kind of task: images or text.
pub trait Domain: Clone + Debug + PartialEq + Sized + 'static {
    /// The data of one training step.
    type Batch: fit::Batch;
    /// What a network makes of a batch.
    type Logits;
    /// The networks of its families.
    type Network: Zoo<Batch = Self::Batch, Logits = Self::Logits>;
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
    /// Batches of a split.
    type Source: fit::Source<Batch = Self::Batch>;
    /// The properties of the data that a network must know.
    type Form: Clone + Debug;
    /// The properties of the network that the data must know.
    type Needs;

    /// The items and the metrics of the task.
    fn task() -> fit::Task;

    /// The sums of a batch, see [`fit::Model::loss`].
    fn sums(logits: Self::Logits, batch: &Self::Batch) -> fit::Sums;

    /// A split of the data set, cut to the recipe's limits.
    ///
    /// # Errors
    ///
    /// If the data is absent and cannot be downloaded, or is damaged.
    fn open(data: &Self::Data, places: &Places, split: Split) -> Result<Self::Set>;

    /// The properties of the data that a network must know, without opening the data. The section
    /// is [complete](Self::is_complete).
    fn form(data: &Self::Data) -> Self::Form;

    /// The keys of [`identity`](Self::identity).
    const FORM_KEYS: &'static [&'static str];

    /// The properties of the data that are part of a network's identity, each as ` key=value`.
    /// Nothing for the data that most recipes of the task have.
    fn identity(form: &Self::Form) -> String;

    /// Whether the section leaves nothing to the data.
    fn is_complete(data: &Self::Data) -> bool;

    /// The section with the values that it leaves to the data, found in the training split.
    ///
    /// # Errors
    ///
    /// If the data can no longer be read.
    fn complete(data: &Self::Data, train: &Self::Set) -> Result<Self::Data>;

    /// The section with the values that it leaves to the data, as `before` has them.
    fn complete_as(data: &Self::Data, before: &Self::Data) -> Self::Data;

    /// The sections of this task as those of any task.
    fn task_recipe(of: TaskOf<Self>) -> TaskRecipe;

    /// The sections of any task, if they are of this one.
    fn of_task(task: TaskRecipe) -> Option<TaskOf<Self>>;

    /// The number of passes over the training batches in a run with these settings.
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

    /// Batches of a whole split in order, without augmentation.
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

    /// Checks that the network, its data and the settings fit together.
    ///
    /// # Errors
    ///
    /// The values that do not fit together.
    fn check(of: &TaskOf<Self>, settings: &Settings) -> Result<()>;

    /// Keys that have no effect in this task or with this data, each as `section.key` with the
    /// reason.
    fn idle(data: &Self::Data) -> Vec<(&'static str, String)>;

    /// Whether batch norms take the statistics of all processes.
    fn synchronises(data: &Self::Data) -> bool;

    /// Checks that a network that was trained as `trained` can be scored as `wanted`.
    ///
    /// # Errors
    ///
    /// The reason why it cannot.
    fn may_score(trained: &TaskOf<Self>, wanted: &TaskOf<Self>) -> Result<()>;

    /// The output of `rezero eval`: a key and a value for JSON, and the text.
    fn shown_of_scoring(
        of: &TaskOf<Self>,
        totals: &Totals,
    ) -> Vec<(&'static str, serde_json::Value, String)>;

    /// A line that suggests a command after a complete run.
    fn next_command(of: &TaskOf<Self>, run: &Path) -> Option<String>;

    /// `train_items` and `valid_items`; 0 is no limit.
    fn limits(data: &Self::Data) -> [usize; 2];

    /// Whether the data set is read from the folder of data.
    fn reads_a_folder(data: &Self::Data) -> bool;

    /// Whether the data set is a file that may change, so that its fingerprint must be checked.
    fn reads_a_file(data: &Self::Data) -> bool;
}
