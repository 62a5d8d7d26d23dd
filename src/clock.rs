//! The only reader of time. Everything else is handed `now`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tells the time of day. Tests own one that they move; clones of a clock move together.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    /// Nanoseconds since the Unix epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: SystemTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(nanos(start)))))
    }

    pub fn now(&self) -> SystemTime {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
            Source::System => SystemTime::now(),
            Source::Manual(at) => UNIX_EPOCH + Duration::from_nanos(at.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock; the system's does not let itself be moved.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(at) = &self.0 {
            at.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
