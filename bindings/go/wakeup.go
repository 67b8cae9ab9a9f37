// Waiting for a descriptor of the library's in Go's netpoller. Knows nothing of what it announces.

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

// wakeup is a descriptor that becomes readable when there may be something to fetch. It is never read: the library,
// which rings, also silences it.
type wakeup struct {
	file    *os.File
	conn    syscall.RawConn
	removed atomic.Bool
}

// install makes a wakeup of a descriptor that stays the library's.
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

// errRemoved is how a wait ends whose wakeup was removed.
var errRemoved = errors.New("removed")

// await calls look, which never waits, now and whenever it rings, until look finds something.
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
