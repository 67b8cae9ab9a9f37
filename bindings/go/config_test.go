package graphileworker

import (
	"context"
	"errors"
	"reflect"
	"sort"
	"testing"
	"time"
)

func TestEveryKeyOfTheLibraryHasAField(t *testing.T) {
	fields := map[string]bool{
		"deliver_cancellations":      true, // always on: it cancels contexts
		"listen_os_shutdown_signals": true, // always off: Go's runtime handles signals
		"threads":                    true, // for callbacks, which Go does not use
	}
	config := reflect.TypeOf(Config{})
	for i := 0; i < config.NumField(); i++ {
		if key := config.Field(i).Tag.Get("gw"); key != "" {
			fields[key] = true
		}
	}
	keys := configKeys()
	if len(keys) == 0 {
		t.Fatal("the library knows no keys")
	}
	for _, key := range keys {
		if !fields[key] {
			t.Errorf("there is no field for %s", key)
		}
		delete(fields, key)
	}
	for key := range fields {
		t.Errorf("the library does not know %s", key)
	}
}

func TestTheLibraryAcceptsEveryField(t *testing.T) {
	config := Config{DatabaseURL: "postgres://h/d", Schema: "s", Crontab: "* * * * * t"}
	fields := reflect.ValueOf(&config).Elem()
	for i := 0; i < fields.NumField(); i++ {
		switch field := fields.Field(i); field.Interface().(type) {
		case int:
			field.SetInt(10)
		case time.Duration:
			field.SetInt(int64(90 * time.Second))
		case Switch:
			field.SetInt(int64(On))
		case []string:
			field.Set(reflect.ValueOf([]string{"a", "b"}))
		}
	}
	settings, err := config.settings()
	must(t, err)
	want := map[string]bool{}
	for _, set := range settings {
		want[set.key] = true
	}
	for i := 0; i < fields.NumField(); i++ {
		if key := fields.Type().Field(i).Tag.Get("gw"); key != "" && !want[key] {
			t.Errorf("%s is not set", key)
		}
	}
	native, err := config.native()
	must(t, err)
	for key, text := range map[string]string{
		"concurrency": "10", "poll_interval": "90000ms", "migrate": "true", "accepted_flags": "a,b", "schema": "s",
		"deliver_cancellations": "true", "listen_os_shutdown_signals": "false",
	} {
		value, err := configText(native, key)
		must(t, err)
		equal(t, key, value, text)
	}
}

func TestOptionsOverrideFieldsAndMistakesAreNamed(t *testing.T) {
	config := Config{PollInterval: time.Minute, Options: map[string]string{"poll_interval": "250ms", "concurrency": "3"}}
	native, err := config.native()
	must(t, err)
	value, err := configText(native, "poll_interval")
	must(t, err)
	equal(t, "poll_interval", value, "250ms")

	for what, config := range map[string]Config{
		"no_such_key":           {Options: map[string]string{"no_such_key": "1"}},
		"poll_interval":         {PollInterval: -time.Second},
		"concurrency":           {Concurrency: -1},
		"accepted_flags":        {AcceptedFlags: []string{"a,b"}},
		"signal.NotifyContext":  {Options: map[string]string{"listen_os_shutdown_signals": "true"}},
		"deliver_cancellations": {Options: map[string]string{"deliver_cancellations": "false"}},
		"crontab":               {Crontab: "* * * *"},
	} {
		config.DatabaseURL = "postgres://h/d"
		worker, err := NewWorker(config)
		if err == nil {
			worker.Close()
			t.Errorf("%s: no error", what)
			continue
		}
		if !errors.Is(err, ErrConfig) && !errors.Is(err, ErrCrontab) {
			t.Errorf("%s: %v has the wrong kind", what, err)
		}
		if what != "crontab" {
			contains(t, err.Error(), what)
		}
	}
	if _, err := NewWorker(Config{DatabaseURL: "postgres://h/\x00"}); !errors.Is(err, ErrUTF8) {
		t.Errorf("a NUL: %v", err)
	}
}

func TestFromEnvReadsTheEnvironment(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://from-env/d")
	t.Setenv("GRAPHILE_WORKER_CONCURRENCY", "17")
	t.Setenv("GRAPHILE_WORKER_SCHEMA", "from_env")
	for _, check := range []struct {
		config Config
		want   [2]string
	}{
		{Config{FromEnv: true}, [2]string{"17", "from_env"}},
		{Config{FromEnv: true, Schema: "set"}, [2]string{"17", "set"}},
		{Config{Concurrency: 4}, [2]string{"4", "graphile_worker"}},
	} {
		native, err := check.config.native()
		must(t, err)
		for i, key := range []string{"concurrency", "schema"} {
			value, err := configText(native, key)
			must(t, err)
			equal(t, key, value, check.want[i])
		}
	}
}

