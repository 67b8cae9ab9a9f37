// Links the static archive, found with pkg-config: the program needs no libgraphile_worker.so on the machine it runs on.

//go:build graphile_worker_static

// The archive is first and has every symbol. So --as-needed leaves out the shared library, which pkg-config names too.
// The system's libraries, with -lgcc_s for unwinding, must follow the archive: a linker takes from a library only the
// symbols that earlier files lack. cgo does not define an order between these flags and those of pkg-config.

package graphileworker

// #cgo pkg-config: --static graphile_worker
// #cgo LDFLAGS: -Wl,--as-needed -l:libgraphile_worker.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
import "C"
