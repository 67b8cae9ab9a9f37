// Links the shared library, found with pkg-config.

//go:build !graphile_worker_static

package graphileworker

// #cgo pkg-config: graphile_worker
import "C"
