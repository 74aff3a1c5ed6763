//! Benchmarks of rezero on the CPU: `just bench`, or `just bench kernels` for one of them.
//!
//! - `kernels`: the kernels of `rezero-kernels`
//! - `loader`: images and bytes per second through the loaders
//! - `transformer`: training steps and decoding of the language model
//! - `training`: the cost of the trainer beside the arithmetic of a step
//!
//! `guard.py` compares the instructions of each kernel with a table, `guard.json`.
//! `compare.py`, `pytorch.py` and `samples.py` time whole training steps beside PyTorch.
