//! Results on one, two, four and sixteen threads, and from run to run. A process has one pool of threads, so
//! this test runs itself in child processes.

use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::{
    DotProductAttention, Epilogue, batch_norm_gated_sum, conv2d, cross_entropy, gated_linear,
    linear,
};

use crate::support::{again, fast, gradient, leaf, random};

/// The environment variable that tells a child process where to write its results.
const OUT: &str = "REZERO_TEST_RESULTS";

/// Outputs and gradients of the kernels, at sizes that give several tasks.
fn results() -> Vec<f32> {
    let device: Device = fast();
    let tokens = leaf::<3>(&random([4, 64, 96], 1), &device);
    let images = leaf::<4>(&random([24, 12, 20, 20], 2), &device);
    let w_in = leaf::<2>(&random([96, 288], 3), &device);
    let w_square = leaf::<2>(&random([96, 96], 4), &device);
    let bias = leaf::<1>(&random([96], 5), &device);
    let alpha = leaf::<1>(&random([1], 6), &device);
    let kernel = leaf::<4>(&random([12, 12, 3, 3], 7), &device);
    let channels = leaf::<1>(&random([12], 8), &device);
    let attention = DotProductAttention {
        causal: true,
        rotary: Some(1e4),
        dropout: 0.1,
        ..DotProductAttention::new(4)
    };
    let qkv = linear(tokens.clone(), w_in.clone(), None, Epilogue::Identity);
    // The process runs this test alone, so nothing else draws.
    device.seed(1);
    let context = attention.forward_self(qkv, None);
    let halves = [0..32, 32..64].map(|rows| context.clone().slice_dim(1, rows));
    let [q, k] = halves.clone();
    let crossed = DotProductAttention {
        causal: false,
        rotary: None,
        ..attention
    };
    let crossed = crossed.forward(q, k.clone(), k, None);
    let [_, last] = halves;
    let context: Tensor<2> = Tensor::cat(vec![crossed, last], 1).reshape([256, 96]);
    let logits = gated_linear(context, w_square.clone(), bias.clone(), alpha.clone());
    let targets = TensorData::new((0..256).map(|i| i % 96).collect::<Vec<i32>>(), [256]);
    let losses = cross_entropy(logits, Tensor::from_data(targets, &device));
    let normed = batch_norm_gated_sum(
        images.clone(),
        conv2d(images.clone(), kernel.clone(), 1, 1),
        channels.clone(),
        channels.clone(),
        1e-5,
        Epilogue::Relu,
        alpha.clone(),
    );
    let gradients = (losses.clone().mean() + normed.output.clone().square().mean()).backward();
    [
        losses.into_data(),
        normed.output.into_data(),
        gradient(&tokens, &gradients),
        gradient(&images, &gradients),
        gradient(&w_in, &gradients),
        gradient(&w_square, &gradients),
        gradient(&bias, &gradients),
        gradient(&alpha, &gradients),
        gradient(&kernel, &gradients),
        gradient(&channels, &gradients),
    ]
    .iter()
    .flat_map(|data| data.iter::<f32>().collect::<Vec<_>>())
    .collect()
}

fn on(threads: usize) -> Vec<f32> {
    let file =
        std::env::temp_dir().join(format!("rezero-kernels-{}-{threads}", std::process::id()));
    let status = again()
        .args(["--exact", "threads::results_do_not_depend_on_the_threads"])
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env(OUT, &file)
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[test]
fn results_do_not_depend_on_the_threads() {
    if let Some(file) = std::env::var_os(OUT) {
        let bytes: Vec<u8> = results().iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(file, bytes).unwrap();
        return;
    }
    let two = on(2);
    assert!(two.len() > 100_000 && two.iter().all(|x| x.is_finite()));
    for _ in 0..3 {
        let again = on(2);
        assert!(
            two.iter()
                .zip(&again)
                .all(|(a, b)| a.to_bits() == b.to_bits()),
            "two runs on two threads differ"
        );
    }
    for threads in [1, 4, 16] {
        for (a, b) in two.iter().zip(&on(threads)) {
            assert!(
                (a - b).abs() <= 1e-6 * a.abs().max(1e-3),
                "{b} on {threads} threads, {a} on two"
            );
        }
    }
}

/// All other tests on a narrower instruction set than the processor's. The references are Burn's own operations, on the widest.
#[test]
fn every_instruction_set_gives_the_composed_values() {
    for set in ["avx2", "scalar"] {
        if set == "avx2" && !(cfg!(target_arch = "x86_64") && supports_avx2()) {
            continue;
        }
        let output = again()
            .args(["--skip", "threads::"])
            .env("REZERO_SIMD", set)
            .output()
            .expect("the test can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "REZERO_SIMD={set}:\n{text}");
    }
}

fn supports_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
