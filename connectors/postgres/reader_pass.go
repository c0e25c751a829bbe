package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// A part of a heap is read by ranges of blocks, one statement each: the position behind a
// range is exact and costs nothing per row. A range grows while no barrier is wanted.
const (
	chunkBlocks = 64
	chunkMost   = 4096
)

// errReadTimeout ends a read to which the server has sent nothing for too long.
var errReadTimeout = errors.New("the server sends nothing")

// pass is one run of Read.
type pass struct {
	reader  *Reader
	out     connectors.Emitter
	cancel  context.CancelCauseFunc
	decoder *codec.Decoder // of the running statement; nil: none
	framer  *codec.Framer  // of all statements, of rows that are not decoded; nil: none
	before  int64          // rows of earlier statements
	rows    int64          // emitted
	emitted error          // what the emitter returned last

	alive atomic.Int64 // counts payloads; negative while nothing is expected
}

// run reads what the split says.
func (p *pass) run(ctx context.Context) error {
	split := p.reader.split
	defer p.watchServer()()
	switch {
	case p.reader.request.From.At.Equal(endCursor):
		return p.barrier(ctx, messages.BarrierEnd, endCursor)
	case p.reader.request.Limit > 0:
		return p.preview(ctx)
	case split.Follow != nil:
		return (&followPass{pass: p, follow: split.Follow}).run(ctx)
	case split.Blocks != nil:
		return p.heap(ctx)
	case split.Range != nil && split.Range.Integer:
		return p.integers(ctx)
	}
	q := split.stream()
	if split.Range != nil {
		q.Range = split.Range.query()
	}
	return p.whole(ctx, q)
}

// endCursor is the position behind a part that is not read by pieces, or by numbers that
// have no next one.
var endCursor = messages.Cursor{Type: messages.CursorOpaque, Value: "end"}

// whole reads what q selects in one statement: only its end is an exact position.
func (p *pass) whole(ctx context.Context, q query.Stream) error {
	if err := p.copyAll(ctx, q, p.emit); err != nil {
		return err
	}
	return p.barrier(ctx, messages.BarrierEnd, endCursor)
}

// stop frees what the pass holds, and returns how many rows it has received.
func (p *pass) stop() (rows int64) {
	rows = p.rows
	if p.decoder != nil {
		rows += p.decoder.Rows()
		p.decoder.Release()
		p.decoder = nil
	}
	if p.framer != nil {
		rows += p.framer.Rows()
		p.framer.Release()
	}
	return rows
}

// watchServer ends the read when nothing has come for read_timeout. It looks a few times
// in that time: a timer that is reset by each row would cost more than the row. The
// returned function ends the watch.
func (p *pass) watchServer() (stop func()) {
	limit := p.reader.source.cfg.ReadTimeout
	if limit <= 0 {
		return func() {}
	}
	const looks = 4
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(max(limit/looks, time.Millisecond))
		defer ticker.Stop()
		last, quiet := int64(0), 0
		for quiet < looks {
			select {
			case <-ticker.C:
			case <-done:
				return
			}
			if now := p.alive.Load(); now != last || now < 0 {
				last, quiet = now, 0
			} else {
				quiet++
			}
		}
		p.cancel(errReadTimeout)
	})
	return func() {
		close(done)
		watching.Wait()
	}
}

// preview reads the first rows, in any order and without positions.
func (p *pass) preview(ctx context.Context) error {
	split := p.reader.split
	q := split.stream()
	if split.Range != nil {
		q.Range = split.Range.query()
	}
	if split.Blocks != nil {
		q.Blocks = &query.Blocks{From: split.Blocks.From, To: split.Blocks.To}
	}
	q.Limit = p.reader.request.Limit
	return p.whole(ctx, q)
}

