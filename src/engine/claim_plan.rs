//! Decides when to claim, and how many jobs. Takes events and returns steps. Knows no clock, no channel and no SQL.

/// The most jobs that one claim requests.
pub(crate) const MAX_CLAIM: usize = 500;

/// The most jobs that wait for a thread or are requested, beyond those for idle threads.
pub(crate) const CEILING: usize = 4 * MAX_CLAIM;

/// An event that may change the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A notification arrived, or the poll interval is over.
    Wake,
    /// A job of a named queue was settled, jobs were given back, or an exclusive job has ended. Other jobs may be
    /// available now.
    Freed,
    /// A claim for this number of jobs was sent.
    Asked(usize),
    /// A claim returned.
    Claimed(Brought),
    /// A claim failed, and its pause is over.
    ClaimFailed { asked: usize },
    /// Held jobs were given back because no thread became free for them.
    GaveBack,
    /// A poll interval has passed since jobs were given back.
    Rested,
    /// The worker stops: claim no more jobs.
    Stop,
}

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Brought {
    pub(crate) asked: usize,
    /// How many jobs the claim returned and the worker kept.
    pub(crate) got: usize,
    /// How many jobs the claim took along.
    pub(crate) along: usize,
    /// How many claims the ledger had when this claim was sent.
    pub(crate) entries: usize,
    /// The size of the kept payloads, in bytes.
    pub(crate) bytes: usize,
    /// Whether the payloads took long to arrive.
    pub(crate) late: bool,
    /// Set if some jobs were given back because they could not be held or read soon: how many bytes were held at that
    /// moment.
    pub(crate) cut: Option<usize>,
    /// Whether there may be more jobs although the claim returned few.
    pub(crate) more: bool,
    /// Whether the claim returned as many jobs as it asked for, without those that it took along.
    pub(crate) full: bool,
}

/// The state that dispatch reads before each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Threads that wait for a job.
    pub(crate) idle: usize,
    /// Jobs that wait for a thread.
    pub(crate) queued: usize,
    /// Jobs that wait for an earlier job of their queue. No other thread can start them.
    pub(crate) successors: usize,
    /// The size of the payloads of jobs that are held and not started, in bytes.
    pub(crate) bytes: usize,
    /// Claims in the ledger: held, running and unsettled.
    pub(crate) entries: usize,
    /// How many jobs the threads are expected to start within the horizon.
    pub(crate) pace: usize,
}

/// How many jobs a claim takes along of named queues, behind the first job of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Along {
    /// The most jobs of one queue, and of all queues.
    pub(crate) of_queue: usize,
    pub(crate) of_all: usize,
}

/// What dispatch does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Claim(usize),
    Wait,
    /// Nothing is held, and the database has no job for this worker: a run until empty ends.
    Empty,
    Stopped,
}

/// The decisions of dispatch.
#[derive(Debug)]
pub(crate) struct ClaimPlan {
    threads: usize,
    /// How many jobs may run at once. More than `threads` if handlers free their thread before the job ends.
    slots: usize,
    /// For a fixed local queue: how many jobs to hold, and the most jobs that one claim requests.
    fixed: Option<(usize, usize)>,
    /// How many payload bytes may wait for a thread.
    budget: usize,
    /// The most jobs that one claim requests now. Halved after a failed claim, doubled after a good one.
    most: usize,
    /// How many jobs the last claim returned for each that it asked for. 1 if it took none along.
    length: f64,
    /// How many jobs and payload bytes recent claims returned. Each new claim halves the weight of the older ones.
    jobs: f64,
    bytes: f64,
    /// How many bytes were held when a claim was cut. No further job fits before one of the held jobs starts.
    cut: Option<usize>,
    /// How many claims can be under way at once.
    claimers: usize,
    /// Whether to end when the queue is empty.
    until_empty: bool,
    /// Whether the database may have jobs for this worker.
    ready: bool,
    /// Whether an event set `ready` since the last claim was sent. That claim may have been too early to see the jobs.
    woken: bool,
    /// How many jobs to hold ahead of the threads at most. Doubles with every full claim.
    growth: usize,
    /// The number of claims under way, and how many jobs they request.
    in_flight: usize,
    asked: usize,
    /// Jobs were given back recently: claim for idle threads only.
    resting: bool,
    /// The last claim was sent with an empty ledger, and returned no job.
    seen_empty: bool,
    /// Another claim was under way when the last one was sent. Neither could see what the other one returned.
    overlapped: bool,
    stopping: bool,
}

