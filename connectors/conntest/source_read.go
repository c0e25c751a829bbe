package conntest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const resumesMax = 40 // barriers of one part from which the check resumes

// everyRowOnce: whatever the splits and limits, all parts together give each row
// once.
func everyRowOnce(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	want := r.Rows(t)
	for _, splits := range []int{1, 2, 5, 100} {
		p := r.scan(r.Source, r.request(splits))
		for name, limits := range map[string]connectors.Limits{
			"large": large, "tiny": tiny, "7 rows": {BatchRows: 7, BatchBytes: 1 << 20, RowBytes: 1 << 20},
			"64 bytes": {BatchRows: 1 << 20, BatchBytes: 64, RowBytes: 1 << 20},
		} {
			if f.Unbounded != "" {
				limits = large
			}
			r.same(want, r.readAll(p, limits), fmt.Sprintf("%d splits, %s batches", splits, name))
		}
	}
}

// partsAreIndependent: parts are read at the same time, by readers of two nodes.
func partsAreIndependent(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	p := r.scan(r.Source, r.request(4))
	rigs := []*sourceRig{r, {Origin: r.Origin, t: t, f: f, mem: r.mem}}
	rigs[1].Source = r.other()
	got, failed := make(map[messages.StreamID][]string), error(nil)
	var mu sync.Mutex
	var all sync.WaitGroup
	n := 0
	for _, l := range p.Loads {
		for _, part := range l.Parts {
			rig := rigs[n%2]
			n++
			all.Go(func() {
				a, err := rig.try(t.Context(), reading{part: part, plan: l, limits: tiny, every: 2})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = err
				}
				for stream, rows := range a.rows {
					got[stream] = append(got[stream], rows...)
				}
			})
		}
	}
	all.Wait()
	require.NoError(t, failed)
	r.same(r.Rows(t), got, "parts read at the same time")
}

// resumeIsExact: from the position of every barrier the rest of the part follows,
// no row lost, none doubled (rule 2).
func resumeIsExact(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	for _, splits := range []int{1, 3} {
		p := r.scan(r.Source, r.request(splits))
		for _, l := range p.Loads {
			for _, part := range l.Parts {
				r.resumes(l, part, tiny, 1)
				r.resumes(l, part, connectors.Limits{BatchRows: 7, BatchBytes: 1 << 20, RowBytes: 1 << 20}, 5)
				if t.Failed() {
					return
				}
			}
		}
	}
}

// resumes reads a part whole, then from the barriers that it gave.
func (r *sourceRig) resumes(l connectors.Load, part connectors.Part, limits connectors.Limits, every int64) {
	r.t.Helper()
	whole := r.read(reading{part: part, plan: l, limits: limits, every: every})
	for _, m := range spread(whole.barriers, resumesMax) {
		want := make(map[messages.StreamID][]string)
		for stream, rows := range whole.rows {
			want[stream] = rows[m.before[stream]:]
		}
		other := *r
		other.Source = r.other()
		rest := other.read(reading{part: part, plan: l, from: m.barrier.Position, limits: large})
		r.same(want, rest.rows, fmt.Sprintf("part %s resumed from %+v", part.ID, m.barrier.Position))
		require.Equal(r.t, messages.BarrierEnd, rest.kind, "a resumed part ends")
	}
}

// barriersAreDue: a source asks Due where its position is exact and answers soon.
func barriersAreDue(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	part, load, rows := r.biggest(r.scan(r.Source, r.request(1)))
	a := r.read(reading{part: part, plan: load, limits: tiny, every: 1})
	allowed := f.drainRows()
	last := 0
	for _, m := range a.barriers {
		n := 0
		for _, before := range m.before {
			n += before
		}
		if gap := int64(n - last); gap > allowed+1 {
			t.Errorf("%d rows between two barriers, each was due after 1 row; at most %d were promised", gap, allowed)
		}
		last = n
	}
	require.Equal(t, rows, last, "the last barrier covers every row")
	quiet := r.read(reading{part: part, plan: load, limits: tiny})
	require.Len(t, quiet.barriers, 1, "nobody asked for a barrier: only the one at the end")
}

