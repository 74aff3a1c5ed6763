use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::{DataError, Result, nearest};

/// Which part of a data set.
///
/// Training reads [`Train`](Split::Train), choices (learning rate, stopping) are made on
/// [`Valid`](Split::Valid), and [`Test`](Split::Test) is read once, at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The records to learn from.
    Train,
    /// The records held out of the training set, on which choices are made.
    Valid,
    /// The official test set.
    Test,
}

impl Split {
    /// All splits, in this order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The records of this split among `all` training records, for a set without an official
    /// validation set: the last tenth, at least one, is held out. None for the test set.
    pub(crate) fn of_training(self, all: usize) -> Option<Range<usize>> {
        let held_out = (all / 10).max(1).min(all);
        match self {
            Self::Train => Some(0..all - held_out),
            Self::Valid => Some(all - held_out..all),
            Self::Test => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(s: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name);
        Self::ALL
            .into_iter()
            .find(|split| split.name() == s)
            .ok_or_else(|| DataError::Unknown {
                what: "split",
                name: s.to_owned(),
                nearest: nearest(s, names).map(str::to_owned),
                known: names.join(", "),
            })
    }
}
