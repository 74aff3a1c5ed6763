//! Opening a run on several ranks, of which only rank 0 may see its directory.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::Ranks;
use crate::error::{Error, Result};
use crate::record::{Environment, NewRun, Opening, Reader};

/// What rank 0 tells the others of the run that it has opened.
#[derive(Serialize, Deserialize)]
struct Announced {
    before: Option<Environment>,
    /// The name of its checkpoint's folder, which tells the step.
    checkpoint: Option<String>,
}

impl Ranks {
    /// The run at `place` as `open` opens it on rank 0. The other ranks get its checkpoint, of a model with this
    /// `identity`, in a folder of their own, which is removed when it has been read.
    ///
    /// # Errors
    ///
    /// The error of `open`, or of the copy, the same on all ranks.
    pub(crate) fn open(
        &self,
        place: NewRun,
        identity: &str,
        open: impl FnOnce() -> Result<Opening>,
    ) -> Result<Opening> {
        if self.size() == 1 {
            return open();
        }
        let own = self.agree(self.leads().then(open).transpose())?;
        let from = own.as_ref().and_then(|opening| opening.start.as_ref());
        let from = from.map(|reader| reader.dir().to_owned());
        let announced = own.as_ref().map(|opening| Announced {
            before: opening.before.clone(),
            checkpoint: from.as_ref().and_then(|dir| {
                let name = dir.file_name()?;
                Some(name.to_string_lossy().into_owned())
            }),
        });
        let Announced { before, checkpoint } = self.of_first(announced.as_ref())?;
        let make = |name: String| -> std::io::Result<(TempDir, PathBuf)> {
            let folder = tempfile::tempdir()?;
            let to = folder.path().join(name);
            std::fs::create_dir(&to)?;
            Ok((folder, to))
        };
        let is_there = checkpoint.is_some();
        let made = checkpoint.filter(|_| !self.leads()).map(make).transpose();
        let made = made.map_err(|e| Error::io("create a folder in", std::env::temp_dir(), e));
        let (folder, to) = self.agree(made)?.unzip();
        if is_there {
            self.copy_files(from.as_deref(), to.as_deref())?;
        }
        let follow = || {
            let start = match to.zip(folder) {
                Some((to, folder)) => Some(Reader::open(&to, identity)?.copied_into(folder)),
                None => None,
            };
            Opening::of_rank(place, start, before)
        };
        self.agree(own.map_or_else(follow, Ok))
    }
}