impl ClaimPlan {
    pub(crate) fn new(threads: usize, claimers: usize, until_empty: bool) -> Self {
        Self {
            threads,
            slots: threads,
            fixed: None,
            budget: usize::MAX,
            most: MAX_CLAIM,
            length: 1.0,
            jobs: 0.0,
            bytes: 0.0,
            cut: None,
            claimers,
            until_empty,
            ready: true,
            woken: false,
            growth: threads,
            in_flight: 0,
            asked: 0,
            resting: false,
            seen_empty: false,
            overlapped: false,
            stopping: false,
        }
    }

    /// Sets how many jobs may run at once.
    pub(crate) fn with_slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Holds up to `capacity` jobs instead of what the threads can start, and requests at most `size` jobs per claim.
    pub(crate) fn with_fixed(mut self, capacity: usize, size: usize) -> Self {
        self.fixed = Some((capacity, size));
        self
    }

    /// Holds at most this many payload bytes.
    pub(crate) fn with_budget(mut self, bytes: usize) -> Self {
        self.budget = bytes;
        self
    }

    pub(crate) fn on(&mut self, event: Event) {
        if let Event::Claimed(Brought { asked, .. }) | Event::ClaimFailed { asked } = event {
            self.in_flight -= 1;
            self.asked -= asked;
        }
        match event {
            Event::ClaimFailed { asked } => self.most = (asked / 2).max(1),
            Event::Claimed(brought) => self.learn(brought),
            _ => {}
        }
        match event {
            Event::Wake | Event::Freed | Event::ClaimFailed { .. } => (self.ready, self.woken) = (true, true),
            Event::Asked(jobs) => {
                self.woken = false;
                self.overlapped = self.in_flight > 0;
                self.in_flight += 1;
                self.asked += jobs;
            }
            Event::Claimed(Brought { full: true, .. }) => {
                // This holds also if another claim returned too few jobs meanwhile. That claim may have skipped rows
                // that this one had locked and did not need.
                self.ready = true;
                self.growth = (self.growth * 2).min(CEILING);
                self.seen_empty = false;
            }
            Event::Claimed(Brought { cut: Some(_), .. } | Brought { more: true, .. }) => {
                self.ready = true;
                self.seen_empty = false;
            }
            Event::Claimed(Brought { got, entries, .. }) => {
                // Named queues and other claimers can make a claim short. When they release their rows, this worker is
                // woken up.
                self.ready = self.woken;
                self.growth = (got * 2).min(CEILING).max(self.threads);
                self.seen_empty = got == 0 && entries == 0 && !self.overlapped;
            }
            Event::GaveBack => self.resting = true,
            Event::Rested => self.resting = false,
            Event::Stop => self.stopping = true,
        }
    }

    /// Derives the size of the next claims from the result of this one.
    fn learn(&mut self, brought: Brought) {
        let Brought { got, along, bytes, late, cut, .. } = brought;
        if got > 0 {
            self.length = (got as f64 / got.saturating_sub(along).max(1) as f64).max(1.0);
        }
        self.most = match cut {
            Some(_) => got.clamp(1, MAX_CLAIM),
            None if late => (got / 2).max(1),
            None => (self.most * 2).min(MAX_CLAIM),
        };
        self.cut = cut;
        self.jobs = self.jobs / 2.0 + got as f64;
        self.bytes = self.bytes / 2.0 + bytes as f64;
    }

