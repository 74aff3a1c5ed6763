//! The sections that say how any model is trained.

use super::check::check;
use super::gates::Gates;
use super::optimizer::Optimizer;
use super::run::Run;
use super::schedule::Schedule;
use super::sections::{self, Draft, Idle, Tables};
use super::train::Train;
use crate::error::{Error, Result};

/// How any model is trained: a recipe without its `[model]` and `[data]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `[optimizer]`
    pub optimizer: Optimizer,
    /// `[gates]`
    pub gates: Gates,
    /// `[schedule]`
    pub schedule: Schedule,
    /// `[train]`
    pub train: Train,
    /// `[run]`
    pub run: Run,
}

impl Settings {
    /// Parses the sections of a recipe file, for a model of your own. Keys that are left out have
    /// their defaults.
    ///
    /// ```
    /// use rezero_train::recipe::{Optimizer, Settings};
    ///
    /// let settings = Settings::parse("[optimizer]\nkind = 'adam'\nlr = 2e-3").unwrap();
    /// assert_eq!(settings.optimizer.lr(), 2e-3);
    /// assert_eq!(settings.train.seed, 1);
    /// let error = Settings::parse("[optimizer]\nkind = 'adam'\nmomentum = 0.9").unwrap_err();
    /// assert!(error.to_string().contains("kind=sgd"));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Recipe::resolve`](super::Recipe::resolve).
    pub fn parse(text: &str) -> Result<Self> {
        let draft = Draft::parse("settings", text, sections::OF_SETTINGS)?;
        draft.must_say_its_kinds("settings")?;
        let settings = Self::of(&draft.complete()?)?;
        if let Some(Idle { key, why }) = settings.idle().into_iter().find(|i| draft.sets(&i.key)) {
            return Err(Error::RecipeValue {
                key,
                message: format!("has no effect: {why}"),
            });
        }
        settings.check()?;
        Ok(settings)
    }

    pub(super) fn of(tables: &Tables) -> Result<Self> {
        let table = |name: &str| tables.get(name).cloned().unwrap_or_default();
        Ok(Self {
            optimizer: sections::typed("optimizer", table("optimizer"))?,
            gates: sections::typed("gates", table("gates"))?,
            schedule: sections::typed("schedule", table("schedule"))?,
            train: sections::typed("train", table("train"))?,
            run: sections::typed("run", table("run"))?,
        })
    }

    /// Every section, with all keys.
    pub(crate) fn to_tables(&self) -> Tables {
        let mut tables = Tables::from([
            ("optimizer", sections::table(&self.optimizer)),
            ("gates", sections::table(&self.gates)),
            ("schedule", sections::table(&self.schedule)),
            ("train", sections::table(&self.train)),
            ("run", sections::table(&self.run)),
        ]);
        for Idle { key, .. } in self.idle() {
            if let Some((section, key)) = key.split_once('.')
                && let Some(table) = tables.get_mut(section)
            {
                table.remove(key);
            }
        }
        tables
    }

    /// Keys that have no effect, given the other keys.
    pub(super) fn idle(&self) -> Vec<Idle> {
        let of = |section: &str, keys: Vec<(&'static str, String)>| {
            let keys = keys.into_iter();
            keys.map(|(key, why)| Idle::new(section, key, why))
                .collect::<Vec<_>>()
        };
        let mut idle = of("optimizer", self.optimizer.idle());
        idle.extend(of("gates", self.gates.idle()));
        idle.extend(of("schedule", self.schedule.idle()));
        idle.extend(of("train", self.train.idle()));
        idle.extend(of("run", self.run.idle()));
        idle
    }

    /// Checks ranges and combinations.
    pub(crate) fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        self.gates.check()?;
        self.schedule.check()?;
        self.train.check()?;
        self.run.check()?;
        check(
            !self.schedule.cycles_momentum() || self.optimizer.momentum().is_some(),
            "schedule.kind",
            "one-cycle cycles the momentum; choose optimizer=sgd or muon, or schedule=constant"
                .to_owned(),
        )?;
        let (devices, batch, parts) = (self.run.devices(), self.train.batch, self.train.accumulate);
        check(
            devices == 1 || !self.train.recompute,
            "run.device",
            "recompute=true trains on one device".to_owned(),
        )?;
        check(
            devices == 1 || batch.is_multiple_of(devices * parts),
            "train.batch",
            format!(
                "{devices} devices and accumulate={parts} need equal parts: {batch} is no multiple of {}",
                devices * parts
            ),
        )
    }
}
