//! Out-of-memory errors, with a batch size to try.

use crate::error::Error;
use crate::recipe::Train;

/// Messages of devices and drivers that are out of memory, in lower case.
const SIGNS: [&str; 7] = [
    "out of memory",
    "outofmemory",
    "out_of_memory",
    "not enough memory",
    "can't allocate",
    "cannot allocate",
    "buffer is too big",
];

/// `error` as [`Error::OutOfMemory`] with `advice`, if its message says so.
pub fn named(error: Error, advice: &str) -> Error {
    match error {
        Error::Training(message) if tells_of_memory(&message) => {
            let said = crate::device::beginning(&message);
            Error::OutOfMemory(format!("{advice}; the device says: {said}"))
        }
        other => other,
    }
}

/// If the host runs out of memory, prints an error with `advice` and exits with 1. This needs
/// `rezero_kernels::allocator::Allocator` as the binary's allocator, and does nothing without feature
/// `allocator`.
#[cfg_attr(not(feature = "allocator"), allow(unused_variables))]
pub fn watch(advice: &str) {
    #[cfg(feature = "allocator")]
    print_when_exhausted(advice);
}

#[cfg(feature = "allocator")]
fn print_when_exhausted(advice: &str) {
    use std::io::Write;
    use std::sync::OnceLock;

    static ADVICE: OnceLock<String> = OnceLock::new();
    ADVICE.get_or_init(|| advice.to_owned());
    rezero_kernels::allocator::on_exhausted(|bytes| {
        // Nothing here may allocate memory.
        let mut out = std::io::stderr().lock();
        let advice = ADVICE.get().map_or("", String::as_str);
        let _ = writeln!(
            out,
            "error: out of memory: {advice}; the system refuses {bytes} bytes"
        );
        std::process::exit(1);
    });
}

fn tells_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// Advice for a step of `model` that needs more memory than there is.
pub fn advice(model: &str, train: &Train) -> String {
    let (batch, parts) = (train.batch, train.accumulate);
    match batch / parts {
        0 | 1 => {
            format!("a step of {model} takes more than there is; try a smaller network")
        }
        held => format!(
            "a step holds {held} items; try accumulate={}, which computes batch={batch} in smaller \
             parts, or batch={}",
            parts * 2,
            batch / 2
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_named_with_a_batch_to_try() {
        let train = Train::default();
        let says = |message: &str, train: &Train| {
            let error = Error::Training(message.to_owned());
            named(error, &advice("an mlp", train)).to_string()
        };
        let text = says("CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\"", &train);
        assert!(
            text.starts_with("out of memory: a step holds 128 items; try accumulate=2"),
            "{text}"
        );
        assert!(text.contains("batch=64"), "{text}");
        assert!(
            says("DefaultCPUAllocator: can't allocate memory", &train).starts_with("out of memory")
        );
        assert!(!says("index out of bounds", &train).contains("memory"));
        let one = Train { batch: 1, ..train };
        let text = says("out of memory", &one);
        assert!(text.contains("smaller network"), "{text}");
    }
}
