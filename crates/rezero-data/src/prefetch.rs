//! Values made ahead by one thread, in order.

use std::any::Any;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use crate::{DataError, Result};

/// Values computed one after the other, either on request or ahead by one thread. Both give the
/// same values in the same order.
pub struct Prefetch<T>(Source<T>);

enum Source<T> {
    Here {
        make: Box<dyn Fn(usize) -> T + Send>,
        range: Range<usize>,
    },
    Ahead {
        receiver: Option<Receiver<T>>,
        worker: Option<JoinHandle<()>>,
        left: usize,
    },
}

impl<T: Send + 'static> Prefetch<T> {
    /// The values `make(i)` for `i` in `range`. Up to `prefetch` of them are made ahead; 0 makes
    /// each on request.
    pub fn start(
        make: impl Fn(usize) -> T + Send + 'static,
        range: Range<usize>,
        prefetch: usize,
    ) -> Self {
        if prefetch == 0 || range.is_empty() {
            return Self(Source::Here {
                make: Box::new(make),
                range,
            });
        }
        let left = range.len();
        // The thread holds one more than the channel, waiting to hand it over.
        let (sender, receiver) = sync_channel(prefetch - 1);
        let work = move || {
            for i in range {
                // The receiver is gone: nobody wants the rest.
                if sender.send(make(i)).is_err() {
                    break;
                }
            }
        };
        // If the system starts no thread, the sender is dropped with `work`, and `next` reports it.
        let worker = thread::Builder::new()
            .name("rezero-data".into())
            .spawn(work)
            .ok();
        Self(Source::Ahead {
            receiver: Some(receiver),
            worker,
            left,
        })
    }
}

/// An error means that the thread panicked or could not be started.
impl<T: Send + 'static> Iterator for Prefetch<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match &mut self.0 {
            Source::Here { make, range } => range.next().map(|i| Ok(make(i))),
            Source::Ahead { left: 0, .. } => None,
            Source::Ahead {
                receiver,
                worker,
                left,
            } => {
                if let Some(value) = receiver.as_ref().and_then(|r| r.recv().ok()) {
                    *left -= 1;
                    return Some(Ok(value));
                }
                // The sender is gone before its last value.
                *left = 0;
                let message = match worker.take().map(JoinHandle::join) {
                    Some(Err(panic)) => format!("panicked: {}", panic_message(&*panic)),
                    Some(Ok(())) => "ended early".into(),
                    None => "could not be started".into(),
                };
                Some(Err(DataError::Worker { message }))
            }
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        if let Source::Ahead {
            receiver, worker, ..
        } = &mut self.0
        {
            // Dropping the receiver wakes the thread if it waits to hand over; it then ends after
            // at most the one batch that it is making.
            drop(receiver.take());
            if let Some(worker) = worker.take() {
                // A panic has been reported by `next`, or its batch was not asked for.
                let _ = worker.join();
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_panic_in_the_thread_is_an_error_after_the_good_values() {
        let mut source = Prefetch::start(|i| if i < 3 { i } else { panic!("at {i}") }, 0..9, 2);
        for expected in 0..3 {
            assert_eq!(source.next().unwrap().unwrap(), expected);
        }
        let error = source.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("at 3"), "{error}");
        assert!(source.next().is_none());
    }

    #[test]
    fn no_more_than_prefetch_values_are_made_ahead() {
        for prefetch in [1, 3] {
            let made = Arc::new(AtomicU64::new(0));
            let count = made.clone();
            let make = move |i| {
                count.fetch_add(1, Ordering::SeqCst);
                i
            };
            let mut source = Prefetch::start(make, 0..100, prefetch);
            assert_eq!(source.next().unwrap().unwrap(), 0);
            thread::sleep(std::time::Duration::from_millis(50));
            assert!(made.load(Ordering::SeqCst) <= 1 + prefetch as u64);
            drop(source);
            assert!(made.load(Ordering::SeqCst) <= 2 + prefetch as u64);
        }
    }
}
