package conntest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Emitter is the engine's half of a Reader.Read: it numbers the items of one
// attempt, counts rows between barriers, asks for barriers and drains. What the
// reader does against the contract is remembered, see Broken.
type Emitter struct {
	Part  messages.PartID
	Token messages.Token

	// Sink takes each item, stamped and in order. It moves what it is given, also when
	// it returns an error; Emit then returns that error for ever.
	Sink func(ctx context.Context, it messages.Item) error

	// Every is the number of rows after which a barrier is due; 0 never.
	Every int64

	draining atomic.Bool
	seq      messages.Seq
	rows     int64 // since the barrier before
	total    int64
	ended    bool // a barrier of kind drain or end went out
	kind     messages.BarrierKind
	err      error
	broken   []string
}

// Drain makes the next barrier one of kind drain and lets no data pass behind it.
// It may be called from any goroutine.
func (e *Emitter) Drain() { e.draining.Store(true) }

// Ended reports the kind of the barrier that ended the items, if one did.
func (e *Emitter) Ended() (kind messages.BarrierKind, ok bool) { return e.kind, e.ended }

// Total returns the number of rows that went out.
func (e *Emitter) Total() int64 { return e.total }

// Broken lists what the reader did against the contract.
func (e *Emitter) Broken() []string { return e.broken }

// Finished judges a Read that returned nil: it must have ended in order.
func (e *Emitter) Finished() error {
	if !e.ended {
		return errors.New("read returned nil without a barrier of kind drain or end")
	}
	return nil
}

// Emit implements connectors.Emitter.
func (e *Emitter) Emit(ctx context.Context, d messages.Data) error {
	if e.err == nil && e.ended {
		if e.kind == messages.BarrierEnd {
			e.breach("emitted %T after the end barrier", d)
		}
		e.err = connectors.ErrDraining
	}
	if e.err == nil && ctx.Err() != nil {
		e.err = context.Cause(ctx)
	}
	if e.err != nil {
		Release(d)
		return e.err
	}
	e.seq++
	stamp := messages.Stamp{Part: e.Part, Token: e.Token, Seq: e.seq}
	var theirs messages.Stamp
	switch it := d.(type) {
	case messages.Batch:
		n := it.Rows.Len()
		if n == 0 {
			e.breach("emitted a batch without rows")
		}
		e.rows += n
		e.total += n
		theirs, it.Stamp = it.Stamp, stamp
		d = it
	case messages.SchemaChange:
		theirs, it.Stamp = it.Stamp, stamp
		d = it
	case messages.Truncate:
		theirs, it.Stamp = it.Stamp, stamp
		d = it
	case messages.Rejected:
		e.rows += it.Rows.Len()
		theirs, it.Stamp = it.Stamp, stamp
		d = it
	}
	if theirs != (messages.Stamp{}) {
		e.breach("stamped an item: %+v", theirs)
	}
	e.err = e.Sink(ctx, d)
	return e.err
}

// Due implements connectors.Emitter.
func (e *Emitter) Due() bool {
	return e.draining.Load() || e.Every > 0 && e.rows >= e.Every
}

// Barrier implements connectors.Emitter. An end barrier behind the drain barrier
// is left out: the next attempt emits it.
func (e *Emitter) Barrier(ctx context.Context, kind messages.BarrierKind, p messages.Position) error {
	switch {
	case e.err != nil:
		return e.err
	case ctx.Err() != nil:
		e.err = context.Cause(ctx)
		return e.err
	case e.ended && e.kind == messages.BarrierEnd:
		e.breach("emitted a barrier after the end barrier")
		return nil
	case e.ended && kind == messages.BarrierEnd:
		return nil
	case e.ended:
		e.err = connectors.ErrDraining
		return e.err
	}
	if kind == messages.BarrierPeriodic && e.draining.Load() {
		kind = messages.BarrierDrain
	}
	e.seq++
	e.ended, e.kind = kind != messages.BarrierPeriodic, kind
	b := messages.Barrier{
		Stamp: messages.Stamp{Part: e.Part, Token: e.Token, Seq: e.seq},
		Kind:  kind, Position: p, Rows: e.rows,
	}
	e.rows = 0
	e.err = e.Sink(ctx, b)
	return e.err
}

func (e *Emitter) breach(format string, args ...any) {
	e.broken = append(e.broken, fmt.Sprintf(format, args...))
}
