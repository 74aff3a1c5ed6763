//! What panics say. A device of CubeCL or of another machine computes on a thread of its own. If that panics, the thread that waits for
//! it learns only that it is gone, so that the cause is in the words of another thread.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use super::{panic_message, trouble};

/// Of so many panics that tell a cause, the last ones, the words are kept.
const MOST: usize = 16;

/// A panic that was so long before has not ended the thread.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The panics since the first of those who listen began.
static HEARD: Mutex<Heard> = Mutex::new(Heard {
    listeners: 0,
    silent: 0,
    messages: Vec::new(),
});

struct Heard {
    listeners: usize,
    /// Those that want no panic to be printed.
    silent: usize,
    messages: Vec<(Instant, String)>,
}

fn heard() -> MutexGuard<'static, Heard> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears panics of all threads until it is dropped. Those that say what has become of a device are not printed: the error that
/// follows says it.
pub(crate) struct Listener {
    silent: bool,
    begun: Instant,
}

impl Listener {
    pub fn new() -> Self {
        Self::begin(false)
    }

    fn begin(silent: bool) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = take_hook();
            set_hook(Box::new(move |info| {
                if !hear(info) {
                    previous(info);
                }
            }));
        });
        let mut heard = heard();
        if heard.listeners == 0 {
            heard.messages.clear();
        }
        heard.listeners += 1;
        heard.silent += usize::from(silent);
        Self {
            silent,
            begun: Instant::now(),
        }
    }

    /// The words that tell the cause of `message`, with which a thread has just ended: its own, unless they say only that another one is
    /// gone. Then it is the first that has said more: what a device is asked to do after its failure fails too.
    pub fn cause(&self, message: &str) -> String {
        if !trouble::is_of_another(message) {
            return message.to_owned();
        }
        let heard = heard();
        let recent = |at: &Instant| *at >= self.begun && at.elapsed() < AT_ONCE;
        let cause = heard.messages.iter().find(|(at, _)| recent(at));
        cause.map_or(message, |(_, said)| said).to_owned()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut heard = heard();
        heard.listeners -= 1;
        heard.silent -= usize::from(self.silent);
    }
}

/// Keeps the words of a panic, if somebody listens. True if they need not be printed.
fn hear(info: &PanicHookInfo) -> bool {
    let mut heard = heard();
    if heard.listeners == 0 {
        return false;
    }
    let message = panic_message(info.payload());
    if !trouble::is_of_another(message) {
        if heard.messages.len() == MOST {
            heard.messages.remove(0);
        }
        heard.messages.push((Instant::now(), message.to_owned()));
    }
    heard.silent > 0 || trouble::is_known(message)
}

/// Runs `work`, of whose panics nothing is printed.
///
/// # Errors
///
/// The cause of its panic.
pub(crate) fn unsaid<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let listener = Listener::begin(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    done.map_err(|panic| listener.cause(panic_message(panic.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_in_the_words_of_the_thread_that_was_waited_for() {
        let said = unsaid(|| {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let device = std::thread::spawn(move || {
                let _own = sender;
                panic!("libnvrtc.so is not here");
            });
            let _ = device.join();
            receiver.recv().unwrap();
        });
        assert_eq!(said.unwrap_err(), "libnvrtc.so is not here");
        let own = unsaid(|| panic!("out of range"));
        assert_eq!(
            own.map_err(|e| e.to_string()),
            Err::<(), _>("out of range".to_owned())
        );
        assert_eq!(unsaid(|| 3), Ok(3));
    }
}
