//! A report as files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Report, csv, curves, figures, html, markdown};
use crate::error::{Error, Result};
use crate::plot;
use crate::record::{alone_in, write_atomic};

impl Report {
    /// Writes `report.md`, `report.csv`, `curves.csv`, for a sweep `tuning.csv`, every figure as SVG (and as PNG with feature
    /// `png`), and `index.html`, which holds the table and all figures. Returns the path of
    /// `index.html`.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<PathBuf> {
        let dir = dir.as_ref();
        let figures = figures(self);
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let _alone = alone_in(dir);
        for figure in &figures {
            plot::write(dir, &figure.name, &figure.svg)?;
        }
        write_atomic(&dir.join("report.md"), markdown(self, &figures).as_bytes())?;
        write_atomic(&dir.join("report.csv"), csv(self).as_bytes())?;
        if let Some(tuning) = &self.tuning {
            write_atomic(&dir.join("tuning.csv"), tuning.csv().as_bytes())?;
        }
        write_atomic(&dir.join("curves.csv"), curves(self).as_bytes())?;
        let page = dir.join("index.html");
        write_atomic(&page, html(self, &figures).as_bytes())?;
        Ok(page)
    }
}
