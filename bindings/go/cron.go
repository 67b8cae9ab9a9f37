// Parses crontab text, without a worker. Knows no database.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"encoding/json"
	"time"
)

// Crontab is valid crontab text. To add its jobs, pass the text to Config.Crontab or [Worker.AddCrontab].
type Crontab struct {
	text string
	// Items are its entries, in the order of the text.
	Items []CronItem
}

// CronItem is an entry of a crontab.
type CronItem struct {
	Identifier string `json:"identifier"` // the name under which schedulers keep its state: ?id=, or else the task
	Task       string `json:"task"`       // the task of its jobs
}

// ParseCrontab parses crontab text. Returns ErrCrontab with line and column if it is not valid.
func ParseCrontab(text string) (*Crontab, error) {
	native, err := parseCrontab(text)
	if err != nil {
		return nil, err
	}
	defer C.gw_crontab_free(native)
	crontab := &Crontab{text: text, Items: make([]CronItem, C.gw_crontab_len(native))}
	for i := range crontab.Items {
		item := C.gw_crontab_item_json(native, C.size_t(i))
		if item == nil {
			return nil, errorf(ErrCrontab, "entry %d of the crontab cannot be read", i+1)
		}
		if err := json.Unmarshal(takeBytes(item), &crontab.Items[i]); err != nil {
			return nil, errorf(ErrJSON, "entry %d of the crontab: %v", i+1, err)
		}
	}
	return crontab, nil
}

// Next returns the next n times of an entry after a time, or fewer if there are no more. Returns nil if there is no such
// entry.
func (c *Crontab) Next(item int, after time.Time, n int) []time.Time {
	if item < 0 || item >= len(c.Items) || n <= 0 {
		return nil
	}
	native, err := parseCrontab(c.text)
	if err != nil {
		return nil // cannot happen: the text was valid in ParseCrontab
	}
	defer C.gw_crontab_free(native)
	micros := make([]C.int64_t, n)
	micros = micros[:C.gw_crontab_next(native, C.size_t(item), C.int64_t(microseconds(after)), &micros[0], C.size_t(n))]
	times := make([]time.Time, len(micros))
	for i, at := range micros {
		times[i] = timeOf(at)
	}
	return times
}

func parseCrontab(text string) (*C.gw_crontab_t, error) {
	if abiError != nil {
		return nil, abiError
	}
	var lent texts
	defer lent.free()
	lines := lent.c("crontab", text)
	if lent.err != nil {
		return nil, lent.err
	}
	var native *C.gw_crontab_t
	var fault *C.gw_error_t
	err := failure(C.gw_crontab_parse(lines, &native, &fault), &fault)
	return native, err
}