    /// The next step. It changes nothing: a second call with the same state returns the same step.
    pub(crate) fn step(&self, seen: Seen) -> Step {
        if self.stopping {
            return Step::Stopped;
        }
        if !self.may_claim() {
            return Step::Wait;
        }
        if !self.ready {
            return match seen.entries {
                0 if self.in_flight > 0 => Step::Wait,
                0 if self.until_empty && self.seen_empty => Step::Empty,
                // The jobs that were settled last may have made others available.
                0 if self.until_empty => Step::Claim(self.threads.min(self.most())),
                _ => Step::Wait,
            };
        }
        let coming = seen.queued + self.asked;
        let for_idle = seen.idle.saturating_sub(coming);
        let wanted = for_idle.max((seen.idle + self.ahead(seen)).saturating_sub(coming + seen.successors));
        // Unsettled outcomes count too: if the database writes them slowly, the worker claims no more jobs.
        let room = (2 * CEILING.max(self.ahead(seen)) + self.slots).saturating_sub(seen.entries + self.asked);
        let claim = wanted.min(room).min(self.most());
        // Each claim costs a round trip, so it waits until a good part of the jobs held ahead is used up.
        let worth_it = for_idle > 0 || coming + seen.successors <= self.enough(seen);
        if claim > 0 && worth_it && !self.is_cramped(seen) { Step::Claim(claim) } else { Step::Wait }
    }

    /// If this many jobs or fewer wait for a thread, a thread that takes one notifies dispatch.
    pub(crate) fn low_water(&self, seen: Seen) -> usize {
        match self.ready && self.may_claim() {
            true if self.is_cramped(seen) => seen.queued,
            true => self.enough(seen).saturating_sub(self.asked + seen.successors),
            false => 0,
        }
    }

    /// How many jobs a claim of `jobs` may take along. One thread runs the jobs of a queue within the horizon. No other
    /// worker could start them meanwhile, so the growth of claims does not limit them.
    pub(crate) fn along(&self, seen: Seen, jobs: usize) -> Along {
        if self.fixed.is_some() || self.resting {
            return Along::default();
        }
        let of_all = seen.pace.saturating_sub(seen.successors).min(self.affordable().saturating_sub(jobs));
        // The reply must not be many times as long as expected.
        let of_all = of_all.min(4 * self.expected(jobs));
        Along { of_queue: (seen.pace / self.threads).saturating_sub(1).min(of_all), of_all }
    }

    /// How many jobs a claim of `jobs` is likely to return, with those that it takes along.
    pub(crate) fn expected(&self, jobs: usize) -> usize {
        (jobs as f64 * self.length) as usize
    }

    /// True if the last claim gave jobs back (`Brought::cut`), and no held job has started since.
    fn is_cramped(&self, seen: Seen) -> bool {
        self.cut.is_some_and(|held| seen.queued > 0 && seen.bytes >= held)
    }

    /// Whether one more claim may be under way. A second one may be only after full claims showed enough work for it.
    fn may_claim(&self) -> bool {
        self.in_flight == 0 || (self.growth >= CEILING && self.in_flight < self.claimers)
    }

    /// The most jobs that a claim requests now.
    fn most(&self) -> usize {
        // Rather few whole queues than the first jobs of many: each queue costs two more writes.
        let firsts = ((MAX_CLAIM as f64 / self.length) as usize).max(self.threads.min(MAX_CLAIM));
        self.fixed.map_or(firsts, |(_, size)| size).min(self.most).min(self.affordable())
    }

    /// How many jobs to hold beyond those for idle threads.
    fn ahead(&self, seen: Seen) -> usize {
        match self.fixed {
            _ if self.resting => 0,
            Some((capacity, _)) => capacity.min(self.affordable()),
            None => self.growth.min(seen.pace).min(self.affordable()),
        }
    }

    /// How many jobs of the recent average size fit into the budget; at least one.
    fn affordable(&self) -> usize {
        if self.bytes < 1.0 { usize::MAX } else { ((self.budget as f64 * self.jobs / self.bytes) as usize).max(1) }
    }

