// Adds jobs within transactions of the caller's own. The statement is the library's: no SQL stands here.

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

// Tx is what AddJobTx runs its statement on: a *sql.Tx, or a *sql.Conn on which the caller has begun a transaction.
type Tx interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// How often a job is tried to be added whose key's waiting job workers are taking, and how long to wait in between.
const (
	conflictTries = 20
	conflictPause = 5 * time.Millisecond
)

// AddJobTx is [Client.AddJob] within a transaction of the caller's: the job exists if, and only if, it commits. Works
// with every PostgreSQL driver for database/sql, and needs none of the client's connections.
//
// Errors of the driver are wrapped; after one the transaction is to be rolled back. With a [Key] it may be ErrConflict:
// workers kept taking the waiting job of that key, or, under REPEATABLE READ and above, one has taken it since the
// transaction began. Then nothing was added, and the transaction may go on.
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
			return 0, errorf(ErrConflict, "adding a job of task %q: a worker took the waiting job of key %q each of %d times; "+
				"nothing was added: try again in a new transaction", task, args[5], try)
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

// queryID answers the first column of the only row.
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

// AddJobSQL answers the statement that adds a job, and its arguments (texts, numbers and nil), for drivers with an
// interface of their own, such as pgx without database/sql. Its only row is the job, the id first.
//
// No row means that nothing was added, since a worker has taken the waiting job of the same key at this very moment:
// run it again, a few milliseconds later. That cannot be without a [Key].
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

// args are the parameters of the statement, in its order. Texts suit every driver: the statement casts them.
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

// arrayText writes texts as PostgreSQL reads a text[].
func arrayText(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(item) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// withTraceparent puts a trace context where all makes of workers look for it. The payload is a checked JSON object.
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
