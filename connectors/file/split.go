package file

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// schemaBytesMax bounds a schema that is read back.
const schemaBytesMax = 64 << 20

// split is one file of a load, with everything that decides how it is read: the
// configuration may change between two runs, a load does not.
type split struct {
	Path        string `json:"path"` // absolute
	Format      string `json:"format"`
	Compression string `json:"compression,omitempty"`
	fingerprint
	Schema   []byte   `json:"schema"`             // of the stream: an IPC schema, deflated
	CSV      *dialect `json:"csv,omitempty"`      // of a CSV file
	Declared []string `json:"declared,omitempty"` // columns whose type the configuration gave
	Skipped  []string `json:"skipped,omitempty"`  // keys and columns that the projection leaves out
}

func (s split) encode() (json.RawMessage, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the split of %s: %w", s.Path, err)
	}
	return b, nil
}

func decodeSplit(p connectors.Part) (split, *arrow.Schema, error) {
	var s split
	if err := json.Unmarshal(p.Split, &s); err != nil {
		return s, nil, internalError("read the split of "+string(p.ID), err)
	}
	schema, err := decodeSchema(s.Schema)
	if err != nil {
		return s, nil, internalError("read the schema of "+string(p.ID), err)
	}
	return s, schema, nil
}

func internalError(op string, err error) error {
	return &connectors.Error{Op: op, Kind: connectors.KindInternal, Code: messages.CodeInternal, Err: err}
}

func encodeSchema(s *arrow.Schema) ([]byte, error) {
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	w := ipc.NewWriter(z, ipc.WithSchema(s))
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return out.Bytes(), nil
}

func decodeSchema(b []byte) (s *arrow.Schema, err error) {
	defer recovered(&err)
	r, err := ipc.NewReader(io.LimitReader(flate.NewReader(bytes.NewReader(b)), schemaBytesMax))
	if err != nil {
		return nil, fmt.Errorf("decode the schema: %w", err)
	}
	defer r.Release()
	return r.Schema(), nil
}

// history is Load.History: which files finished loads of a stream have read.
type history struct {
	Files []remembered `json:"files,omitempty"`
	// Before is what was remembered when a replace began. It counts again if that
	// replace is given up before it has swapped.
	Before []remembered `json:"before,omitempty"`
}

// remembered is a file that was read.
type remembered struct {
	Path string `json:"path"`
	fingerprint
	Rows   int64 `json:"rows"`
	Partly bool  `json:"partly,omitempty"` // not to its end
}

func (h history) encode() (json.RawMessage, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the history: %w", err)
	}
	return b, nil
}

func decodeHistory(b json.RawMessage) (history, error) {
	var h history
	if len(b) == 0 {
		return h, nil
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, internalError("read the history of a load", err)
	}
	return h, nil
}

// with adds files, sorted by path; of two with one path the later one stays.
func (h history) with(more []remembered) []remembered {
	byPath := make(map[string]remembered, len(h.Files)+len(more))
	for _, f := range slices.Concat(h.Files, more) {
		byPath[f.Path] = f
	}
	out := make([]remembered, 0, len(byPath))
	for _, f := range byPath {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b remembered) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	return out
}
