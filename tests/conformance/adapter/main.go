// The Go adapter of tests/conformance: executes commands, one per line, and decides nothing.
// tests/conformance/README.md lists the commands.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	gw "github.com/graphile-worker-native/libgraphile_worker/bindings/go"
)

func main() {
	var adapter adapter
	stdin := bufio.NewReader(os.Stdin)
	for {
		line, err := stdin.ReadString('\n')
		if err != nil || line == "quit\n" {
			break
		}
		words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		fields, err := adapter.obey(words[0], words[1:])
		if err != nil {
			fmt.Println(refusal(err))
			continue
		}
		fmt.Println(strings.Join(append([]string{"ok"}, fields...), "\t"))
	}
	adapter.close()
}

// refusal returns the reply for an error.
func refusal(err error) string {
	status, state := "GW_ERR_INVALID", "-"
	var ours *gw.Error
	if errors.As(err, &ours) {
		status = ours.Status.String()
		if ours.SQLState != "" {
			state = ours.SQLState
		}
	}
	message := strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(err.Error())
	return strings.Join([]string{"error", status, state, message}, "\t")
}

type adapter struct {
	client *gw.Client
	jobs   []gw.NewJob // the jobs that `and` keeps
	worker *worker
	ran    notes
	events notes
}

// background: the adapter sets no deadline for calls of the library.
var background = context.Background()

func (r *adapter) obey(command string, words []string) ([]string, error) {
	switch command {
	case "client":
		r.closeClient()
		config, err := config(words)
		if err != nil {
			return nil, err
		}
		r.client, err = gw.NewClient(background, config)
		return nil, err
	case "worker":
		r.closeWorker()
		worker, err := r.newWorker(words)
		r.worker = worker
		return nil, err
	case "close":
		r.close()
		return nil, nil
	}
	for _, obey := range []func(string, []string) (fields []string, err error){r.obeyClient, r.obeyWorker} {
		fields, err := obey(command, words)
		if !errors.Is(err, errUnknown) {
			return fields, err
		}
	}
	if command == "next_runs" {
		return nextRuns(words)
	}
	return nil, errUnknown
}

var errUnknown error = &gw.Error{Status: gw.ErrUnsupported, Message: "unknown command"}

func (r *adapter) obeyClient(command string, words []string) (fields []string, err error) {
	ids := func() []int64 { return numbers(words[0]) }
	client := r.client
	var answer any
	switch command {
	case "add":
		options, err := jobOptions(words[2:])
		if err != nil {
			return nil, err
		}
		id, err := client.AddJob(background, words[0], json.RawMessage(words[1]), options...)
		return []string{strconv.FormatInt(id, 10)}, err
	case "and":
		options, err := jobOptions(words[2:])
		r.jobs = append(r.jobs, gw.NewJob{Task: words[0], Payload: json.RawMessage(words[1]), Options: options})
		return nil, err
	case "add_many":
		jobs := r.jobs
		r.jobs = nil
		added, err := client.AddJobs(background, jobs)
		for _, id := range added {
			fields = append(fields, strconv.FormatInt(id, 10))
		}
		return fields, err
	case "remove":
		removed, err := client.RemoveJob(background, words[0])
		return []string{strconv.FormatBool(removed)}, err
	case "job":
		job, err := client.Job(background, ids()[0])
		if job == nil {
			return []string{"none"}, err
		}
		answer = job
	case "list":
		var options gw.ListOptions
		if err = json.Unmarshal([]byte(words[0]), &options); err == nil {
			answer, err = client.ListJobs(background, options)
		}
	case "stats":
		answer, err = client.JobStats(background)
	case "queues":
		answer, err = client.Queues(background)
	case "locked_workers":
		answer, err = client.LockedWorkers(background)
	case "active_workers":
		answer, err = client.ActiveWorkers(background, milliseconds(words[0]))
	case "complete":
		answer, err = client.CompleteJobs(background, ids()...)
	case "fail":
		answer, err = client.FailJobs(background, words[1], ids()...)
	case "reschedule":
		var options gw.RescheduleOptions
		if options, err = rescheduleOptions(words[1]); err == nil {
			answer, err = client.RescheduleJobs(background, options, ids()...)
		}
	case "unlock":
		answer, err = client.ForceUnlock(background, strings.Split(words[0], ",")...)
	case "cleanup":
		answer, err = client.Cleanup(background, cleanupTasks(words[0]))
	case "sweep":
		var options gw.SweepOptions
		if options, err = sweepOptions(words[0]); err == nil {
			answer, err = client.SweepStaleWorkers(background, options)
		}
	default:
		return nil, errUnknown
	}
	if err != nil {
		return nil, err
	}
	text, err := compact(answer)
	return []string{text}, err
}

func compact(answer any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(answer)
	return strings.TrimSuffix(text.String(), "\n"), err
}

