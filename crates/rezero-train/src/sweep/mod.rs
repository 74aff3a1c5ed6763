//! Sweeps: many runs of one recipe that differ in the values of some keys.
//!
//! | file | content |
//! | - | - |
//! | `words.rs` | `KEY=VALUE,VALUE` and ranges |
//! | `file.rs` | files that describe a sweep |
//! | `grid.rs` | from the values of keys to trials |
//! | `children.rs` | runs as child processes, several at a time |

mod children;
mod file;
mod grid;
mod words;

pub(crate) use children::{Ended, Job, Slot, run};
pub(crate) use file::Described;
pub(crate) use grid::{Grid, agree, overrides};
pub(crate) use words::Word;