    /// If more than this many jobs wait or are requested, a claim can wait.
    fn enough(&self, seen: Seen) -> usize {
        let ahead = self.ahead(seen);
        ahead - MAX_CLAIM.min(ahead / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: usize = 4;
    const IDLE: Seen = Seen { idle: THREADS, queued: 0, successors: 0, bytes: 0, entries: 0, pace: 0 };

    fn claimed(asked: usize, got: usize) -> Event {
        Event::Claimed(Brought { asked, got, full: got >= asked, ..Brought::default() })
    }

    #[track_caller]
    fn check(events: &[Event], seen: Seen, expected: Step) {
        let mut plan = ClaimPlan::new(THREADS, 2, false);
        for &event in events {
            if let Event::Claimed(Brought { asked, .. }) = event {
                plan.on(Event::Asked(asked));
            }
            plan.on(event);
        }
        assert_eq!(plan.step(seen), expected);
    }

    #[test]
    fn claims_fill_idle_threads_until_a_claim_comes_back_short() {
        check(&[], IDLE, Step::Claim(4));
        check(&[claimed(4, 4)], IDLE, Step::Claim(4));
        check(&[claimed(4, 3)], IDLE, Step::Wait);
        check(&[claimed(4, 0), Event::Wake], IDLE, Step::Claim(4));
        check(&[claimed(4, 0), Event::Freed], IDLE, Step::Claim(4));
        check(&[Event::Stop], IDLE, Step::Stopped);
    }

    #[test]
    fn no_job_is_held_ahead_for_slow_or_unknown_tasks() {
        check(&[], Seen { idle: 0, ..IDLE }, Step::Wait);
        check(&[], Seen { idle: 1, ..IDLE }, Step::Claim(1));
        check(&[], Seen { idle: 1, queued: 1, ..IDLE }, Step::Wait);
    }

    #[test]
    fn full_claims_double_the_jobs_held_ahead_up_to_the_pace() {
        let full = claimed(1, 1);
        let fast = Seen { pace: 10_000, ..IDLE };
        check(&[], fast, Step::Claim(8));
        check(&[full], fast, Step::Claim(12));
        check(&[full, full], fast, Step::Claim(20));
        check(&[full; 20], fast, Step::Claim(MAX_CLAIM));
        check(&[full; 20], Seen { pace: 10, ..IDLE }, Step::Claim(14));
    }

    #[test]
    fn a_second_claim_is_sent_only_after_many_full_claims() {
        let full = claimed(1, 1);
        let fast = Seen { pace: 10_000, ..IDLE };
        check(&[Event::Asked(4)], fast, Step::Wait);
        check(&[full, full, Event::Asked(20)], fast, Step::Wait);
        let mut busy = vec![full; 20];
        busy.push(Event::Asked(MAX_CLAIM));
        check(&busy, fast, Step::Claim(MAX_CLAIM));
        busy.push(Event::Asked(MAX_CLAIM));
        check(&busy, fast, Step::Wait);
    }

    #[test]
    fn a_fixed_queue_is_filled_regardless_of_the_pace() {
        let plan = || ClaimPlan::new(THREADS, 2, false).with_fixed(10, 5);
        assert_eq!(plan().step(IDLE), Step::Claim(5));
        let busy = Seen { idle: 0, ..IDLE };
        assert_eq!(plan().step(Seen { queued: 3, ..busy }), Step::Claim(5));
        assert_eq!(plan().step(Seen { queued: 6, ..busy }), Step::Wait, "more than half is left");
        let mut gave_back = plan();
        gave_back.on(Event::GaveBack);
        assert_eq!(gave_back.step(busy), Step::Wait);
    }

    #[test]
    fn failed_claims_halve_the_claim_size_and_good_ones_double_it() {
        let mut plan = ClaimPlan::new(1000, 1, false);
        let idle = Seen { idle: 1000, ..IDLE };
        let mut asked = |event: fn(usize) -> Event| {
            let Step::Claim(asked) = plan.step(idle) else { panic!("it must claim") };
            plan.on(Event::Asked(asked));
            plan.on(event(asked));
            asked
        };
        let sizes: Vec<_> = (0..10).map(|_| asked(|asked| Event::ClaimFailed { asked })).collect();
        assert_eq!(sizes, [500, 250, 125, 62, 31, 15, 7, 3, 1, 1]);
        let sizes: Vec<_> = (0..10).map(|_| asked(|asked| claimed(asked, asked))).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 500]);
    }

    #[test]
    fn slow_payloads_halve_the_next_claim() {
        let mut plan = ClaimPlan::new(1000, 1, false);
        plan.on(Event::Asked(500));
        plan.on(Event::Claimed(Brought { asked: 500, got: 500, full: true, late: true, ..Brought::default() }));
        assert_eq!(plan.step(Seen { idle: 1000, ..IDLE }), Step::Claim(250));
    }

