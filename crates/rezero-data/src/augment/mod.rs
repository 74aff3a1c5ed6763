//! Random changes of training images: a list of steps, each in a file of its own.

mod affine;
mod canvas;
mod colour;
mod crop;
mod cutout;
mod flip;
#[cfg(test)]
mod golden;
mod jitter;
mod mixup;
pub mod rand_augment;
mod rotate;
mod window;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use crop::Crop;
pub use cutout::Cutout;
pub use flip::Flip;
pub use jitter::Jitter;
pub use mixup::Mixup;
pub use rand_augment::RandAugment;
pub use rotate::Rotate;

pub(crate) use canvas::Canvas;
pub(crate) use mixup::{Pair, mixed};
pub(crate) use window::{Cutter, Window};

use self::window::Move;
use crate::image_set::ImageShape;
use crate::rng::{Purpose, Rng};
use crate::{DataError, Result, nearest};

/// A step of a list.
pub(crate) trait Step {
    /// Checks ranges that hold for images of any shape.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Checks that images of this shape can be changed.
    fn fits(&self, shape: ImageShape) -> Result<()> {
        let _ = shape;
        Ok(())
    }

    /// The move of the window that [`apply`](Self::apply) makes with the same `rng`. `None` if it makes another change.
    fn moves(&self, rng: &mut Rng) -> Option<Move> {
        let _ = rng;
        None
    }

    /// Changes one image. Every random number comes from `rng`.
    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>);

    /// Itself, if it mixes the images of a batch.
    fn mixes(&self) -> Option<&Mixup> {
        None
    }
}

/// The list of augmentations: a name, a variant, which is also the type of its settings, and a meaning each.
macro_rules! augmentations {
    ($($name:literal $Kind:ident $meaning:literal,)+) => {
        /// One step of an [`Augment`].
        #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind")]
        pub enum Augmentation {
            $(
                #[doc = concat!("`", $name, "`: see [`", stringify!($Kind), "`].")]
                #[serde(rename = $name)]
                $Kind($Kind),
            )+
        }

        impl Augmentation {
            /// All of them with their default settings.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$Kind($Kind::default())),+]
            }

            /// The name in the text of a list.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$Kind(_) => $name),+ }
            }

            /// What it does, for the schema.
            #[cfg(feature = "schema")]
            fn meaning(&self) -> &'static str {
                match self { $(Self::$Kind(_) => $meaning),+ }
            }

            fn step(&self) -> &dyn Step {
                match self { $(Self::$Kind(step) => step),+ }
            }
        }
    };
}
augmentations! {
    "crop" Crop "a random window of the image in a black frame of `padding` pixels",
    "flip" Flip "mirrored left to right with probability ½",
    "cutout" Cutout "a square of `size` pixels around a random pixel is hidden (DeVries and Taylor 2017)",
    "jitter" Jitter "brightness, contrast and saturation are changed by up to these shares, in a random order",
    "rotate" Rotate "turned by up to `degrees` in both directions",
    "rand-augment" RandAugment "`n` random operations of a `magnitude` from 0 to 30 (Cubuk et al. 2019)",
    "mixup" Mixup "mixed with another image of the batch, and the label likewise; the share has the \
        distribution Beta(alpha, alpha); last of a list (Zhang et al. 2017)",
}

/// The random changes of training images: steps that are applied in their order, each at most once.
///
/// All but [`Mixup`] change the bytes of one image, before normalisation, as a function of (seed,
/// epoch, record). Mixup comes last and mixes the normalised images of a batch.
///
/// In files and on the command line a list is a text: names with their settings, separated by
/// commas. A setting that is left out has its default. The empty list is `none`.
///
/// ```
/// use rezero_data::{Augment, Augmentation, Cutout};
///
/// # fn main() -> rezero_data::Result<()> {
/// let list: Augment = "crop:padding=4, flip, cutout".parse()?;
/// assert_eq!(list.steps()[2], Augmentation::Cutout(Cutout { size: 16 }));
/// assert_eq!(list.to_string(), "crop:padding=4,flip,cutout:size=16");
/// assert_eq!("none".parse::<Augment>()?, Augment::NONE);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Augment(Cow<'static, [Augmentation]>);

/// The empty list.
const EMPTY: &str = "none";

impl Augment {
    /// No change at all, for validation and test.
    pub const NONE: Self = Self(Cow::Borrowed(&[]));
    /// A frame of 4 pixels and flips: the usual choice for CIFAR-10 (He et al. 2015, section 4.2).
    pub const STANDARD: Self = Self(Cow::Borrowed(&[
        Augmentation::Crop(Crop { padding: 4 }),
        Augmentation::Flip(Flip {}),
    ]));

    /// A list of steps.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, a kind of step occurs twice, or a step follows mixup.
    pub fn new(steps: impl Into<Vec<Augmentation>>) -> Result<Self> {
        let steps = steps.into();
        for (i, step) in steps.iter().enumerate() {
            step.step().check()?;
            let before = &steps[..i];
            DataError::require(
                before.iter().all(|other| other.name() != step.name()),
                "a list of augmentations",
                "without a second step of a kind",
                &format_args!("{} twice", step.name()),
            )?;
            let mixing = before.iter().find(|other| other.step().mixes().is_some());
            DataError::require(
                mixing.is_none(),
                "a list of augmentations",
                "of changes of single images first: mixup mixes finished images and comes last",
                &format_args!("{} after mixup", step.name()),
            )?;
        }
        Ok(Self(steps.into()))
    }

