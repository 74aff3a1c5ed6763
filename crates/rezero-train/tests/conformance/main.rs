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
//!
//! With the feature `conformance`, these files are a module of the program too, whose command `rezero conformance` runs the same
//! functions where there is no cargo. So their tests are `#[cfg_attr(test, test)]`, and paths to a sibling begin with `super`.

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

/// A list of tests by module. What is missing there is dead code in the program, and clippy says so.
#[cfg(not(test))]
macro_rules! suite {
    ($($module:ident: $($(#[$when:meta])? $test:ident),*;)*) => {
        /// The tests, by the names that cargo has for them.
        pub const TESTS: &[(&str, fn())] = &[$($(
            $(#[$when])?
            (concat!(stringify!($module), "::", stringify!($test)), $module::$test),
        )*)*];
    };
}

#[cfg(not(test))]
pub use backend::choose;
#[cfg(not(test))]
suite! {
    kernels: batch_norms, gated_sums, convolutions, half_convolutions, cross_entropies, row_norms, row_norms_of_outliers, attentions, attention_of_a_projection, attention_in_bf16, large_tensors, dropouts, dropouts_seeds, nothing_at_all, unknown_targets, updates_in_place, updates_together, statistics_together, norms_and_factors_together;
    data: batches_on_the_device_are_the_hosts, images_on_the_device_are_trained_on, windows_are_checked, images_that_cannot_be_on_the_device_are_not, runs_with_images_on_the_device_are_the_same_runs;
    golden: vanilla_block, zero_gamma_block, rezero_block, gated_block, fixup_block, skipinit_block, preact_basic_block,
        preact_bottleneck_block, cifar_networks, preact_networks, every_case_is_compared;
    mlp_golden: every_arm_is_pytorchs, weights_are_drawn_as_the_notebook_draws_them;
    transformer_golden: transformer_encoder_layer, transformer_decoder_layer;
    vit_golden: outputs_and_gradients_are_pytorchs, twenty_steps_are_pytorchs;
    mixer_golden: outputs_and_gradients_are_pytorchs, twenty_steps_are_pytorchs;
    trajectory: twenty_steps_of_sgd;
    transformer_trajectory: transformer_adam, transformer_lamb;
    with_flex: residual_schemes, decoding_with_a_cache, padding_is_not_seen, half_precision, batches_are_the_same_on_every_device;
    captured: batches_are_copied, captured_or_not_models_train_alike, a_recording_that_fails_is_told;
    runs: a_run_goes_on_on_another_backend, two_devices_are_one_with_the_whole_batch, half_precision_runs_or_is_refused,
        captured_steps_are_the_same_steps, #[cfg(feature = "remote")] a_run_on_a_server,
        #[cfg(feature = "remote")] a_device_is_lost;
}