func (f SourceFactory) drainRows() int64 { return max(f.DrainRows, 2) }

// endsWithEndBarrier: exactly one, as the last item, also of an empty rest.
func endsWithEndBarrier(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	for _, l := range r.scan(r.Source, r.request(2)).Loads {
		for _, part := range l.Parts {
			a := r.read(reading{part: part, plan: l, limits: large})
			require.Equal(t, messages.BarrierEnd, a.kind, "part %s", part.ID)
			end := a.barriers[len(a.barriers)-1].barrier
			rest := r.read(reading{part: part, plan: l, from: end.Position, limits: large})
			require.Equal(t, messages.BarrierEnd, rest.kind, "part %s from its end", part.ID)
			require.Equal(t, 1, rest.items, "part %s from its end: the barrier is all there is", part.ID)
		}
	}
}

// drainStopsExactly: a drain gets its barrier soon, Read returns nil, and the rest
// follows from there.
func drainStopsExactly(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	part, load, total := r.biggest(r.scan(r.Source, r.request(1)))
	for _, after := range []int{0, 1, total / 2} {
		var before int64
		g := reading{part: part, plan: load, limits: tiny}
		g.onItem = func(_ messages.Item, e *Emitter) error {
			if before = e.Total(); before >= int64(after) {
				e.Drain()
			}
			return nil
		}
		a := r.read(g)
		require.Equal(t, messages.BarrierDrain, a.kind, "drain after %d of %d rows", after, total)
		stopped := a.barriers[len(a.barriers)-1]
		n := 0
		for _, rows := range stopped.before {
			n += rows
		}
		if int64(n) > int64(max(after, 1))+f.drainRows() {
			t.Errorf("drain after %d rows stopped after %d of %d", after, n, total)
		}
		rest := r.read(reading{part: part, plan: load, from: stopped.barrier.Position, limits: large})
		all := make(map[messages.StreamID][]string)
		for _, rows := range []map[messages.StreamID][]string{a.rows, rest.rows} {
			for stream := range rows {
				all[stream] = append(all[stream], rows[stream]...)
			}
		}
		r.same(r.read(reading{part: part, plan: load, limits: large}).rows, all, "drained and resumed")
	}
}

// batchesAreWithinLimits: rows, bytes, and a row that is too large is named.
func batchesAreWithinLimits(t T, f SourceFactory) {
	if f.Unbounded != "" {
		t.Logf("limits are not honoured: %s", f.Unbounded)
		return
	}
	r := newSourceRig(t, f)
	part, load, _ := r.biggest(r.scan(r.Source, r.request(1)))
	for _, limits := range []connectors.Limits{
		tiny,
		{BatchRows: 3, BatchBytes: 1 << 20, RowBytes: 1 << 20},
		{BatchRows: 1000, BatchBytes: 1, RowBytes: 1 << 20},
		{BatchRows: 1000, BatchBytes: 200, RowBytes: 1 << 20},
	} {
		r.read(reading{part: part, plan: load, limits: limits}) // shape checks every batch
	}
	_, err := r.try(t.Context(), reading{part: part, plan: load, limits: connectors.Limits{BatchRows: 10, BatchBytes: 1 << 20, RowBytes: 1}})
	e, ok := errors.AsType[*connectors.Error](err)
	if !ok || e.Code != messages.CodeRowTooLarge || e.Kind != connectors.KindData {
		t.Errorf("a row over RowBytes: want kind data and code %s, got %v", messages.CodeRowTooLarge, err)
	}
}

// emitterErrorComesBack: Read stops at once and returns it as it is (rule 11).
func emitterErrorComesBack(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	part, load, _ := r.biggest(r.scan(r.Source, r.request(1)))
	down := errors.New("the writer gave up")
	for n := 1; n <= 5; n++ {
		items := 0
		_, err := r.try(t.Context(), reading{part: part, plan: load, limits: tiny, every: 2, onItem: func(messages.Item, *Emitter) error {
			if items++; items == n {
				return down
			}
			return nil
		}})
		if err != down { //nolint:errorlint // as it is: not wrapped
			t.Errorf("item %d failed: read returned %v, want the emitter's error as it is", n, err)
		}
	}
}

