// Links the static archive, found with pkg-config: the program needs no libgraphile_worker.so where it runs.

//go:build graphile_worker_static

// The archive comes first and has every symbol, so the shared library, which pkg-config names as well, is not needed and
// left out. The system's libraries stand after the archive, -lgcc_s for its unwinding too: a linker takes from a library
// only what those before it lack, and cgo does not promise an order between these flags and those of pkg-config.

package graphileworker

// #cgo pkg-config: --static graphile_worker
// #cgo LDFLAGS: -Wl,--as-needed -l:libgraphile_worker.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
import "C"
