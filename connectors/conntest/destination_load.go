package conntest

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// checkChangesNothing: preflight leaves the target as it was.
func checkChangesNothing(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	found, err := r.Destination.Check(r.ctx, []connectors.Load{r.load(1, r.mode, "orders", 1)})
	require.NoError(t, err)
	for _, finding := range found {
		if finding.Severity == connectors.SeverityError {
			t.Errorf("check of a fresh target found an error: %s", finding.Message)
		}
	}
	r.sees("orders", nil, "after check")
	require.Empty(t, r.open(r.Destination, 1).Recovered().Loads, "loads after check")
}

// unsupportedModeIsRefused: Begin refuses a mode that the factory does not list.
func unsupportedModeIsRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s := r.open(r.Destination, 1)
	for _, m := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace, "sideways"} {
		l := r.load(1, m, messages.StreamID("mode_"+m), 1)
		err := s.Begin(r.ctx, l)
		if r.supports(m) {
			require.NoError(t, err, "begin in mode %s", m)
			continue
		}
		require.Equal(t, connectors.KindConfig, connectors.KindOf(err), "begin in mode %s: %v", m, err)
	}
	if r.supports(connectors.ModeUpsert) {
		l := r.load(1, connectors.ModeUpsert, "keyless", 1)
		l.Streams[0].Key = nil
		require.Equal(t, connectors.KindConfig, connectors.KindOf(s.Begin(r.ctx, l)), "an upsert without a key")
	}
}

// beginIsRepeatable: beginning a begun load again changes nothing.
func beginIsRepeatable(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	require.NoError(t, s.Begin(r.ctx, l), "again before any commit")
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 4))
	want := r.commit(w, messages.BarrierPeriodic, 4, 4)
	require.NoError(t, s.Begin(r.ctx, l), "again after a commit")
	r.sees("orders", texts(NumberRows(1, 4)), "after begin again")

	next := r.open(r.restart(), 2)
	require.NoError(t, next.Begin(r.ctx, l), "again in the next process")
	_, got := r.writer(next, l.Parts[0], 2, 1)
	want.Token, got.Token = messages.Token{}, messages.Token{}
	require.Equal(t, want, got)
}

// unbegunPartIsRefused: there is no writer without a receipt.
func unbegunPartIsRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	stranger := l.Parts[0]
	stranger.ID = "orders/99"
	unbegun := r.load(1, r.mode, "customers", 1).Parts[0]
	for _, p := range []connectors.Part{stranger, unbegun} {
		w, _, err := s.OpenWriter(r.ctx, p, messages.Token{Epoch: 1, Attempt: 1})
		if err == nil {
			_ = w.Close(r.ctx)
			t.Errorf("a writer was opened for part %s, which was not begun", p.ID)
		}
	}
}

// planIsRecovered: a lost state store can be rebuilt from the destination (I11).
func planIsRecovered(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s := r.open(r.Destination, 1)
	l := r.load(4, r.mode, "orders", 3)
	l.Run, l.Shape = "01JD0000000000000000000001", "5a0d8b1f"
	l.Parts[1].Scan, l.Parts[2].After = "snapshot-é'\"", []messages.PartID{l.Parts[0].ID}
	l.Parts[2].Split = json.RawMessage(`{"file":"a \"b\" 'c'.csv","from":9007199254740993}`)
	require.NoError(t, s.Begin(r.ctx, l))
	got := r.open(r.restart(), 2).Recovered()
	require.Len(t, got.Loads, 1)
	require.Equal(t, l.ID, got.Loads[0].ID)
	require.False(t, got.Loads[0].Finished)
	require.Equal(t, l.Identity, got.Loads[0].Identity)
	require.Equal(t, l.Mode, got.Loads[0].Mode, "the mode in which the load was begun")
	require.Equal(t, l.Run, got.Loads[0].Run, "the run that began the load")
	require.Equal(t, l.Shape, got.Loads[0].Shape, "the shape it was begun with")
	require.JSONEq(t, string(l.History), string(got.Loads[0].History))
	require.Len(t, got.Parts, 3)
	require.Len(t, got.Receipts, 3)
	for _, p := range got.Parts {
		at := indexPart(l.Parts, p.ID)
		require.GreaterOrEqual(t, at, 0, "part %s was not planned", p.ID)
		want := l.Parts[at]
		require.JSONEq(t, string(want.Split), string(p.Split))
		want.Split, p.Split = nil, nil
		if len(p.After) == 0 {
			p.After = nil
		}
		require.Equal(t, want, p, "part as planned")
	}
	for _, receipt := range got.Receipts {
		require.Equal(t, messages.Version{Load: 4}, receipt.Version)
		require.False(t, receipt.Final)
	}
}

