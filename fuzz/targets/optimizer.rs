//! `optimizer.bpk` and `scheduler.bpk` of a checkpoint. The optimizer then takes a step.
#![no_main]

use std::cell::OnceCell;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, Device, Int, Tensor};
use libfuzzer_sys::fuzz_target;
use rezero_nn::transformer::RztxLm;
use rezero_train::fit::{Rates, build_optimizer};
use rezero_train::recipe::{Recipe, Settings};

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

thread_local! {
    static FIXED: OnceCell<(Settings, RztxLm)> = const { OnceCell::new() };
}

/// The settings, and a model whose parameters have the ids of the seeds.
fn fixed() -> (Settings, RztxLm) {
    let recipe = Recipe::resolve("enwik8-tiny", &[])
        .expect("it is ours")
        .recipe;
    let bytes = Bytes::from_bytes_vec(rezero_fuzz::WHOLE.to_vec());
    let record = ModuleRecord::from_bytes(bytes).expect("the seed is whole");
    (recipe.settings, rezero_fuzz::model().load_record(record))
}

fuzz_target!(|bytes: &[u8]| {
    let (settings, model) = FIXED.with(|it| it.get_or_init(fixed).clone());
    let names = ["optimizer.bpk", "scheduler.bpk"];
    let Some(reader) = rezero_fuzz::checkpoint(&names, bytes) else {
        return;
    };
    let (rates, gates) = (Rates::default(), &settings.gates);
    let optimizer = build_optimizer(&settings.optimizer, gates, &rates, &model);
    rezero_fuzz::within(64, bytes, || {
        let _ = reader.scheduler().map_err(|e| e.to_string());
        if reader.fits(&model).is_err() {
            return;
        }
        let Ok(record) = reader.optimizer(&model) else {
            return;
        };
        let mut optimizer = optimizer.load_record(record);
        let device = Device::flex().autodiff();
        let model = model.train();
        let tokens = Tensor::<2, Int>::zeros([1, 2], &device);
        let gradients = model.forward(tokens).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        let _ = optimizer.step(0.1, model, gradients);
    });
});
