// The errors, and their kinds. Knows nothing of workers and jobs.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"fmt"
	"math"
)

// Status is the kind of an [Error]. It is an error itself, so that callers test for it with errors.Is:
//
//	if errors.Is(err, graphileworker.ErrConnect) { ... }
type Status int32

// The kinds of errors.
const (
	ErrInvalid         Status = C.GW_ERR_INVALID          // an argument is missing or out of range
	ErrState           Status = C.GW_ERR_STATE            // the call is not allowed in this state: the worker runs, or does not run
	ErrAlreadyFinished Status = C.GW_ERR_ALREADY_FINISHED // the job has its outcome, or this worker does not hold it any more
	ErrClosed          Status = C.GW_ERR_CLOSED           // the client, or the worker, is closed
	ErrForked          Status = C.GW_ERR_FORKED           // the object was made before this process was forked
	ErrDeadlock        Status = C.GW_ERR_DEADLOCK         // the call would wait for itself
	ErrABI             Status = C.GW_ERR_ABI              // the library has another ABI version than this package
	ErrNoMemory        Status = C.GW_ERR_NOMEM            // out of memory or of handles
	ErrHandle          Status = C.GW_ERR_HANDLE           // the object is closed already
	ErrStuck           Status = C.GW_ERR_STUCK            // the worker stopped, but handlers did not return or outcomes could not be written; the message names the jobs
	ErrConfig          Status = C.GW_ERR_CONFIG           // a setting or a field of a job is outside its limits
	ErrCrontab         Status = C.GW_ERR_CRONTAB          // the crontab text is not valid; the message has line and column
	ErrJSON            Status = C.GW_ERR_JSON             // a payload is not JSON
	ErrUTF8            Status = C.GW_ERR_UTF8             // a text is not UTF-8, or contains a NUL
	ErrConnect         Status = C.GW_ERR_CONNECT          // the database cannot be reached
	ErrAuth            Status = C.GW_ERR_AUTH             // the database refuses the role or the password
	ErrTLS             Status = C.GW_ERR_TLS              // the TLS connection could not be set up
	ErrDatabase        Status = C.GW_ERR_DATABASE         // the database returned an error; see SQLState
	ErrSchema          Status = C.GW_ERR_SCHEMA           // the schema is missing, too old or too new, or the role lacks a right on it
	ErrDatabaseTimeout Status = C.GW_ERR_DATABASE_TIMEOUT // the database did not reply in time
	ErrConflict        Status = C.GW_ERR_CONFLICT         // a worker claimed the job with this key during each try
	ErrUnknownOutcome  Status = C.GW_ERR_UNKNOWN_OUTCOME  // the reply to the commit was lost: the change may or may not be made
	ErrSkipped         Status = C.GW_ERR_SKIPPED          // an interceptor skipped the job: it is not added
	ErrRefused         Status = C.GW_ERR_REFUSED          // an interceptor refused the job: it is not added
	ErrUnsupported     Status = C.GW_ERR_UNSUPPORTED      // this build of the library does not support the call
	ErrPanic           Status = C.GW_ERR_PANIC            // a defect of the library
)

// Error returns a description of the kind.
func (s Status) Error() string { return C.GoString(C.gw_status_text(C.gw_status_t(s))) }

// String returns the kind's name in the C library, such as "GW_ERR_CONNECT".
func (s Status) String() string { return C.GoString(C.gw_status_name(C.gw_status_t(s))) }

// Error is the type of this package's own errors. Errors of a database driver or of a context are wrapped: errors.Is and
// errors.As find them.
type Error struct {
	// Status is the kind, also found with errors.Is(err, ErrConnect).
	Status Status
	// Message describes the error and what to do about it.
	Message string
	// SQLState is the database's error code, such as "28P01"; empty if there is none.
	SQLState string
	// Retryable is true if the same call may succeed later.
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

// failure returns the error of a call of the library, and frees its error object. Returns nil if status is not negative.
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

// errorStatuses returns the statuses of the library that are errors.
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

// abiError is set if the library that was loaded has another ABI version. All calls then return it.
var abiError = checkABI(uint32(C.gw_abi_version()), C.GW_ABI_VERSION)

func checkABI(found, wanted uint32) error {
	if found == wanted {
		return nil
	}
	return errorf(ErrABI, "libgraphile_worker has ABI version %d, and this program was built for %d: "+
		"install the library of that version, or build the program with the installed one", found, wanted)
}

// LibraryVersion returns the version of the loaded library, such as "0.1.0".
func LibraryVersion() string { return C.GoString(C.gw_version_string()) }
