package generator

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const (
	defaultBatchRows = 8192 // without a limit
	perSecondSlices  = 20   // batches a second, at least, of a slowed reader
)

// reader makes rows [next, end) of one stream.
type reader struct {
	req       connectors.ReadRequest
	stream    messages.StreamID
	columns   []column
	schema    *arrow.Schema
	next, end int64
	batchRows int64
	perSecond int64 // 0: no bound
}

// size returns the bytes of a batch of n rows.
func (r *reader) size(n int64) (sum int64) {
	for _, c := range r.columns {
		sum += c.size(n)
	}
	return sum
}

// rowsOf returns how many rows fit into the limits, at least one. A batch stays
// below 1 GiB, so that offsets fit into 32 bits.
func (r *reader) rowsOf(l connectors.Limits) int64 {
	n, most := l.BatchRows, l.BatchBytes
	if n <= 0 {
		n = defaultBatchRows
	}
	if most <= 0 || most > valueBytes {
		most = valueBytes
	}
	if one := r.size(1); one > 0 {
		n = min(n, max(most/max((r.size(1024)+1023)/1024, 1), 1))
	}
	for n > 1 && r.size(n) > most { // the part of the size that does not grow with n
		n--
	}
	if r.perSecond > 0 {
		n = min(n, max(r.perSecond/perSecondSlices, 1))
	}
	return min(n, math.MaxInt32)
}

// Close implements connectors.Reader. There is nothing to free.
func (r *reader) Close(context.Context) error { return nil }

// Read implements connectors.Reader.
func (r *reader) Read(ctx context.Context, out connectors.Emitter) error {
	err := r.read(ctx, out)
	if errors.Is(err, connectors.ErrDraining) {
		return nil
	}
	return err
}

func (r *reader) read(ctx context.Context, out connectors.Emitter) error {
	started, first := time.Now(), r.next
	for r.next < r.end {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if out.Due() {
			if err := out.Barrier(ctx, messages.BarrierPeriodic, r.position()); err != nil {
				return err
			}
		}
		n := min(r.batchRows, r.end-r.next)
		if err := out.Emit(ctx, r.batch(n)); err != nil {
			return err
		}
		r.next += n
		if r.perSecond > 0 {
			due := started.Add(time.Duration(float64(r.next-first) / float64(r.perSecond) * float64(time.Second)))
			if err := pause(ctx, time.Until(due)); err != nil {
				return err
			}
		}
	}
	return out.Barrier(ctx, messages.BarrierEnd, r.position())
}

// position is exact at every row: the number of the next one.
func (r *reader) position() messages.Position {
	return messages.Position{At: messages.Int64Cursor(r.next)}
}

// batch makes the next n rows; the receiver releases them.
func (r *reader) batch(n int64) messages.Batch {
	arrays := make([]arrow.Array, len(r.columns))
	for i, c := range r.columns {
		arrays[i] = c.array(r.req.Mem, r.next, int(n))
	}
	rec := array.NewRecordBatch(r.schema, arrays, n)
	for _, a := range arrays {
		a.Release()
	}
	return messages.Batch{Stream: r.stream, Version: 1, Rows: messages.ArrowRows{Record: rec}}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
