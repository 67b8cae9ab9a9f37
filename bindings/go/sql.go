// Adds jobs within the caller's transactions. The statement is the library's: this file contains no SQL.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Tx runs the statement of AddJobTx: a *sql.Tx, or a *sql.Conn on which the caller has begun a transaction.
type Tx interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// The number of tries to add a job while workers claim the waiting job with its key, and the pause between two tries.
const (
	conflictTries = 20
	conflictPause = 5 * time.Millisecond
)

// AddJobTx is [Client.AddJob] within the caller's transaction: the job exists if, and only if, the transaction commits.
// It works with every PostgreSQL driver for database/sql, and uses none of the client's connections.
//
// Errors of the driver are wrapped; after one the caller must roll the transaction back. With a [Key] it may return
// ErrConflict: workers claimed the waiting job with that key during each of twenty tries, or, under REPEATABLE READ and
// above, a worker has claimed it since the transaction began. Then nothing was added, and the transaction may continue.
func (c *Client) AddJobTx(ctx context.Context, tx Tx, task string, payload any, options ...JobOption) (int64, error) {
	query, args, err := c.AddJobSQL(task, payload, options...)
	if err != nil {
		return 0, err
	}
	for try := 1; ; try++ {
		id, err := queryID(ctx, tx, query, args)
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return 0, fmt.Errorf("graphileworker: adding a job of task %q: %w", task, err)
		}
		if try == conflictTries {
			return 0, errorf(ErrConflict, "adding a job of task %q: a worker claimed the waiting job with key %q during each of %d tries; "+
				"nothing was added: retry in a new transaction", task, args[5], try)
		}
		pause := time.NewTimer(conflictPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return 0, fmt.Errorf("graphileworker: adding a job of task %q: %w", task, ctx.Err())
		}
	}
}

// queryID returns the first column of the only row, or sql.ErrNoRows.
func queryID(ctx context.Context, tx Tx, query string, args []any) (id int64, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return 0, err
		}
		return 0, sql.ErrNoRows
	}
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	into := make([]any, len(columns))
	for i := range into {
		into[i] = new(any)
	}
	into[0] = &id
	if err := rows.Scan(into...); err != nil {
		return 0, err
	}
	return id, rows.Close()
}

// AddJobSQL returns the statement that adds a job, and its arguments (texts, numbers and nil), for drivers with their own
// interface, such as pgx without database/sql. The statement returns one row, the job; its first column is the id.
//
// If it returns no row, nothing was added: a worker claimed the waiting job with the same key at the same time. Run it
// again a few milliseconds later. This happens only with a [Key].
func (c *Client) AddJobSQL(task string, payload any, options ...JobOption) (query string, args []any, err error) {
	spec, err := newSpec(task, payload, options)
	if err != nil {
		return "", nil, err
	}
	checked, err := spec.native()
	if err != nil {
		return "", nil, err
	}
	C.gw_spec_free(checked)
	if spec.traceparent != nil {
		if spec.payload, err = withTraceparent(spec.payload, *spec.traceparent); err != nil {
			return "", nil, err
		}
	}
	c.statementOnce.Do(func() { c.statement, c.statementErr = addJobSQL(c.schema) })
	return c.statement, spec.args(), c.statementErr
}

func addJobSQL(schema string) (string, error) {
	var (
		lent  texts
		query *C.char
		fault *C.gw_error_t
	)
	defer lent.free()
	if err := failure(C.gw_sql_add_job(lent.c("schema", schema), C.GW_SQL_DOLLAR, &query, &fault), &fault); err != nil {
		return "", err
	}
	return takeText(query), nil
}

// args returns the parameters of the statement, in its order. Most are texts, which every driver can send; the statement
// casts them.
func (s *spec) args() []any {
	args := []any{s.task, string(s.payload), nil, nil, nil, nil, nil, nil, nil}
	if s.queue != nil {
		args[2] = *s.queue
	}
	if s.runAt != nil {
		args[3] = s.runAt.UTC().Format("2006-01-02T15:04:05.999999Z07:00")
	}
	if s.maxAttempts != nil {
		args[4] = int64(*s.maxAttempts)
	}
	if s.key != nil {
		args[5], args[8] = *s.key, s.mode.String()
	}
	if s.priority != nil {
		args[6] = int64(*s.priority)
	}
	if len(s.flags) > 0 {
		args[7] = arrayText(s.flags)
	}
	return args
}

// arrayText returns texts in PostgreSQL's form of a text[].
func arrayText(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(item) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// withTraceparent adds a trace context as _trace.traceparent, from which all implementations read it. The payload must be
// a checked JSON object.
func withTraceparent(payload []byte, traceparent string) ([]byte, error) {
	trace := map[string]json.RawMessage{}
	if bytes.Contains(payload, []byte("_trace")) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(payload, &fields); err != nil {
			return nil, &Error{Status: ErrJSON, Message: "payload: " + err.Error()}
		}
		if json.Unmarshal(fields["_trace"], &trace) != nil || trace == nil {
			trace = map[string]json.RawMessage{}
		}
		trace["traceparent"] = json.RawMessage(`"` + traceparent + `"`)
		fields["_trace"], _ = json.Marshal(trace)
		return json.Marshal(fields)
	}
	inner := bytes.TrimSpace(payload)
	inner = inner[1 : len(inner)-1]
	comma := ","
	if len(bytes.TrimSpace(inner)) == 0 {
		comma = ""
	}
	return []byte("{" + string(inner) + comma + `"_trace":{"traceparent":"` + traceparent + `"}}`), nil
}
