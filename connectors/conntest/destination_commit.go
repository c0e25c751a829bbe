package conntest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// nothingBeforeCommit: what is written is not visible (rule 4).
func nothingBeforeCommit(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	r.sees("orders", nil, "after begin")
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 10))
	r.sees("orders", nil, "after write, before commit")
	r.commit(w, messages.BarrierPeriodic, 10, 10)
	r.sees("orders", texts(NumberRows(1, 10)), "after commit")
	r.write(w, NumberRows(11, 5))
	r.sees("orders", texts(NumberRows(1, 10)), "after the next write, before its commit")
}

// commitShowsRowsAndReceipt: when Commit returns, rows and receipt are there for
// everybody, also for the next process (rule 4; an ack is never early).
func commitShowsRowsAndReceipt(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 10))
	r.commit(w, messages.BarrierPeriodic, 10, 10)
	r.sees("orders", texts(NumberRows(1, 10)), "when the first commit returned")
	r.write(w, NumberRows(11, 7))
	want := r.commit(w, messages.BarrierPeriodic, 17, 7)
	r.sees("orders", texts(NumberRows(1, 17)), "when the second commit returned")

	next := r.open(r.restart(), 2)
	r.sees("orders", texts(NumberRows(1, 17)), "in the next process")
	require.Equal(t, []messages.Receipt{want}, next.Recovered().Receipts, "receipts of the next process")
}

// receiptCopiesBarrier: the receipt carries the barrier and its writer, and its
// version grows by one commit each (rules 1, 2).
func receiptCopiesBarrier(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, begun := r.writer(s, l.Parts[0], 1, 7)
	require.Equal(t, messages.Version{Load: 1, Commit: 0}, begun.Version, "version of a begun part")
	require.True(t, begun.Position.Equal(messages.Position{}), "a begun part has no position, got %+v", begun.Position)
	require.False(t, begun.Final, "a begun part is not final")
	require.Equal(t, l.Parts[0].ID, begun.Part)
	require.Equal(t, l.ID, begun.LoadID())

	rich := messages.Position{
		At: messages.TupleCursor(messages.Int64Cursor(-5), messages.Cursor{Type: messages.CursorText, Value: "é'\"\\\n{}|日本"}),
		Streams: []messages.StreamCursor{
			{Stream: "orders", State: messages.StreamSnapshot, At: messages.LSNCursor(1<<63 + 1)},
		},
	}
	for i, b := range []messages.Barrier{
		{Kind: messages.BarrierPeriodic, Position: rich, Rows: 4},
		{Kind: messages.BarrierDrain, Position: messages.Position{At: messages.Int64Cursor(8)}, Rows: 4},
		{Kind: messages.BarrierEnd, Position: messages.Position{At: messages.Int64Cursor(12)}, Rows: 4},
	} {
		r.write(w, NumberRows(1+4*i, 4))
		got, err := w.Commit(r.ctx, b)
		require.NoError(t, err)
		n := int64(4 * (i + 1))
		require.Equal(t, messages.Receipt{
			Part: l.Parts[0].ID, Load: "orders", Version: messages.Version{Load: 1, Commit: uint64(i + 1)},
			Token: messages.Token{Epoch: 1, Attempt: 7}, Position: b.Position, Final: b.Kind == messages.BarrierEnd,
			Rows: messages.Counts{Read: n, Arrived: n, Applied: n},
		}, got, "receipt of commit %d", i+1)
	}
}

// emptyCommitAdvances: a barrier whose rows were all filtered out moves the
// receipt (rule 3).
func emptyCommitAdvances(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	got := r.commit(w, messages.BarrierPeriodic, 50, 50)
	require.Equal(t, uint64(1), got.Version.Commit)
	require.Equal(t, messages.Counts{Read: 50}, got.Rows)
	got = r.commit(w, messages.BarrierEnd, 60, 10)
	require.Equal(t, messages.Counts{Read: 60}, got.Rows)
	require.True(t, got.Final)
	require.Equal(t, []messages.Receipt{got}, r.open(r.restart(), 2).Recovered().Receipts)
	r.sees("orders", nil, "after empty commits")
}

