package codec

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// ErrFull is returned by Decoder.Append when the pending batch is full: Take it,
// then Append the same payload again.
var ErrFull = errors.New("the batch is full")

// errReleased answers a Decoder that is used after its end.
var errReleased = errors.New("the decoder was released")

// ValueError is a value that the other side cannot hold exactly. It is never
// changed to fit.
type ValueError struct {
	Column string
	Row    int64  // of a Decoder: since NewDecoder; of an Encoder: of the record batch; from 1
	Type   string // that cannot hold it
	Why    string // "infinity has no place in a date32"
	Value  string // clipped and printable; empty when it says nothing
	// Finer says that the Arrow type counts smaller parts of a second than the column
	// type: the column, not only this value, is the wrong one.
	Finer bool
}

// Error implements error.
func (e *ValueError) Error() string {
	s := fmt.Sprintf("column %s, row %d: %s", e.Column, e.Row, e.Why)
	if e.Value != "" {
		s += ": " + e.Value
	}
	return s + " (type " + e.Type + ")"
}

// RowTooLargeError is a row above Limits.RowBytes.
type RowTooLargeError struct {
	Row   int64 // since NewDecoder, from 1
	Bytes int64 // at least; the row need not have been read to its end
	Max   int64
}

// Error implements error.
func (e *RowTooLargeError) Error() string {
	return fmt.Sprintf("row %d has at least %d bytes, the limit is %d", e.Row, e.Bytes, e.Max)
}

// FormatError is a payload that is not binary COPY, or not of the expected
// columns. It is no matter of data: the query or the server is not what it
// should be.
type FormatError struct {
	Row int64 // since NewDecoder, from 1; 0: before the rows
	Why string
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("binary copy, row %d: %s", e.Row, e.Why)
}

// FitError is a pair of types without an exact conversion.
type FitError struct {
	Column string
	From   string // Arrow type, or the column type it was read from
	To     string // column type; empty: PostgreSQL has none for From
	Why    string
}

// Error implements error.
func (e *FitError) Error() string {
	s := "column " + e.Column + " of type " + e.From
	if e.To == "" {
		s += " has no column type"
	} else {
		s += " does not fit " + e.To
	}
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// clipMax bounds the part of a value that an error shows, in bytes.
const clipMax = 40

// clip returns the beginning of v as a quoted, printable text.
func clip(v []byte) string {
	if len(v) <= clipMax {
		return strconv.QuoteToASCII(string(v))
	}
	n := clipMax
	for n > clipMax-utf8.UTFMax && !utf8.RuneStart(v[n]) {
		n--
	}
	return strconv.QuoteToASCII(string(v[:n])) + ".."
}