// cancelledReadIsPrompt: Read comes back when its context ends, also while it waits
// for credit, does not hide why, and Close may run at the same time.
func cancelledReadIsPrompt(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	part, load, _ := r.biggest(r.scan(r.Source, r.request(1)))
	gone := errors.New("the operator went away")
	for _, blocked := range []bool{true, false} {
		ctx, cancel := context.WithCancelCause(t.Context())
		reader, err := r.Source.Open(ctx, r.readRequest(reading{part: part, plan: load, limits: tiny}))
		require.NoError(t, err)
		e := &Emitter{Part: part.ID, Token: messages.Token{Epoch: 1, Attempt: 1}, Sink: func(ctx context.Context, it messages.Item) error {
			if d, ok := it.(messages.Data); ok {
				Release(d)
			}
			cancel(gone)
			if blocked { // as an emitter without credit
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}}
		var closing sync.WaitGroup
		returned := returns(t, "a cancelled read", func() {
			closing.Go(func() {
				<-ctx.Done()
				if err := reader.Close(context.WithoutCancel(ctx)); err != nil {
					t.Errorf("close while a cancelled read runs: %v", err)
				}
			})
			err = reader.Read(ctx, e)
			closing.Wait()
		})
		cancel(gone)
		if !returned {
			return
		}
		if err == nil {
			t.Errorf("a cancelled read returned nil")
		}
		shows(t, err, gone, "read")
	}
}

// readerCloseIsIdempotent: before, without and after Read.
func readerCloseIsIdempotent(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	part, load, _ := r.biggest(r.scan(r.Source, r.request(1)))
	for _, read := range []bool{false, true} {
		reader, err := r.Source.Open(t.Context(), r.readRequest(reading{part: part, plan: load, limits: large}))
		require.NoError(t, err)
		if read {
			e := &Emitter{Part: part.ID, Sink: func(_ context.Context, it messages.Item) error {
				if d, ok := it.(messages.Data); ok {
					Release(d)
				}
				return nil
			}}
			require.NoError(t, reader.Read(t.Context(), e))
		}
		for range 2 {
			require.NoError(t, reader.Close(t.Context()), "close, read before: %v", read)
		}
	}
	scan, err := r.Source.Scan(t.Context(), r.request(1))
	require.NoError(t, err)
	require.NoError(t, scan.Close(t.Context()))
}

// sourceBatchesReleasedOnce: what was emitted belongs to the emitter, also when it
// fails; nothing else stays.
func sourceBatchesReleasedOnce(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	part, load, _ := r.biggest(r.scan(r.Source, r.request(1)))
	for _, failAt := range []int{0, 1, 3} {
		var kept holder
		items, down := 0, errors.New("the writer gave up")
		reader, err := r.Source.Open(t.Context(), r.readRequest(reading{part: part, plan: load, limits: connectors.Limits{BatchRows: 4, BatchBytes: 1 << 20, RowBytes: 1 << 20}}))
		require.NoError(t, err)
		e := &Emitter{Part: part.ID, Sink: func(_ context.Context, it messages.Item) error {
			items++
			if b, ok := it.(messages.Batch); ok {
				kept.keep(b.Rows)
				Release(b)
			}
			if items == failAt {
				return down
			}
			return nil
		}}
		err = reader.Read(t.Context(), e)
		require.Equal(t, failAt > 0, errors.Is(err, down), "read: %v", err)
		require.NoError(t, reader.Close(t.Context()))
		if kept.freed() {
			t.Errorf("a batch was released twice (emit failed at item %d)", failAt)
			return
		}
		kept.release()
		if n := r.mem.CurrentAlloc(); n != 0 {
			t.Errorf("leaked batch: %d bytes stay after close (emit failed at item %d)", n, failAt)
			return
		}
	}
}
