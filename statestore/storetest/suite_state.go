package storetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

var errReason = errors.New("the reason")

// cursors has each type with its extremes, and texts that a careless encoding
// changes.
func cursors() []messages.Cursor {
	c := func(t messages.CursorType, v string) messages.Cursor { return messages.Cursor{Type: t, Value: v} }
	all := []messages.Cursor{
		{}, // from the beginning
		messages.Int64Cursor(0), messages.Int64Cursor(math.MaxInt64), messages.Int64Cursor(math.MinInt64),
		c(messages.CursorText, ""), c(messages.CursorText, "00123"), c(messages.CursorText, "true"), c(messages.CursorText, "null"),
		c(messages.CursorText, "tab\tnewline\nquote\"back\\slash <html> & \u2028"),
		c(messages.CursorText, "a\x00b"), c(messages.CursorText, "\xff\xfe not UTF-8"), c(messages.CursorText, "\xed\xa0\x80"),
		c(messages.CursorText, "\x00base64:AAAA"), c(messages.CursorText, "\x00base64:"), c(messages.CursorText, "\ufffd"), c(messages.CursorText, "Ünïcödé 🚀"),
		c(messages.CursorTimestamp, "2262-04-11 23:47:16.854775"), c(messages.CursorTimestamp, "infinity"),
		c(messages.CursorTimestampTZ, "2024-03-31T01:30:00.000001Z"), c(messages.CursorTimestampTZ, "4713-01-01 00:00:00 BC"),
		c(messages.CursorDate, "5874897-12-31"), c(messages.CursorDate, "-infinity"),
		c(messages.CursorNumeric, "NaN"), c(messages.CursorNumeric, "1.10"), c(messages.CursorNumeric, strings.Repeat("9", 1500)+".0"),
		c(messages.CursorUUID, "00000000-0000-0000-0000-000000000000"),
		messages.LSNCursor(0), messages.LSNCursor(math.MaxUint64),
		c(messages.CursorOpaque, strings.Repeat("\x80\x01", 32<<10)),
	}
	return append(all,
		messages.TupleCursor(messages.Int64Cursor(7), c(messages.CursorText, "b\xff")),
		messages.TupleCursor(messages.TupleCursor(messages.Int64Cursor(1)), c(messages.CursorText, "")),
	)
}

func testCursors(t *testing.T, p *place) {
	e := p.acquire("a")
	var u statestore.Update
	for i, c := range cursors() {
		r := receipt("orders", fmt.Sprintf("orders/%03d", i), 1, uint64(i)) //nolint:gosec // small
		r.Position.At = c
		r.Position.Streams = []messages.StreamCursor{
			{Stream: "s\xffx", State: messages.StreamSnapshot, At: c},
			{Stream: "t", State: messages.StreamDetached},
		}
		r.Final = i%2 == 0
		r.Rows = messages.Counts{Read: math.MaxInt64, Arrived: math.MaxInt64 - 1, Applied: int64(i), Rejected: 1}
		r.Token = messages.Token{Epoch: math.MaxUint64, Attempt: math.MaxUint64}
		u.Receipts = append(u.Receipts, r)
	}
	u.Receipts[0].Position.Streams = nil
	u.Receipts[1].Version = messages.Version{Load: 1, Commit: math.MaxUint64}
	p.save("a", e, u)
	require.Equal(t, u.Receipts, p.load("a").Receipts)
	p.reopen()
	require.Equal(t, u.Receipts, p.load("a").Receipts)
}

