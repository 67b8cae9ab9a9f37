// What goes wrong, and how callers tell. Knows nothing of workers and jobs.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"fmt"
	"math"
)

// Status is the kind of an [Error]. It is an error itself, so that callers ask for it with errors.Is:
//
//	if errors.Is(err, graphileworker.ErrConnect) { ... }
type Status int32

// The kinds of errors there are.
const (
	ErrInvalid         Status = C.GW_ERR_INVALID          // an argument is missing or outside its range
	ErrState           Status = C.GW_ERR_STATE            // not now: the worker runs, or does not
	ErrAlreadyFinished Status = C.GW_ERR_ALREADY_FINISHED // the job has its outcome, or is no longer this worker's
	ErrClosed          Status = C.GW_ERR_CLOSED           // the worker of this job is gone
	ErrForked          Status = C.GW_ERR_FORKED           // this process is a fork of the one that made the object
	ErrDeadlock        Status = C.GW_ERR_DEADLOCK         // would wait for itself
	ErrABI             Status = C.GW_ERR_ABI              // the library is not of the version that this package is for
	ErrNoMemory        Status = C.GW_ERR_NOMEM            // out of memory, or of handles
	ErrHandle          Status = C.GW_ERR_HANDLE           // closed already
	ErrStuck           Status = C.GW_ERR_STUCK            // the worker stopped, but handlers did not return, or outcomes could not be written; the text names the jobs
	ErrConfig          Status = C.GW_ERR_CONFIG           // a setting or a field of a job is outside its limits
	ErrCrontab         Status = C.GW_ERR_CRONTAB          // crontab text; the message has line and column
	ErrJSON            Status = C.GW_ERR_JSON             // a payload is no JSON
	ErrUTF8            Status = C.GW_ERR_UTF8             // text is no UTF-8, or has a NUL in it
	ErrConnect         Status = C.GW_ERR_CONNECT          // the database cannot be reached
	ErrAuth            Status = C.GW_ERR_AUTH             // the database refuses role or password
	ErrTLS             Status = C.GW_ERR_TLS              // no encrypted connection
	ErrDatabase        Status = C.GW_ERR_DATABASE         // the database answered an error; see SQLState
	ErrSchema          Status = C.GW_ERR_SCHEMA           // the schema is missing, too old or too new, or the role lacks a right on it
	ErrDatabaseTimeout Status = C.GW_ERR_DATABASE_TIMEOUT // the database did not answer in time
	ErrConflict        Status = C.GW_ERR_CONFLICT         // a job of this key was taken by a worker each time it was tried
	ErrUnknownOutcome  Status = C.GW_ERR_UNKNOWN_OUTCOME  // the reply to the commit was lost: the change was made, or was not
	ErrSkipped         Status = C.GW_ERR_SKIPPED          // an interceptor decided that the job is not added
	ErrRefused         Status = C.GW_ERR_REFUSED          // an interceptor refused to add the job
	ErrUnsupported     Status = C.GW_ERR_UNSUPPORTED      // this build of the library does not have it
	ErrPanic           Status = C.GW_ERR_PANIC            // a fault inside of the library
)

// Error says what the kind means.
func (s Status) Error() string { return C.GoString(C.gw_status_text(C.gw_status_t(s))) }

// String is the kind's name in the C library, such as "GW_ERR_CONNECT".
func (s Status) String() string { return C.GoString(C.gw_status_name(C.gw_status_t(s))) }

// Error is what every function of this package answers that fails by itself. Errors of others that pass through,
// as of a database driver or of a context, are wrapped and found with errors.Is and errors.As.
type Error struct {
	// Status is the kind, also found with errors.Is(err, ErrConnect).
	Status Status
	// Message says what happened and what to do about it.
	Message string
	// SQLState is the database's own code, such as "28P01"; empty if it answered none.
	SQLState string
	// Retryable tells whether the same call may succeed later, nothing else being changed.
	Retryable bool
}

func (e *Error) Error() string { return "graphileworker: " + e.Message }

// Is reports whether target is the Status of the error.
func (e *Error) Is(target error) bool {
	status, ok := target.(Status)
	return ok && status == e.Status
}

func errorf(status Status, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// failure makes an error of what a call of the library answered, and takes its error object. Positive statuses are
// no errors.
func failure(status C.gw_status_t, native **C.gw_error_t) error {
	if status >= 0 {
		return nil
	}
	if *native == nil {
		return &Error{Status: Status(status), Message: Status(status).Error()}
	}
	defer C.gw_error_free(*native)
	return &Error{
		Status:    Status(status),
		Message:   C.GoString(C.gw_error_message(*native)),
		SQLState:  C.GoString(C.gw_error_sqlstate(*native)),
		Retryable: bool(C.gw_error_is_retryable(*native)),
	}
}

// errorStatuses are the statuses of the library that are errors.
func errorStatuses() (errs []Status) {
	for i := 0; ; i++ {
		status := C.gw_status_at(C.size_t(i))
		if status == math.MinInt32 {
			return errs
		}
		if status < 0 {
			errs = append(errs, Status(status))
		}
	}
}

// abiError is why nothing works: set when the library that was found at run time is of another ABI.
var abiError = checkABI(uint32(C.gw_abi_version()), C.GW_ABI_VERSION)

func checkABI(found, wanted uint32) error {
	if found == wanted {
		return nil
	}
	return errorf(ErrABI, "libgraphile_worker has ABI version %d, and this program was built for %d: "+
		"install the library of that version, or build the program against the one that is there", found, wanted)
}

// LibraryVersion is the version of the library that was loaded, such as "0.1.0".
func LibraryVersion() string { return C.GoString(C.gw_version_string()) }
