// Links the static archive, found with pkg-config: the program needs no libgraphile_worker.so where it runs.

//go:build graphile_worker_static

// The archive comes first and answers for every symbol, so that the shared library, which pkg-config names as well, is
// not needed and left out.

package graphileworker

// #cgo pkg-config: --static graphile_worker
// #cgo LDFLAGS: -Wl,--as-needed -l:libgraphile_worker.a
import "C"
