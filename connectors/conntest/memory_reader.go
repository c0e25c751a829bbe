package conntest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// memoryReader reads rows [next, span.To) of a stream.
type memoryReader struct {
	source *MemorySource
	req    connectors.ReadRequest
	span   memoryRange
	next   int64
}

// Close implements connectors.Reader. There is nothing to free.
func (r *memoryReader) Close(context.Context) error { return nil }

// Confirm implements connectors.Confirmer.
func (r *memoryReader) Confirm(p messages.Position) {
	r.source.mu.Lock()
	defer r.source.mu.Unlock()
	r.source.confirmed[r.req.Part.ID] = p
}

// Read implements connectors.Reader.
func (r *memoryReader) Read(ctx context.Context, out connectors.Emitter) error {
	err := r.read(ctx, out)
	if errors.Is(err, connectors.ErrDraining) {
		return nil
	}
	return err
}

func (r *memoryReader) read(ctx context.Context, out connectors.Emitter) error {
	limit := r.req.Limit
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if out.Due() {
			if err := r.barrier(ctx, out, messages.BarrierPeriodic); err != nil {
				return err
			}
		}
		batch, err := r.build(limit)
		if err != nil {
			return err
		}
		if batch == nil {
			if done, err := r.exhausted(ctx, out); done || err != nil {
				return err
			}
			continue
		}
		n := batch.Rows.Len()
		c := Call{N: r.source.calls.next("read"), Part: r.req.Part.ID, Load: r.req.Part.Load, Token: r.req.Token, Data: *batch}
		if err := r.source.ReadFn.do(ctx, c); err != nil {
			batch.Rows.Release()
			return err
		}
		if err := out.Emit(ctx, *batch); err != nil {
			return err
		}
		r.next += n
		if limit > 0 {
			if limit -= n; limit == 0 {
				return r.barrier(ctx, out, messages.BarrierEnd)
			}
		}
	}
}

// exhausted ends the part, or waits for more if the part follows its stream.
func (r *memoryReader) exhausted(ctx context.Context, out connectors.Emitter) (done bool, err error) {
	if !r.span.Follow {
		return true, r.barrier(ctx, out, messages.BarrierEnd)
	}
	r.source.mu.Lock()
	grown := r.source.grown
	more := int64(len(r.source.streams[r.req.Part.Streams[0]].Rows)) > r.next
	r.source.mu.Unlock()
	if more {
		return false, nil
	}
	timer := time.NewTimer(followPoll)
	defer timer.Stop()
	select {
	case <-grown:
	case <-timer.C: // asks Due again
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	return false, nil
}

const followPoll = 10 * time.Millisecond

func (r *memoryReader) barrier(ctx context.Context, out connectors.Emitter, kind messages.BarrierKind) error {
	pos := messages.Position{At: messages.Int64Cursor(r.next)}
	c := Call{N: r.source.calls.next("barrier"), Part: r.req.Part.ID, Load: r.req.Part.Load, Token: r.req.Token}
	c.Barrier = messages.Barrier{Kind: kind, Position: pos}
	if err := r.source.BeforeFn.do(ctx, c); err != nil {
		return err
	}
	return out.Barrier(ctx, kind, pos)
}

// build returns the next batch, nil if there are no more rows now.
func (r *memoryReader) build(limit int64) (*messages.Batch, error) {
	st, err := r.source.stream(r.req.Part.Streams[0])
	if err != nil {
		return nil, err
	}
	end := int64(len(st.Rows))
	if !r.span.Follow {
		end = min(end, r.span.To)
	}
	n := end - r.next
	if r.req.Limits.BatchRows > 0 {
		n = min(n, r.req.Limits.BatchRows)
	}
	if limit > 0 {
		n = min(n, limit)
	}
	for n > 0 {
		rec, err := Build(r.req.Mem, st.Schema, st.Rows[r.next:r.next+n])
		if err != nil {
			return nil, &connectors.Error{Op: "build batch", Kind: connectors.KindInternal, Err: err}
		}
		rows := messages.ArrowRows{Record: rec}
		size := rows.Bytes()
		if n > 1 && (r.req.Limits.BatchBytes > 0 && size > r.req.Limits.BatchBytes || r.req.Limits.RowBytes > 0 && size > r.req.Limits.RowBytes) {
			rec.Release()
			n = (n + 1) / 2
			continue
		}
		if r.req.Limits.RowBytes > 0 && size > r.req.Limits.RowBytes {
			rec.Release()
			return nil, rowTooLarge(st.Stream, r.next, size)
		}
		return &messages.Batch{Stream: st.Stream, Version: 1, Rows: rows}, nil
	}
	return nil, nil
}

func rowTooLarge(stream messages.StreamID, row, size int64) error {
	return &connectors.Error{
		Op: "read row", Kind: connectors.KindData, Code: messages.CodeRowTooLarge,
		Place: messages.Place{Stream: stream, Row: row + 1}, Err: fmt.Errorf("%d bytes", size),
	}
}