func (r *adapter) close() {
	r.closeWorker()
	r.closeClient()
}

func (r *adapter) closeClient() {
	if r.client != nil {
		r.client.Close()
		r.client = nil
	}
}

func (r *adapter) closeWorker() {
	if r.worker != nil {
		r.worker.Close()
		r.worker = nil
	}
}

// config returns the settings of k=v fields.
func config(words []string) (gw.Config, error) {
	config := gw.Config{DatabaseURL: os.Getenv("DATABASE_URL"), Options: map[string]string{}}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		config.Options[key] = value
	}
	return config, nil
}

func jobOptions(words []string) (options []gw.JobOption, err error) {
	var key *string
	mode := gw.Replace
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		number, notNumber := strconv.ParseInt(value, 10, 64)
		switch name {
		case "queue":
			options = append(options, gw.Queue(value))
		case "run_at_us":
			options = append(options, gw.RunAt(time.UnixMicro(number)))
			err = notNumber
		case "max_attempts":
			options = append(options, gw.MaxAttempts(int(number)))
			err = notNumber
		case "priority":
			options = append(options, gw.Priority(int(number)))
			err = notNumber
		case "key":
			key = &value
		case "key_mode":
			mode = keyMode(value)
			if key == nil {
				key = new(string)
			}
		case "flag":
			options = append(options, gw.Flags(value))
		case "traceparent":
			options = append(options, gw.Traceparent(value))
		}
		if err != nil {
			return nil, err
		}
	}
	if key != nil {
		options = append(options, gw.Key(*key, mode))
	}
	return options, nil
}

func keyMode(name string) gw.KeyMode {
	for _, mode := range []gw.KeyMode{gw.Replace, gw.PreserveRunAt, gw.UnsafeDedupe} {
		if mode.String() == name {
			return mode
		}
	}
	return -1
}

func rescheduleOptions(text string) (options gw.RescheduleOptions, err error) {
	var given struct {
		RunAt       json.RawMessage `json:"run_at"`
		Priority    *int            `json:"priority"`
		Attempts    *int            `json:"attempts"`
		MaxAttempts *int            `json:"max_attempts"`
	}
	if err := json.Unmarshal([]byte(text), &given); err != nil {
		return options, err
	}
	options.Priority, options.Attempts, options.MaxAttempts = given.Priority, given.Attempts, given.MaxAttempts
	if given.RunAt == nil {
		return options, nil
	}
	if string(given.RunAt) == `"now"` {
		options.Now = true
		return options, nil
	}
	at := new(time.Time)
	if micros, err := strconv.ParseInt(string(given.RunAt), 10, 64); err == nil {
		*at = time.UnixMicro(micros)
	} else if err := json.Unmarshal(given.RunAt, at); err != nil {
		return options, err
	}
	options.RunAt = at
	return options, nil
}

func sweepOptions(text string) (options gw.SweepOptions, err error) {
	var given struct {
		SweepThresholdMS *int64 `json:"sweep_threshold_ms"`
		RecoveryDelayMS  *int64 `json:"recovery_delay_ms"`
		DryRun           bool   `json:"dry_run"`
	}
	err = json.Unmarshal([]byte(text), &given)
	duration := func(ms *int64) *time.Duration {
		if ms == nil {
			return nil
		}
		d := time.Duration(*ms) * time.Millisecond
		return &d
	}
	return gw.SweepOptions{
		SweepThreshold: duration(given.SweepThresholdMS),
		RecoveryDelay:  duration(given.RecoveryDelayMS),
		DryRun:         given.DryRun,
	}, err
}

func cleanupTasks(names string) (tasks gw.CleanupTask) {
	for _, name := range strings.Split(names, ",") {
		switch name {
		case "delete_permafailed":
			tasks |= gw.DeletePermanentlyFailedJobs
		case "gc_tasks":
			tasks |= gw.GCTaskIdentifiers
		case "gc_queues":
			tasks |= gw.GCJobQueues
		}
	}
	return tasks
}

func nextRuns(words []string) (fields []string, err error) {
	crontab, err := gw.ParseCrontab(words[0])
	if err != nil {
		return nil, err
	}
	after, n := numbers(words[1])[0], numbers(words[2])[0]
	for _, at := range crontab.Next(0, time.UnixMicro(after), int(n)) {
		fields = append(fields, strconv.FormatInt(at.UnixMicro(), 10))
	}
	return fields, nil
}

func numbers(list string) (numbers []int64) {
	for _, word := range strings.Split(list, ",") {
		number, _ := strconv.ParseInt(word, 10, 64)
		numbers = append(numbers, number)
	}
	return numbers
}

func milliseconds(text string) time.Duration {
	return time.Duration(numbers(text)[0]) * time.Millisecond
}
