//! `rezero devices --check --mpi`: sums over all ranks.

use std::time::Instant;

use serde_json::json;

use super::out;
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::recipe::Reduce;
use crate::words;

/// The longest sum.
const LARGE: usize = 1 << 24;

/// The numbers that ranks give to a check repeat after so many.
const PERIOD: usize = 61;

/// Number `i` that a rank gives: a whole number so small that all sums are exact in f32, up to 250,000 ranks.
fn given(rank: usize, i: usize) -> f32 {
    ((7 * rank + i) % PERIOD + 1) as f32
}

/// The sum of number `i` over `n` ranks.
fn known(n: usize, i: usize) -> f32 {
    let whole: usize = (0..n).map(|rank| given(rank, i) as usize).sum();
    whole as f32
}

/// Checks sums over all ranks against known numbers, and times them.
pub fn run(ranks: &Ranks, as_json: bool) -> Result<()> {
    let n = ranks.size();
    if n == 1 {
        return Err(Error::Ranks(
            "there is one process; start several: mpirun -n 2 rezero devices --check --mpi"
                .to_owned(),
        ));
    }
    let shown = ranks.leads() && !as_json;
    if shown {
        for (rank, host) in ranks.hosts().iter().enumerate() {
            out!("  rank {rank:<4} {host}");
        }
    }
    check(ranks)?;
    if shown {
        out!("  sums as known, in the order of the ranks: ok");
        out!(
            "  {:>10}  {:>10}  {:>10}  GB/s of f32, each way",
            "numbers",
            "f32, ms",
            "bf16, ms"
        );
    }
    let mut sums = Vec::new();
    for (numbers, times) in [
        (n, 201),
        (1_000, 201),
        (10_000, 101),
        (100_000, 51),
        (1_000_000, 11),
        (LARGE, 5),
    ] {
        let [f32, bf16] = [
            time(ranks, numbers, Reduce::F32, times)?,
            time(ranks, numbers, Reduce::BF16, times)?,
        ];
        if shown {
            let sent = (2 * 4 * numbers * (n - 1) / n) as f64;
            out!(
                "  {numbers:>10}  {:>10.3}  {:>10.3}  {:.2}",
                1e3 * f32,
                1e3 * bf16,
                sent / f32 / 1e9
            );
        }
        for (reduce, seconds) in [("f32", f32), ("bf16", bf16)] {
            sums.push(json!({ "numbers": numbers, "reduce": reduce, "ms": 1e3 * seconds }));
        }
    }
    if ranks.leads() && as_json {
        let all = json!({ "ranks": n, "hosts": ranks.hosts(), "sums": sums });
        out!("{}", words::json(&all).expect("a table of values is JSON"));
    }
    Ok(())
}

/// Sums of known numbers, and one whose value depends on the order.
fn check(ranks: &Ranks) -> Result<()> {
    let n = ranks.size();
    let known: Vec<f32> = (0..PERIOD).map(|i| known(n, i)).collect();
    let known = |i: usize| known[i % PERIOD];
    // Odd lengths, and fewer numbers than ranks.
    for len in [1, 3, 1_001, LARGE + 1] {
        let own = (0..len).map(|i| given(ranks.rank(), i)).collect();
        let (_, sum) = ranks.sum(Vec::new(), own, n, Reduce::F32)?;
        let wrong = sum.iter().enumerate().find(|(i, sum)| **sum != known(*i));
        ranks.agree(match wrong {
            None => Ok(()),
            Some((i, sum)) => Err(Error::SelfTest(format!(
                "a sum of {len} numbers over {n} ranks: number {i} is {sum}, not {}",
                known(i)
            ))),
        })?;
    }
    // In f32, this sum depends on the order.
    let own = |rank: usize| [1e8, 1.0, -1e8, 3.0][rank % 4];
    let in_order = (0..n).map(own).reduce(|sum, value| sum + value);
    let (_, sum) = ranks.sum(Vec::new(), vec![own(ranks.rank())], n, Reduce::F32)?;
    ranks.agree(match sum.first() == in_order.as_ref() {
        true => Ok(()),
        false => Err(Error::SelfTest(
            "a sum over ranks is not in their order".to_owned(),
        )),
    })
}

/// Seconds of a sum: the middle one of several.
fn time(ranks: &Ranks, len: usize, reduce: Reduce, times: usize) -> Result<f64> {
    let mut all = Vec::new();
    for _ in 0..times {
        let numbers = vec![1.0; len];
        ranks.gather::<()>(&())?;
        let begun = Instant::now();
        ranks.sum(Vec::new(), numbers, ranks.size(), reduce)?;
        all.push(begun.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    Ok(all[times / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_a_check_are_exact_and_tell_ranks_apart() {
        for n in [2, 3, 182, 183, 4_096] {
            for i in 0..2 * PERIOD {
                let sum = (0..n).fold(0.0, |sum, rank| sum + given(rank, i));
                assert_eq!(sum, known(n, i), "{n} ranks, number {i}");
            }
        }
        // A rank that is added twice in place of another.
        assert_ne!(given(0, 0), given(1, 0));
        assert_ne!(known(2, 0), 2.0 * given(0, 0));
        // 2^24 is the last of the whole numbers that f32 has without a gap.
        assert!(known(250_000, 0) < 16_777_216.0);
    }
}
