package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
)

// DeadLetters returns where the document's destination keeps dead letters. It opens
// no connection. Its error is a messages.Failure.
func DeadLetters(doc *config.Document) (connectors.DeadLetterBox, error) {
	dst, err := plugin.Destination(doc.Destination.Stage, writePolicy(doc))
	if err != nil {
		return nil, place(doc, "destination", err)
	}
	box, ok := dst.(connectors.DeadLetterBox)
	if !ok {
		return nil, place(doc, "destination.use", &connectors.Error{
			Op: "look for dead letters", Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeNotAvailable,
			Err:  fmt.Errorf("the destination %s keeps none", doc.Destination.Name),
			Next: "Nothing is to be done: only a destination that takes `on_data_error: dlq` sets rows aside.",
		})
	}
	return box, nil
}

// RowJSON decodes the row of a dead letter: one object with the columns in their order.
// Its error is a *connectors.Error.
func RowJSON(d connectors.DeadLetter) (out json.RawMessage, err error) {
	defer func() { // the library answers what it cannot read with a panic here and there
		if r := recover(); r != nil {
			out, err = nil, undecodable(d, fmt.Errorf("%v", r))
		}
	}()
	r, err := ipc.NewReader(bytes.NewReader(d.Row), ipc.WithAllocator(&bounded{left: allocMin + 16*len(d.Row)}))
	if err != nil {
		return nil, undecodable(d, err)
	}
	defer r.Release()
	if !r.Next() {
		if err = r.Err(); err == nil {
			err = errors.New("it holds no batch")
		}
		return nil, undecodable(d, err)
	}
	rec := r.RecordBatch()
	if rec.NumRows() != 1 {
		return nil, undecodable(d, fmt.Errorf("it holds %d rows, expected one", rec.NumRows()))
	}
	if out, err = objectOf(rec); err != nil {
		return nil, undecodable(d, err)
	}
	return out, nil
}

// bounded is an allocator for bytes that may lie about their length: it panics before
// the process runs out of memory.
type bounded struct {
	memory.GoAllocator
	left int
}

const allocMin = 16 << 20 // a compressed row may be small

// Allocate implements memory.Allocator.
func (b *bounded) Allocate(size int) []byte {
	if b.left -= size; size < 0 || b.left < 0 {
		panic(fmt.Sprintf("it asks for %d bytes", size))
	}
	return b.GoAllocator.Allocate(size)
}

// Reallocate implements memory.Allocator.
func (b *bounded) Reallocate(size int, old []byte) []byte {
	if b.left -= size - len(old); size < 0 || b.left < 0 {
		panic(fmt.Sprintf("it asks for %d bytes", size))
	}
	return b.GoAllocator.Reallocate(size, old)
}

// objectOf writes the first row of rec.
func objectOf(rec arrow.RecordBatch) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, f := range rec.Schema().Fields() {
		if i > 0 {
			b.WriteByte(',')
		}
		for _, v := range []any{f.Name, rec.Column(i).GetOneForMarshal(0)} {
			if err := enc.Encode(v); err != nil {
				return nil, fmt.Errorf("column %q: %w", f.Name, err)
			}
			b.Truncate(b.Len() - 1) // the line break that Encode adds
			b.WriteByte(':')
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func undecodable(d connectors.DeadLetter, err error) error {
	return &connectors.Error{
		Op: "decode the row of dead letter " + d.ID, Kind: connectors.KindData, Commit: connectors.CommitNone, Code: messages.CodeFileDamaged,
		Place: messages.Place{Stream: d.Stream, Part: d.Part}, Err: err,
		Next: "`rapidbyte-node dlq export` writes its bytes as they are.",
	}
}