    /// The steps in their order.
    pub fn steps(&self) -> &[Augmentation] {
        &self.0
    }

    /// Checks that images of this shape can be changed.
    ///
    /// # Errors
    ///
    /// The first setting that does not fit the shape.
    pub fn fits(&self, shape: ImageShape) -> Result<()> {
        self.0.iter().try_for_each(|step| step.step().fits(shape))
    }

    /// The step that mixes images, if there is one.
    pub fn mixup(&self) -> Option<&Mixup> {
        self.0.iter().find_map(|step| step.step().mixes())
    }

    /// Whether the list has no other steps than [`Crop`] and [`Flip`], so that each image is a window of its record. Then
    /// [`ImageLoader::cut_by`](crate::ImageLoader::cut_by) can leave the images to a kernel.
    pub fn only_moves(&self) -> bool {
        self.window(0, 0, 0).is_some()
    }

    /// Changes the image of `record` in `epoch`: a function of these values and `seed`.
    pub(crate) fn apply(&self, seed: u64, epoch: u64, record: u32, canvas: &mut Canvas<'_>) {
        let mut rng = drawing(seed, epoch, record);
        for step in self.0.iter() {
            step.step().apply(&mut rng, canvas);
        }
    }

    /// The window of the record that [`apply`](Self::apply) makes the image. `None` if a step changes more than the window.
    pub(crate) fn window(&self, seed: u64, epoch: u64, record: u32) -> Option<Window> {
        let mut rng = drawing(seed, epoch, record);
        let mut steps = self.0.iter();
        steps.try_fold(Window::WHOLE, |window, step| {
            window.then(step.step().moves(&mut rng)?)
        })
    }
}

/// The random numbers of a record in an epoch.
fn drawing(seed: u64, epoch: u64, record: u32) -> Rng {
    Rng::stream(Purpose::Augment, &[seed, epoch, u64::from(record)])
}

/// The smaller side of images, at least 1.
fn smaller_side(shape: ImageShape) -> usize {
    shape.height.min(shape.width).max(1)
}

impl Augmentation {
    /// The settings in the order of their names, without the name of the kind.
    fn settings(&self) -> BTreeMap<String, toml::Value> {
        let mut table = toml::Table::try_from(self).expect("a step is a table");
        table.remove("kind");
        // A table's own order depends on toml's features.
        table.into_iter().collect()
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        for (key, value) in self.settings() {
            write!(f, ":{key}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Augmentation {
    type Err = DataError;

    /// A name, then `:setting=value` for each setting that differs from its default.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |message: String| DataError::Augmentation {
            text: text.trim().to_owned(),
            message,
        };
        let mut parts = text.split(':').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let all = Self::all();
        let Some(default) = all.iter().find(|step| step.name() == name) else {
            let names: Vec<&str> = all.iter().map(Self::name).collect();
            let meant = nearest(name, names.iter().copied());
            let hint = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            return Err(bad(format!(
                "there is no such step, there are {}{hint}",
                names.join(", ")
            )));
        };
        let (known, mut table) = (default.settings(), toml::Table::new());
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (key.trim(), value.trim());
            let Some(default) = known.get(key) else {
                let known: Vec<&str> = known.keys().map(String::as_str).collect();
                return Err(bad(match known.is_empty() {
                    true => format!("{name} has no settings, got `{part}`"),
                    false => format!(
                        "{name} has the setting {}, got `{part}`",
                        known.join(" and ")
                    ),
                }));
            };
            // `alpha=1` is a float, too.
            let value = match default {
                toml::Value::Float(_) => value.parse().ok().map(toml::Value::Float),
                _ => value.parse().ok().map(toml::Value::Integer),
            };
            let Some(value) = value else {
                return Err(bad(format!(
                    "{name} has {key}={default} by default, got `{part}`"
                )));
            };
            if table.insert(key.to_owned(), value).is_some() {
                return Err(bad(format!("it sets {key} twice")));
            }
        }
        table.insert("kind".to_owned(), name.into());
        table
            .try_into()
            .map_err(|e: toml::de::Error| bad(e.message().to_owned()))
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(EMPTY);
        }
        for (i, step) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{step}")?;
        }
        Ok(())
    }
}

impl FromStr for Augment {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim() == EMPTY {
            return Ok(Self::NONE);
        }
        Self::new(
            text.split(',')
                .map(str::parse)
                .collect::<Result<Vec<_>>>()?,
        )
    }
}

impl TryFrom<String> for Augment {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Augment> for String {
    fn from(list: Augment) -> Self {
        list.to_string()
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Augment {
    fn schema_name() -> Cow<'static, str> {
        "Augment".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let step = |step: &Augmentation| {
            let keys: Vec<String> = step.settings().keys().cloned().collect();
            match keys.is_empty() {
                true => step.name().to_owned(),
                false => format!("{}(:({})=[0-9.]+)*", step.name(), keys.join("|")),
            }
        };
        let all = Augmentation::all();
        let steps: Vec<String> = all.iter().map(step).collect();
        let step = format!(" *({}) *", steps.join("|"));
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        schemars::json_schema!({
            "type": "string",
            "pattern": format!("^({EMPTY}|{step}(,{step})*)$"),
            "examples": shown,
            "x-meanings": all.iter().map(Augmentation::meaning).collect::<Vec<_>>(),
        })
    }
}
