package file

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// excerptMax is how much of a bad value an error shows, in bytes.
const excerptMax = 40

// excerpt shows the beginning of a bad value, quoted, with its length.
func excerpt(v []byte) string {
	if len(v) <= excerptMax {
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%q.. (%d bytes)", v[:excerptMax], len(v))
}

// rowError is a bad row of a source file.
func rowError(path string, row int64, field, next string, err error) error {
	return &connectors.Error{
		Op: "read a row", Kind: connectors.KindData, Code: messages.CodeRowBroken,
		Place: messages.Place{File: path, Row: row, Field: field}, Next: next, Err: err,
	}
}

// rowTooLarge is a row over ReadRequest.Limits.RowBytes.
func rowTooLarge(path string, row, limit int64) error {
	return &connectors.Error{
		Op: "read a row", Kind: connectors.KindData, Code: messages.CodeRowTooLarge,
		Place: messages.Place{File: path, Row: row},
		Err:   fmt.Errorf("the row has more than max_row_bytes = %d bytes", limit),
	}
}

// damaged is a file that ends too early or contradicts itself; rows were read
// from it before.
func damaged(path string, rows int64, err error) error {
	return &connectors.Error{
		Op: "read the file", Kind: connectors.KindData, Code: messages.CodeFileDamaged,
		Place: messages.Place{File: path}, Err: fmt.Errorf("after %d rows: %w", rows, err),
	}
}

// changed is a file that is not what it was when it was planned or read.
func changed(path string, err error) error {
	return &connectors.Error{
		Op: "compare the file with what is known of it", Kind: connectors.KindConfig, Code: messages.CodeSourceChanged,
		Place: messages.Place{File: path}, Err: err,
	}
}

// refused is something in the configuration or the files that cannot be done.
func refused(op string, code messages.Code, place messages.Place, next string, err error) error {
	return &connectors.Error{
		Op: op, Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: code, Place: place, Next: next, Err: err,
	}
}

// schemaError is a schema that cannot be read or written.
func schemaError(op string, code messages.Code, place messages.Place, err error) error {
	return &connectors.Error{
		Op: op, Kind: connectors.KindSchema, Commit: connectors.CommitNone, Code: code, Place: place, Err: err,
	}
}

// sourceError classifies an error of the file system while reading.
func sourceError(op, path string, err error) error {
	e := &connectors.Error{Op: op, Kind: connectors.KindTransient, Code: messages.CodeSource, Place: messages.Place{File: path}, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Kind, e.Code = connectors.KindConfig, messages.CodeSourceMissing
	case errors.Is(err, fs.ErrPermission):
		e.Kind, e.Code = connectors.KindConfig, messages.CodeSourceDenied
		e.Next = "Let the user of this process read " + path + " and search the folders above it."
	}
	return e
}

// destError classifies an error of the file system while writing. state says
// what may be durable.
func destError(op, path string, state connectors.CommitState, err error) error {
	if known, ok := errors.AsType[*connectors.Error](err); ok {
		return known
	}
	if _, ok := errors.AsType[*connectors.FencedError](err); ok {
		return err
	}
	e := &connectors.Error{
		Op: op, Kind: connectors.KindTransient, Commit: state, Code: messages.CodeDest,
		Place: messages.Place{File: path}, Err: err,
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		e.Code = messages.CodeDestFull
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		e.Kind, e.Code = connectors.KindConfig, messages.CodeDestDenied
		e.Next = "Let the user of this process write to " + path + "."
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		e.Kind, e.Code = connectors.KindConfig, messages.CodeDestMissing
	}
	return e
}

// recovered turns a panic of a decoder into an error; use it deferred.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the decoder gave up: %v", p)
	}
}
