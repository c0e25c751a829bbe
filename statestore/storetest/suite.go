package storetest

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Factory makes a fresh place for a store and returns how to open it. A place is
// opened again when the store before is closed.
type Factory func(t *testing.T) (open func() (statestore.Store, error))

// Run tests that the stores of f do what statestore.Store promises.
func Run(t *testing.T, f Factory) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p *place)
	}{
		{"identity is kept for ever", testIdentity},
		{"an unknown pipeline is empty", testUnknown},
		{"epochs only grow", testEpochs},
		{"no epoch follows the highest", testLastEpoch},
		{"a claim that was overtaken is fenced", testClaim},
		{"only the owner saves", testFencing},
		{"cursors keep their type", testCursors},
		{"names are any bytes", testNames},
		{"an invalid update changes nothing", testInvalid},
		{"a version is never lowered", testVersions},
		{"a new load replaces the ones before", testNewLoad},
		{"a late receipt of a replaced load changes nothing", testLateReceipt},
		{"finished marks stay", testFinished},
		{"forget drops a load by name", testForget},
		{"checkpoints are kept", testHistory},
		{"old checkpoints are dropped", testHistoryKept},
		{"checkpoints go with their load", testHistoryDropped},
		{"orders stand until they are done or taken back", testOrders},
		{"orders become void by themselves", testOrdersAreVoid},
		{"orders go with their load", testOrdersForgotten},
		{"saving again changes nothing", testRepeat},
		{"an unfinished run is found again", testRun},
		{"a run that ended stays ended", testRunEnded},
		{"runs are listed newest first", testRuns},
		{"old runs are dropped", testRunsKept},
		{"many parts in one step", testManyParts},
		{"pipelines are independent", testPipelines},
		{"pipelines are listed", testPipelineNames},
		{"nothing is shared with the caller", testAliases},
		{"a cancelled call changes nothing", testCancelled},
		{"a closed store refuses", testClosed},
		{"an error says what was attempted on what", testErrors},
		{"concurrent owners get different epochs", testConcurrentAcquire},
		{"nobody saves after a younger owner is known", testConcurrentFencing},
		{"concurrent saves are all there", testConcurrentSaves},
		{"it behaves like the model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &place{T: t, open: f(t)}
			p.reopen()
			t.Cleanup(func() { require.NoError(t, p.store.Close()) })
			c.test(t, p)
		})
	}
}

// place is a store under test that can be closed and opened again.
type place struct {
	*testing.T
	open  func() (statestore.Store, error)
	store statestore.Store
}

func (p *place) reopen() {
	p.Helper()
	if p.store != nil {
		require.NoError(p, p.store.Close())
	}
	s, err := p.open()
	require.NoError(p, err)
	p.store = s
}

func (p *place) acquire(id messages.PipelineID) messages.Epoch {
	p.Helper()
	e, err := p.store.Acquire(p.Context(), id, statestore.Claim{})
	require.NoError(p, err)
	return e
}

func (p *place) save(id messages.PipelineID, e messages.Epoch, u statestore.Update) {
	p.Helper()
	require.NoError(p, p.store.Save(p.Context(), id, e, u))
}

func (p *place) load(id messages.PipelineID) statestore.State {
	p.Helper()
	st, err := p.store.Load(p.Context(), id)
	require.NoError(p, err)
	return st
}

func (p *place) runs(id messages.PipelineID, limit int) []statestore.Run {
	p.Helper()
	runs, err := p.store.Runs(p.Context(), id, limit)
	require.NoError(p, err)
	return runs
}

// receipt is a receipt of one commit.
func receipt(load, part string, number, commit uint64) messages.Receipt {
	return messages.Receipt{
		Part: messages.PartID(part), Load: load, Version: messages.Version{Load: number, Commit: commit},
		Token:    messages.Token{Epoch: 1, Attempt: messages.Attempt(commit)},
		Position: messages.Position{At: messages.Int64Cursor(int64(commit))}, //nolint:gosec // small
		Rows:     messages.Counts{Read: 10, Arrived: 9, Applied: 8, Rejected: 1},
	}
}

func receipts(r ...messages.Receipt) statestore.Update { return statestore.Update{Receipts: r} }

func finished(name string, number uint64) statestore.Update {
	return statestore.Update{Finished: []messages.LoadID{{Name: name, Number: number}}}
}

