package source

import (
	"context"
	"time"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// emitter is the connectors.Emitter of one attempt; the reader goroutine owns it.
type emitter struct {
	port     *flow.Port
	limits   connectors.Limits
	interval Interval
	draining <-chan struct{} // closed: the next barrier is the last
	total    int64           // rows emitted in this attempt
	rows     int64           // since the last barrier
	bytes    int64           // since the last barrier
	last     time.Time       // of the last barrier
	err      error           // latched
	ended    bool            // a barrier of kind drain or end went out
}

func newEmitter(cfg Config, p *flow.Port, draining <-chan struct{}) *emitter {
	return &emitter{port: p, limits: cfg.Limits, interval: cfg.Interval, draining: draining, last: time.Now()}
}

// Emit implements connectors.Emitter.
func (e *emitter) Emit(ctx context.Context, d messages.Data) error {
	if e.err != nil {
		flow.Release(d)
		return e.err
	}
	b, ok := d.(messages.Batch)
	if !ok {
		return e.latch(e.port.Push(ctx, d))
	}
	if b.Rows.Len() == 0 {
		b.Rows.Release()
		return nil
	}
	if err := failpoint.Hit(failpoint.SourceBatch); err != nil {
		b.Rows.Release()
		return e.latch(err)
	}
	pieces, err := flow.Split(b.Rows, e.limits, e.total+1)
	if err != nil {
		return e.latch(err)
	}
	for i, rows := range pieces {
		n, size := rows.Len(), rows.Bytes()
		b.Rows = rows
		if err := e.port.Push(ctx, b); err != nil {
			for _, rest := range pieces[i+1:] {
				rest.Release()
			}
			return e.latch(err)
		}
		e.total += n
		e.rows += n
		e.bytes += size
	}
	return nil
}

// Due implements connectors.Emitter.
func (e *emitter) Due() bool {
	select {
	case <-e.draining:
		return true
	default:
	}
	i := e.interval
	return i.Bytes > 0 && e.bytes >= i.Bytes || i.Rows > 0 && e.rows >= i.Rows ||
		i.Every > 0 && time.Since(e.last) >= i.Every
}

// Barrier implements connectors.Emitter.
func (e *emitter) Barrier(ctx context.Context, kind messages.BarrierKind, p messages.Position) error {
	if e.err != nil {
		return e.err
	}
	if kind == messages.BarrierPeriodic {
		select {
		case <-e.draining:
			kind = messages.BarrierDrain
		default:
		}
	}
	if err := e.port.Push(ctx, messages.Barrier{Kind: kind, Position: p, Rows: e.rows}); err != nil {
		return e.latch(err)
	}
	e.rows, e.bytes, e.last = 0, 0, time.Now()
	if kind != messages.BarrierPeriodic {
		e.ended = true
		e.err = connectors.ErrDraining // nothing may follow
	}
	return nil
}

func (e *emitter) latch(err error) error {
	if err != nil {
		e.err = err
	}
	return err
}