func indexPart(parts []connectors.Part, id messages.PartID) int {
	for i, p := range parts {
		if p.ID == id {
			return i
		}
	}
	return -1
}

// newLoadDropsReceipts: of each load name only the newest is known.
func newLoadDropsReceipts(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s := r.open(r.Destination, 1)
	l := r.load(1, r.mode, "orders", 2)
	require.NoError(t, s.Begin(r.ctx, l))
	for i, p := range l.Parts {
		w, _ := r.writer(s, p, 1, messages.Attempt(i+1))
		r.write(w, NumberRows(1+10*i, 3))
		r.commit(w, messages.BarrierEnd, 3, 3)
	}
	require.NoError(t, s.Finish(r.ctx, l.ID))
	next := r.load(2, r.mode, "orders", 1)
	require.NoError(t, s.Begin(r.ctx, next))
	got := r.open(r.restart(), 2)
	require.Len(t, got.Recovered().Loads, 1)
	require.Equal(t, next.ID, got.Recovered().Loads[0].ID)
	require.False(t, got.Recovered().Loads[0].Finished, "the new load is not finished")
	require.Len(t, got.Recovered().Receipts, 1, "receipts of the old load are gone")
	require.Equal(t, messages.Version{Load: 2}, got.Recovered().Receipts[0].Version)
	require.Len(t, got.Recovered().Parts, 1, "parts of the old load are gone")
	r.sees("orders", append(texts(NumberRows(1, 3)), texts(NumberRows(11, 3))...), "rows of the finished load stay")
	w, _, err := got.OpenWriter(r.ctx, l.Parts[1], messages.Token{Epoch: 2, Attempt: 1})
	if err == nil {
		_ = w.Close(r.ctx)
		t.Errorf("a writer was opened for a part of the old load")
	}
}

// finishWaitsForEveryPart: a load is complete only when all its parts are final
// (rule 5).
func finishWaitsForEveryPart(t T, f DestinationFactory) {
	for _, mode := range f.Modes {
		r := newDestRig(t, f)
		s := r.open(r.Destination, 1)
		l := r.load(1, mode, "orders", 2)
		require.NoError(t, s.Begin(r.ctx, l))
		early := func(when string) {
			if err := s.Finish(r.ctx, l.ID); err == nil {
				t.Errorf("mode %s: finish succeeded %s", mode, when)
			}
		}
		early("before any commit")
		first, _ := r.writer(s, l.Parts[0], 1, 1)
		r.write(first, NumberRows(1, 5))
		r.commit(first, messages.BarrierEnd, 5, 5)
		early("with one of two parts final")
		second, _ := r.writer(s, l.Parts[1], 1, 2)
		r.write(second, NumberRows(11, 5))
		r.commit(second, messages.BarrierPeriodic, 5, 5)
		early("with a part whose barrier was periodic")
		r.commit(second, messages.BarrierEnd, 5, 0)
		if err := s.Finish(r.ctx, messages.LoadID{Name: "orders", Number: 7}); err == nil {
			t.Errorf("mode %s: a load that was never begun was finished", mode)
		}
		require.NoError(t, s.Finish(r.ctx, l.ID))
		r.sees("orders", append(texts(NumberRows(1, 5)), texts(NumberRows(11, 5))...), "after finish in mode "+string(mode))
	}
}

// finishIsRepeatable: also in the next process.
func finishIsRepeatable(t T, f DestinationFactory) {
	for _, mode := range f.Modes {
		r := newDestRig(t, f)
		s, l := r.begun(mode)
		w, _ := r.writer(s, l.Parts[0], 1, 1)
		r.write(w, NumberRows(1, 5))
		want := r.commit(w, messages.BarrierEnd, 5, 5)
		for range 2 {
			require.NoError(t, s.Finish(r.ctx, l.ID))
		}
		next := r.open(r.restart(), 2)
		found := next.Recovered()
		require.Len(t, found.Loads, 1)
		require.True(t, found.Loads[0].Finished, "mode %s: the mark is there in the next process", mode)
		require.Equal(t, []messages.Receipt{want}, found.Receipts, "mode %s: a finished load keeps its receipts", mode)
		require.NoError(t, next.Finish(r.ctx, l.ID))
		r.sees("orders", texts(NumberRows(1, 5)), fmt.Sprintf("mode %s: after finishing again", mode))
	}
}

