// The log of the library and of this package. The library's records pass through a pipe, so that C never calls Go.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// LogLevel is the severity of a log record.
type LogLevel int32

const (
	LogOff   LogLevel = C.GW_LOG_OFF   // nothing
	LogError LogLevel = C.GW_LOG_ERROR // a person must act
	LogWarn  LogLevel = C.GW_LOG_WARN  // a call failed and is retried
	LogInfo  LogLevel = C.GW_LOG_INFO  // starts, stops and outcomes of jobs and workers
	LogDebug LogLevel = C.GW_LOG_DEBUG // details for finding a fault
	LogTrace LogLevel = C.GW_LOG_TRACE // everything
)

// LogRecord is one line of the log.
type LogRecord struct {
	Time    time.Time
	Level   LogLevel
	Target  string          // the part of the library that logs it
	Message string          // fixed for each kind of record
	Fields  json.RawMessage // a JSON object: job_id, task, worker_id, error ... Never a payload
}

// logging is the destination of the log. Like the library's, it is one for the whole process.
var logging struct {
	sync.Mutex
	level LogLevel
	sink  func(LogRecord)
}

func init() { logging.level = LogWarn }

// SetLogLevel sends the log of the whole process to standard error: records of this level and more severe ones. Without
// this call and without [SetLog] the level is LogWarn.
func SetLogLevel(level LogLevel) {
	logging.Lock()
	defer logging.Unlock()
	logging.level, logging.sink = level, nil
	C.gw_log_set_sink(nil, nil, nil, C.int32_t(level))
}

// SetLog sends the log of the whole process to sink instead of standard error: records of this level and more severe
// ones. Several goroutines call sink at once. If sink is slow, the worker waits for a moment, and then drops records. The
// next record has their number in its field "records_lost". With Go 1.21 or newer, see SetLogger for slog.
//
// Errors: ErrInvalid if the process has too many open files.
func SetLog(sink func(LogRecord), level LogLevel) error {
	var ends [2]int
	syscall.ForkLock.RLock()
	err := syscall.Pipe(ends[:])
	if err == nil {
		syscall.CloseOnExec(ends[0])
		syscall.CloseOnExec(ends[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return errorf(ErrInvalid, "opening a pipe for the log: %v", err)
	}
	for _, end := range ends {
		_ = syscall.SetNonblock(end, true) // cannot fail on a pipe
	}
	logging.Lock()
	defer logging.Unlock()
	// Replacing the sink closes the pipe of the previous one, whose goroutine then ends.
	if status := C.gwgo_log_to(C.int(ends[1]), C.int32_t(level)); status < 0 {
		syscall.Close(ends[0])
		return &Error{Status: Status(status), Message: "setting the log: " + Status(status).Error()}
	}
	logging.level, logging.sink = level, sink
	go readLog(os.NewFile(uintptr(ends[0]), "graphile_worker log"), sink)
	return nil
}

func readLog(pipe *os.File, sink func(LogRecord)) {
	defer pipe.Close()
	from := bufio.NewReaderSize(pipe, 16*C.GWGO_LOG_MAX)
	for {
		var header C.gwgo_log_header
		if _, err := io.ReadFull(from, unsafe.Slice((*byte)(unsafe.Pointer(&header)), unsafe.Sizeof(header))); err != nil {
			return
		}
		text := make([]byte, header.target_len+header.message_len+header.fields_len)
		if _, err := io.ReadFull(from, text); err != nil {
			return
		}
		target, rest := text[:header.target_len], text[header.target_len:]
		fields := json.RawMessage(rest[header.message_len:])
		if len(fields) == 0 {
			fields = json.RawMessage("{}")
		}
		if header.lost > 0 {
			fields = withField(fields, "records_lost", int(header.lost))
		}
		sink(LogRecord{
			Time:    timeOf(header.time_us),
			Level:   LogLevel(header.level),
			Target:  string(target),
			Message: storable(string(rest[:header.message_len])),
			Fields:  fields,
		})
	}
}

func withField(object json.RawMessage, name string, value any) json.RawMessage {
	fields := map[string]any{}
	_ = json.Unmarshal(object, &fields) // if it is not an object, fields stays empty
	fields[name] = value
	text, _ := json.Marshal(fields)
	return text
}

// report logs a record of this package, with its job, if any, and pairs of field and value.
func report(level LogLevel, message string, job *Job, pairs ...any) {
	logging.Lock()
	sink, most := logging.sink, logging.level
	logging.Unlock()
	if level > most {
		return
	}
	fields := map[string]any{}
	if job != nil {
		fields["job_id"], fields["task"], fields["attempt"], fields["worker_id"] = job.ID, job.Task, job.Attempts, job.WorkerID
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		fields[pairs[i].(string)] = pairs[i+1]
	}
	if sink == nil {
		stack, _ := fields["stack"].(string)
		delete(fields, "stack")
		text, _ := json.Marshal(fields)
		log.Printf("graphileworker: %s %s\n%s", message, text, stack)
		return
	}
	text, _ := json.Marshal(fields)
	sink(LogRecord{Time: time.Now(), Level: level, Target: "graphileworker", Message: message, Fields: text})
}
