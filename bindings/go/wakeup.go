// Waits for a descriptor of the library in Go's netpoller. Knows nothing of what the descriptor announces.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
)

// wakeup is a descriptor that becomes readable when a job or an event may be available. This package never reads it: the
// library writes to it and drains it.
type wakeup struct {
	file    *os.File
	conn    syscall.RawConn
	removed atomic.Bool
}

// install makes a wakeup for a descriptor, which the library still owns.
func install(fd C.int32_t) (*wakeup, error) {
	own := int(C.gwgo_dup(C.int(fd)))
	if own < 0 {
		return nil, errorf(ErrClosed, "no descriptor to wait for: the worker is closed, or the process has too many open files")
	}
	if err := syscall.SetNonblock(own, true); err != nil {
		syscall.Close(own)
		return nil, errorf(ErrInvalid, "setting up a descriptor to wait for: %v", err)
	}
	file := os.NewFile(uintptr(own), "graphile_worker")
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, errorf(ErrInvalid, "setting up a descriptor to wait for: %v", err)
	}
	return &wakeup{file: file, conn: conn}, nil
}

// errRemoved is the error of await after remove.
var errRemoved = errors.New("removed")

// await calls look now and after each wakeup, until look returns true. Look must not block.
func (d *wakeup) await(look func() bool) error {
	err := d.conn.Read(func(uintptr) bool { return look() })
	if err != nil && d.removed.Load() {
		return errRemoved
	}
	if err != nil {
		return errorf(ErrInvalid, "waiting for a descriptor: %v", err)
	}
	return nil
}

// remove ends the wait of await.
func (d *wakeup) remove() {
	if !d.removed.Swap(true) {
		d.file.Close()
	}
}
