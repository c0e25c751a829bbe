package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"rapidbyte.io/node/connectors"
)

const (
	signature    = "PGCOPY\n\xff\r\n\x00"
	headerSize   = len(signature) + 8 // flags and the length of the extension
	extensionMax = 1 << 20
)

// copyHeader measures what binary COPY begins with. A size of 0 says that it goes on behind
// b, and that need bytes have to be there for another look.
func copyHeader(b []byte) (size, need int, why string) {
	if n := min(len(b), len(signature)); !bytes.Equal(b[:n], []byte(signature[:n])) {
		return 0, 0, "the signature is missing"
	}
	if len(b) < headerSize {
		return 0, headerSize, ""
	}
	if flags := binary.BigEndian.Uint32(b[len(signature):]); flags>>16 != 0 {
		return 0, 0, fmt.Sprintf("unknown flags %#x", flags)
	}
	extension := binary.BigEndian.Uint32(b[len(signature)+4:])
	if extension > extensionMax {
		return 0, 0, "the header is too long"
	}
	need = headerSize + int(extension)
	if len(b) < need {
		return 0, need, ""
	}
	return need, need, ""
}

// badTrailer judges what stands in the place of a count of fields and is not the one of a
// row; empty: it ends the COPY.
func badTrailer(fields, want int, ended bool) string {
	switch {
	case ended:
		return "data follows the trailer"
	case fields != -1:
		return fmt.Sprintf("a row has %d fields, want %d", fields, want)
	}
	return ""
}

// bounded sets the limits that are not set: offsets have 32 bits.
func bounded(l connectors.Limits) connectors.Limits {
	for _, n := range []*int64{&l.BatchRows, &l.BatchBytes, &l.RowBytes} {
		if *n <= 0 || *n > math.MaxInt32/2 {
			*n = math.MaxInt32 / 2
		}
	}
	return l
}