func TestWithoutAURLThePGVariablesAreUsed(t *testing.T) {
	t.Setenv("DATABASE_URL", "")
	_, err := NewClient(context.Background(), Config{FromEnv: true})
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("without URL and variables: %v", err)
	}
	contains(t, err.Error(), "PGHOST")
}

func TestAMisspelledVariableIsNamed(t *testing.T) {
	t.Setenv("GRAPHILE_WORKER_CONCURENCY", "17")
	_, err := Config{FromEnv: true}.native()
	if !errors.Is(err, ErrConfig) {
		t.Errorf("the error has the wrong kind: %v", err)
	}
	contains(t, err.Error(), "did you mean GRAPHILE_WORKER_CONCURRENCY?")
	_, err = Config{Concurrency: 4}.native()
	must(t, err)
}

func TestDurationsAreRoundedUpToMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 1: "1ms", time.Millisecond: "1ms", time.Millisecond + 1: "2ms", time.Hour: "3600000ms", -time.Second: "-1000ms",
	} {
		equal(t, d.String(), durationText(d), want)
	}
}

func TestEveryStatusOfTheLibraryHasItsName(t *testing.T) {
	ours := []Status{
		ErrInvalid, ErrState, ErrAlreadyFinished, ErrClosed, ErrForked, ErrDeadlock, ErrABI, ErrNoMemory, ErrHandle,
		ErrStuck, ErrConfig, ErrCrontab, ErrJSON, ErrUTF8, ErrConnect, ErrAuth, ErrTLS, ErrDatabase, ErrSchema,
		ErrDatabaseTimeout, ErrConflict, ErrUnknownOutcome, ErrSkipped, ErrRefused, ErrUnsupported, ErrPanic,
	}
	theirs := errorStatuses()
	sort.Slice(ours, func(i, j int) bool { return ours[i] < ours[j] })
	sort.Slice(theirs, func(i, j int) bool { return theirs[i] < theirs[j] })
	if !reflect.DeepEqual(ours, theirs) {
		t.Errorf("the library has the errors\n%v, and this package\n%v", theirs, ours)
	}
	equal(t, "name", ErrConnect.String(), "GW_ERR_CONNECT")
	if ErrConnect.Error() == "" {
		t.Error("ErrConnect has no text")
	}
}

func TestALibraryWithAnotherABIIsRefused(t *testing.T) {
	err := checkABI(7, 1)
	if !errors.Is(err, ErrABI) {
		t.Fatalf("checkABI: %v", err)
	}
	contains(t, err.Error(), "7", "1")
	must(t, abiError)
	abiError = err
	defer func() { abiError = nil }()
	if _, err := NewWorker(Config{}); !errors.Is(err, ErrABI) {
		t.Errorf("NewWorker: %v", err)
	}
	if _, err := ParseCrontab("* * * * * t"); !errors.Is(err, ErrABI) {
		t.Errorf("ParseCrontab: %v", err)
	}
}

func TestCrontabsAreChecked(t *testing.T) {
	crontab, err := ParseCrontab("0 8 * * 1 report ?id=weekly&tz=Europe/Berlin\n*/5 * * * * poll")
	must(t, err)
	if want := []CronItem{{"weekly", "report"}, {"poll", "poll"}}; !reflect.DeepEqual(crontab.Items, want) {
		t.Errorf("items: %+v", crontab.Items)
	}
	after := time.Date(2026, 11, 25, 10, 2, 0, 0, time.UTC)
	want := []time.Time{after.Add(3 * time.Minute), after.Add(8 * time.Minute)}
	if times := crontab.Next(1, after, 2); !reflect.DeepEqual(times, want) {
		t.Errorf("next: %v", times)
	}
	if monday := crontab.Next(0, after, 1); len(monday) != 1 || monday[0] != time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC) {
		t.Errorf("next Monday at eight in Berlin: %v", monday)
	}
	for _, none := range [][]time.Time{crontab.Next(2, after, 1), crontab.Next(-1, after, 1), crontab.Next(0, after, 0)} {
		equal(t, "times", len(none), 0)
	}
	_, err = ParseCrontab("* * * * * fine\n* * 99 * * wrong")
	if !errors.Is(err, ErrCrontab) {
		t.Fatalf("ParseCrontab: %v", err)
	}
	contains(t, err.Error(), "line 2")
}
