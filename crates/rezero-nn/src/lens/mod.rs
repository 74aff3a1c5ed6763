//! Inspection of a module: its gates, its parameters, and how it carries signals.

mod gates;
#[cfg(feature = "jacobian")]
mod jacobian;
mod parameters;
#[cfg(feature = "jacobian")]
mod singular;
#[cfg(feature = "jacobian")]
mod spectrum;

pub use gates::{Gate, gate_group, gates};
#[cfg(feature = "jacobian")]
pub use jacobian::{Jacobian, JacobianError, JacobianProbe};
pub use parameters::{initialized, layer_index, not_finite, parameter_count};
#[cfg(feature = "jacobian")]
pub use spectrum::{Histogram, PooledSpectrum, Spectrum, SpectrumSummary};