// heap reads a range of blocks, piece by piece. A piece that reaches behind the last
// block has no end: its rows are counted by the snapshot, not by the size of the file.
func (p *pass) heap(ctx context.Context) error {
	r := p.reader
	at, err := r.request.From.At.Int64()
	if err != nil {
		return err
	}
	at = max(at, r.split.Blocks.From)
	to := r.split.Blocks.To
	size, err := p.size(ctx)
	if err != nil {
		return err
	}
	step := r.source.chunkBlocks
	for done := to > 0 && at >= to; !done; {
		if p.out.Due() {
			if err := p.barrier(ctx, messages.BarrierPeriodic, messages.Int64Cursor(at)); err != nil {
				return err
			}
			step = r.source.chunkBlocks
		}
		next, open := at+step, false
		switch {
		case to > 0 && next >= to:
			next, done = to, true
		case to == 0 && next >= size:
			next, open, done = max(at, size), true, true
		}
		q := r.split.stream()
		q.Blocks = &query.Blocks{From: at, To: next}
		if open {
			q.Blocks.To = 0
		}
		if err := p.copyAll(ctx, q, p.emit); err != nil {
			return err
		}
		at, step = next, min(2*step, r.source.chunkMost)
	}
	return p.barrier(ctx, messages.BarrierEnd, messages.Int64Cursor(at))
}

// size returns the blocks of the largest heap of the relation.
func (p *pass) size(ctx context.Context) (int64, error) {
	const sql = `WITH RECURSIVE tree(oid) AS (SELECT %d::oid UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
		SELECT coalesce(max(pg_relation_size(c.oid)), 0) / current_setting('block_size')::int8
		FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.relkind IN ('r', 'm')`
	v, err := p.value(ctx, fmt.Sprintf(sql, p.reader.split.Relation))
	if err != nil || v == nil {
		return 0, err
	}
	return strconv.ParseInt(string(v), 10, 64)
}

// value returns the first value of a query, nil for NULL.
func (p *pass) value(ctx context.Context, sql string) ([]byte, error) {
	v, err := p.record(ctx, sql)
	if err != nil {
		return nil, err
	}
	return v[0], nil
}

// record returns the first row of a query.
func (p *pass) record(ctx context.Context, sql string) ([][]byte, error) {
	results, err := p.reader.conn.Exec(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, errors.New("a query about the part did not return one row")
	}
	return results[0].Rows[0], nil
}

// integers reads a range of numbers that an index finds, piece by piece. The position is
// the number behind a piece.
func (p *pass) integers(ctx context.Context) error {
	r := p.reader
	k := r.split.Range
	name := query.Ident(k.Column)
	whole, err := query.Select(query.Stream{Schema: r.split.Schema, Table: r.split.Table, Columns: []query.Column{{Name: k.Column}}, Range: k.query()})
	if err != nil {
		return err
	}
	ends, err := p.record(ctx, "SELECT min("+name+"), max("+name+") FROM (\n"+whole+"\n) AS part")
	if err != nil {
		return err
	}
	if ends[0] == nil && !r.request.From.At.IsZero() { // the first piece is read, and with it the NULLs
		return p.barrier(ctx, messages.BarrierEnd, endCursor)
	}
	if ends[0] == nil { // nothing but NULLs
		q := r.split.stream()
		q.Range = k.query()
		return p.whole(ctx, q)
	}
	least, err := strconv.ParseInt(string(ends[0]), 10, 64)
	if err != nil {
		return err
	}
	greatest, err := strconv.ParseInt(string(ends[1]), 10, 64)
	if err != nil {
		return err
	}
	return p.pieces(ctx, least, greatest)
}

// pieces reads [least, greatest] by pieces that grow.
func (p *pass) pieces(ctx context.Context, least, greatest int64) error {
	r := p.reader
	from := r.request.From.At
	at, err := from.Int64()
	if err != nil {
		return err
	}
	if from.IsZero() {
		at = least
	}
	span := uint64(greatest) - uint64(least) //nolint:gosec // the distance fits, whatever the signs
	first := max(span/64, 1)
	if rows := uint64(max(r.request.Part.Rows, 0)); rows > 0 { //nolint:gosec // not negative
		first = max(span/max(rows/uint64(64*r.source.chunkBlocks), 1), 1) //nolint:gosec // about that many rows
	}
	growth := uint64(max(r.source.chunkMost/r.source.chunkBlocks, 1)) //nolint:gosec // at least 1
	step, begun := first, !from.IsZero()
	for done := begun && at > greatest; !done; {
		if begun && p.out.Due() {
			if err := p.barrier(ctx, messages.BarrierPeriodic, messages.Int64Cursor(at)); err != nil {
				return err
			}
			step = first
		}
		piece := *r.split.Range
		if begun {
			text := strconv.FormatInt(at, 10)
			piece.From, piece.Nulls = &text, false
		}
		if left := uint64(greatest) - uint64(at); step > left { //nolint:gosec // as above
			done = true // to the end of the part, which has one of its own, or none
		} else {
			at += int64(step) //nolint:gosec // not above greatest
			text := strconv.FormatInt(at, 10)
			piece.To = &text
		}
		q := r.split.stream()
		q.Range = piece.query()
		if err := p.copyAll(ctx, q, p.emit); err != nil {
			return err
		}
		begun, step = true, min(2*step, growth*first)
	}
	return p.barrier(ctx, messages.BarrierEnd, endCursor)
}

