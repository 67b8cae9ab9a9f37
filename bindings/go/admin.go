// Calls for operators. Every method makes one call of the library, and decodes the JSON that it returns.

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

// JobState is the state of a job, by the database's clock.
type JobState string

const (
	StateReady     JobState = "ready"     // it may start now, or as soon as its queue is free
	StateScheduled JobState = "scheduled" // it waits for its RunAt
	StateLocked    JobState = "locked"    // a worker holds it
	StateFailed    JobState = "failed"    // it has no attempts left, and stays until it is changed by hand
)

// ListedJob is a job in the queue.
type ListedJob struct {
	ID          int64           `json:"id"`
	Task        string          `json:"task_identifier"` // empty if the task's row is missing, so that no worker can run it
	Queue       *string         `json:"queue_name"`      // nil if it is in no queue
	Payload     json.RawMessage `json:"payload"`
	Priority    int             `json:"priority"` // lower runs first
	RunAt       time.Time       `json:"run_at"`
	Attempts    int             `json:"attempts"` // the number of started attempts
	MaxAttempts int             `json:"max_attempts"`
	LastError   *string         `json:"last_error"` // why the last attempt failed
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"` // when it was last changed, other than by a worker
	Key         *string         `json:"key"`
	LockedAt    *time.Time      `json:"locked_at"`
	LockedBy    *string         `json:"locked_by"` // the worker that holds it
	Revision    int             `json:"revision"`  // how often it was added again with its key
	Flags       []string        `json:"flags"`
	State       JobState        `json:"state"`
}

// ListOptions filter jobs. A field with its zero value does not filter.
type ListOptions struct {
	Task   string   `json:"task,omitempty"`
	Queue  string   `json:"queue,omitempty"`
	State  JobState `json:"state,omitempty"`
	Limit  int      `json:"limit,omitempty"`  // defaults to 50
	Offset int      `json:"offset,omitempty"` // skips this number of jobs
}

// ListJobs returns the jobs that match the options, at most Limit.
func (c *Client) ListJobs(ctx context.Context, options ListOptions) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{options: options}, func(a *asked) C.gw_status_t {
		return C.gw_client_list_jobs(a.client, a.options, &a.json, &a.fault)
	})
}

// Job returns one job, or nil if no job has this id.
func (c *Client) Job(ctx context.Context, id int64) (*ListedJob, error) {
	return ask[*ListedJob](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_job(a.client, C.int64_t(id), &a.json, &a.fault)
	})
}

// JobStats has the number of jobs, in all and in each state.
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

// ListedQueue is a named queue.
type ListedQueue struct {
	ID         int64      `json:"id"`
	Name       string     `json:"queue_name"`
	LockedAt   *time.Time `json:"locked_at"`
	LockedBy   *string    `json:"locked_by"`
	JobCount   int64      `json:"job_count"`   // of all states
	ReadyCount int64      `json:"ready_count"` // of these, the number of ready jobs
}

// Queues returns the named queues, ordered by name.
func (c *Client) Queues(ctx context.Context) ([]ListedQueue, error) {
	return ask[[]ListedQueue](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_queues(a.client, &a.json, &a.fault)
	})
}

// LockedWorker is a worker that holds jobs or queues.
type LockedWorker struct {
	WorkerID     string `json:"worker_id"`
	LockedJobs   int64  `json:"locked_jobs"`
	LockedQueues int64  `json:"locked_queues"`
}

// LockedWorkers returns the workers that hold jobs or queues, those of other implementations included.
func (c *Client) LockedWorkers(ctx context.Context) ([]LockedWorker, error) {
	return ask[[]LockedWorker](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_locked_workers(a.client, &a.json, &a.fault)
	})
}

