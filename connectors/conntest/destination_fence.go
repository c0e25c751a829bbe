package conntest

import (
	"errors"
	"fmt"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// openIsRepeatable: opening again with the same epoch changes nothing.
func openIsRepeatable(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	first := r.open(r.Destination, 3).Recovered()
	require.Empty(t, first.Loads, "a fresh target knows no load")
	require.Empty(t, first.Receipts, "a fresh target has no receipt")
	require.Empty(t, first.Parts, "a fresh target knows no part")
	s := r.open(r.Destination, 3)
	l := r.load(1, r.mode, "orders", 1)
	require.NoError(t, s.Begin(r.ctx, l))
	w, _ := r.writer(s, l.Parts[0], 3, 1)
	r.write(w, NumberRows(1, 4))
	want := r.commit(w, messages.BarrierPeriodic, 4, 4)
	for range 2 {
		require.Equal(t, []messages.Receipt{want}, r.open(r.Destination, 3).Recovered().Receipts)
	}
	r.write(w, NumberRows(5, 2))
	r.commit(w, messages.BarrierPeriodic, 6, 2) // a second session of the same epoch fences nobody
	r.sees("orders", texts(NumberRows(1, 6)), "after sessions of the same epoch")
}

// lowerEpochIsRefused: Open says who owns the pipeline (rule 10), also to one who
// drew the same epoch elsewhere.
func lowerEpochIsRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	r.open(r.Destination, 5)
	refuse := func(d connectors.Destination, epoch messages.Epoch, when string) {
		s, err := d.Open(r.ctx, r.request(epoch))
		if s != nil && err == nil {
			_ = s.Close(r.ctx)
		}
		when = fmt.Sprintf("open with epoch %d %s", epoch, when)
		fenced(t, err, when)
		if other, ok := errors.AsType[*connectors.FencedError](err); ok {
			require.Equal(t, messages.Epoch(5), other.Registered.Epoch, "the error names the owner")
		} else if err != nil {
			t.Errorf("%s: want a FencedError that names the owner, got %v", when, err)
		}
	}
	refuse(r.Destination, 4, "here")
	refuse(r.restart(), 4, "in another process")
	refuse(r.restart(), 5, "by somebody who does not join: a copied state store drew the same one")
	r.open(r.Destination, 5)
	r.open(r.Destination, 6)
}

// foreignStoreIsRefused: another state store cannot take the pipeline over by
// accident.
func foreignStoreIsRefused(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	r.open(r.Destination, 1)
	d := r.restart()
	request := connectors.SessionRequest{Pipeline: pipeline, Epoch: 2, Store: "another-store"}
	s, err := d.Open(r.ctx, request)
	if err == nil {
		_ = s.Close(r.ctx)
		t.Errorf("open for another state store: want it refused, it succeeded")
	} else {
		e, ok := errors.AsType[*connectors.Error](err)
		if !ok || e.Code != messages.CodeDestForeign {
			t.Errorf("open for another state store: want code %s, got %v", messages.CodeDestForeign, err)
		}
	}
	r.open(d, 2) // ours still opens
	request.Epoch, request.Adopt = 3, true
	s, err = d.Open(r.ctx, request)
	require.NoError(t, err, "adopt")
	r.sessions = append(r.sessions, s)
}

// otherPipelinesAreApart: pipelines of one target do not see each other.
func otherPipelinesAreApart(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	w, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 3))
	r.commit(w, messages.BarrierPeriodic, 3, 3)
	request := r.request(9)
	request.Pipeline = "conntest-other"
	other, err := r.Destination.Open(r.ctx, request)
	require.NoError(t, err)
	r.sessions = append(r.sessions, other)
	require.Empty(t, other.Recovered().Receipts, "receipts of another pipeline")
	r.write(w, NumberRows(4, 1))
	r.commit(w, messages.BarrierEnd, 4, 1) // epoch 9 of another pipeline fences nobody here
	r.sees("orders", texts(NumberRows(1, 4)), "after another pipeline opened")
}

// olderAttemptIsFenced: opening a writer ends every other writer of the part
// (rules 1, 9, 10), and of that part only.
func olderAttemptIsFenced(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s := r.open(r.Destination, 1)
	l := r.load(1, r.mode, "orders", 2)
	require.NoError(t, s.Begin(r.ctx, l))
	zombie, _ := r.writer(s, l.Parts[0], 1, 1)
	other, _ := r.writer(s, l.Parts[1], 1, 2)
	r.write(zombie, NumberRows(1, 5))
	owner, _ := r.writer(s, l.Parts[0], 1, 3)

	err := zombie.Write(r.ctx, r.batch("orders", NumberRows(6, 1)))
	if err == nil { // it may find out at its commit only
		_, err = zombie.Commit(r.ctx, barrier(messages.BarrierPeriodic, 5, 5))
	}
	fenced(t, err, "commit of an older attempt")
	r.sees("orders", nil, "after the commit of an older attempt")
	require.NoError(t, zombie.Close(r.ctx), "close a fenced writer")

	r.write(owner, NumberRows(1, 5))
	r.commit(owner, messages.BarrierPeriodic, 5, 5)
	r.write(other, NumberRows(101, 2))
	r.commit(other, messages.BarrierPeriodic, 2, 2)
	r.sees("orders", append(texts(NumberRows(1, 5)), texts(NumberRows(101, 2))...), "after the commits of the owners")

	late, _, err := s.OpenWriter(r.ctx, l.Parts[0], messages.Token{Epoch: 1, Attempt: 2})
	if err == nil {
		_ = late.Close(r.ctx)
	}
	fenced(t, err, "open a writer with an older attempt")
	r.write(owner, NumberRows(6, 1))
	r.commit(owner, messages.BarrierEnd, 6, 1)
}

