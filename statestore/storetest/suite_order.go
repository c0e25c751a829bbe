package storetest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// reset orders that a load is started over.
func reset(load string, number uint64) statestore.Order {
	return statestore.Order{Load: messages.LoadID{Name: load, Number: number}, Given: day(3)}
}

// rewind orders that a part at a version reads on from elsewhere.
func rewind(load, part string, number, commit uint64) statestore.Order {
	o := reset(load, number)
	o.Part, o.From = messages.PartID(part), messages.Version{Load: number, Commit: commit}
	o.To = messages.Position{
		At:      messages.TupleCursor(messages.Int64Cursor(int64(commit)), messages.Cursor{Type: messages.CursorText, Value: "\xff"}), //nolint:gosec // small
		Streams: []messages.StreamCursor{{Stream: "s\xff", State: messages.StreamSnapshot, At: messages.Int64Cursor(1)}},
	}
	return o
}

func orders(o ...statestore.Order) statestore.Update { return statestore.Update{Orders: o} }

func testOrders(t *testing.T, p *place) {
	e := p.acquire("a")
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 5)))
	local := reset("customers", 1)
	local.Given = day(3).In(time.FixedZone("somewhere", 5400))
	p.save("a", e, orders(rewind("orders", "orders/1", 2, 0), rewind("orders", "orders/0", 2, 5), local, reset("orders", 2)))
	want := []statestore.Order{reset("customers", 1), reset("orders", 2), rewind("orders", "orders/0", 2, 5), rewind("orders", "orders/1", 2, 0)}
	require.Equal(t, want, p.load("a").Orders, "sorted by load, then part; whole; times are in UTC")
	p.reopen()
	require.Equal(t, want, p.load("a").Orders)
	require.Empty(t, p.load("b").Orders)

	want[2] = rewind("orders", "orders/0", 2, 5)
	want[2].To = messages.Position{}
	p.save("a", e, orders(want[2]))
	require.Equal(t, want, p.load("a").Orders, "a newer order of the same part replaces the older")
	p.save("a", e, orders(want...))
	require.Equal(t, want, p.load("a").Orders, "saving again changes nothing")
	require.Len(t, p.load("a").Receipts, 1, "an order alone changes no receipt")

	young := p.acquire("a")
	require.Equal(t, want, p.load("a").Orders, "they are for whoever runs next")
	require.ErrorIs(t, p.store.Save(t.Context(), "a", e, orders(reset("x", 1))), statestore.ErrFenced)
	p.save("a", young, statestore.Update{Revoke: []string{"customers", "nothing"}})
	p.reopen()
	require.Equal(t, want[1:], p.load("a").Orders)
	p.save("a", young, statestore.Update{Revoke: []string{"orders"}, Orders: []statestore.Order{want[3]}})
	require.Equal(t, want[3:], p.load("a").Orders, "orders are given after others are taken back")
}

func testOrdersAreVoid(t *testing.T, p *place) {
	e := p.acquire("a")
	of := func() []statestore.Order { return p.load("a").Orders }
	again := rewind("orders", "orders/0", 2, 5)
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 4)))
	p.save("a", e, orders(again))
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 5)))
	require.Equal(t, []statestore.Order{again}, of(), "the receipt is what it was given for")
	p.save("a", e, receipts(receipt("orders", "orders/1", 2, 9)))
	require.Equal(t, []statestore.Order{again}, of(), "another part is above it")
	p.save("a", e, receipts(receipt("orders", "orders/0", 2, 6)))
	require.Empty(t, of(), "done: the receipt is above it")
	p.save("a", e, orders(again))
	require.Empty(t, of(), "given too late")

	again = rewind("orders", "orders/1", 2, 9)
	over := reset("orders", 2)
	p.save("a", e, orders(again, over))
	p.save("a", e, finished("orders", 2))
	require.Equal(t, []statestore.Order{over, again}, of(), "a load that is finished may be started over")
	p.save("a", e, receipts(receipt("orders", "orders/7", 3, 0)))
	require.Empty(t, of(), "the load was passed")
	p.reopen()
	require.Empty(t, of())

	p.save("a", e, orders(reset("customers", 4)))
	p.save("a", e, finished("customers", 5))
	require.Empty(t, of(), "a mark tells that a load was passed, too")
	p.save("a", e, orders(reset("products", math.MaxUint64)))
	require.Len(t, of(), 1)
}

func testOrdersForgotten(t *testing.T, p *place) {
	e := p.acquire("a")
	p.save("a", e, orders(reset("orders", 2), rewind("orders", "orders/0", 2, 5), reset("customers", 1)))
	p.save("a", e, statestore.Update{Forget: []string{"orders"}})
	require.Equal(t, []statestore.Order{reset("customers", 1)}, p.load("a").Orders)
	p.save("a", e, statestore.Update{Forget: []string{"customers"}, Orders: []statestore.Order{reset("customers", 7)}})
	p.reopen()
	require.Equal(t, []statestore.Order{reset("customers", 7)}, p.load("a").Orders, "orders are given after loads are forgotten")
}

func testClaim(t *testing.T, p *place) {
	mine := p.acquire("a")
	claim := func(c statestore.Claim) (messages.Epoch, error) { return p.store.Acquire(t.Context(), "a", c) }
	e, err := claim(statestore.Claim{Mine: mine})
	require.NoError(t, err)
	require.Equal(t, mine+1, e, "nobody took over")
	_, err = claim(statestore.Claim{Mine: mine, Floor: 90})
	require.ErrorIs(t, err, statestore.ErrFenced, "somebody did")
	require.Equal(t, messages.CodeFenced, statestore.CodeOf(err))
	require.Equal(t, e, p.load("a").Epoch, "and nothing has changed")
	p.reopen()
	_, err = claim(statestore.Claim{Mine: mine})
	require.ErrorIs(t, err, statestore.ErrFenced)

	e, err = claim(statestore.Claim{Mine: e, Floor: 7})
	require.NoError(t, err)
	require.EqualValues(t, 8, e)
	e, err = claim(statestore.Claim{Mine: 40}) // the store is an old copy
	require.NoError(t, err)
	require.EqualValues(t, 41, e, "an epoch is never handed out again")
	e, err = claim(statestore.Claim{})
	require.NoError(t, err)
	require.EqualValues(t, 42, e)
	_, err = claim(statestore.Claim{Mine: math.MaxUint64})
	require.ErrorIs(t, err, statestore.ErrInvalid)
	e, err = p.store.Acquire(t.Context(), "b", statestore.Claim{Mine: 3})
	require.NoError(t, err)
	require.EqualValues(t, 4, e, "a pipeline that the store does not know")
}
