//! The jobs whose claim the database refuses. Claims skip each of them for a growing pause, so that it delays no other
//! job. Knows no statement.

use crate::backoff::Backoff;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The most jobs to skip. If the database refuses more, single jobs are not the cause: claims then wait, as after any
/// other error.
const MOST: usize = 1000;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A job is forgotten if it is not refused again within this time after its pause.
const MEMORY: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(crate) struct Avoided(Mutex<HashMap<i64, Entry>>);

struct Entry {
    until: Instant,
    pause: Backoff,
}

impl Avoided {
    /// Records that the database refused the claim of this job. Returns for how long claims skip the job now; `None` if
    /// too many jobs are skipped already.
    pub(crate) fn add(&self, job: i64, now: Instant) -> Option<Duration> {
        let mut jobs = self.0.lock();
        jobs.retain(|_, entry| now < entry.until + MEMORY);
        if jobs.len() >= MOST && !jobs.contains_key(&job) {
            return None;
        }
        let new = || Entry { until: now, pause: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) };
        let entry = jobs.entry(job).or_insert_with(new);
        let pause = entry.pause.next();
        entry.until = now + pause;
        Some(pause)
    }

    /// The jobs that a claim must skip now; `None` if there are none.
    pub(crate) fn at(&self, now: Instant) -> Option<Vec<i64>> {
        let jobs = self.0.lock();
        let jobs: Vec<i64> = jobs.iter().filter(|(_, entry)| now < entry.until).map(|(id, _)| *id).collect();
        (!jobs.is_empty()).then_some(jobs)
    }

    /// Forgets these jobs, because they were claimed.
    pub(crate) fn claimed(&self, claimed: impl Iterator<Item = i64>) {
        let mut jobs = self.0.lock();
        if !jobs.is_empty() {
            for id in claimed {
                jobs.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_job_is_skipped_for_a_growing_pause() {
        let (avoided, start) = (Avoided::default(), Instant::now());
        assert_eq!(avoided.at(start), None);
        let first = avoided.add(7, start).unwrap();
        assert_eq!(avoided.at(start), Some(vec![7]));
        assert_eq!(avoided.at(start + first), None);
        let tenth = (0..9).map(|_| avoided.add(7, start).unwrap()).last().unwrap();
        assert!(tenth > first && tenth <= LONGEST_PAUSE, "{first:?}, {tenth:?}");
        avoided.claimed([7].into_iter());
        assert_eq!(avoided.at(start), None);
        assert!(avoided.add(7, start).unwrap() <= FIRST_PAUSE, "forgotten once it was claimed");
    }

    #[test]
    fn at_most_a_thousand_jobs_are_skipped() {
        let (avoided, start) = (Avoided::default(), Instant::now());
        assert!((0..1000).all(|id| avoided.add(id, start).is_some()));
        assert_eq!(avoided.add(1000, start), None);
        assert!(avoided.add(1, start).is_some());
        assert!(avoided.add(1000, start + LONGEST_PAUSE + MEMORY).is_some(), "the old ones are forgotten");
    }
}