func testIdentity(t *testing.T, p *place) {
	id := p.store.Identity()
	require.NotEmpty(t, id)
	p.reopen()
	require.Equal(t, id, p.store.Identity())
}

func testUnknown(t *testing.T, p *place) {
	require.Zero(t, p.load("nobody"))
	require.Empty(t, p.runs("nobody", 10))
	require.Zero(t, p.load("nobody"), "looking creates nothing")
}

func testEpochs(t *testing.T, p *place) {
	require.EqualValues(t, 1, p.acquire("a"))
	require.EqualValues(t, 2, p.acquire("a"))
	p.reopen()
	require.EqualValues(t, 3, p.acquire("a"))

	e, err := p.store.Acquire(t.Context(), "a", statestore.Claim{Floor: 40})
	require.NoError(t, err)
	require.EqualValues(t, 41, e, "a destination that knows epoch 40 raises it")
	e, err = p.store.Acquire(t.Context(), "a", statestore.Claim{Floor: 7})
	require.NoError(t, err)
	require.EqualValues(t, 42, e, "a lower floor does not matter")
	p.reopen()
	require.EqualValues(t, 42, p.load("a").Epoch)
	require.EqualValues(t, 1, p.acquire("b"))
}

func testLastEpoch(t *testing.T, p *place) {
	e, err := p.store.Acquire(t.Context(), "a", statestore.Claim{Floor: math.MaxUint64 - 1})
	require.NoError(t, err)
	require.EqualValues(t, uint64(math.MaxUint64), e)
	_, err = p.store.Acquire(t.Context(), "a", statestore.Claim{})
	require.ErrorIs(t, err, statestore.ErrInvalid)
	require.Equal(t, e, p.load("a").Epoch)
}

func testFencing(t *testing.T, p *place) {
	u := receipts(receipt("orders", "orders/0", 1, 1))
	require.ErrorIs(t, p.store.Save(t.Context(), "a", 1, u), statestore.ErrFenced, "nobody owns it")
	require.ErrorIs(t, p.store.Save(t.Context(), "a", 0, u), statestore.ErrFenced, "0 is no epoch")

	old := p.acquire("a")
	p.save("a", old, u)
	young := p.acquire("a")
	before := p.load("a")
	for _, e := range []messages.Epoch{0, old, young + 1, math.MaxUint64} {
		err := p.store.Save(t.Context(), "a", e, receipts(receipt("orders", "orders/0", 1, 2)))
		require.ErrorIs(t, err, statestore.ErrFenced)
		require.ErrorIs(t, p.store.Save(t.Context(), "a", e, statestore.Update{}), statestore.ErrFenced)
	}
	require.Equal(t, before, p.load("a"))
	p.save("a", young, receipts(receipt("orders", "orders/0", 1, 2)))
	p.reopen()
	require.ErrorIs(t, p.store.Save(t.Context(), "a", old, u), statestore.ErrFenced)
	p.save("a", young, receipts(receipt("orders", "orders/0", 1, 3)))
	require.EqualValues(t, 3, p.load("a").Receipts[0].Version.Commit)
}

