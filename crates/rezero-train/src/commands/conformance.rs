//! `rezero conformance`
//!
//! The tests are those of tests/conformance. They are no code of a library, so the program brings them.

use std::sync::OnceLock;
use std::time::Instant;

use super::out;
use crate::cli::Conformance;
use crate::device::{backend, resolved, select};
use crate::error::{Error, Result};
use crate::words::counted;

/// Tests for `rezero conformance`.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Is called once, with the name of the device that the tests are to use.
    pub choose: fn(&str),
    /// The tests by name. One that panics has failed.
    pub tests: &'static [(&'static str, fn())],
}

static SUITE: OnceLock<Suite> = OnceLock::new();

/// Gives `rezero conformance` its tests, if it has none yet.
pub fn bring(suite: Suite) {
    SUITE.get_or_init(|| suite);
}

pub fn run(args: &Conformance) -> Result<()> {
    let suite = SUITE.get().ok_or_else(|| {
        Error::Conformance(
            "this binary was built without it; build again with --features conformance, in the repository"
                .to_owned(),
        )
    })?;
    let (chosen, tests) = chosen(suite, &args.filters)?;
    if args.list {
        for (name, _) in chosen {
            out!("{name}");
        }
        return Ok(());
    }
    let device = resolved(&args.device);
    // Before any test: one error in place of one for each.
    select(device)?;
    if backend(device).is_some_and(|backend| backend.name != "flex") {
        select("flex")?;
    }
    (suite.choose)(device);

    out!("running {} on {device}", counted(chosen.len(), "tests"));
    let begun = Instant::now();
    let mut failed = Vec::new();
    for &(name, test) in &chosen {
        let start = Instant::now();
        let verdict = match passes(name, test)? {
            true => "ok",
            false => {
                failed.push(name);
                "FAILED"
            }
        };
        out!(
            "test {name} ... {verdict}, {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
    if !failed.is_empty() {
        out!("failures:");
        for name in &failed {
            out!("    {name}");
        }
    }
    out!(
        "test result: {}. {} passed; {} failed; {} filtered out; finished in {:.2} s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        tests - chosen.len(),
        begun.elapsed().as_secs_f64()
    );
    match failed.len() {
        0 => Ok(()),
        n => Err(Error::Conformance(format!(
            "{n} of {} failed on {device}, as said above",
            counted(chosen.len(), "tests")
        ))),
    }
}

type Test = (&'static str, fn());

/// The tests that have one of the filters in their names, and the number of all.
fn chosen(suite: &Suite, filters: &[String]) -> Result<(Vec<Test>, usize)> {
    let matches = |name: &str| filters.is_empty() || filters.iter().any(|text| name.contains(text));
    let chosen: Vec<Test> = suite
        .tests
        .iter()
        .copied()
        .filter(|(name, _)| matches(name))
        .collect();
    match chosen.is_empty() {
        false => Ok((chosen, suite.tests.len())),
        true => Err(Error::Conformance(format!(
            "no test has {} in its name; --list prints all",
            filters.join(" or ")
        ))),
    }
}

/// Runs a test on a thread of its own, whose name is in the message of a panic, as cargo's tests do.
fn passes(name: &str, test: fn()) -> Result<bool> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread
        .spawn(test)
        .map_err(|e| Error::Conformance(format!("cannot start a thread: {e}")))?;
    Ok(thread.join().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_and_may_panic() {
        let suite = Suite {
            choose: |_| {},
            tests: &[
                ("a::one", || {}),
                ("a::two", || panic!("as it should")),
                ("b::one", || {}),
            ],
        };
        let names = |filters: &[&str]| -> Vec<&str> {
            let filters: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
            let (chosen, all) = chosen(&suite, &filters).unwrap();
            assert_eq!(all, 3);
            chosen.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]), ["a::one", "a::two", "b::one"]);
        assert_eq!(names(&["one"]), ["a::one", "b::one"]);
        assert_eq!(names(&["two", "b::"]), ["a::two", "b::one"]);
        let none = chosen(&suite, &["three".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(none.contains("--list"), "{none}");
        let verdicts = suite
            .tests
            .iter()
            .map(|(name, test)| passes(name, *test).unwrap());
        assert_eq!(verdicts.collect::<Vec<_>>(), [true, false, true]);
    }
}
