//! The time that a process waits for others. Where it was stopped meanwhile (SIGSTOP, a machine asleep), the others
//! could not be heard, so that time does not count.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The most that counts between two looks at the clock, which a process that runs takes far more often.
const MOST: Duration = Duration::from_secs(1);
/// The time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// How long this process has waited.
pub(super) struct Waited {
    so_far: Duration,
    last: Instant,
}

impl Waited {
    pub fn new() -> Self {
        Self {
            so_far: Duration::ZERO,
            last: Instant::now(),
        }
    }

    /// The time so far.
    pub fn now(&mut self) -> Duration {
        self.at(Instant::now())
    }

    fn at(&mut self, now: Instant) -> Duration {
        self.so_far += now.saturating_duration_since(self.last).min(MOST);
        self.last = now;
        self.so_far
    }
}

/// The next message of a thread, if one comes within `limit`.
pub(super) fn receive<T>(inbox: &Receiver<T>, limit: Duration) -> Result<T, RecvTimeoutError> {
    let mut waited = Waited::new();
    loop {
        let left = limit.saturating_sub(waited.now());
        match inbox.recv_timeout(left.min(LOOK)) {
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_stop_does_not_count() {
        let mut waited = Waited::new();
        let begin = waited.last;
        let mut now = begin;
        for _ in 0..50 {
            now += Duration::from_millis(100);
            waited.at(now);
        }
        assert_eq!(waited.at(now), Duration::from_secs(5));
        // A night.
        now += Duration::from_secs(30_000);
        assert_eq!(waited.at(now), Duration::from_secs(6));
        // A clock that goes back.
        assert_eq!(waited.at(begin), Duration::from_secs(6));
    }

    #[test]
    fn a_message_is_waited_for() {
        let (outbox, inbox) = channel();
        let limit = Duration::from_millis(150);
        assert_eq!(receive::<u8>(&inbox, limit), Err(RecvTimeoutError::Timeout));
        outbox.send(7).unwrap();
        assert_eq!(receive(&inbox, Duration::ZERO), Ok(7));
        drop(outbox);
        let gone = Err(RecvTimeoutError::Disconnected);
        assert_eq!(receive(&inbox, Duration::from_secs(60)), gone);
    }
}