func testInvalid(t *testing.T, p *place) {
	e := p.acquire("a")
	good := receipt("orders", "orders/0", 1, 1)
	long := strings.Repeat("x", statestore.NameBytesMax+1)
	for name, u := range map[string]statestore.Update{
		"no part":       receipts(good, receipt("orders", "", 1, 1)),
		"long part":     receipts(good, receipt("orders", long, 1, 1)),
		"no load":       receipts(good, receipt("", "orders/1", 1, 1)),
		"load 0":        receipts(good, receipt("orders", "orders/1", 0, 1)),
		"finished 0":    {Receipts: []messages.Receipt{good}, Finished: []messages.LoadID{{Name: "orders"}}},
		"forget none":   {Receipts: []messages.Receipt{good}, Forget: []string{""}},
		"revoke none":   {Receipts: []messages.Receipt{good}, Revoke: []string{""}},
		"order 0":       {Receipts: []messages.Receipt{good}, Orders: []statestore.Order{reset("orders", 0)}},
		"order without": {Receipts: []messages.Receipt{good}, Orders: []statestore.Order{reset("", 1)}},
		"order's part":  {Receipts: []messages.Receipt{good}, Orders: []statestore.Order{rewind("orders", long, 1, 1)}},
		"order's load":  {Receipts: []messages.Receipt{good}, Orders: []statestore.Order{{Load: messages.LoadID{Name: "orders", Number: 1}, Part: "p", From: messages.Version{Load: 2}}}},
		"order's year":  {Receipts: []messages.Receipt{good}, Orders: []statestore.Order{{Load: messages.LoadID{Name: "orders", Number: 1}, Given: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}},
		"run without":   {Receipts: []messages.Receipt{good}, Run: &statestore.Run{}},
		"year 10000":    {Receipts: []messages.Receipt{good}, Run: &statestore.Run{ID: "r", Started: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"negative year": {Receipts: []messages.Receipt{good}, Run: &statestore.Run{ID: "r", Ended: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)}},
	} {
		require.ErrorIs(t, p.store.Save(t.Context(), "a", e, u), statestore.ErrInvalid, name)
		require.Empty(t, p.load("a").Receipts, name)
	}
	_, err := p.store.Acquire(t.Context(), "", statestore.Claim{})
	require.ErrorIs(t, err, statestore.ErrInvalid)
	_, err = p.store.Acquire(t.Context(), messages.PipelineID(long), statestore.Claim{})
	require.ErrorIs(t, err, statestore.ErrInvalid)
}

func testPipelines(t *testing.T, p *place) {
	a, b := p.acquire("a"), p.acquire("b")
	p.save("a", a, receipts(receipt("orders", "orders/0", 1, 1)))
	p.save("b", b, receipts(receipt("orders", "orders/0", 7, 7)))
	p.save("b", b, statestore.Update{Forget: []string{"orders"}})
	p.acquire("b")
	p.save("a", a, receipts(receipt("orders", "orders/0", 1, 2)))
	require.Equal(t, []messages.Receipt{receipt("orders", "orders/0", 1, 2)}, p.load("a").Receipts)
	require.Empty(t, p.load("b").Receipts)
}

func testAliases(t *testing.T, p *place) {
	e := p.acquire("a")
	mine := receipt("slot", "slot:x", 1, 1)
	mine.Position = messages.Position{
		At:      messages.TupleCursor(messages.Int64Cursor(1), messages.Int64Cursor(2)),
		Streams: []messages.StreamCursor{{Stream: "s", State: messages.StreamSnapshot, At: messages.Int64Cursor(5)}},
	}
	u := statestore.Update{Receipts: []messages.Receipt{mine}, Finished: []messages.LoadID{{Name: "n", Number: 1}}, Run: &statestore.Run{ID: "r1", State: messages.RunRunning}}
	order := reset("n", 2)
	order.Part, order.From.Load, order.To.At = "n/1", 2, messages.TupleCursor(messages.Int64Cursor(1), messages.Int64Cursor(2))
	u.Orders = []statestore.Order{order}
	p.save("a", e, u)
	want, kept := p.load("a"), p.history("a", "slot:x")

	u.Receipts[0].Load, u.Finished[0].Name, u.Run.ID, u.Orders[0].Load.Name = "changed", "changed", "changed", "changed"
	order.To.At.Parts[0] = messages.Int64Cursor(99)
	mine.Position.At.Parts[0], mine.Position.Streams[0].Stream = messages.Int64Cursor(99), "changed"
	require.Equal(t, want, p.load("a"))

	got := p.load("a")
	got.Receipts[0].Position.At.Parts[0], got.Receipts[0].Position.Streams[0].Stream = messages.Int64Cursor(98), "changed"
	got.Finished[0].Name, got.Orders[0].Load.Name, got.Orders[0].To.At.Parts[0] = "changed", "changed", messages.Int64Cursor(98)
	p.history("a", "slot:x")[0].Receipt.Position.At.Parts[0] = messages.Int64Cursor(97)
	p.runs("a", 1)[0].ID = "changed"
	require.Equal(t, want, p.load("a"))
	require.Equal(t, kept, p.history("a", "slot:x"))
	require.Equal(t, "r1", p.runs("a", 1)[0].ID)
}

func testCancelled(t *testing.T, p *place) {
	e := p.acquire("a")
	want := p.load("a")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errReason)
	_, err := p.store.Acquire(ctx, "a", statestore.Claim{})
	require.ErrorIs(t, err, errReason)
	_, err = p.store.Load(ctx, "a")
	require.ErrorIs(t, err, errReason)
	_, err = p.store.Runs(ctx, "a", 1)
	require.ErrorIs(t, err, errReason)
	_, err = p.store.History(ctx, "a", "p")
	require.ErrorIs(t, err, errReason)
	_, err = p.store.Pipelines(ctx)
	require.ErrorIs(t, err, errReason)
	require.ErrorIs(t, p.store.Save(ctx, "a", e, receipts(receipt("l", "p", 1, 1))), errReason)
	require.Equal(t, want, p.load("a"))
}

func testClosed(t *testing.T, p *place) {
	e := p.acquire("a")
	require.NoError(t, p.store.Close())
	require.NoError(t, p.store.Close(), "closing twice is fine")
	_, err := p.store.Acquire(t.Context(), "a", statestore.Claim{})
	require.Error(t, err)
	_, err = p.store.Load(t.Context(), "a")
	require.Error(t, err)
	_, err = p.store.Runs(t.Context(), "a", 1)
	require.Error(t, err)
	_, err = p.store.History(t.Context(), "a", "p")
	require.Error(t, err)
	_, err = p.store.Pipelines(t.Context())
	require.Error(t, err)
	require.Error(t, p.store.Save(t.Context(), "a", e, receipts(receipt("l", "p", 1, 1))))
	p.reopen()
	require.Equal(t, e, p.load("a").Epoch)
	require.Empty(t, p.load("a").Receipts)
}

func testErrors(t *testing.T, p *place) {
	require.NotEmpty(t, p.store.Identity())
	check := func(err error, want statestore.Error) {
		t.Helper()
		var e *statestore.Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Path, "where")
		require.ErrorContains(t, err, e.Path)
		want.Path, want.Err = e.Path, e.Err
		require.Equal(t, want, *e)
	}
	one := receipts(receipt("orders", "orders/0", 1, 1), receipt("orders", "orders/0", 1, 2))
	err := p.store.Save(t.Context(), "a", 3, one)
	require.Equal(t, messages.CodeFenced, statestore.CodeOf(err))
	check(err, statestore.Error{Op: "save checkpoint", Pipeline: "a", Stream: "orders", Part: "orders/0"})
	one.Receipts = append(one.Receipts, receipt("orders", "orders/1", 1, 1))
	check(p.store.Save(t.Context(), "a", 3, one), statestore.Error{Op: "save checkpoint", Pipeline: "a", Stream: "orders"})
	one.Receipts = append(one.Receipts, receipt("customers", "customers/1", 0, 1))
	check(p.store.Save(t.Context(), "a", 3, one), statestore.Error{Op: "save checkpoint", Pipeline: "a", Stream: "customers", Part: "customers/1"})
	one.Receipts[3].Version.Load = 1
	check(p.store.Save(t.Context(), "a", 3, one), statestore.Error{Op: "save checkpoint", Pipeline: "a"})
	check(p.store.Save(t.Context(), "a", 3, orders(reset("orders", 1))), statestore.Error{Op: "save checkpoint", Pipeline: "a", Stream: "orders"})
	check(p.store.Save(t.Context(), "a", 3, statestore.Update{}), statestore.Error{Op: "save checkpoint", Pipeline: "a"})

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errReason)
	err = p.store.Save(ctx, "a", 3, receipts(receipt("orders", "orders/0", 1, 1)))
	check(err, statestore.Error{Op: "save checkpoint", Pipeline: "a", Stream: "orders", Part: "orders/0"})
	require.ErrorIs(t, err, errReason, "the cause is there")

	_, err = p.store.Acquire(t.Context(), "", statestore.Claim{})
	check(err, statestore.Error{Op: "acquire epoch"})
	require.NoError(t, p.store.Close())
	_, err = p.store.Load(t.Context(), "a")
	check(err, statestore.Error{Op: "load state", Pipeline: "a"})
	require.Equal(t, messages.CodeState, statestore.CodeOf(err))
	_, err = p.store.Runs(t.Context(), "a", 1)
	check(err, statestore.Error{Op: "list runs", Pipeline: "a"})
	_, err = p.store.History(t.Context(), "a", "orders/0")
	check(err, statestore.Error{Op: "list checkpoints", Pipeline: "a", Part: "orders/0"})
	_, err = p.store.Pipelines(t.Context())
	check(err, statestore.Error{Op: "list pipelines"})
	p.reopen()
}
