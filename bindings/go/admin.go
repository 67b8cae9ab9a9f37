// What operators ask for and are told. Every method is one call of the library, whose JSON becomes a struct.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"time"
)

// JobState is where a job stands, by the database's clock.
type JobState string

const (
	StateReady     JobState = "ready"     // waits, and may start now (once its queue is free, if it has one)
	StateScheduled JobState = "scheduled" // waits for its RunAt
	StateLocked    JobState = "locked"    // is held by a worker
	StateFailed    JobState = "failed"    // has no attempts left, and stays until somebody acts
)

// ListedJob is a job as it stands in the queue.
type ListedJob struct {
	ID          int64           `json:"id"`
	Task        string          `json:"task_identifier"` // empty if the task's row is gone, so that nobody can run it
	Queue       *string         `json:"queue_name"`      // nil if it belongs to none
	Payload     json.RawMessage `json:"payload"`
	Priority    int             `json:"priority"` // lower runs first
	RunAt       time.Time       `json:"run_at"`
	Attempts    int             `json:"attempts"` // how often it was started
	MaxAttempts int             `json:"max_attempts"`
	LastError   *string         `json:"last_error"` // why the last attempt failed
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"` // when it was last changed from outside
	Key         *string         `json:"key"`
	LockedAt    *time.Time      `json:"locked_at"`
	LockedBy    *string         `json:"locked_by"` // the worker that holds it
	Revision    int             `json:"revision"`  // how often it was added again under its key
	Flags       []string        `json:"flags"`
	State       JobState        `json:"state"`
}

// ListOptions choose jobs. What has its zero value chooses nothing.
type ListOptions struct {
	Task   string   `json:"task,omitempty"`
	Queue  string   `json:"queue,omitempty"`
	State  JobState `json:"state,omitempty"`
	Limit  int      `json:"limit,omitempty"`  // defaults to 50
	Offset int      `json:"offset,omitempty"` // after so many
}

// ListJobs answers jobs as they stand.
func (c *Client) ListJobs(ctx context.Context, options ListOptions) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{options: options}, func(a *asked) C.gw_status_t {
		return C.gw_client_list_jobs(a.client, a.options, &a.json, &a.fault)
	})
}

// Job answers one job, nil if there is none of this id (any more).
func (c *Client) Job(ctx context.Context, id int64) (*ListedJob, error) {
	return ask[*ListedJob](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_job(a.client, C.int64_t(id), &a.json, &a.fault)
	})
}

// JobStats is how many jobs there are, all and in each state.
type JobStats struct {
	Total     int64 `json:"total"`
	Ready     int64 `json:"ready"`
	Scheduled int64 `json:"scheduled"`
	Locked    int64 `json:"locked"`
	Failed    int64 `json:"failed"`
}

// JobStats counts the jobs.
func (c *Client) JobStats(ctx context.Context) (JobStats, error) {
	return ask[JobStats](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_stats(a.client, &a.json, &a.fault)
	})
}

// ListedQueue is a named queue as it stands.
type ListedQueue struct {
	ID         int64      `json:"id"`
	Name       string     `json:"queue_name"`
	LockedAt   *time.Time `json:"locked_at"`
	LockedBy   *string    `json:"locked_by"`
	JobCount   int64      `json:"job_count"`   // in whatever state
	ReadyCount int64      `json:"ready_count"` // of those, how many are ready
}

// Queues answers the named queues, by name.
func (c *Client) Queues(ctx context.Context) ([]ListedQueue, error) {
	return ask[[]ListedQueue](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_queues(a.client, &a.json, &a.fault)
	})
}

// LockedWorker is a worker that holds something.
type LockedWorker struct {
	WorkerID     string `json:"worker_id"`
	LockedJobs   int64  `json:"locked_jobs"`
	LockedQueues int64  `json:"locked_queues"`
}

// LockedWorkers answers the workers, of whatever make, that hold jobs or queues.
func (c *Client) LockedWorkers(ctx context.Context) ([]LockedWorker, error) {
	return ask[[]LockedWorker](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_locked_workers(a.client, &a.json, &a.fault)
	})
}

// ActiveWorker is a worker that says, or said, that it lives.
type ActiveWorker struct {
	WorkerID        string          `json:"worker_id"`
	LastHeartbeatAt time.Time       `json:"last_heartbeat_at"`
	StartedAt       time.Time       `json:"started_at"`
	Metadata        json.RawMessage `json:"metadata"` // what it says of itself
	IsStale         bool            `json:"is_stale"` // it has been silent for longer than the threshold
}

