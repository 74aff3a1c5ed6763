//! Out-of-memory errors, with a batch size to try.

use std::sync::Once;
use std::time::Duration;

use sysinfo::ProcessesToUpdate;

#[cfg(feature = "allocator")]
use super::terminal;
use crate::device::trouble::{of_memory, tells_of_memory, tells_of_size};
use crate::error::Error;
use crate::recipe::Train;
use crate::say::say;
use crate::words;

/// `error` as [`Error::OutOfMemory`] or [`Error::TooLarge`] with `advice`, if its message says so.
pub fn named(error: Error, advice: &Advice) -> Error {
    match error {
        Error::Training(message) if tells_of_memory(&message) => Error::OutOfMemory(format!(
            "{advice}; the device says: {}",
            of_memory(&message)
        )),
        Error::Training(message) if tells_of_size(&message) => Error::TooLarge(format!(
            "{}; the device says: {}",
            advice.smaller,
            of_memory(&message)
        )),
        // Rayon's pool, which Burn's kernels start.
        Error::Training(message) if message.contains("ThreadPoolBuildError") => no_thread("EAGAIN"),
        other => other,
    }
}

/// While training, says when the host's memory runs out, with `advice`: an error, and exit status 1, where
/// the system refuses memory; a warning where the kernel would kill the process without a word.
pub fn watch(advice: &str) {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        #[cfg(feature = "allocator")]
        print_when_exhausted(advice);
        let advice = advice.to_owned();
        // Without this thread a run goes on as well.
        let _ = std::thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || warn_before_a_kill(&advice));
    });
}

/// Needs `rezero_kernels::allocator::Allocator` as the binary's allocator.
#[cfg(feature = "allocator")]
fn print_when_exhausted(advice: &str) {
    use std::io::Write;
    use std::sync::OnceLock;

    static ADVICE: OnceLock<String> = OnceLock::new();
    ADVICE.get_or_init(|| advice.to_owned());
    rezero_kernels::allocator::on_exhausted(|bytes| {
        // Nothing here may allocate memory.
        terminal::restore();
        let mut out = std::io::stderr().lock();
        let advice = ADVICE.get().map_or("", String::as_str);
        let _ = writeln!(
            out,
            "error: out of memory: {advice}; the system refuses {bytes} bytes"
        );
        std::process::exit(1);
    });
}

/// Waits until most of the memory that this process may use, in its container or on its machine, is in use.
/// Linux refuses no memory: it kills a process when there is none left.
fn warn_before_a_kill(advice: &str) {
    const OFTEN: Duration = Duration::from_millis(100);
    const MOST: f64 = 0.9;
    let Ok(pid) = sysinfo::get_current_pid() else {
        return;
    };
    let mut system = sysinfo::System::new();
    loop {
        let nothing = sysinfo::ProcessRefreshKind::nothing();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, nothing);
        let Some(limits) = system.process(pid).and_then(|own| own.cgroup_limits()) else {
            return;
        };
        if limits.rss as f64 > MOST * limits.total_memory as f64 {
            say!(
                "warning: {} of the {} of memory that this process and its neighbours may use are in use; if \
                 it is killed now: {advice}",
                words::bytes(limits.rss),
                words::bytes(limits.total_memory)
            );
            return;
        }
        std::thread::sleep(OFTEN);
    }
}

/// The bytes that this process may still take, in its container and on its machine, if the system tells.
pub(crate) fn available() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    let pid = sysinfo::get_current_pid().ok()?;
    let nothing = sysinfo::ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, nothing);
    let limits = system.process(pid).and_then(|own| own.cgroup_limits());
    // The system gives up what it has cached of files.
    let container = limits.map(|limits| limits.total_memory.saturating_sub(limits.rss));
    machine.into_iter().chain(container).min()
}

/// The system gives no thread.
pub fn no_thread(cause: impl std::fmt::Display) -> Error {
    Error::Training(format!(
        "cannot start a thread ({cause}): raise the limits of memory and of processes, `ulimit -v` and \
         `ulimit -u`"
    ))
}

/// Advice for a step that does not fit on a device.
pub struct Advice {
    /// A smaller step.
    smaller: String,
    /// What else may leave memory for it.
    more: String,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.smaller, self.more)
    }
}

/// Advice for a step of `model` that needs more memory than there is on a device, which others may use too if it is a GPU. A step
/// may be captured there: its memory is then held beside that of other steps.
pub fn advice(model: &str, train: &Train, gpu: bool, captured: bool) -> Advice {
    let (batch, parts) = (train.batch, train.accumulate);
    let smaller = match batch / parts {
        0 | 1 => {
            format!("a step of {model} takes more than there is; try a smaller network")
        }
        held => format!(
            "a step holds {held} items; try accumulate={}, which computes batch={batch} in smaller \
             parts, or batch={}",
            parts * 2,
            batch / 2
        ),
    };
    let mut more = String::new();
    if captured {
        more += ", or run.capture=false";
    }
    if gpu {
        more += " (`nvidia-smi` or `rocm-smi` lists other processes that use it)";
    }
    Advice { smaller, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_named_with_a_batch_to_try() {
        let train = Train::default();
        let says = |message: &str, train: &Train| {
            let error = Error::Training(message.to_owned());
            named(error, &advice("an mlp", train, false, false)).to_string()
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
        let text = says("out of device memory allocating 512 bytes", &train);
        assert!(text.starts_with("out of memory"), "{text}");
        let text = says("Cube count too big (8, 8, 120000)", &train);
        assert_eq!(
            text,
            "a tensor is too large for the device: a step holds 128 items; try accumulate=2, which computes \
             batch=128 in smaller parts, or batch=64; the device says: Cube count too big (8, 8, 120000)"
        );
        let on_a_gpu = advice("an mlp", &train, true, true).to_string();
        assert!(
            on_a_gpu.contains("batch=64, or run.capture=false (`nvidia-smi`"),
            "{on_a_gpu}"
        );
        let one = Train { batch: 1, ..train };
        let text = says("out of memory", &one);
        assert!(text.contains("smaller network"), "{text}");
    }
}
