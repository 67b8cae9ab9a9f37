// Converts texts and numbers between Go and C. Knows nothing of their meaning.

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

// texts are C copies of Go strings, valid until free is called. err is set for the first string that C cannot take.
type texts struct {
	lent []*C.char
	err  error
}

func (t *texts) c(what, text string) *C.char {
	if strings.IndexByte(text, 0) >= 0 && t.err == nil {
		t.err = errorf(ErrUTF8, "%s: %q contains a NUL, which PostgreSQL cannot store", what, text)
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

// takeText copies a text of the library, and frees the original.
func takeText(text *C.char) string {
	defer C.gw_string_free(text)
	return C.GoString(text)
}

// takeBytes is takeText for JSON.
func takeBytes(text *C.char) []byte {
	defer C.gw_string_free(text)
	return []byte(C.GoString(text))
}

// storable returns a failure's text in a form that PostgreSQL can store, so that its text cannot make an outcome fail.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

var nothing byte

// start returns a pointer to the first byte. C may read len(text) bytes during one call.
func start(text []byte) *C.char {
	if len(text) == 0 {
		return (*C.char)(unsafe.Pointer(&nothing))
	}
	return (*C.char)(unsafe.Pointer(&text[0]))
}

// int32Of limits a number to 32 bits. The limits are out of range for the library, which then refuses the number.
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