func testNames(t *testing.T, p *place) {
	names := []string{
		"a", "A", "a/b", "../../etc/passwd", " ", "\x00", "\x00\x00", "\xff", "\xff\xff", "é", "e\u0301", "'; DROP TABLE x; --", "a\nb",
		strings.Repeat("p", statestore.NameBytesMax), strings.Repeat("p", statestore.NameBytesMax-1) + "q",
		strings.Repeat("\xff\x00", statestore.NameBytesMax/2), "epoch", "receipts", "loads", "runs", "\x00base64:YQ==", "?%*_",
	}
	for _, pipeline := range names {
		id := messages.PipelineID(pipeline)
		e := p.acquire(id)
		require.EqualValues(t, 1, e, "%q is another pipeline than those before", pipeline)
	}
	e := p.load("a").Epoch
	var u statestore.Update
	for i, name := range names {
		u.Receipts = append(u.Receipts, receipt(name, name, 3, uint64(i+1))) //nolint:gosec // small
		u.Finished = append(u.Finished, messages.LoadID{Name: name, Number: uint64(i + 1)})
	}
	for _, id := range []messages.PipelineID{"a", messages.PipelineID(names[len(names)-1])} {
		p.save(id, e, u)
		want := slices.Clone(u.Receipts)
		slices.SortFunc(want, func(a, b messages.Receipt) int { return strings.Compare(string(a.Part), string(b.Part)) })
		marks := slices.Clone(u.Finished)
		slices.SortFunc(marks, func(a, b messages.LoadID) int { return strings.Compare(a.Name, b.Name) })
		for range 2 {
			require.Equal(t, want, p.load(id).Receipts, "sorted by part")
			require.Equal(t, marks, p.load(id).Finished, "sorted by name")
			p.reopen()
		}
	}
}

func testVersions(t *testing.T, p *place) {
	e := p.acquire("a")
	high := receipt("orders", "orders/0", 2, 10)
	p.save("a", e, receipts(high))
	same := high
	same.Position, same.Final = messages.Position{At: messages.Int64Cursor(666)}, true
	for _, r := range []messages.Receipt{
		receipt("orders", "orders/0", 2, 9), receipt("orders", "orders/0", 2, 0),
		receipt("orders", "orders/0", 1, 99), same, receipt("other", "orders/0", 1, 99),
	} {
		p.save("a", e, receipts(r))
		require.Equal(t, []messages.Receipt{high}, p.load("a").Receipts)
	}
	higher := receipt("orders", "orders/0", 2, 12)
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 11), higher, receipt("orders", "orders/0", 2, 10)))
	require.Equal(t, []messages.Receipt{higher}, p.load("a").Receipts, "the newest of an update wins, wherever it stands")
	zero := receipt("orders", "orders/1", 2, 0)
	p.save("a", e, receipts(zero))
	require.Equal(t, []messages.Receipt{higher, zero}, p.load("a").Receipts, "commit 0 is a version")
}

func testNewLoad(t *testing.T, p *place) {
	e := p.acquire("a")
	other := receipt("customers", "customers/0", 1, 5)
	p.save("a", e, receipts(receipt("orders", "orders/0", 1, 5), receipt("orders", "orders/1", 1, 6), other))
	p.save("a", e, receipts(receipt("orders", "orders/2", 2, 0)))
	require.Equal(t, []messages.Receipt{other, receipt("orders", "orders/2", 2, 0)}, p.load("a").Receipts)
	p.save("a", e, receipts(receipt("orders", "orders/0", 3, 1), receipt("orders", "orders/2", 2, 9), receipt("orders", "orders/1", 3, 0)))
	p.reopen()
	require.Equal(t, []messages.Receipt{other, receipt("orders", "orders/0", 3, 1), receipt("orders", "orders/1", 3, 0)}, p.load("a").Receipts)
}

func testLateReceipt(t *testing.T, p *place) {
	e := p.acquire("a")
	late := receipts(receipt("orders", "orders/1", 1, 6))
	p.save("a", e, late)
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 1)))
	want := p.load("a")
	p.save("a", e, late)
	require.Equal(t, want, p.load("a"))

	p.save("a", e, finished("other", 4))
	p.save("a", e, receipts(receipt("other", "other/0", 3, 9)))
	require.Equal(t, want.Receipts, p.load("a").Receipts, "load 4 has finished, load 3 is history")
	p.save("a", e, receipts(receipt("other", "other/0", 4, 9)))
	require.Len(t, p.load("a").Receipts, 2)
}

