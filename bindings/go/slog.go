// The log and the events as records of log/slog.

//go:build go1.21

package graphileworker

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sort"
)

// SetLogger sends the log of the whole process, of the library and of this package, to logger: see [SetLog]. Only records
// of level and more severe ones are made; the logger may drop some of them. LogTrace becomes a level below
// slog.LevelDebug.
func SetLogger(logger *slog.Logger, level LogLevel) error {
	return SetLog(func(r LogRecord) {
		ctx := context.Background()
		to := slogLevel(r.Level)
		if !logger.Enabled(ctx, to) {
			return
		}
		record := slog.NewRecord(r.Time, to, r.Message, 0)
		record.AddAttrs(slog.String("target", r.Target))
		record.AddAttrs(attrs(r.Fields)...)
		_ = logger.Handler().Handle(ctx, record) // an error of the logger cannot be logged
	}, level)
}

// LogEvents logs every event with one of these names, or all events if no name is given, at slog.LevelInfo. Register
// before Run. Payloads are not logged, because they may contain secrets.
func (w *Worker) LogEvents(logger *slog.Logger, names ...string) {
	if len(names) == 0 {
		names = EventNames()
	}
	for _, name := range names {
		w.On(name, func(e Event) {
			fields := attrs(e.JSON)
			if e.JobID != 0 {
				fields = append([]slog.Attr{slog.Int64("job_id", e.JobID)}, fields...)
			}
			logger.LogAttrs(context.Background(), slog.LevelInfo, e.Name, fields...)
		})
	}
}

func slogLevel(level LogLevel) slog.Level {
	switch level {
	case LogError:
		return slog.LevelError
	case LogWarn:
		return slog.LevelWarn
	case LogInfo:
		return slog.LevelInfo
	case LogDebug:
		return slog.LevelDebug
	}
	return slog.LevelDebug - 4
}

// attrs returns the fields of a JSON object that are plain values, sorted by name.
func attrs(object json.RawMessage) []slog.Attr {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber() // float64 cannot hold all digits of an id
	var fields map[string]any
	if decoder.Decode(&fields) != nil {
		return nil
	}
	var all []slog.Attr
	for name, value := range fields {
		switch value := value.(type) {
		case string:
			all = append(all, slog.String(name, value))
		case bool:
			all = append(all, slog.Bool(name, value))
		case json.Number:
			if whole, err := value.Int64(); err == nil {
				all = append(all, slog.Int64(name, whole))
			} else if number, err := value.Float64(); err == nil {
				all = append(all, slog.Float64(name, number))
			}
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Key < all[j].Key })
	return all
}
