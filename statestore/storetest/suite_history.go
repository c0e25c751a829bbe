package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// ClockFactory is a Factory of stores that read the time from now.
type ClockFactory func(t *testing.T, now func() time.Time) (open func() (statestore.Store, error))

// RunClock tests what depends on the time, of stores that can be told it.
func RunClock(t *testing.T, f ClockFactory) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p *place, clock *clock)
	}{
		{"the last checkpoint of each hour is kept", testHistoryHours},
		{"a clock that is put back loses no checkpoint", testHistoryBack},
		{"it behaves like the model at any time", testModelClock},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := &clock{at: day(1)}
			p := &place{T: t, open: f(t, clock.now)}
			p.reopen()
			t.Cleanup(func() { require.NoError(t, p.store.Close()) })
			c.test(t, p, clock)
		})
	}
}

// clock is the time of a test; only its goroutine moves it.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func (p *place) history(id messages.PipelineID, part messages.PartID) []statestore.Kept {
	p.Helper()
	kept, err := p.store.History(p.Context(), id, part)
	require.NoError(p, err)
	return kept
}

// commits names the commits that are kept of a part of pipeline a.
func (p *place) commits(part messages.PartID) (commits []uint64) {
	p.Helper()
	for _, k := range p.history("a", part) {
		commits = append(commits, k.Receipt.Version.Commit)
	}
	return commits
}

// by returns r as a writer of epoch e leaves it.
func by(e messages.Epoch, r messages.Receipt) messages.Receipt {
	r.Token.Epoch = e
	return r
}

func testHistory(t *testing.T, p *place) {
	require.Empty(t, p.history("a", "orders/0"), "an unknown pipeline")
	e := p.acquire("a")
	require.Empty(t, p.history("a", "orders/0"), "an unknown part")
	before := time.Now()
	for commit := uint64(1); commit <= 3; commit++ {
		p.save("a", e, receipts(by(1, receipt("orders", "orders/0", 1, commit)), by(1, receipt("orders", "orders/00", 1, commit))))
	}
	p.save("a", e, receipts(by(1, receipt("orders", "orders/0", 1, 2))))
	p.save("a", e, receipts(by(2, receipt("orders", "orders/0", 1, 4)), by(2, receipt("orders", "orders/0", 1, 5)), by(3, receipt("orders", "orders/0", 1, 6))))
	for range 2 {
		kept := p.history("a", "orders/0")
		require.Equal(t, by(3, receipt("orders", "orders/0", 1, 6)), kept[0].Receipt, "the newest first, whole")
		require.Equal(t, []uint64{6, 5, 3}, lastOfEpochs(kept), "one of each epoch; what is behind changes nothing")
		for _, k := range kept {
			require.Equal(t, time.UTC, k.Saved.Location())
			require.WithinRange(t, k.Saved, before.Add(-time.Minute), time.Now().Add(time.Minute))
		}
		require.Equal(t, []uint64{3}, lastOfEpochs(p.history("a", "orders/00")), "a part whose name begins alike is another")
		require.Empty(t, p.history("b", "orders/0"))
		p.reopen()
	}
}

// lastOfEpochs is what is kept of each epoch at least, whatever hour a test begins in.
func lastOfEpochs(kept []statestore.Kept) (commits []uint64) {
	seen := map[messages.Epoch]bool{}
	for _, k := range kept {
		if e := k.Receipt.Token.Epoch; !seen[e] {
			seen[e] = true
			commits = append(commits, k.Receipt.Version.Commit)
		}
	}
	return commits
}

func testHistoryKept(t *testing.T, p *place) {
	e := p.acquire("a")
	const epochs = statestore.HistoryKept + 10
	for i := range uint64(epochs) {
		p.save("a", e, receipts(by(messages.Epoch(i+1), receipt("orders", "orders/0", 1, i+1)), by(messages.Epoch(i%3+1), receipt("orders", "orders/1", 1, i+1))))
	}
	p.reopen()
	commits := p.commits("orders/0")
	require.Len(t, commits, statestore.HistoryKept)
	require.EqualValues(t, epochs, commits[0])
	require.True(t, slices.IsSortedFunc(commits, func(a, b uint64) int { return int(b) - int(a) })) //nolint:gosec // small
	require.GreaterOrEqual(t, commits[statestore.HistoryKept-1], uint64(epochs-statestore.HistoryKept), "the oldest are dropped")
	require.Len(t, lastOfEpochs(p.history("a", "orders/1")), 3, "each part has its own")
}