func testFinished(t *testing.T, p *place) {
	e := p.acquire("a")
	r := receipt("orders", "orders/0", 2, 5)
	p.save("a", e, statestore.Update{Receipts: []messages.Receipt{r}, Finished: []messages.LoadID{{Name: "orders", Number: 2}, {Name: "customers", Number: 7}}})
	want := []messages.LoadID{{Name: "customers", Number: 7}, {Name: "orders", Number: 2}}
	require.Equal(t, want, p.load("a").Finished)
	p.save("a", e, finished("orders", 1))
	require.Equal(t, want, p.load("a").Finished, "a mark is never lowered")
	p.save("a", e, receipts(receipt("orders", "orders/0", 3, 0)))
	require.Equal(t, want, p.load("a").Finished, "a new load leaves the mark of the one before")
	p.save("a", e, finished("orders", 3))
	p.reopen()
	want[1].Number = 3
	require.Equal(t, want, p.load("a").Finished)
	require.Equal(t, []messages.Receipt{receipt("orders", "orders/0", 3, 0)}, p.load("a").Receipts, "a mark removes no receipt")
}

func testForget(t *testing.T, p *place) {
	e := p.acquire("a")
	other := receipt("customers", "customers/0", 1, 5)
	p.save("a", e, statestore.Update{
		Receipts: []messages.Receipt{receipt("orders", "orders/0", 4, 5), receipt("orders", "orders/1", 4, 5), other},
		Finished: []messages.LoadID{{Name: "orders", Number: 4}, {Name: "customers", Number: 1}},
	})
	p.save("a", e, statestore.Update{Forget: []string{"orders", "nothing"}})
	require.Equal(t, []messages.Receipt{other}, p.load("a").Receipts)
	require.Equal(t, []messages.LoadID{{Name: "customers", Number: 1}}, p.load("a").Finished)

	p.save("a", e, receipts(receipt("orders", "orders/0", 1, 1)))
	again := receipt("orders", "orders/9", 1, 0)
	p.save("a", e, statestore.Update{Forget: []string{"orders"}, Receipts: []messages.Receipt{again}})
	p.reopen()
	require.Equal(t, []messages.Receipt{other, again}, p.load("a").Receipts, "numbers begin again, in the same step")
}

func testRepeat(t *testing.T, p *place) {
	e := p.acquire("a")
	u := statestore.Update{
		Receipts: []messages.Receipt{receipt("orders", "orders/0", 2, 5), receipt("slot", "slot:x", 1, 8)},
		Finished: []messages.LoadID{{Name: "orders", Number: 2}},
		Run:      &statestore.Run{ID: "01J0000000000000000000000A", Epoch: e, Started: day(1), State: messages.RunRunning},
	}
	p.save("a", e, u)
	want, runs := p.load("a"), p.runs("a", 10)
	for range 3 {
		p.save("a", e, u)
		require.Equal(t, want, p.load("a"))
		require.Equal(t, runs, p.runs("a", 10))
		p.reopen()
	}
	p.save("a", e, statestore.Update{})
	require.Equal(t, want, p.load("a"), "an empty update changes nothing")
}

func day(n int) time.Time { return time.Date(2026, 1, n, 12, 30, 15, 123456000, time.UTC) }

func testRun(t *testing.T, p *place) {
	e := p.acquire("a")
	run := statestore.Run{ID: "01J0000000000000000000000A", Epoch: e, Started: day(1), State: messages.RunRunning}
	p.save("a", e, statestore.Update{Run: &run})
	p.reopen()
	require.Equal(t, run, p.load("a").Run)
	require.Equal(t, []statestore.Run{run}, p.runs("a", 10))

	e = p.acquire("a")
	run.Epoch = e // continued by the next owner, under its ID
	p.save("a", e, statestore.Update{Run: &run})
	require.Equal(t, run, p.load("a").Run)
	run.Ended, run.State, run.Code, run.Why = day(2), messages.RunFailed, messages.CodeDestFull, "no space \xff left"
	p.save("a", e, statestore.Update{Run: &run})
	p.reopen()
	require.Zero(t, p.load("a").Run)
	require.Equal(t, []statestore.Run{run}, p.runs("a", 10))

	local := run
	local.ID, local.Ended = "01J0000000000000000000000B", day(3).In(time.FixedZone("somewhere", 5400))
	p.save("a", e, statestore.Update{Run: &local})
	require.Equal(t, day(3), p.runs("a", 1)[0].Ended, "times are in UTC")
}

