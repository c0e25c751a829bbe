package conntest

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// evens is a transform that keeps rows with an even id and sets the others aside.
type evens struct {
	late                       bool // holds its output until it is flushed
	lossy, leaky, deaf, shared bool // planted faults
	all                        evenStage
}

func (e *evens) Schema(_ messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) { return in, nil }

func (e *evens) Open(_ context.Context, _ connectors.StageRequest) (connectors.Stage, error) {
	if e.shared {
		e.all.e = e
		return &e.all, nil
	}
	return &evenStage{e: e}, nil
}

type evenStage struct {
	e    *evens
	held []messages.Data
}

func (s *evenStage) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	b, ok := d.(messages.Batch)
	if !ok {
		if s.e.deaf {
			Release(d)
			return nil
		}
		return out(ctx, d)
	}
	if !s.e.leaky {
		defer b.Rows.Release()
	}
	rec, err := record(b.Rows)
	if err != nil {
		return err
	}
	ids, _ := rec.Column(0).(*array.Int64)
	for i := range rec.NumRows() {
		row := messages.ArrowRows{Record: rec.NewSlice(i, i+1)}
		var d messages.Data = messages.Batch{Stream: b.Stream, Version: b.Version, Rows: row}
		if ids.Value(int(i))%2 == 1 {
			d = messages.Rejected{Stream: b.Stream, Reason: "odd", Rows: row}
		}
		if s.e.lossy && ids.Value(int(i)) == 4 {
			Release(d)
			continue
		}
		if s.e.late {
			s.held = append(s.held, d)
			continue
		}
		if err := out(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (s *evenStage) Flush(ctx context.Context, out connectors.Outlet) error {
	for i, d := range s.held {
		if err := out(ctx, d); err != nil {
			for _, d := range s.held[i+1:] {
				Release(d)
			}
			s.held = nil
			return err
		}
	}
	s.held = nil
	return nil
}

func (s *evenStage) Close(context.Context) error {
	for _, d := range s.held {
		Release(d)
	}
	s.held = nil
	return nil
}

func evenFactory(e evens) TransformFactory {
	return TransformFactory{
		New:    func(T) connectors.Transform { e := e; return &e },
		Stream: "orders", Schema: Numbers("orders", 0).Schema, Rows: NumberRows(1, 6),
		Want: []string{"2|row 2", "4|row 4", "6|row 6"}, Rejected: 3,
	}
}

func TestTransformConforms(t *testing.T) {
	t.Run("at once", func(t *testing.T) { Transform(t, evenFactory(evens{})) })
	t.Run("when flushed", func(t *testing.T) { Transform(t, evenFactory(evens{late: true})) })
}

func TestSuiteCatchesATransformThat(t *testing.T) {
	for _, c := range []struct {
		name, check, says string
		e                 evens
	}{
		{"loses a row", "output_is_exact", "row 4", evens{lossy: true}},
		{"leaks a batch", "batches_are_released_once", "leaked batch", evens{leaky: true}},
		{"swallows items it does not know", "others_pass_through", "goes on", evens{deaf: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantCaught(t, TransformChecks(), evenFactory(c.e), c.check, c.says)
		})
	}
	t.Run("holds rows of two stages in one place", func(t *testing.T) {
		f := evenFactory(evens{})
		e := &evens{late: true, shared: true}
		f.New = func(T) connectors.Transform { return e }
		wantCaught(t, only(TransformChecks(), "stages_are_apart"), f, "stages_are_apart", "Not equal")
	})
}