// ActiveWorker is a worker that has sent heartbeats.
type ActiveWorker struct {
	WorkerID        string          `json:"worker_id"`
	LastHeartbeatAt time.Time       `json:"last_heartbeat_at"`
	StartedAt       time.Time       `json:"started_at"`
	Metadata        json.RawMessage `json:"metadata"` // what the worker publishes about itself
	IsStale         bool            `json:"is_stale"` // its last heartbeat is older than the threshold
}

// ActiveWorkers returns the workers that have sent heartbeats. A worker whose last heartbeat is older than
// sweepThreshold is stale.
func (c *Client) ActiveWorkers(ctx context.Context, sweepThreshold time.Duration) ([]ActiveWorker, error) {
	return ask[[]ActiveWorker](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_active_workers(a.client, C.int64_t(milliseconds(sweepThreshold)), &a.json, &a.fault)
	})
}

// CompleteJobs deletes jobs as completed, and returns the deleted jobs. It does not change running jobs, nor do FailJobs
// and RescheduleJobs.
func (c *Client) CompleteJobs(ctx context.Context, ids ...int64) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{ids: ids}, func(a *asked) C.gw_status_t {
		return C.gw_client_complete_jobs(a.client, a.ids, a.count, &a.json, &a.fault)
	})
}

// FailJobs fails jobs permanently, for this reason, and returns the failed jobs.
func (c *Client) FailJobs(ctx context.Context, reason string, ids ...int64) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{ids: ids, texts: []string{reason}}, func(a *asked) C.gw_status_t {
		return C.gw_client_fail_jobs(a.client, a.ids, a.count, a.texts[0], &a.json, &a.fault)
	})
}

// RescheduleOptions are the changes of RescheduleJobs. A nil field is not changed. At least one field must be set.
type RescheduleOptions struct {
	RunAt       *time.Time `json:"run_at,omitempty"`       // the earliest time at which they start
	Now         bool       `json:"-"`                      // sets RunAt to now, by the database's clock
	Priority    *int       `json:"priority,omitempty"`     // -32768 to 32767
	Attempts    *int       `json:"attempts,omitempty"`     // the number of attempts that count as used; 0 lets failed jobs run again
	MaxAttempts *int       `json:"max_attempts,omitempty"` // 1 to 32767
}

// MarshalJSON writes Now in the library's form.
func (o RescheduleOptions) MarshalJSON() ([]byte, error) {
	type plain RescheduleOptions
	if !o.Now {
		return json.Marshal(plain(o))
	}
	if o.RunAt != nil {
		return nil, errorf(ErrConfig, "run_at: cannot be set together with now")
	}
	return json.Marshal(struct {
		RunAt string `json:"run_at"`
		plain
	}{"now", plain(o)})
}

// RescheduleJobs changes start time, priority and attempts of jobs, and returns the changed jobs.
func (c *Client) RescheduleJobs(ctx context.Context, options RescheduleOptions, ids ...int64) ([]ListedJob, error) {
	return ask[[]ListedJob](ctx, c, question{options: options, ids: ids}, func(a *asked) C.gw_status_t {
		return C.gw_client_reschedule_jobs(a.client, a.ids, a.count, a.options, &a.json, &a.fault)
	})
}

// Unlocked has the numbers of unlocked jobs and queues.
type Unlocked struct {
	Jobs   int64 `json:"jobs"`
	Queues int64 `json:"queues"`
}

// ForceUnlock unlocks the jobs and queues of these workers. Use it only for workers that are known to be dead: the jobs
// of a living worker would run twice. Prefer SweepStaleWorkers.
func (c *Client) ForceUnlock(ctx context.Context, workerIDs ...string) (Unlocked, error) {
	if len(workerIDs) == 0 {
		return Unlocked{}, nil
	}
	return ask[Unlocked](ctx, c, question{texts: workerIDs}, func(a *asked) C.gw_status_t {
		return C.gw_client_force_unlock(a.client, &a.texts[0], C.size_t(len(a.texts)), &a.json, &a.fault)
	})
}

// CleanupTask is a kind of unused rows. Combine several with |.
type CleanupTask uint32

