package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
)

// Reader implements connectors.Reader.
type Reader struct {
	source  *Source
	request connectors.ReadRequest
	stream  messages.StreamID
	split   *readSplit
	schema  *arrow.Schema // of the stream
	all     *arrow.Schema // with the columns that only order it
	pool    *pool
	mem     *recycler

	reading sync.Mutex // held by Read, and by Close to give back
	conn    *wire.Conn // nil once closed

	state  sync.Mutex
	closed bool
	cancel context.CancelCauseFunc // of the running Read; nil: none
}

// Open prepares one part under the snapshot of its scan.
func (s *Source) Open(ctx context.Context, r connectors.ReadRequest) (connectors.Reader, error) {
	bug := func(err error) error {
		e := sourceError("open the part", connectors.KindInternal, messages.CodeInternal, err)
		e.Place.Part = r.Part.ID
		return e
	}
	if len(r.Part.Streams) != 1 {
		return nil, bug(fmt.Errorf("it has %d streams, want 1", len(r.Part.Streams)))
	}
	split, err := decodeSplit(r.Part.Split)
	if err != nil {
		return nil, bug(fmt.Errorf("the split is not one of a PostgreSQL source: %w", err))
	}
	out := &Reader{source: s, request: r, stream: r.Part.Streams[0], split: split, all: split.arrow(), mem: &recycler{mem: r.Mem}}
	out.schema = arrow.NewSchema(out.all.Fields()[:split.Visible], nil)
	switch {
	case split.Follow != nil:
		_, err = split.Follow.parse(r.From.At)
	case !r.From.At.Equal(endCursor):
		_, err = r.From.At.Int64()
	}
	if err != nil {
		return nil, bug(fmt.Errorf("the position: %w", err))
	}
	if err := split.checkRaw(r.Part.Raw); err != nil {
		return nil, bug(err)
	}
	out.pool = s.lease(r.Part.Scan)
	if out.conn, err = s.connect(ctx, r.Part.Scan, out.pool); err != nil {
		s.release(r.Part.Scan, out.pool, nil)
		return nil, s.classify(ctx, "open the part", out.stream, err)
	}
	return out, nil
}

var errReaderClosed = errors.New("the reader was closed")

// Close gives the connection back, and ends a Read that still runs. Idempotent.
func (r *Reader) Close(context.Context) error {
	r.state.Lock()
	r.closed = true
	if r.cancel != nil {
		r.cancel(errReaderClosed)
	}
	r.state.Unlock()
	r.reading.Lock()
	defer r.reading.Unlock()
	r.mem.close()
	r.giveBack()
	return nil
}

// giveBack lets another reader have the connection.
func (r *Reader) giveBack() {
	if r.conn != nil {
		r.source.release(r.request.Part.Scan, r.pool, r.conn)
		r.conn = nil
	}
}

// Read emits the rows of the part. It needs its connection no longer than that, however
// late Close comes.
func (r *Reader) Read(ctx context.Context, out connectors.Emitter) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.state.Lock()
	closed := r.closed
	r.cancel = cancel
	r.state.Unlock()
	if closed || r.conn == nil {
		if caller.Err() != nil {
			return context.Cause(caller)
		}
		return errReaderClosed
	}
	defer r.giveBack()
	p := &pass{reader: r, out: out, cancel: cancel}
	vigil := r.source.dial.attend(r.conn.Backend(), p.moved, r.conn.Kill)
	err := vigil.stop(p.run(ctx))
	received := p.stop()
	switch {
	case p.emitted != nil && errors.Is(p.emitted, connectors.ErrDraining):
		return nil
	case caller.Err() != nil && (p.emitted == nil || errors.Is(p.emitted, errReaderClosed)):
		return context.Cause(caller) // whatever it made of it
	case p.emitted != nil:
		return p.emitted
	}
	return r.failure(ctx, err, p.before, received)
}

// failure types what went wrong while reading; before is the number of rows that earlier
// statements of the pass gave, received that of all of them.
func (r *Reader) failure(ctx context.Context, err error, before, received int64) error {
	if err == nil {
		return nil
	}
	const op = "read the table"
	place := messages.Place{Stream: r.stream, Part: r.request.Part.ID, Stage: connectors.StageSource}
	out := func(kind connectors.Kind, code messages.Code, next string, err error) error {
		return &connectors.Error{Op: op, Kind: kind, Commit: connectors.CommitNone, Code: code, Place: place, Next: next, Err: err}
	}
	if v, ok := errors.AsType[*codec.ValueError](err); ok {
		place.Field, place.Row = v.Column, before+v.Row
		return r.valueFailure(v, out)
	}
	if v, ok := errors.AsType[*codec.RowTooLargeError](err); ok {
		place.Row = before + v.Row
		return out(connectors.KindData, messages.CodeRowTooLarge, "", v)
	}
	if errors.Is(context.Cause(ctx), errReadTimeout) {
		return out(connectors.KindTransient, messages.CodeSource, "", fmt.Errorf("the server sent nothing for %s (read_timeout)", r.source.cfg.ReadTimeout))
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "22021", "22P05": // the server cannot send the next row as UTF-8
			place.Row = received + 1
			return out(connectors.KindData, messages.CodeRowBroken, "", err)
		case "42703", "42P01", "42704":
			return out(connectors.KindSchema, messages.CodeSchemaColumn, "", err)
		}
		if strings.HasPrefix(pg.Code, "22") { // a view or a filter that computes
			return out(connectors.KindData, messages.CodeValueRange, "", err)
		}
	}
	err = classify(ctx, connectors.StageSource, op, err)
	if e, ok := errors.AsType[*connectors.Error](err); ok {
		e.Place = e.Place.Or(place)
	}
	return err
}

const mendText = "Mend the text; a database in SQL_ASCII does not check what it stores."

// valueFailure names a value that Arrow cannot hold, and what makes it travel all the same.
func (r *Reader) valueFailure(v *codec.ValueError, out func(connectors.Kind, messages.Code, string, error) error) error {
	if strings.Contains(v.Why, "UTF-8") {
		return out(connectors.KindData, messages.CodeRowBroken, mendText, v)
	}
	column := r.split.Schema + "." + r.split.Table + "." + v.Column
	return out(connectors.KindData, messages.CodeValueRange,
		fmt.Sprintf("List the column under `as_text: [%[1]q]` of the source, or give `--as-text %[1]q` to copy: it then travels as text.", column), v)
}
