// Text and numbers on their way between Go and C. Knows nothing of what they say.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"math"
	"strings"
	"time"
	"unsafe"
)

// texts are Go strings lent to C until free is called. The first that C cannot take is told by err.
type texts struct {
	lent []*C.char
	err  error
}

func (t *texts) c(what, text string) *C.char {
	if strings.IndexByte(text, 0) >= 0 && t.err == nil {
		t.err = errorf(ErrUTF8, "%s: %q has a NUL in it, which PostgreSQL cannot store", what, text)
	}
	lent := C.CString(text)
	t.lent = append(t.lent, lent)
	return lent
}

func (t *texts) free() {
	for _, lent := range t.lent {
		C.free(unsafe.Pointer(lent))
	}
}

// takeText copies a text of the library that is ours to free.
func takeText(text *C.char) string {
	defer C.gw_string_free(text)
	return C.GoString(text)
}

// takeBytes is takeText for JSON.
func takeBytes(text *C.char) []byte {
	defer C.gw_string_free(text)
	return []byte(C.GoString(text))
}

// storable is a failure's text as PostgreSQL can store it: an outcome is never lost over its wording.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

var nothing byte

// start is where a text begins, for C to read len(text) bytes during one call.
func start(text []byte) *C.char {
	if len(text) == 0 {
		return (*C.char)(unsafe.Pointer(&nothing))
	}
	return (*C.char)(unsafe.Pointer(&text[0]))
}

// int32Of keeps what is too large for C too large, for the library to refuse.
func int32Of(n int) C.int32_t {
	if n > math.MaxInt32 {
		return math.MaxInt32
	}
	if n < math.MinInt32 {
		return math.MinInt32
	}
	return C.int32_t(n)
}

func timeOf(unixMicro C.int64_t) time.Time { return time.UnixMicro(int64(unixMicro)).UTC() }
