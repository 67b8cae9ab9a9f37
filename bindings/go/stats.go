// Counters of a worker. Knows nothing of where they are counted.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"encoding/json"
	"time"
	"unsafe"
)

// Stats has counters since the worker's start, and its current state.
type Stats struct {
	Claimed           uint64 // jobs taken from the database
	Completed         uint64 // jobs that succeeded
	Failed            uint64 // attempts that failed
	Retried           uint64 // of those, the attempts that are retried
	PermanentlyFailed uint64 // of those, the jobs that had no attempts left
	Returned          uint64 // jobs given back before they started, or interrupted by a stop
	Snoozed           uint64 // jobs whose handler called Snooze
	TimedOut          uint64 // jobs that ran past their task's timeout
	Stuck             uint64 // of those, the jobs whose handler did not return
	Lost              uint64 // jobs that this worker did not hold any more when they ended
	Reconciled        uint64 // jobs that the database held for this worker without its knowledge, given back
	DatabaseErrors    uint64 // database calls that failed and were retried
	EventsDropped     uint64 // events dropped because hooks were too slow

	Held      uint64        // claimed jobs that wait to be started, now
	Running   uint64        // jobs whose handler runs, now
	InFlight  uint64        // claimed jobs whose outcome is not yet written, now
	SettleLag time.Duration // how long the oldest outcome has waited to be written, now
}

// Stats returns the worker's counters. They are zero before the first Run, and after Close.
func (w *Worker) Stats() Stats {
	var n C.gw_stats_t
	n.struct_size = C.size_t(unsafe.Sizeof(n))
	if C.gw_worker_stats(w.native, &n) != C.GW_OK {
		return Stats{}
	}
	return Stats{
		Claimed:           uint64(n.claimed),
		Completed:         uint64(n.completed),
		Failed:            uint64(n.failed),
		Retried:           uint64(n.retried),
		PermanentlyFailed: uint64(n.permanently_failed),
		Returned:          uint64(n.returned),
		Snoozed:           uint64(n.snoozed),
		TimedOut:          uint64(n.timed_out),
		Stuck:             uint64(n.stuck),
		Lost:              uint64(n.lost),
		Reconciled:        uint64(n.reconciled),
		DatabaseErrors:    uint64(n.database_errors),
		EventsDropped:     uint64(n.events_dropped),
		Held:              uint64(n.held),
		Running:           uint64(n.running),
		InFlight:          uint64(n.in_flight),
		SettleLag:         time.Duration(n.settle_lag_us) * time.Microsecond,
	}
}

// StatsJSON returns all counters, with histograms of claims and of handler times; nil after Close.
func (w *Worker) StatsJSON() json.RawMessage {
	text := C.gw_worker_stats_json(w.native)
	if text == nil {
		return nil
	}
	return takeBytes(text)
}

// Flush waits until the database has every outcome so far. After timeout it returns ErrDatabaseTimeout. Run does so
// before it returns.
func (w *Worker) Flush(timeout time.Duration) error {
	var fault *C.gw_error_t
	status := C.gw_worker_flush(w.native, C.int64_t(milliseconds(timeout)), &fault)
	if status == C.GW_TIMEOUT {
		return errorf(ErrDatabaseTimeout, "outcomes are not written after %v", timeout)
	}
	return failure(status, &fault)
}
