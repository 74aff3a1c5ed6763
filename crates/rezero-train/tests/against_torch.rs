//! Schedules, optimizers and averages of weights against PyTorch: `fixtures/generate_training.py`.

use rezero_train::fit::{Rates, Scheduler};
use rezero_train::recipe::Settings;
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/training.json")).expect("the fixture is JSON")
}

fn list(value: &Value) -> Vec<f64> {
    let all = value.as_array().expect("a list").iter();
    all.map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn decays_are_those_of_pytorch() {
    let fixture = fixture();
    let cases = fixture["schedules"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    for case in cases {
        let [lr, lr_end, warmup] = ["lr", "lr_end", "warmup"].map(|key| &case[key]);
        let span = case["span"].as_u64().expect("a number") as usize;
        let kind = case["kind"].as_str().expect("a name");
        let wanted = list(&case["rates"]);
        assert_eq!(wanted.len(), span);
        // A run of `span` steps in one epoch, and the same run with its warm-up in epochs and its end
        // within the last epoch.
        let epochs = warmup.as_f64().expect("a number") / 4.0;
        for (run, warmup, per_epoch, epochs) in [
            ("epochs = 1", format!("warmup_steps = {warmup}"), span, 1),
            (
                &format!("steps = {span}"),
                format!("warmup_epochs = {epochs:?}"),
                4,
                1000,
            ),
        ] {
            let settings = Settings::parse(&format!(
                "[optimizer]\nkind = 'sgd'\nlr = {lr}\nmomentum = 0.7\n\
                 [schedule]\nkind = '{kind}'\nlr_end = {lr_end}\n{warmup}\n[run]\n{run}"
            ));
            let settings = settings.expect("settings");
            let schedule = Scheduler::new(&settings, per_epoch, epochs, Rates::default());
            for (step, wanted) in wanted.iter().enumerate() {
                let (got, momentum) = schedule.at(step);
                assert!(
                    (got - wanted).abs() <= 1e-6 * lr.as_f64().unwrap(),
                    "{case} {run}, step {step}: {got}, PyTorch {wanted}"
                );
                assert_eq!(momentum, 0.7);
            }
        }
    }
}
