//! `rezero devices`

use super::out;
use crate::device::{BACKENDS, found};
use crate::error::Result;

pub fn run() -> Result<()> {
    out!("compiled in:");
    for backend in BACKENDS.iter().filter(|b| b.compiled) {
        let devices = found(backend.name);
        out!(
            "  {:8} {}; {} found",
            backend.name,
            backend.about,
            devices.len()
        );
        if backend.indexed {
            for (i, device) in devices.iter().enumerate() {
                out!("           {}:{i}  {device:?}", backend.name);
            }
        }
    }
    out!("to add, build with --features NAME:");
    for backend in BACKENDS.iter().filter(|b| !b.compiled) {
        out!("  {:8} {}", backend.name, backend.about);
    }
    Ok(())
}
