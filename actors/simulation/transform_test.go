package simulation_test

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// step is a transform: it filters rows and sets some aside, or keeps the newest batch
// back until the next one or a barrier.
type step struct {
	n     *node
	name  string
	holds bool
}

const (
	filterBy = 7 // rows whose number leaves 3 are filtered out
	rejectBy = 5 // rows whose number leaves 2 are set aside
)

// sieve says what becomes of rows on the way through a filter.
func sieve(in []row) (kept, rejected []row) {
	for _, r := range in {
		switch {
		case r.id()%filterBy == 3:
		case r.id()%rejectBy == 2:
			rejected = append(rejected, r)
		default:
			kept = append(kept, r)
		}
	}
	return kept, rejected
}

// Schema implements connectors.Transform.
func (t step) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) { return in, nil }

// Open implements connectors.Transform.
func (t step) Open(ctx context.Context, r connectors.StageRequest) (connectors.Stage, error) {
	g := &stage{step: t, part: r.Part.ID}
	err := t.call(ctx, fmt.Sprintf("open %s of %s", t.name, r.Part.ID))
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (t step) call(ctx context.Context, name string) error {
	return t.n.call(ctx, &op{name: name, fates: []fate{fateFails, fatePanic}, run: func(f fate) error { return failure(f, "transform") }})
}

// stage implements connectors.Stage.
type stage struct {
	step

	part messages.PartID
	held messages.Data
}

// Apply implements connectors.Stage.
func (g *stage) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	if g.holds {
		if err := g.Flush(ctx, out); err != nil {
			release(d)
			return err
		}
		g.held = d
		return nil
	}
	err := func() error {
		defer func() {
			if p := recover(); p != nil {
				release(d)
				panic(p)
			}
		}()
		return g.call(ctx, fmt.Sprintf("apply %s to %s", g.name, g.part))
	}()
	if err != nil {
		release(d)
		return err
	}
	b, ok := d.(messages.Batch)
	if !ok {
		return out(ctx, d)
	}
	from := b.Rows.(messages.RawRows).Buffer.(*rows)
	kept, rejected := sieve(idsOf(b.Rows))
	b.Rows.Release()
	if len(rejected) > 0 {
		if err := out(ctx, messages.Rejected{Stream: b.Stream, Reason: "sieve", Rows: g.n.batch(from.attempt, g.part, rejected)}); err != nil {
			return err
		}
	}
	if len(kept) == 0 {
		return nil
	}
	b.Rows = g.n.batch(from.attempt, g.part, kept)
	return out(ctx, b)
}

func release(d messages.Data) {
	switch d := d.(type) {
	case messages.Batch:
		d.Rows.Release()
	case messages.Rejected:
		d.Rows.Release()
	case messages.SchemaChange, messages.Truncate:
	}
}

// Flush implements connectors.Stage.
func (g *stage) Flush(ctx context.Context, out connectors.Outlet) error {
	if g.held == nil {
		return nil
	}
	d := g.held
	g.held = nil
	return out(ctx, d)
}

// Close implements connectors.Stage.
func (g *stage) Close(context.Context) error {
	if g.held != nil {
		release(g.held)
		g.held = nil
	}
	return nil
}