// ActiveWorkers answers the workers that beat. One that has been silent for longer than sweepThreshold is stale.
func (c *Client) ActiveWorkers(ctx context.Context, sweepThreshold time.Duration) ([]ActiveWorker, error) {
	return ask[[]ActiveWorker](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_active_workers(a.client, C.int64_t(milliseconds(sweepThreshold)), &a.json, &a.fault)
	})
}

// CompleteJobs deletes jobs as if they had succeeded, and answers those that it deleted. Jobs that run are left alone,
// here and in FailJobs and RescheduleJobs.
func (c *Client) CompleteJobs(ctx context.Context, ids ...int64) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{ids: ids}, func(a *asked) C.gw_status_t {
		return C.gw_client_complete_jobs(a.client, a.ids, a.count, &a.json, &a.fault)
	})
}

// FailJobs fails jobs for good, for this reason, and answers those that it failed.
func (c *Client) FailJobs(ctx context.Context, reason string, ids ...int64) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{ids: ids, texts: []string{reason}}, func(a *asked) C.gw_status_t {
		return C.gw_client_fail_jobs(a.client, a.ids, a.count, a.texts[0], &a.json, &a.fault)
	})
}

// RescheduleOptions are what to change of jobs. What is nil stays as it is. At least one must be set.
type RescheduleOptions struct {
	RunAt       *time.Time `json:"run_at,omitempty"`       // when they start at the earliest
	Now         bool       `json:"-"`                      // instead of RunAt: now, by the database's clock
	Priority    *int       `json:"priority,omitempty"`     // -32768 to 32767
	Attempts    *int       `json:"attempts,omitempty"`     // how often they count as tried; 0 brings failed jobs back
	MaxAttempts *int       `json:"max_attempts,omitempty"` // 1 to 32767
}

// MarshalJSON writes Now as the library reads it.
func (o RescheduleOptions) MarshalJSON() ([]byte, error) {
	type plain RescheduleOptions
	if !o.Now {
		return json.Marshal(plain(o))
	}
	if o.RunAt != nil {
		return nil, errorf(ErrConfig, "run_at: cannot be given together with now")
	}
	return json.Marshal(struct {
		RunAt string `json:"run_at"`
		plain
	}{"now", plain(o)})
}

// RescheduleJobs changes when, how urgently and how often jobs are tried, and answers those that it changed.
func (c *Client) RescheduleJobs(ctx context.Context, options RescheduleOptions, ids ...int64) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{options: options, ids: ids}, func(a *asked) C.gw_status_t {
		return C.gw_client_reschedule_jobs(a.client, a.ids, a.count, a.options, &a.json, &a.fault)
	})
}

// Unlocked is how much was unlocked.
type Unlocked struct {
	Jobs   int64 `json:"jobs"`
	Queues int64 `json:"queues"`
}

// ForceUnlock unlocks what these workers hold. For workers that are known to be dead: of one that lives, the jobs run
// twice. Prefer SweepStaleWorkers.
func (c *Client) ForceUnlock(ctx context.Context, workerIDs ...string) (Unlocked, error) {
	if len(workerIDs) == 0 {
		return Unlocked{}, nil
	}
	return ask[Unlocked](ctx, c, question{texts: workerIDs}, func(a *asked) C.gw_status_t {
		return C.gw_client_force_unlock(a.client, &a.texts[0], C.size_t(len(a.texts)), &a.json, &a.fault)
	})
}

// CleanupTask is a kind of rows that nobody needs any more. They are combined with |.
type CleanupTask uint32

const (
	// DeletePermanentlyFailedJobs deletes jobs that have failed for good.
	DeletePermanentlyFailedJobs CleanupTask = C.GW_CLEANUP_DELETE_PERMAFAILED
	// GCTaskIdentifiers deletes tasks that no job is of. Workers of Node and of the async crate, which look their
	// tasks up at their start, must be stopped.
	GCTaskIdentifiers CleanupTask = C.GW_CLEANUP_GC_TASKS
	// GCJobQueues deletes named queues that no job belongs to and nobody holds.
	GCJobQueues CleanupTask = C.GW_CLEANUP_GC_QUEUES
)