func testHistoryDropped(t *testing.T, p *place) {
	e := p.acquire("a")
	p.save("a", e, receipts(receipt("orders", "orders/0", 1, 5), receipt("orders", "orders/1", 1, 6), receipt("customers", "customers/0", 1, 7)))
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 0)))
	kept := p.history("a", "orders/0")
	require.Len(t, kept, 1)
	require.Equal(t, messages.Version{Load: 2}, kept[0].Receipt.Version, "a new load of the name drops those of the old one")
	require.Empty(t, p.history("a", "orders/1"), "also of parts that it does not have")
	require.Equal(t, []uint64{7}, p.commits("customers/0"))

	p.save("a", e, statestore.Update{Forget: []string{"orders"}})
	require.Empty(t, p.history("a", "orders/0"))
	require.Equal(t, []uint64{7}, p.commits("customers/0"))
	p.save("a", e, statestore.Update{Forget: []string{"customers"}, Receipts: []messages.Receipt{receipt("customers", "customers/0", 1, 1)}})
	p.reopen()
	require.Equal(t, []uint64{1}, p.commits("customers/0"), "numbers begin again, in the same step")
}

func testHistoryHours(t *testing.T, p *place, clock *clock) {
	e := p.acquire("a")
	commit := uint64(0)
	save := func(epoch messages.Epoch, at time.Duration) {
		clock.at = day(1).Truncate(time.Hour).Add(at)
		commit++
		p.save("a", e, receipts(by(epoch, receipt("orders", "orders/0", 1, commit))))
	}
	save(1, 0)
	save(1, time.Hour-time.Nanosecond) // 2: the last of the hour
	save(1, time.Hour)
	save(1, time.Hour+time.Minute)   // 4: the last of the epoch
	save(2, time.Hour+2*time.Minute) // 5: the last of the hour
	save(2, 5*time.Hour)
	save(2, 5*time.Hour+time.Second) // 7
	require.Equal(t, []uint64{7, 5, 4, 2}, p.commits("orders/0"))
	p.reopen()
	kept := p.history("a", "orders/0")
	require.Equal(t, []uint64{7, 5, 4, 2}, p.commits("orders/0"))
	require.Equal(t, clock.at, kept[0].Saved)
	for hour := range statestore.HistoryKept {
		save(2, time.Duration(6+hour)*time.Hour)
	}
	commits := p.commits("orders/0")
	require.Len(t, commits, statestore.HistoryKept)
	require.EqualValues(t, 8, commits[len(commits)-1])
}

func testHistoryBack(t *testing.T, p *place, clock *clock) {
	e := p.acquire("a")
	for commit := uint64(1); commit <= 3; commit++ {
		p.save("a", e, receipts(receipt("orders", "orders/0", 1, commit)))
		clock.at = clock.at.Add(-24 * time.Hour)
	}
	clock.at = time.Unix(-1, 0) // before the epoch of Unix
	p.save("a", e, receipts(receipt("orders", "orders/0", 1, 4)))
	clock.at = time.Unix(1, 0)
	p.save("a", e, receipts(receipt("orders", "orders/0", 1, 5)))
	p.reopen()
	require.Equal(t, []uint64{5, 4, 3, 2, 1}, p.commits("orders/0"), "the newest by version, whatever the clock said")
}

func testModelClock(t *testing.T, p *place, clock *clock) {
	walkAll(t, p, clock)
}

func testPipelineNames(t *testing.T, p *place) {
	names := func() []messages.PipelineID {
		ids, err := p.store.Pipelines(t.Context())
		require.NoError(t, err)
		return ids
	}
	require.Empty(t, names())
	var want []messages.PipelineID
	for i := range 5 {
		want = append(want, messages.PipelineID(fmt.Sprintf("p%d\xff", 4-i)))
		p.acquire(want[i])
	}
	slices.Sort(want)
	require.Equal(t, want, names(), "sorted")
	p.load("nobody")
	p.reopen()
	require.Equal(t, want, names(), "looking creates nothing")
}
