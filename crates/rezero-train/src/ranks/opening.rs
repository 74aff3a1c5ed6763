//! Opening a run on several ranks, of which only rank 0 may see its directory.

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::Ranks;
use crate::error::{Error, Result};
use crate::record::{Environment, NewRun, Opening, Reader};

/// What rank 0 tells the others of the run that it has opened.
#[derive(Serialize, Deserialize)]
struct Announced {
    before: Option<Environment>,
    /// Whether it has a checkpoint.
    continues: bool,
}

impl Ranks {
    /// The run at `place` as `open` opens it on rank 0. The other ranks get its checkpoint, of a model with this
    /// `identity`, in a folder of their own, which the caller keeps until it has been read.
    ///
    /// # Errors
    ///
    /// The error of `open`, or of the copy, the same on all ranks.
    pub(crate) fn open(
        &self,
        place: NewRun,
        identity: &str,
        open: impl FnOnce() -> Result<Opening>,
    ) -> Result<(Opening, Option<TempDir>)> {
        if self.size() == 1 {
            return Ok((open()?, None));
        }
        let own = self.agree(self.leads().then(open).transpose())?;
        let announced = own.as_ref().map(|opening| Announced {
            before: opening.before.clone(),
            continues: opening.start.is_some(),
        });
        let Announced { before, continues } = self.from_first(announced.as_ref())?;
        let folder = self.agree(match own {
            None if continues => tempfile::tempdir()
                .map(Some)
                .map_err(|e| Error::io("create a folder in", std::env::temp_dir(), e)),
            _ => Ok(None),
        })?;
        if continues {
            let from = own.as_ref().and_then(|opening| opening.start.as_ref());
            self.copy_files(from.map(Reader::dir), folder.as_ref().map(TempDir::path))?;
        }
        let follow = || {
            let folder = folder.as_ref().map(TempDir::path);
            let start = folder.map(|folder| Reader::open(folder, identity));
            Opening::of_rank(place, start.transpose()?, before)
        };
        let opening = self.agree(own.map_or_else(follow, Ok))?;
        Ok((opening, folder))
    }
}