const (
	// DeletePermanentlyFailedJobs deletes jobs that have failed permanently.
	DeletePermanentlyFailedJobs CleanupTask = C.GW_CLEANUP_DELETE_PERMAFAILED
	// GCTaskIdentifiers deletes tasks without jobs. Workers of Node and of the async crate must be stopped, because
	// they look their tasks up only when they start.
	GCTaskIdentifiers CleanupTask = C.GW_CLEANUP_GC_TASKS
	// GCJobQueues deletes named queues that have no jobs and that no worker holds.
	GCJobQueues CleanupTask = C.GW_CLEANUP_GC_QUEUES
)

// Cleaned has the numbers of deleted rows.
type Cleaned struct {
	Jobs   int64 `json:"jobs"`
	Tasks  int64 `json:"tasks"`
	Queues int64 `json:"queues"`
}

// Cleanup deletes unused rows. A job that is being added at the same time keeps its task and its queue.
func (c *Client) Cleanup(ctx context.Context, tasks CleanupTask) (Cleaned, error) {
	return ask[Cleaned](ctx, c, question{}, func(a *asked) C.gw_status_t {
		return C.gw_client_cleanup(a.client, C.uint32_t(tasks), &a.json, &a.fault)
	})
}

// SweepOptions are the options of SweepStaleWorkers. A nil field means the default.
type SweepOptions struct {
	SweepThreshold *time.Duration // a worker without a heartbeat for this long is dead; defaults to 5 min; raised to 3 heartbeats of a worker
	RecoveryDelay  *time.Duration // how long recovered jobs wait; defaults to 30 s
	DryRun         bool           // only return which workers are dead
}

// MarshalJSON writes the options in the library's form.
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

// Swept is the result of a sweep.
type Swept struct {
	WorkerIDs      []string `json:"worker_ids"`      // the dead workers
	RecoveredCount int64    `json:"recovered_count"` // the number of their jobs that were recovered
	// RaisedThresholds are the living workers for which the threshold was too short.
	RaisedThresholds []RaisedThreshold `json:"raised_thresholds,omitempty"`
}

// RaisedThreshold is a worker whose heartbeat interval is too long for the threshold of a sweep. The sweep applied three
// of that worker's intervals instead.
type RaisedThreshold struct {
	WorkerID            string `json:"worker_id"`
	HeartbeatIntervalMs *int64 `json:"heartbeat_interval_ms"` // nil if the worker does not publish it; the sweep then assumes 30 s
	SweepThresholdMs    int64  `json:"sweep_threshold_ms"`    // the worker is dead if it sends no heartbeat for this long
}

// SweepStaleWorkers recovers the jobs of workers that have stopped sending heartbeats.
func (c *Client) SweepStaleWorkers(ctx context.Context, options SweepOptions) (Swept, error) {
	return ask[Swept](ctx, c, question{options: options}, func(a *asked) C.gw_status_t {
		return C.gw_client_sweep_stale_workers(a.client, a.options, &a.json, &a.fault)
	})
}

// question has the arguments of a call: options, passed as JSON unless they are nil, texts and ids.
type question struct {
	options any
	texts   []string
	ids     []int64
}

// asked has the arguments in the library's form, and the result.
type asked struct {
	client  *C.gw_client_t
	options *C.char
	texts   []*C.char
	ids     *C.int64_t
	count   C.size_t // of ids
	json    *C.char
	fault   *C.gw_error_t
}

// ask calls a function of the library that returns JSON, and decodes it. Returns a zero T if nothing was found.
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
	ids := append([]int64{0}, q.ids...)[1:] // a copy: the library's call may outlast this one
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
			return answer, errorf(ErrJSON, "decoding the library's result: %v", err)
		}
		return answer, nil
	}, lent.free)
}

// decodeAnswer is a variable, so that the tests can use a stricter decoder.
var decodeAnswer = json.Unmarshal
