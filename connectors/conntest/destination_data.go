package conntest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// upsertLastWins: inside a commit, across commits and across loads.
func upsertLastWins(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	if !r.supports(connectors.ModeUpsert) {
		return
	}
	s, l := r.begun(connectors.ModeUpsert)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, [][]any{{1, "a"}, {2, "b"}, {1, "c"}})
	r.write(w, [][]any{{2, "d"}, {3, nil}})
	got := r.commit(w, messages.BarrierPeriodic, 5, 5)
	r.sees("orders", []string{"1|c", "2|d", "3|" + Null}, "after a commit that holds a key more than once")
	require.Equal(t, got.Rows.Arrived, got.Rows.Applied+got.Rows.Rejected, "arrived = applied + rejected")
	require.Equal(t, int64(5), got.Rows.Arrived)
	r.write(w, [][]any{{3, "e"}, {4, "f"}, {1, nil}})
	r.commit(w, messages.BarrierEnd, 8, 3)
	r.sees("orders", []string{"1|" + Null, "2|d", "3|e", "4|f"}, "after the second commit")
	require.NoError(t, s.Finish(r.ctx, l.ID))

	again := r.load(2, connectors.ModeUpsert, "orders", 1)
	require.NoError(t, s.Begin(r.ctx, again))
	w, _ = r.writer(s, again.Parts[0], 1, 2)
	r.write(w, [][]any{{4, "g"}, {5, "h"}})
	r.commit(w, messages.BarrierEnd, 2, 2)
	r.sees("orders", []string{"1|" + Null, "2|d", "3|e", "4|g", "5|h"}, "after the second load")
}

// rejectedRowsAreCounted: a dead letter is set aside in the commit that covers it,
// or the destination says that it cannot (I7).
func rejectedRowsAreCounted(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 3))
	bad := messages.Rejected{Stream: "orders", Reason: "too_short", Rows: r.batch("orders", NumberRows(4, 2)).Rows}
	if err := w.Write(r.ctx, bad); err != nil {
		refused(t, err, "write of rejected rows")
		return
	}
	got := r.commit(w, messages.BarrierEnd, 5, 5)
	require.Equal(t, messages.Counts{Read: 5, Arrived: 5, Applied: 3, Rejected: 2}, got.Rows)
	r.sees("orders", texts(NumberRows(1, 3)), "rejected rows are not among the rows")
}

// truncateIsAppliedOrRefused: in its place in the order, or not at all.
func truncateIsAppliedOrRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 3))
	r.commit(w, messages.BarrierPeriodic, 3, 3)
	r.write(w, NumberRows(4, 3))
	if err := w.Write(r.ctx, messages.Truncate{Streams: []messages.StreamID{"orders"}}); err != nil {
		refused(t, err, "write of a truncate")
		r.sees("orders", texts(NumberRows(1, 3)), "after a refused truncate")
		return
	}
	r.write(w, NumberRows(7, 2))
	r.sees("orders", texts(NumberRows(1, 3)), "before the commit of a truncate")
	r.commit(w, messages.BarrierEnd, 8, 5)
	r.sees("orders", texts(NumberRows(7, 2)), "after the commit of a truncate")
}

// schemaChangeIsAppliedOrRefused: a new column is written or refused with
// KindSchema, never dropped in silence.
func schemaChangeIsAppliedOrRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 2))
	r.commit(w, messages.BarrierPeriodic, 2, 2)
	wider := arrow.NewSchema(append(slices.Clone(l.Streams[0].Schema.Fields()),
		arrow.Field{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true}), nil)
	rec, err := Build(r.mem, wider, [][]any{{3, "c", "new"}})
	require.NoError(t, err)
	rows := messages.ArrowRows{Record: rec}
	if err := w.Write(r.ctx, messages.SchemaChange{Stream: "orders", Version: 2, Schema: wider}); err != nil {
		rows.Release()
		schemaRefused(t, err, "write of a schema change")
		return
	}
	if err := w.Write(r.ctx, messages.Batch{Stream: "orders", Version: 2, Rows: rows}); err != nil {
		schemaRefused(t, err, "write of a batch with a new column")
		return
	}
	if _, err := w.Commit(r.ctx, barrier(messages.BarrierPeriodic, 3, 1)); err != nil {
		schemaRefused(t, err, "commit of a new column")
		return
	}
	want := texts(NumberRows(1, 2))
	for i := range want {
		want[i] = Join(want[i], Null)
	}
	r.sees("orders", append(want, "3|c|new"), "after a column was added")
}

func schemaRefused(t T, err error, what string) {
	t.Helper()
	if k := connectors.KindOf(err); k != connectors.KindSchema && k != connectors.KindConfig {
		t.Errorf("%s: want an error of kind schema or config, got %s: %v", what, k, err)
	}
}

// oddNames are names of streams, targets and columns that users have or attackers try.
var oddNames = []string{
	"with space", `quote"d`, "it's", `"; DROP TABLE orders; --`, "select", "Ünïcödé", "日本語", "🚀", "1digit",
	"a.b", "$dollar", "per%cent", `back\slash`, "new\nline", "tab\tbed", "../escape", "/rooted", "dot.", ".hidden", "..",
	"CON", strings.Repeat("n", 63), strings.Repeat("n", 64), strings.Repeat("x", 300), strings.Repeat("é", 150),
}

