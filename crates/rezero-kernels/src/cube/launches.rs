//! An observer of CubeCL's launches.

use std::sync::{Arc, Mutex, PoisonError};

use cubecl::future::block_on;
use cubecl::profile::Instant;
use cubecl_runtime::logging::{
    Duration, LaunchObservation, LaunchObserver, ProfileDuration, TimingMethod, TimingRequest,
};

use crate::launches::Launch;

#[derive(Default)]
struct Observer(Mutex<Vec<(&'static str, Measured)>>);

enum Measured {
    Not,
    Later(ProfileDuration),
    Took(Duration),
}

impl Observer {
    fn note(&self, kernel: &'static str, measured: Measured) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.last_mut() {
            // The measurement comes right after its launch.
            Some((last, place @ Measured::Not))
                if *last == kernel && !matches!(measured, Measured::Not) =>
            {
                *place = measured;
            }
            _ => all.push((kernel, measured)),
        }
    }
}

impl LaunchObserver for Observer {
    fn launched(&self, kernel: &'static str) {
        self.note(kernel, Measured::Not);
    }

    fn timing(&self) -> TimingRequest {
        TimingRequest::Deferred
    }

    fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
        self.note(kernel, Measured::Later(profile));
    }

    fn timed(&self, kernel: &'static str, duration: Duration, _method: TimingMethod) {
        self.note(kernel, Measured::Took(duration));
    }
}

pub(crate) fn observed<R>(work: impl FnOnce() -> R) -> (R, Vec<Launch>) {
    let observer = Arc::new(Observer::default());
    let observation = LaunchObservation::new(observer.clone());
    let result = work();
    drop(observation);
    let all = std::mem::take(&mut *observer.0.lock().unwrap_or_else(PoisonError::into_inner));
    // The device's clock has a zero of its own, near this process's beginning.
    let now = Instant::now();
    let earlier = [86_400, 3_600, 60, 1].map(Duration::from_secs);
    let long_ago = earlier.into_iter().find_map(|d| now.checked_sub(d));
    let long_ago = long_ago.unwrap_or(now);
    let mut epoch = None;
    let mut end = 0.0;
    let launches = all.into_iter().map(|(kernel, measured)| {
        let ms = match measured {
            Measured::Not => None,
            // Without a clock of the device, launches stand in a row.
            Measured::Took(duration) => Some([end, end + 1e3 * duration.as_secs_f64()]),
            Measured::Later(profile) => block_on(profile.resolve()).map(|ticks| {
                let at = ticks.start_duration_since(long_ago).as_secs_f64();
                let start = 1e3 * (at - *epoch.get_or_insert(at));
                [start, start + 1e3 * ticks.duration().as_secs_f64()]
            }),
        };
        end = ms.map_or(end, |[_, end]| end);
        let kernel = short(kernel);
        Launch { kernel, ms }
    });
    let launches = launches.collect();
    (result, launches)
}

/// `a::b::Kernel<c::Type<d::E>>` as `Kernel<Type<E>>`, cut to a line.
fn short(name: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let mut before = ' ';
    for c in name.chars() {
        match c {
            ':' if before == ':' => word.clear(),
            ':' => {}
            c if c.is_alphanumeric() || c == '_' => word.push(c),
            c => {
                out.push_str(&word);
                word.clear();
                out.push(c);
            }
        }
        before = c;
    }
    out.push_str(&word);
    out.chars().take(100).collect()
}
