// Counters of a worker. Knows nothing of who counts.

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

// Stats is what a worker has done since it started, and what it is doing now.
type Stats struct {
	Claimed           uint64 // jobs taken from the database
	Completed         uint64 // jobs that succeeded
	Failed            uint64 // attempts that failed
	Retried           uint64 // of those, how many are tried again
	PermanentlyFailed uint64 // of those, how many had no attempts left
	Returned          uint64 // jobs given back before they began
	Snoozed           uint64 // jobs that asked to be run again later
	TimedOut          uint64 // jobs that ran past their task's timeout
	Stuck             uint64 // of those, how many ignored that
	Lost              uint64 // jobs that turned out to be another worker's
	Reconciled        uint64 // times that doubt about what is held was cleared up
	DatabaseErrors    uint64 // calls of the database that failed
	EventsDropped     uint64 // events that hooks were too slow for

	Held      uint64        // jobs claimed that wait to be started, now
	Running   uint64        // jobs whose handler runs, now
	InFlight  uint64        // jobs claimed whose outcome is not yet written, now
	SettleLag time.Duration // for how long the oldest outcome waits to be written, now
}

// Stats answers the worker's counters. They are zero before the first Run, and after Close.
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

// StatsJSON answers all of the counters, histograms of claims and of handler times included; nil after Close.
func (w *Worker) StatsJSON() json.RawMessage {
	text := C.gw_worker_stats_json(w.native)
	if text == nil {
		return nil
	}
	return takeBytes(text)
}

// Flush waits until every outcome that was given so far is in the database, or for timeout: then ErrDatabaseTimeout.
// Run does so by itself before it returns.
func (w *Worker) Flush(timeout time.Duration) error {
	var fault *C.gw_error_t
	status := C.gw_worker_flush(w.native, C.int64_t(milliseconds(timeout)), &fault)
	if status == C.GW_TIMEOUT {
		return errorf(ErrDatabaseTimeout, "outcomes are not written yet after %v", timeout)
	}
	return failure(status, &fault)
}