// oddNamesAreKeptOrRefused: a name works or is refused with CodeSchemaName; it
// never damages anything else.
func oddNamesAreKeptOrRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 3))
	r.commit(w, messages.BarrierEnd, 3, 3)
	require.NoError(t, s.Finish(r.ctx, l.ID))
	taken := make(map[string][]string)
	for i, name := range oddNames {
		rows := NumberRows(1+10*i, 2)
		if err := r.named(s, name, "name", rows, messages.Attempt(2+2*i)); err != nil {
			nameRefused(t, err, "target", name)
		} else {
			taken[name] = texts(rows)
		}
		target := fmt.Sprintf("column_%d", i)
		if err := r.named(s, target, name, rows, messages.Attempt(3+2*i)); err != nil {
			nameRefused(t, err, "column", name)
		} else {
			taken[target] = texts(rows)
		}
	}
	for _, name := range []string{"case_test", "Case_Test"} { // one of the two may be refused
		rows := NumberRows(len(name), 2)
		if err := r.named(s, name, "name", rows, messages.Attempt(1000)); err == nil {
			taken[name] = texts(rows)
		}
	}
	for name, want := range taken {
		r.sees(name, want, fmt.Sprintf("target %q", name))
	}
	r.sees("orders", texts(NumberRows(1, 3)), "the target with a plain name, after all odd ones")
}

// named writes rows to a target of that name whose second column has that name.
func (r *destRig) named(s connectors.Session, target, column string, rows [][]any, a messages.Attempt) error {
	l := r.load(1, r.mode, messages.StreamID(target), 1)
	fields := slices.Clone(l.Streams[0].Schema.Fields())
	fields[1].Name = column
	l.Streams[0].Schema = arrow.NewSchema(fields, nil)
	return r.load1(s, l, rows, a)
}

// load1 begins a load of one part, writes rows and finishes it.
func (r *destRig) load1(s connectors.Session, l connectors.Load, rows [][]any, a messages.Attempt) error {
	rec, err := Build(r.mem, l.Streams[0].Schema, rows)
	if err != nil {
		return err
	}
	return r.loadRecord(s, l, rec, a)
}

// loadRecord is load1 for a record, which it releases.
func (r *destRig) loadRecord(s connectors.Session, l connectors.Load, rec arrow.RecordBatch, a messages.Attempt) error {
	if err := s.Begin(r.ctx, l); err != nil {
		rec.Release()
		return err
	}
	w, _, err := s.OpenWriter(r.ctx, l.Parts[0], messages.Token{Epoch: 1, Attempt: a})
	if err != nil {
		rec.Release()
		return err
	}
	defer func() { _ = w.Close(r.ctx) }()
	n := rec.NumRows()
	b := messages.Batch{Stream: l.Streams[0].Stream, Version: 1, Rows: messages.ArrowRows{Record: rec}}
	if err := w.Write(r.ctx, b); err != nil {
		return err
	}
	if _, err := w.Commit(r.ctx, barrier(messages.BarrierEnd, n, n)); err != nil {
		return err
	}
	return s.Finish(r.ctx, l.ID)
}

func nameRefused(t T, err error, what, name string) {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	if !ok || e.Code != messages.CodeSchemaName {
		t.Errorf("%s %.80q: want it taken or refused with code %s, got %v", what, name, messages.CodeSchemaName, err)
	}
}

// typesAreKeptOrRefused: every value comes back as it was, or its column is refused
// by name; never changed in silence.
func typesAreKeptOrRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s := r.open(r.Destination, 1)
	for i, c := range TypeCases() {
		rec, err := c.build(r.mem)
		require.NoError(t, err, "build %s", c.Name)
		want := RowTexts(rec)
		l := r.load(1, r.mode, messages.StreamID("type_"+c.Name), 1)
		l.Streams[0].Schema = c.schema()
		err = r.loadRecord(s, l, rec, messages.Attempt(i+1))
		switch {
		case slices.Contains(f.Refuses, c.Name):
			typeRefused(t, c, err)
			continue
		case err != nil:
			t.Errorf("type %s: %v", c.Name, err)
			continue
		}
		if shows, ok := f.Shows[c.Name]; ok {
			want = shows
		}
		r.sees(l.Streams[0].Target, want, "type "+c.Name)
	}
}

func typeRefused(t T, c TypeCase, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("type %s: the factory says that it is refused, it was taken", c.Name)
		return
	}
	schemaRefused(t, err, "type "+c.Name)
	e, ok := errors.AsType[*connectors.Error](err)
	if !strings.Contains(err.Error(), typeColumn) && (!ok || e.Place.Field != typeColumn) {
		t.Errorf("type %s: the refusal does not name column %s: %v", c.Name, typeColumn, err)
	}
}

// crashAnywhereIsExact: whatever item the process died at, the next one ends with
// exact rows (I2, I5, rule 9).
func crashAnywhereIsExact(t T, f DestinationFactory) {
	for _, mode := range f.Modes {
		for stop := 1; ; stop++ {
			r := newDestRig(t, f)
			source := NewMemorySource(Numbers("orders", 24), Numbers("customers", 3))
			run := Run{ // incremental: a finished load is not read again
				Source: source, Destination: r.Destination, Streams: Specs(connectors.SyncIncremental, mode, "orders", "customers"),
				Limits: connectors.Limits{BatchRows: 5, BatchBytes: 1 << 20, RowBytes: 1 << 20},
				Every:  10, Splits: 2, StopAfter: stop, Mem: r.mem,
			}
			_, err := Drive(r.ctx, run)
			finished := err == nil
			if !finished {
				require.ErrorIs(t, err, ErrStopped, "mode %s, stop after %d items", mode, stop)
			}
			run.Destination, run.Epoch, run.StopAfter = r.restart(), 2, 0
			_, err = Drive(r.ctx, run)
			require.NoError(t, err, "mode %s, after the stop at item %d", mode, stop)
			for _, stream := range []messages.StreamID{"orders", "customers"} {
				r.sees(string(stream), source.Rows(stream), fmt.Sprintf("mode %s, %s, after a stop at item %d", mode, stream, stop))
			}
			if finished || t.Failed() {
				break
			}
		}
	}
}