    #[test]
    fn a_cut_claim_is_followed_by_one_of_the_kept_size() {
        let idle = Seen { idle: 1000, ..IDLE };
        let mut plan = ClaimPlan::new(1000, 1, true);
        for (got, next) in [(12, 12), (0, 1)] {
            plan.on(Event::Asked(500));
            plan.on(Event::Claimed(Brought { asked: 500, got, cut: Some(70), ..Brought::default() }));
            let held = Seen { queued: 3, bytes: 70, entries: 3, ..idle };
            assert_eq!(plan.step(held), Step::Wait, "nothing more fits");
            assert_eq!(plan.low_water(held), 3, "dispatch is notified when one of them starts");
            assert_eq!(plan.step(Seen { queued: 2, bytes: 69, ..held }), Step::Claim(next));
            assert_eq!(plan.step(Seen { queued: 0, bytes: 70, ..held }), Step::Claim(next), "a thread has it");
        }
    }

    #[test]
    fn jobs_held_ahead_stay_within_the_byte_budget() {
        let fast = Seen { idle: 0, pace: 10_000, entries: 1, ..IDLE };
        let after = |bytes| {
            let mut plan = ClaimPlan::new(THREADS, 1, false).with_budget(1000);
            for _ in 0..20 {
                plan.on(Event::Asked(10));
                plan.on(Event::Claimed(Brought { asked: 10, got: 10, full: true, bytes, ..Brought::default() }));
            }
            plan
        };
        assert_eq!(after(0).step(fast), Step::Claim(MAX_CLAIM));
        let plan = after(1000);
        assert_eq!(plan.step(fast), Step::Claim(10), "jobs of 100 bytes");
        assert_eq!(plan.step(Seen { queued: 6, ..fast }), Step::Wait, "half of them is left");
        assert_eq!(plan.low_water(fast), 5);
        assert_eq!(after(50_000).step(fast), Step::Claim(1), "jobs of 5000 bytes");
        let queue = after(1000).with_fixed(400, 100);
        assert_eq!(queue.step(fast), Step::Claim(10), "a fixed queue too");
    }

    #[test]
    fn requested_jobs_count_as_held() {
        let mut busy = vec![claimed(1, 1); 20];
        busy.push(Event::Asked(MAX_CLAIM));
        let seen = Seen { idle: 0, queued: CEILING - 2 * MAX_CLAIM, entries: CEILING, pace: CEILING, ..IDLE };
        check(&busy, seen, Step::Claim(MAX_CLAIM));
        check(&busy, Seen { queued: seen.queued + 1, ..seen }, Step::Wait);
    }

    #[test]
    fn a_claim_waits_until_enough_held_jobs_are_used_up() {
        let full = claimed(1, 1);
        let busy = Seen { idle: 0, queued: CEILING - MAX_CLAIM + 1, entries: CEILING, pace: CEILING, ..IDLE };
        check(&[full; 20], busy, Step::Wait);
        check(&[full; 20], Seen { queued: CEILING - MAX_CLAIM, ..busy }, Step::Claim(MAX_CLAIM));
        let few = Seen { queued: 51, pace: 100, ..busy };
        check(&[full; 20], few, Step::Wait);
        check(&[full; 20], Seen { queued: 50, ..few }, Step::Claim(50));
    }

    #[test]
    fn unsettled_outcomes_limit_the_claims() {
        check(&[], Seen { entries: 2 * CEILING + THREADS, ..IDLE }, Step::Wait);
        check(&[], Seen { entries: 2 * CEILING + THREADS - 1, ..IDLE }, Step::Claim(1));
    }

    #[test]
    fn running_jobs_without_a_thread_do_not_block_claims() {
        let plan = ClaimPlan::new(THREADS, 2, false).with_slots(10_000);
        assert_eq!(plan.step(Seen { entries: 9_999, ..IDLE }), Step::Claim(4));
    }

    #[test]
    fn after_a_give_back_claims_are_for_idle_threads_only() {
        let fast = Seen { pace: 1000, ..IDLE };
        check(&[Event::GaveBack], fast, Step::Claim(4));
        check(&[Event::GaveBack], Seen { idle: 0, ..fast }, Step::Wait);
        check(&[Event::GaveBack, Event::Rested], fast, Step::Claim(8));
    }

