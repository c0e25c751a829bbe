package conntest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// memoryRig begins one load at a memory destination.
func memoryRig(t *testing.T, d *MemoryDestination) *destRig {
	t.Helper()
	return newDestRig(t, destinations(func(fresh *MemoryDestination) connectors.Destination {
		fresh.WriteFn, fresh.CommitFn, fresh.CommittedFn = d.WriteFn, d.CommitFn, d.CommittedFn
		return fresh
	}))
}

// The rows are there, the reply is not: the next writer finds out.
func TestLostReplyIsResolvedByTheNextWriter(t *testing.T) {
	r := memoryRig(t, &MemoryDestination{CommittedFn: FailNth(1, errors.New("connection reset"))})
	s, l := r.begun(connectors.ModeAppend)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 3))
	_, err := w.Commit(t.Context(), barrier(messages.BarrierPeriodic, 3, 3))
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok)
	require.Equal(t, connectors.CommitUnknown, e.Commit)
	require.Equal(t, connectors.KindTransient, e.Kind)
	r.sees("orders", texts(NumberRows(1, 3)), "after the lost reply")
	_, receipt := r.writer(s, l.Parts[0], 1, 2)
	require.Equal(t, messages.Version{Load: 1, Commit: 1}, receipt.Version)
	require.Equal(t, messages.Int64Cursor(3), receipt.Position.At)
}

// A node that stands still in its commit wakes up when another one owns the part.
func TestFrozenWriterIsFencedWhenItWakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := NewGate()
		r := memoryRig(t, &MemoryDestination{CommitFn: Nth(1, gate.Hook())})
		s, l := r.begun(connectors.ModeAppend)
		zombie, _ := r.writer(s, l.Parts[0], 1, 1)
		r.write(zombie, NumberRows(1, 3))
		done := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := zombie.Commit(ctx, barrier(messages.BarrierPeriodic, 3, 3))
			done <- err
		}()
		<-gate.Arrived()
		cancel() // not even that wakes it
		owner, _ := r.writer(r.open(r.Destination, 2), l.Parts[0], 2, 1)
		r.write(owner, NumberRows(1, 5))
		r.commit(owner, messages.BarrierPeriodic, 5, 5)
		gate.Open()
		require.Error(t, <-done)
		r.sees("orders", texts(NumberRows(1, 5)), "the rows of the owner only")

		again, _ := r.writer(r.sessions[1], l.Parts[0], 2, 2)
		r.write(again, NumberRows(6, 1))
		r.commit(again, messages.BarrierEnd, 6, 1)
	})
}

func TestHooksInjectFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		call := func(h Hook, n int) error { return h(t.Context(), Call{N: n}) }
		require.NoError(t, call(FailNth(2, boom), 1))
		require.ErrorIs(t, call(FailNth(2, boom), 2), boom)
		require.NoError(t, call(FailNth(2, boom), 3))

		started := time.Now()
		require.NoError(t, call(Delay(time.Hour), 1))
		require.Equal(t, time.Hour, time.Since(started))

		gone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, gone)
		defer cancel()
		require.ErrorIs(t, Delay(time.Hour)(ctx, Call{}), gone)
		require.ErrorIs(t, Hang()(ctx, Call{}), gone)
		require.Equal(t, time.Hour+time.Minute, time.Since(started))
	})
}

// A source that follows is a log: it ends by drain only, and is told what it may forget.
func TestFollowingSourceWaitsForRowsAndDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := NewMemorySource(Numbers("orders", 3))
		source.Follow = true
		scan, err := source.Scan(t.Context(), connectors.ScanRequest{Streams: Specs(connectors.SyncIncremental, connectors.ModeAppend, "orders"), Splits: 1})
		require.NoError(t, err)
		part := scan.Plan().Loads[0].Parts[0]
		reader, err := source.Open(t.Context(), connectors.ReadRequest{Part: part, Limits: small, Mem: goAllocator})
		require.NoError(t, err)
		e := &Emitter{Part: part.ID, Sink: func(_ context.Context, it messages.Item) error {
			if d, ok := it.(messages.Data); ok {
				Release(d)
			}
			return nil
		}}
		done := make(chan error)
		go func() { done <- reader.Read(t.Context(), e) }()
		synctest.Wait()
		source.Append("orders", NumberRows(4, 6)...)
		synctest.Wait()
		e.Drain()
		require.NoError(t, <-done)
		require.Equal(t, int64(9), e.Total())
		kind, ended := e.Ended()
		require.True(t, ended)
		require.Equal(t, messages.BarrierDrain, kind)

		_, told := source.Confirmed(part.ID)
		require.False(t, told)
		confirmer, ok := reader.(connectors.Confirmer)
		require.True(t, ok)
		confirmer.Confirm(messages.Position{At: messages.Int64Cursor(9)})
		at, told := source.Confirmed(part.ID)
		require.True(t, told)
		require.Equal(t, messages.Int64Cursor(9), at.At)
	})
}

func TestFailedWriterGoesNoFurther(t *testing.T) {
	r := memoryRig(t, &MemoryDestination{WriteFn: FailNth(1, errors.New("disk on fire"))})
	s, l := r.begun(connectors.ModeAppend)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	require.Error(t, w.Write(t.Context(), r.batch("orders", NumberRows(1, 3))))
	err := w.Write(t.Context(), r.batch("orders", NumberRows(4, 3)))
	require.ErrorContains(t, err, "disk on fire")
	_, err = w.Commit(t.Context(), barrier(messages.BarrierEnd, 6, 6))
	require.ErrorContains(t, err, "disk on fire")
	r.sees("orders", nil, "after failed writes")
}
