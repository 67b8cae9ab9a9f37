package graphileworker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestOperatorsListJobsQueuesAndWorkers(t *testing.T) {
	ctx := context.Background()
	worker, client := newWorker(t, Config{Options: map[string]string{"worker_recovery": "true"}})
	held := make(chan string, 1)
	worker.Handle("held", func(ctx context.Context, job *Job) error {
		held <- job.WorkerID
		<-ctx.Done()
		return ctx.Err()
	})
	locked := add(t, client, "held", nil, Queue("mail"))
	ready := add(t, client, "other", greeting{"Ada"}, Queue("mail"), Flags("slow"))
	add(t, client, "other", nil, RunAt(time.Now().Add(time.Hour)))
	stop := running(t, worker)
	workerID := await(t, held, "the job")

	stats, err := client.JobStats(ctx)
	must(t, err)
	equal(t, "stats", stats, JobStats{Total: 3, Ready: 1, Scheduled: 1, Locked: 1})
	jobs, err := client.ListJobs(ctx, ListOptions{Task: "other", Queue: "mail", State: StateReady, Limit: 10})
	must(t, err)
	equal(t, "jobs", len(jobs), 1)
	equal(t, "id", jobs[0].ID, ready)
	equal(t, "payload", string(jobs[0].Payload), `{"name":"Ada"}`)
	equal(t, "flags", strings.Join(jobs[0].Flags, " "), "slow")
	rest, err := client.ListJobs(ctx, ListOptions{Offset: 1})
	must(t, err)
	equal(t, "all but one", len(rest), 2)
	equal(t, "locked by", *stored(t, client, locked).LockedBy, workerID)
	queues, err := client.Queues(ctx)
	must(t, err)
	equal(t, "queues", len(queues), 1)
	equal(t, "queue", queues[0].Name, "mail")
	equal(t, "jobs in it", queues[0].JobCount, 2)
	lockers, err := client.LockedWorkers(ctx)
	must(t, err)
	equal(t, "lockers", len(lockers), 1)
	equal(t, "locker", lockers[0], LockedWorker{WorkerID: workerID, LockedJobs: 1, LockedQueues: 1})
	active, err := client.ActiveWorkers(ctx, time.Hour)
	must(t, err)
	equal(t, "active", len(active), 1)
	equal(t, "active", active[0].WorkerID, workerID)
	equal(t, "stale", active[0].IsStale, false)

	worker.Stop(Abort)
	must(t, stop())
}

func TestOperatorsChangeJobs(t *testing.T) {
	ctx := context.Background()
	_, client := newWorker(t, Config{})
	a, b, c := add(t, client, "t", nil), add(t, client, "t", nil), add(t, client, "t", nil)

	done, err := client.CompleteJobs(ctx, a, 987654321)
	must(t, err)
	equal(t, "completed", len(done), 1)
	equal(t, "completed", done[0].ID, a)
	failed, err := client.FailJobs(ctx, "customer is gone", b)
	must(t, err)
	equal(t, "failed", failed[0].State, StateFailed)
	contains(t, *failed[0].LastError, "customer is gone")

	zero, urgent, three := 0, -5, 3
	at := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	changed, err := client.RescheduleJobs(ctx, RescheduleOptions{RunAt: &at, Attempts: &zero, Priority: &urgent, MaxAttempts: &three}, b, c)
	must(t, err)
	equal(t, "changed", len(changed), 2)
	job := stored(t, client, b)
	equal(t, "run at", job.RunAt, at)
	equal(t, "attempts", job.Attempts, 0)
	equal(t, "priority", job.Priority, -5)
	equal(t, "max attempts", job.MaxAttempts, 3)
	_, err = client.RescheduleJobs(ctx, RescheduleOptions{Now: true}, b)
	must(t, err)
	equal(t, "state", stored(t, client, b).State, StateReady)
	if _, err := client.RescheduleJobs(ctx, RescheduleOptions{}, b); !errors.Is(err, ErrConfig) {
		t.Errorf("no field is set: %v", err)
	}
	if _, err := client.RescheduleJobs(ctx, RescheduleOptions{Now: true, RunAt: &at}, b); !errors.Is(err, ErrConfig) {
		t.Errorf("both RunAt and Now are set: %v", err)
	}
	if _, err := client.FailJobs(ctx, "a\x00b", b); !errors.Is(err, ErrUTF8) {
		t.Errorf("a reason with a NUL: %v", err)
	}
	equal(t, "state", stored(t, client, b).State, StateReady)

	for name, change := range map[string]func() ([]ListedJob, error){
		"CompleteJobs": func() ([]ListedJob, error) { return client.CompleteJobs(ctx) },
		"FailJobs":     func() ([]ListedJob, error) { return client.FailJobs(ctx, "why not") },
	} {
		none, err := change()
		if err != nil || len(none) != 0 {
			t.Errorf("%s of no jobs: %v, %v", name, none, err)
		}
	}
}

func TestOperatorsCleanUp(t *testing.T) {
	ctx := context.Background()
	_, client := newWorker(t, Config{})
	id := add(t, client, "t", nil, Queue("q"))
	_, err := client.FailJobs(ctx, "gone", id)
	must(t, err)
	cleaned, err := client.Cleanup(ctx, DeletePermanentlyFailedJobs|GCTaskIdentifiers|GCJobQueues)
	must(t, err)
	equal(t, "cleaned", cleaned, Cleaned{Jobs: 1, Tasks: 1, Queues: 1})
	unlocked, err := client.ForceUnlock(ctx, "no worker", "no other worker")
	must(t, err)
	equal(t, "unlocked", unlocked, Unlocked{})
	unlocked, err = client.ForceUnlock(ctx)
	must(t, err)
	equal(t, "unlocked", unlocked, Unlocked{})
	threshold, delay := time.Minute, time.Duration(0)
	swept, err := client.SweepStaleWorkers(ctx, SweepOptions{SweepThreshold: &threshold, RecoveryDelay: &delay, DryRun: true})
	must(t, err)
	equal(t, "recovered", swept.RecoveredCount, 0)
}