    #[test]
    fn claims_that_take_jobs_along_ask_for_fewer_queues() {
        let fast = Seen { pace: CEILING, ..IDLE };
        let mut plan = ClaimPlan::new(THREADS, 2, false);
        for _ in 0..20 {
            plan.on(Event::Asked(500));
            plan.on(claimed(500, 500));
        }
        assert_eq!(plan.step(fast), Step::Claim(MAX_CLAIM));
        assert_eq!(plan.along(fast, 500), Along { of_queue: CEILING / THREADS - 1, of_all: CEILING });
        assert_eq!(plan.along(fast, 10).of_all, 40, "the reply is at most five times as long as expected");
        let behind = Seen { successors: CEILING - 100, ..fast };
        assert_eq!(plan.along(behind, 500), Along { of_queue: 100, of_all: 100 }, "they hold enough");
        let brought = |got, along| Brought { asked: 500, got, along, full: true, ..Brought::default() };
        for (got, along, next) in [(1000, 500, 250), (1000, 999, THREADS), (500, 0, 500)] {
            plan.on(Event::Asked(500));
            plan.on(Event::Claimed(brought(got, along)));
            assert_eq!(plan.step(fast), Step::Claim(next), "{got} jobs, {along} of them taken along");
        }
    }

    #[test]
    fn a_short_claim_of_many_threads_is_no_error() {
        let mut plan = ClaimPlan::new(CEILING + 1000, 2, false);
        plan.on(Event::Asked(MAX_CLAIM));
        plan.on(claimed(MAX_CLAIM, 1));
        plan.on(Event::Wake);
        assert_eq!(plan.step(Seen { idle: CEILING + 1000, ..IDLE }), Step::Claim(MAX_CLAIM));
    }

    #[test]
    fn a_wake_during_a_claim_causes_one_more_claim() {
        let short = |woken| {
            let mut plan = ClaimPlan::new(THREADS, 2, false);
            plan.on(Event::Asked(4));
            plan.on(woken);
            plan.on(claimed(4, 1));
            plan
        };
        for woken in [Event::Wake, Event::Freed] {
            let mut plan = short(woken);
            assert_eq!(plan.step(IDLE), Step::Claim(4));
            plan.on(Event::Asked(4));
            plan.on(claimed(4, 0));
            assert_eq!(plan.step(IDLE), Step::Wait, "once");
        }
    }

    #[test]
    fn a_short_claim_of_a_part_is_followed_by_another() {
        let part = |got| Event::Claimed(Brought { asked: 4, got, more: true, ..Brought::default() });
        check(&[part(0)], IDLE, Step::Claim(4));
        let mut plan = ClaimPlan::new(THREADS, 2, true);
        plan.on(Event::Asked(4));
        plan.on(part(0));
        assert_eq!(plan.step(IDLE), Step::Claim(4), "a run until empty does not end");
    }

    #[test]
    fn run_until_empty_ends_after_an_empty_claim_and_ledger() {
        let mut plan = ClaimPlan::new(THREADS, 2, true);
        let mut claimed = |got, entries| {
            plan.on(Event::Asked(4));
            assert_eq!(plan.step(IDLE), Step::Wait, "the claim under way may bring something");
            plan.on(Event::Claimed(Brought { asked: 4, got, entries, ..Brought::default() }));
            (plan.step(Seen { entries: 1, ..IDLE }), plan.step(IDLE))
        };
        let again = Step::Claim(4);
        assert_eq!(claimed(1, 0), (Step::Wait, again), "the job claimed last may have freed a queue");
        assert_eq!(claimed(0, 1), (Step::Wait, again), "so may the one that ran during the claim");
        assert_eq!(claimed(0, 0), (Step::Wait, Step::Empty));
    }

    #[test]
    fn overlapped_claims_do_not_end_run_until_empty() {
        let mut plan = ClaimPlan::new(THREADS, 2, true);
        for jobs in [3, 1] {
            plan.on(Event::Asked(jobs));
        }
        // Its job may have ended by now, and the next job of its queue may be available.
        plan.on(claimed(1, 1));
        plan.on(claimed(3, 0));
        assert_eq!(plan.step(IDLE), Step::Claim(4));
        plan.on(Event::Asked(4));
        plan.on(claimed(4, 0));
        assert_eq!(plan.step(IDLE), Step::Empty);
    }
}