func testRunEnded(t *testing.T, p *place) {
	e := p.acquire("a")
	started := statestore.Run{ID: "01J0000000000000000000000A", Epoch: e, Started: day(1), State: messages.RunRunning}
	ended := started
	ended.Ended, ended.State = day(2), messages.RunCompleted
	p.save("a", e, statestore.Update{Run: &ended})
	p.save("a", e, statestore.Update{Run: &started}) // a doubled message
	require.Zero(t, p.load("a").Run)
	require.Equal(t, []statestore.Run{ended}, p.runs("a", 10))
}

func testRuns(t *testing.T, p *place) {
	e := p.acquire("a")
	save := func(id string, epoch messages.Epoch, end time.Time) {
		p.save("a", e, statestore.Update{Run: &statestore.Run{ID: id, Epoch: epoch, Started: day(1), Ended: end, State: messages.RunCompleted}})
	}
	save("01B", 1, day(1))
	save("01D", 1, day(1))
	save("01C", 2, day(1))
	save("01A", 3, time.Time{}) // the clock was put back: its ID is the lowest
	ids := func(limit int) (ids []string) {
		for _, r := range p.runs("a", limit) {
			ids = append(ids, r.ID)
		}
		return ids
	}
	require.Equal(t, []string{"01A", "01C", "01D", "01B"}, ids(10))
	require.Equal(t, []string{"01A", "01C"}, ids(2))
	require.Empty(t, ids(0))
	require.Empty(t, ids(-1))
	require.Equal(t, "01A", p.load("a").Run.ID)
	p.reopen()
	save("01E", 3, day(2))
	require.Equal(t, []string{"01E", "01A", "01C", "01D", "01B"}, ids(math.MaxInt))
	require.Zero(t, p.load("a").Run, "the newest has ended")
}

func testRunsKept(t *testing.T, p *place) {
	e := p.acquire("a")
	for i := range statestore.RunsKept + 20 {
		id := fmt.Sprintf("%026d", i)
		p.save("a", e, statestore.Update{Run: &statestore.Run{ID: id, Epoch: e, Started: day(1), Ended: day(2), State: messages.RunCompleted}})
	}
	p.reopen()
	runs := p.runs("a", 1000)
	require.Len(t, runs, statestore.RunsKept)
	require.Equal(t, fmt.Sprintf("%026d", statestore.RunsKept+19), runs[0].ID)
	require.Equal(t, fmt.Sprintf("%026d", 20), runs[statestore.RunsKept-1].ID)
}

func testManyParts(t *testing.T, p *place) {
	const parts = 3000
	e := p.acquire("a")
	var u statestore.Update
	for i := range parts {
		u.Receipts = append(u.Receipts, receipt("orders", fmt.Sprintf("orders/%05d", i), 1, uint64(i))) //nolint:gosec // small
	}
	p.save("a", e, u)
	require.Equal(t, u.Receipts, p.load("a").Receipts)
	for i := range u.Receipts {
		u.Receipts[i].Version.Load, u.Receipts[i].Final = 2, true
	}
	p.save("a", e, receipts(u.Receipts[:parts/2]...))
	require.Equal(t, u.Receipts[:parts/2], p.load("a").Receipts)
	p.save("a", e, u)
	p.reopen()
	require.Equal(t, u.Receipts, p.load("a").Receipts)
}