// replaceSwapsWhole: a reader sees the whole old version or the whole new one, and
// staging is invisible (I5).
func replaceSwapsWhole(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	if !r.supports(connectors.ModeReplace) {
		return
	}
	s := r.open(r.Destination, 1)
	versions := [][]string{nil}
	for v := range 3 {
		l := r.load(uint64(v+1), connectors.ModeReplace, "orders", 2)
		require.NoError(t, s.Begin(r.ctx, l))
		r.sees("orders", versions[v], "after begin of the next version")
		whole := texts(NumberRows(1+1000*v, 40))
		seen := r.watch("orders", versions[v], whole)
		for i, p := range l.Parts {
			w, _ := r.writer(s, p, 1, messages.Attempt(10*v+i+1))
			for c := range 2 {
				r.write(w, NumberRows(1+1000*v+20*i+10*c, 10))
				kind := messages.BarrierPeriodic
				if c == 1 {
					kind = messages.BarrierEnd
				}
				r.commit(w, kind, int64(10*(c+1)), 10)
				r.sees("orders", versions[v], "after a commit into staging")
			}
			require.NoError(t, w.Close(r.ctx))
		}
		require.NoError(t, s.Finish(r.ctx, l.ID))
		r.sees("orders", whole, "after finish")
		seen()
		versions = append(versions, whole)
	}
}

// watch reads target in the background; the returned function stops it and fails
// the check if it ever saw something that is neither old nor new.
func (r *destRig) watch(target string, old, new []string) (stop func()) {
	if r.Rows == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for went := false; ; {
			rows := r.Rows(r.t, target)
			a, b := Difference(old, rows)
			c, d := Difference(new, rows)
			switch {
			case len(c)+len(d) == 0:
				went = true
			case len(a)+len(b) == 0 && !went:
			default:
				r.t.Errorf("a reader saw %d rows, neither the old version of %d nor the new one of %d, or the old one again", len(rows), len(old), len(new))
				return
			}
			select {
			case <-quit:
				return
			default:
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(quit); <-done })
	r.t.Cleanup(stop)
	return stop
}

// partsInParallel: parts of one stream and of several, each with its own writer.
func partsInParallel(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s := r.open(r.Destination, 1)
	streams := []messages.StreamID{"orders", "customers"}
	const parts, commits, rows = 3, 4, 5
	want := make(map[messages.StreamID][]string)
	type job struct {
		stream messages.StreamID
		writer connectors.Writer
		from   int
	}
	var jobs []job
	for i, stream := range streams {
		l := r.load(1, r.mode, stream, parts)
		require.NoError(t, s.Begin(r.ctx, l))
		for k, p := range l.Parts {
			w, _ := r.writer(s, p, 1, messages.Attempt(1+i*parts+k))
			jobs = append(jobs, job{stream, w, 1 + 1000*k})
			want[stream] = append(want[stream], texts(NumberRows(1+1000*k, commits*rows))...)
		}
	}
	last := make([]messages.Receipt, len(jobs))
	failed := make([]error, len(jobs))
	var all sync.WaitGroup
	for i, j := range jobs {
		batches := make([]messages.Batch, commits)
		for c := range batches {
			batches[c] = r.batch(j.stream, NumberRows(j.from+c*rows, rows))
		}
		all.Go(func() {
			for c, b := range batches {
				kind := messages.BarrierPeriodic
				if c == commits-1 {
					kind = messages.BarrierEnd
				}
				if failed[i] != nil {
					Release(b)
					continue
				}
				if failed[i] = j.writer.Write(r.ctx, b); failed[i] == nil {
					last[i], failed[i] = j.writer.Commit(r.ctx, barrier(kind, int64(c+1), rows))
				}
			}
		})
	}
	all.Wait()
	for i := range jobs {
		require.NoError(t, failed[i], "writer %d", i)
	}
	for _, stream := range streams {
		require.NoError(t, s.Finish(r.ctx, messages.LoadID{Name: string(stream), Number: 1}))
		r.sees(string(stream), want[stream], "after parallel commits")
	}
	require.ElementsMatch(t, last, r.open(r.restart(), 2).Recovered().Receipts)
}