// copyAll runs one COPY and gives its batches to take, which owns them.
func (p *pass) copyAll(ctx context.Context, q query.Stream, take func(context.Context, arrow.RecordBatch) error) error {
	r := p.reader
	sql, err := query.Select(q)
	if err != nil {
		return err
	}
	if r.request.Part.Raw != "" {
		return p.copyRaw(ctx, query.Copy(sql))
	}
	types, text := make([]*codec.Type, len(r.split.Columns)), make([]bool, len(r.split.Columns))
	for i, c := range r.split.Columns {
		types[i], text[i] = c.Type, c.Text
	}
	if p.decoder, err = codec.NewDecoder(r.all, types, text, r.mem, r.limits()); err != nil {
		return err
	}
	if err := p.copyOut(ctx, query.Copy(sql), p.decoder, func(ctx context.Context) error { return p.give(ctx, take) }); err != nil {
		return err
	}
	p.decoder.Release()
	p.decoder = nil
	return nil
}

// moved is another number when the server has sent something; negative: it need not.
func (p *pass) moved() int64 {
	if p.alive.Load() < 0 {
		return -1
	}
	return p.reader.conn.Moved()
}

// idly runs do, which waits for somebody else than the server.
func (p *pass) idly(do func() error) error {
	n := p.alive.Swap(-1)
	if n < 0 { // so does who calls us
		return do()
	}
	err := do()
	p.alive.Store(n + 1)
	return err
}

// give hands the pending rows to take. The wait for credit is not the server's.
func (p *pass) give(ctx context.Context, take func(context.Context, arrow.RecordBatch) error) error {
	rec := p.decoder.Take()
	if rec == nil {
		return nil
	}
	return p.idly(func() error { return take(ctx, rec) })
}

// limits are those of the request and of the configuration.
func (r *Reader) limits() connectors.Limits {
	l := r.request.Limits
	if n := int64(r.source.cfg.FetchRows); n > 0 && (l.BatchRows <= 0 || n < l.BatchRows) {
		l.BatchRows = n
	}
	if n := int64(r.source.cfg.FetchBytes); n > 0 && (l.BatchBytes <= 0 || n < l.BatchBytes) {
		l.BatchBytes = n
	}
	return l
}

// emit moves the stream's columns of one batch downstream; it owns rec.
func (p *pass) emit(ctx context.Context, rec arrow.RecordBatch) error {
	r := p.reader
	n := rec.NumRows()
	if int(rec.NumCols()) > r.split.Visible {
		visible := array.NewRecordBatch(r.schema, rec.Columns()[:r.split.Visible], n)
		rec.Release()
		rec = visible
	}
	p.emitted = p.idly(func() error {
		return p.out.Emit(ctx, messages.Batch{Stream: r.stream, Version: 1, Rows: messages.ArrowRows{Record: rec}})
	})
	p.rows += n
	return p.emitted
}

func (p *pass) barrier(ctx context.Context, kind messages.BarrierKind, at messages.Cursor) error {
	if kind == messages.BarrierEnd {
		if err := p.steady(ctx); err != nil {
			return err
		}
	}
	p.emitted = p.idly(func() error { return p.out.Barrier(ctx, kind, messages.Position{At: at}) })
	return p.emitted
}
