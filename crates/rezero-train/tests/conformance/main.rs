//! Properties that must hold on every backend, tested on the device that `REZERO_TEST_DEVICE` names
//! (default: flex):
//!
//! - every module's output and gradients, and the trajectories of training steps, agree with
//!   PyTorch's, by the comparisons of rezero-nn;
//! - modules without a counterpart in PyTorch, decoding and half precision agree with Flex;
//! - data loaders give the same batches, also where a kernel makes them;
//! - a run can continue on another backend.
//!
//! Tolerances: the table `BACKENDS` in src/device/mod.rs.
//!
//! `REZERO_TEST_DEVICE=vulkan cargo test --release -p rezero-train --features vulkan --test conformance`

mod backend;
#[path = "../../../rezero-nn/tests/by_path.rs"]
mod by_path;
mod captured;
#[path = "../support.rs"]
#[allow(dead_code)]
mod command;
mod data;
#[path = "../../../rezero-nn/tests/golden.rs"]
mod golden;
#[path = "../../../rezero-nn/tests/helpers.rs"]
#[allow(dead_code)]
mod helpers;
mod kernels;
#[path = "../../../rezero-nn/tests/mixer_golden.rs"]
mod mixer_golden;
#[path = "../../../rezero-nn/tests/mlp_golden.rs"]
mod mlp_golden;
mod runs;
#[path = "../../../rezero-nn/tests/support.rs"]
mod support;
#[path = "../../../rezero-nn/tests/trajectory.rs"]
mod trajectory;
#[path = "../../../rezero-nn/tests/transformer_golden.rs"]
mod transformer_golden;
#[path = "../../../rezero-nn/tests/transformer_trajectory.rs"]
mod transformer_trajectory;
#[path = "../../../rezero-nn/tests/vit_golden.rs"]
mod vit_golden;
mod with_flex;