// closeDropsUncommitted: Close without Commit leaves nothing (rule 4).
func closeDropsUncommitted(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 10))
	want := r.commit(w, messages.BarrierPeriodic, 10, 10)
	r.write(w, NumberRows(11, 10))
	require.NoError(t, w.Close(r.ctx))
	r.sees("orders", texts(NumberRows(1, 10)), "after close without commit")

	w, got := r.writer(s, l.Parts[0], 1, 2)
	want.Token, got.Token = messages.Token{}, messages.Token{}
	require.Equal(t, want, got, "receipt after close without commit")
	r.write(w, NumberRows(11, 2))
	last := r.commit(w, messages.BarrierEnd, 12, 2)
	require.Equal(t, messages.Version{Load: 1, Commit: 2}, last.Version)
	require.Equal(t, messages.Counts{Read: 12, Arrived: 12, Applied: 12}, last.Rows, "what was dropped is not counted")
	r.sees("orders", texts(NumberRows(1, 12)), "after the second writer")
}

// closeIsIdempotent: closing twice is harmless, for a writer and a session.
func closeIsIdempotent(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 3))
	for range 2 {
		require.NoError(t, w.Close(r.ctx), "close a writer")
	}
	for range 2 {
		require.NoError(t, s.Close(r.ctx), "close a session")
	}
}

// cancelIsPrompt: a cancelled call comes back soon and does not hide why (rule 11),
// and what it left behind is found out by the next writer (rule 9).
func cancelIsPrompt(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	gone := errors.New("the operator went away")
	ctx, cancel := context.WithCancelCause(r.ctx)
	cancel(gone)

	w, _ := r.writer(s, l.Parts[0], 1, 1)
	var err error
	returns(t, "write with a cancelled context", func() { err = w.Write(ctx, r.batch("orders", NumberRows(1, 5))) })
	shows(t, err, gone, "write")
	require.NoError(t, w.Close(r.ctx))

	w, before := r.writer(s, l.Parts[0], 1, 2)
	r.write(w, NumberRows(1, 5))
	returns(t, "commit with a cancelled context", func() { _, err = w.Commit(ctx, barrier(messages.BarrierPeriodic, 5, 5)) })
	shows(t, err, gone, "commit")
	returns(t, "close with a cancelled context", func() { _ = w.Close(ctx) })
	_, after := r.writer(s, l.Parts[0], 1, 3)
	want := texts(NumberRows(1, 5))
	if after.Version == before.Version {
		want = nil
	}
	r.sees("orders", want, fmt.Sprintf("at commit %d, which the cancelled commit left", after.Version.Commit))
}

// shows requires that err, if there is one, says that the call was cancelled.
func shows(t T, err, cause error, what string) {
	t.Helper()
	if err != nil && !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled %s: the error hides the cancellation: %v", what, err)
	}
}

// batchesReleasedOnce: every path gives up the batch exactly once.
func batchesReleasedOnce(t T, f DestinationFactory) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	paths := map[string]func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data){
		"commit": func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data) {
			w, _ := r.writer(s, l.Parts[0], 1, 1)
			require.NoError(t, w.Write(r.ctx, d))
			r.commit(w, messages.BarrierEnd, 5, 5)
		},
		"close": func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data) {
			w, _ := r.writer(s, l.Parts[0], 1, 1)
			require.NoError(t, w.Write(r.ctx, d))
		},
		"cancel": func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data) {
			w, _ := r.writer(s, l.Parts[0], 1, 1)
			_ = w.Write(cancelled, d)
		},
		"fence": func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data) {
			w, _ := r.writer(s, l.Parts[0], 1, 1)
			r.writer(s, l.Parts[0], 1, 2)
			_ = w.Write(r.ctx, d)
		},
		"unknown stream": func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data) {
			w, _ := r.writer(s, l.Parts[0], 1, 1)
			b, _ := d.(messages.Batch)
			b.Stream = "nobody"
			if err := w.Write(r.ctx, b); err == nil {
				t.Errorf("a batch of a stream that the load does not have was taken")
			}
		},
		"rejected": func(r *destRig, s connectors.Session, l connectors.Load, d messages.Data) {
			w, _ := r.writer(s, l.Parts[0], 1, 1)
			b, _ := d.(messages.Batch)
			_ = w.Write(r.ctx, messages.Rejected{Stream: b.Stream, Reason: "test", Rows: b.Rows})
		},
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		r := newDestRig(t, f)
		s, l := r.begun(r.mode)
		b := r.batch("orders", NumberRows(1, 5))
		b.Rows.Retain() // ours, to see a second release
		paths[name](r, s, l, b)
		r.closeAll()
		if freed(b.Rows) {
			t.Errorf("path %s: the batch was released twice", name)
			continue
		}
		b.Rows.Release()
		if n := r.mem.CurrentAlloc(); n != 0 {
			t.Errorf("path %s: leaked batch of %d bytes", name, n)
		}
	}
}