// olderAttemptIsFencedAfterCommit: also a zombie that knows the newest commit
// number writes nothing.
func olderAttemptIsFencedAfterCommit(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	zombie, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(zombie, NumberRows(1, 5))
	r.commit(zombie, messages.BarrierPeriodic, 5, 5)
	owner, receipt := r.writer(s, l.Parts[0], 1, 2)
	require.Equal(t, uint64(1), receipt.Version.Commit)
	_, err := zombie.Commit(r.ctx, barrier(messages.BarrierPeriodic, 6, 1))
	fenced(t, err, "empty commit of an older attempt")
	r.write(owner, NumberRows(6, 1))
	require.Equal(t, uint64(2), r.commit(owner, messages.BarrierEnd, 6, 1).Version.Commit)
	r.sees("orders", texts(NumberRows(1, 6)), "after the commit of the owner")
}

// olderAttemptOfAnotherSessionIsFenced: the session of the younger attempt cannot close
// the zombie, which another node has: only the destination can refuse it.
func olderAttemptOfAnotherSessionIsFenced(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	zombie, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(zombie, NumberRows(1, 5))
	owner, receipt := r.writer(r.open(r.Destination, 1), l.Parts[0], 1, 2)
	require.Equal(t, messages.Version{Load: 1}, receipt.Version)
	_, err := zombie.Commit(r.ctx, barrier(messages.BarrierPeriodic, 5, 5))
	fenced(t, err, "commit of an older attempt")
	r.sees("orders", nil, "after the commit of an older attempt")
	r.write(owner, NumberRows(1, 5))
	r.commit(owner, messages.BarrierEnd, 5, 5)
	r.sees("orders", texts(NumberRows(1, 5)), "after the commit of the owner")
}

// olderEpochIsFenced: after Open with a higher epoch no writer and no session of a
// lower one changes anything (rule 10, I4).
func olderEpochIsFenced(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	zombie, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(zombie, NumberRows(1, 5))
	owner := r.open(r.Destination, 2)

	_, err := zombie.Commit(r.ctx, barrier(messages.BarrierPeriodic, 5, 5))
	fenced(t, err, "commit of an older epoch")
	r.sees("orders", nil, "after the commit of an older epoch")
	w, _, err := s.OpenWriter(r.ctx, l.Parts[0], messages.Token{Epoch: 1, Attempt: 9})
	if err == nil {
		r.writers = append(r.writers, w)
	}
	fenced(t, err, "open a writer of an older epoch")
	fenced(t, s.Begin(r.ctx, r.load(2, r.mode, "orders", 1)), "begin of an older epoch")

	next, receipt := r.writer(owner, l.Parts[0], 2, 1)
	require.Equal(t, messages.Version{Load: 1}, receipt.Version, "the owner continues the load")
	r.write(next, NumberRows(1, 5))
	r.commit(next, messages.BarrierEnd, 5, 5)
	r.sees("orders", texts(NumberRows(1, 5)), "after the commit of the owner")
	fenced(t, s.Finish(r.ctx, l.ID), "finish of an older epoch")
	require.NoError(t, owner.Finish(r.ctx, l.ID))
}

// olderLoadIsFenced: a writer of a load that was begun anew writes nothing.
func olderLoadIsFenced(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	s, l := r.begun(r.mode)
	zombie, _ := r.writer(s, l.Parts[0], 1, 1)
	r.write(zombie, NumberRows(1, 5))
	again := r.load(2, r.mode, "orders", 1)
	require.NoError(t, s.Begin(r.ctx, again))
	_, err := zombie.Commit(r.ctx, barrier(messages.BarrierEnd, 5, 5))
	fenced(t, err, "commit of an older load")
	r.sees("orders", nil, "after the commit of an older load")
	w, receipt := r.writer(s, again.Parts[0], 1, 2)
	require.Equal(t, messages.Version{Load: 2}, receipt.Version)
	r.write(w, NumberRows(1, 5))
	r.commit(w, messages.BarrierEnd, 5, 5)
	r.sees("orders", texts(NumberRows(1, 5)), "after the commit of the current load")
}