// Cleaned is how many rows were deleted.
type Cleaned struct {
	Jobs   int64 `json:"jobs"`
	Tasks  int64 `json:"tasks"`
	Queues int64 `json:"queues"`
}

// Cleanup deletes rows that nobody needs any more. A job that is being added keeps its task and its queue.
func (c *Client) Cleanup(ctx context.Context, tasks CleanupTask) (Cleaned, error) {
	return ask[Cleaned](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_cleanup(a.client, C.uint32_t(tasks), &a.json, &a.fault)
	})
}

// SweepOptions are what a sweep by hand does differently. What is nil is as usual.
type SweepOptions struct {
	SweepThreshold *time.Duration // after what silence a worker is dead; defaults to 5 min; raised to 3 heartbeats of a worker
	RecoveryDelay  *time.Duration // how long recovered jobs wait; defaults to 30 s
	DryRun         bool           // only tell which workers are dead
}

// MarshalJSON writes the options as the library reads them.
func (o SweepOptions) MarshalJSON() ([]byte, error) {
	options := map[string]any{"dry_run": o.DryRun}
	if o.SweepThreshold != nil {
		options["sweep_threshold_ms"] = milliseconds(*o.SweepThreshold)
	}
	if o.RecoveryDelay != nil {
		options["recovery_delay_ms"] = milliseconds(*o.RecoveryDelay)
	}
	return json.Marshal(options)
}

// Swept is what a sweep did.
type Swept struct {
	WorkerIDs      []string `json:"worker_ids"`      // the workers that were found dead
	RecoveredCount int64    `json:"recovered_count"` // how many of their jobs were recovered
	// RaisedThresholds are the living workers for which the threshold was too short.
	RaisedThresholds []RaisedThreshold `json:"raised_thresholds,omitempty"`
}

// RaisedThreshold is a worker that sends its heartbeats too seldom for the threshold of a sweep: the sweep applied three of
// that worker's intervals instead.
type RaisedThreshold struct {
	WorkerID            string `json:"worker_id"`
	HeartbeatIntervalMs *int64 `json:"heartbeat_interval_ms"` // nil if it does not publish that, and 30 s are assumed
	SweepThresholdMs    int64  `json:"sweep_threshold_ms"`    // after how long a silence it is dead
}

// SweepStaleWorkers recovers the jobs of workers that have stopped saying that they live.
func (c *Client) SweepStaleWorkers(ctx context.Context, options SweepOptions) (Swept, error) {
	return ask[Swept](ctx, c, question{options: options}, func(a *asked) C.gw_status_t {
		return C.gw_client_sweep_stale_workers(a.client, a.options, &a.json, &a.fault)
	})
}

// question is what a call is given: options, as JSON unless they are nil, texts and ids.
type question struct {
	options any
	texts   []string
	ids     []int64
}

// asked is a question as the library reads it, and its answer.
type asked struct {
	client  *C.gw_client_t
	options *C.char
	texts   []*C.char
	ids     *C.int64_t
	count   C.size_t // of ids
	json    *C.char
	fault   *C.gw_error_t
}

// ask calls a function of the library that answers JSON. What is not found is a zero T.
func ask[T any](ctx context.Context, c *Client, q question, what func(a *asked) C.gw_status_t) (answer T, err error) {
	var a asked
	var lent texts
	if q.options != nil {
		text, err := json.Marshal(q.options)
		if err != nil {
			return answer, err
		}
		a.options = lent.c("options", string(text))
	}
	for _, text := range q.texts {
		a.texts = append(a.texts, lent.c("text", text))
	}
	ids := append([]int64{0}, q.ids...)[1:] // a copy: the call may outlast ours
	a.count = C.size_t(len(q.ids))
	if lent.err != nil {
		lent.free()
		return answer, lent.err
	}
	return call(ctx, c, func(client *C.gw_client_t) (answer T, err error) {
		defer lent.free()
		a.client = client
		if len(ids) > 0 {
			a.ids = (*C.int64_t)(&ids[0])
		}
		if status := what(&a); status != C.GW_OK {
			return answer, failure(status, &a.fault)
		}
		if err := decodeAnswer(takeBytes(a.json), &answer); err != nil {
			return answer, errorf(ErrJSON, "what the library answered: %v", err)
		}
		return answer, nil
	}, lent.free)
}

// decodeAnswer is a variable for the tests, which look closer.
var decodeAnswer = json.Unmarshal
