package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const (
	batchRowsDefault  = 8192
	batchBytesDefault = 4 << 20
)

// batches is what the formats have in common: batches of the stream's schema, in
// the order of the file.
type batches interface {
	next() (arrow.RecordBatch, error) // io.EOF at the end; the caller owns the batch
	close()                           // frees what is held; not the file
}

// reader reads one file.
type reader struct {
	request connectors.ReadRequest
	split   split
	schema  *arrow.Schema
	in      *input
	from    start

	mu      sync.Mutex
	running bool // Read has begun: it frees the decoders when it ends
	closed  bool
}

// start is where a reader begins.
type start struct {
	rows   int64
	offset int64 // in the file; negative when not known
}

// startOf reads the position of a receipt: a count of rows, or rows and bytes.
func startOf(p messages.Position) (start, error) {
	if p.At.Type == messages.CursorTuple && len(p.At.Parts) == 2 {
		rows, err := p.At.Parts[0].Int64()
		offset, oerr := p.At.Parts[1].Int64()
		if err == nil && oerr == nil && rows >= 0 && offset >= 0 {
			return start{rows: rows, offset: offset}, nil
		}
		return start{}, fmt.Errorf("position %v is no place in a file", p.At)
	}
	rows, err := p.At.Int64()
	if err != nil || rows < 0 {
		return start{}, fmt.Errorf("position %v is no place in a file", p.At)
	}
	return start{rows: rows, offset: -1}, nil
}

// Open implements connectors.Source.
func (s *Source) Open(_ context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	sp, schema, err := decodeSplit(r.Part)
	if err != nil {
		return nil, err
	}
	if len(r.Part.Streams) != 1 {
		return nil, internalError("open part "+string(r.Part.ID), fmt.Errorf("it has %d streams, a file has one", len(r.Part.Streams)))
	}
	from, err := startOf(r.From)
	if err != nil {
		return nil, internalError("open part "+string(r.Part.ID), err)
	}
	if r.Limits.BatchRows <= 0 {
		r.Limits.BatchRows = batchRowsDefault
	}
	if r.Limits.BatchBytes <= 0 {
		r.Limits.BatchBytes = batchBytesDefault
	}
	if r.Mem == nil {
		r.Mem = memory.DefaultAllocator
	}
	in, err := openInput(sp.Path, sp.Format, sp.Compression)
	if err != nil {
		return nil, err
	}
	if in.mark != sp.fingerprint {
		in.close()
		return nil, changedSince(sp.Path, "planned")
	}
	return &reader{request: r, split: sp, schema: schema, in: in, from: from}, nil
}

func changedSince(path, when string) error {
	return changed(path, fmt.Errorf("its content is not what it was when it was %s", when))
}

// Close implements connectors.Reader.
func (r *reader) Close(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.running {
		_ = r.in.disk.Close() // Read fails on its next access, and frees the rest
		return nil
	}
	r.in.close()
	return nil
}

func (r *reader) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.running {
		return internalError("read part "+string(r.request.Part.ID), errors.New("the reader is closed or was read"))
	}
	r.running = true
	return nil
}

// Read implements connectors.Reader.
func (r *reader) Read(ctx context.Context, out connectors.Emitter) error {
	if err := r.begin(); err != nil {
		return err
	}
	defer r.in.close()
	src, err := r.open()
	if err != nil {
		return err
	}
	defer src.close()
	e := &emission{reader: r, out: out, rows: r.from.rows, left: r.request.Limit, at: messages.Int64Cursor(r.from.rows)}
	if r.request.Limit <= 0 {
		e.left = -1
	}
	for e.left != 0 {
		rec, err := src.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r.cause(ctx, err)
		}
		if err := e.send(ctx, rec, src); err != nil {
			if errors.Is(err, connectors.ErrDraining) {
				return nil // the drain barrier went out at the last place where Due said so
			}
			return err
		}
	}
	if err := r.in.unchanged(r.split.Path); err != nil {
		return r.cause(ctx, err)
	}
	if err := out.Barrier(ctx, messages.BarrierEnd, messages.Position{At: e.at}); err != nil && !errors.Is(err, connectors.ErrDraining) {
		return err
	}
	return nil
}

// cause prefers the reason of a cancellation over what it made fail.
func (r *reader) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// open builds the decoder, behind the rows that are committed already.
func (r *reader) open() (src batches, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged(r.split.Path, 0, fmt.Errorf("the decoder gave up: %v", p))
		}
	}()
	switch r.split.Format {
	case FormatParquet:
		return newParquetReader(r.split, r.schema, r.in, r.from.rows, r.request.Limits, r.request.Mem)
	case FormatArrow:
		return newArrowReader(r.split, r.schema, r.in, r.from.rows, r.request.Mem)
	}
	t, err := newTextReader(r.split, r.schema, r.in, r.request.Limits, r.request.Mem)
	if err != nil {
		return nil, err
	}
	return t, t.seek(r.from.rows, r.from.offset)
}

// emission sends batches in pieces of the right size, with barriers between them.
type emission struct {
	reader *reader
	out    connectors.Emitter
	rows   int64 // of the file, sent so far
	left   int64 // rows that may still be sent; negative: all
	at     messages.Cursor
}

// send moves rec downstream.
func (e *emission) send(ctx context.Context, rec arrow.RecordBatch, src batches) error {
	defer rec.Release()
	if e.left > 0 && rec.NumRows() > e.left {
		rec = rec.NewSlice(0, e.left)
		defer rec.Release()
	}
	total := rec.NumRows()
	for from := int64(0); from < total; {
		n, err := e.fit(rec, from, total-from)
		if err != nil {
			return err
		}
		piece := rec.NewSlice(from, from+n)
		from += n
		e.rows += n
		if e.left > 0 {
			e.left -= n
		}
		e.at = messages.Int64Cursor(e.rows)
		if t, ok := src.(*textReader); ok && t.rows == e.rows {
			e.at = t.position()
		}
		b := messages.Batch{Stream: e.reader.request.Part.Streams[0], Version: 1, Rows: messages.ArrowRows{Record: piece}}
		if err := e.out.Emit(ctx, b); err != nil {
			return err
		}
		if e.out.Due() {
			if err := e.out.Barrier(ctx, messages.BarrierPeriodic, messages.Position{At: e.at}); err != nil {
				return err
			}
		}
	}
	return nil
}

// fit returns how many of n rows from at make one batch, by halving. A row alone may be
// larger than a batch, but not larger than a row may be.
func (e *emission) fit(rec arrow.RecordBatch, at, n int64) (int64, error) {
	limits := e.reader.request.Limits
	n = min(n, limits.BatchRows)
	most := limits.BatchBytes
	if limits.RowBytes > 0 {
		most = min(most, limits.RowBytes)
	}
	for {
		size := sizeOf(rec, at, n)
		switch {
		case size <= most:
			return n, nil
		case n > 1:
			n /= 2
		case limits.RowBytes > 0 && size > limits.RowBytes:
			return 0, rowTooLarge(e.reader.split.Path, e.rows+1, limits.RowBytes)
		default:
			return 1, nil
		}
	}
}

func sizeOf(rec arrow.RecordBatch, at, n int64) int64 {
	if at == 0 && n == rec.NumRows() {
		return messages.ArrowRows{Record: rec}.Bytes()
	}
	part := rec.NewSlice(at, at+n)
	defer part.Release()
	return messages.ArrowRows{Record: part}.Bytes()
}
