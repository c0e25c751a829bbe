package checkpoint

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// table is a machine with two loads: orders with two parts, users with one, each
// with a running task, and what it has been told to save.
type table struct {
	t       *testing.T
	m       *Machine
	tokens  map[messages.PartID]messages.Token
	stored  map[messages.PartID]int64 // K: the position of the last successful Save
	told    map[messages.PartID]int64 // F: the position of the last CheckpointCommitted
	pending *Save
	asked   []messages.LoadID // FinishLoad
	stopped error
}

func newTable(t *testing.T) *table {
	t.Helper()
	x := &table{
		t: t, m: NewMachine(pipeline, 7), tokens: map[messages.PartID]messages.Token{},
		stored: map[messages.PartID]int64{}, told: map[messages.PartID]int64{},
	}
	x.step(Recovered{})
	x.step(Began{Load: loadOf("orders/0"), Parts: partIDs[:2]})
	x.step(Began{Load: loadOf("users/0"), Parts: partIDs[2:]})
	x.save(nil)
	for i, p := range partIDs {
		x.tokens[p] = messages.Token{Epoch: 7, Attempt: messages.Attempt(i) + 1}
		x.step(Started{Token: x.tokens[p], Receipt: messages.Receipt{Part: p, Load: loadOf(p).Name, Version: messages.Version{Load: 1}}})
	}
	x.save(nil)
	return x
}

func (x *table) step(ev Event) {
	for _, eff := range x.m.Step(ev) {
		switch eff := eff.(type) {
		case Save:
			x.pending = &eff
		case Tell:
			x.told[eff.Part] = mustInt(eff.Position)
		case FinishLoad:
			x.asked = append(x.asked, eff.Load)
		case Stop:
			x.stopped = eff.Err
		case PartDone, Done, Ask, Reject:
		}
	}
}

// save carries out the pending transaction; err means that it did not happen.
func (x *table) save(err error) {
	for x.pending != nil {
		s := *x.pending
		x.pending = nil
		if err != nil {
			x.step(SaveFailed{ID: s.ID})
			return
		}
		for _, r := range s.Receipts {
			x.stored[r.Part] = pos(r)
		}
		x.step(Saved{ID: s.ID})
	}
}

// ack returns the ack of a commit of part p at position at.
func (x *table) ack(p messages.PartID, commit uint64, seq messages.Seq, at int64, final bool) Acked {
	return Acked{messages.DestinationAck{Pipeline: pipeline, Seq: seq, Receipt: messages.Receipt{
		Part: p, Load: loadOf(p).Name, Version: messages.Version{Load: 1, Commit: commit}, Token: x.tokens[p],
		Position: messages.Position{At: messages.Int64Cursor(at)}, Final: final,
	}}}
}

// TestCursorDoesNotAdvanceOnPartialConfirmation is rule 7 of ARCHITECTURE.md: what
// is not confirmed stays where it was.
func TestCursorDoesNotAdvanceOnPartialConfirmation(t *testing.T) {
	stay := func(t *testing.T, x *table, p messages.PartID, at int64) {
		t.Helper()
		require.Equal(t, at, x.stored[p], "state store of %s", p)
		require.Equal(t, at, x.told[p], "confirmation of %s", p)
	}
	t.Run("one of two tasks", func(t *testing.T) {
		x := newTable(t)
		x.step(x.ack("orders/0", 1, 3, 10, true))
		x.save(nil)
		stay(t, x, "orders/0", 10)
		stay(t, x, "orders/1", 0)
		require.Empty(t, x.asked, "a load with an open part is not finished")
		x.step(x.ack("orders/1", 1, 3, 10, true))
		x.save(nil)
		require.Contains(t, x.asked, loadOf("orders/0"))
	})
	t.Run("one of two streams", func(t *testing.T) {
		x := newTable(t)
		x.step(x.ack("users/0", 1, 5, 10, true))
		x.save(nil)
		stay(t, x, "users/0", 10)
		stay(t, x, "orders/0", 0)
		stay(t, x, "orders/1", 0)
		require.Equal(t, []messages.LoadID{loadOf("users/0")}, x.asked)
	})
	t.Run("ack of an older barrier", func(t *testing.T) {
		x := newTable(t)
		x.step(x.ack("orders/0", 2, 9, 20, false))
		x.save(nil)
		x.step(x.ack("orders/0", 1, 4, 10, false)) // delayed
		x.save(nil)
		stay(t, x, "orders/0", 20)
		x.step(x.ack("orders/0", 2, 9, 20, false)) // doubled
		require.Nil(t, x.pending)
		stay(t, x, "orders/0", 20)
	})
	t.Run("ack of another epoch", func(t *testing.T) {
		for _, epoch := range []messages.Epoch{6, 8} {
			x := newTable(t)
			a := x.ack("orders/0", 1, 3, 10, false)
			a.Receipt.Token.Epoch = epoch
			x.step(a)
			x.save(nil)
			stay(t, x, "orders/0", 0)
		}
	})
	t.Run("ack of another attempt", func(t *testing.T) {
		x := newTable(t)
		old := x.ack("orders/0", 1, 3, 10, false)
		x.tokens["orders/0"] = messages.Token{Epoch: 7, Attempt: 9}
		x.step(Started{Token: x.tokens["orders/0"], Receipt: messages.Receipt{
			Part: "orders/0", Load: "orders", Version: messages.Version{Load: 1},
		}})
		x.step(old)
		x.save(nil)
		stay(t, x, "orders/0", 0)
	})
	t.Run("ack of another pipeline", func(t *testing.T) {
		x := newTable(t)
		a := x.ack("orders/0", 1, 3, 10, false)
		a.Pipeline = "other"
		x.step(a)
		x.save(nil)
		stay(t, x, "orders/0", 0)
	})
	t.Run("data acked but the state write failed", func(t *testing.T) {
		x := newTable(t)
		x.step(x.ack("orders/0", 1, 3, 10, true))
		x.step(x.ack("orders/1", 1, 3, 10, true))
		for range 3 {
			x.save(ErrFenced)
			x.step(Tick{})
		}
		stay(t, x, "orders/0", 0)
		require.Empty(t, x.asked)
		x.save(nil) // the disk works again: the same save is done again
		stay(t, x, "orders/0", 10)
		stay(t, x, "orders/1", 10)
		require.Contains(t, x.asked, loadOf("orders/0"))
	})
	t.Run("ack while a save is in flight", func(t *testing.T) {
		x := newTable(t)
		x.step(x.ack("orders/0", 1, 3, 10, false))
		first := *x.pending
		x.step(x.ack("orders/0", 2, 6, 20, false))
		require.Equal(t, first, *x.pending, "one save at a time")
		x.pending = nil
		x.step(Saved{ID: first.ID})
		require.EqualValues(t, 10, x.told["orders/0"], "the save covers what it wrote, not what was acked since")
		x.save(nil)
		stay(t, x, "orders/0", 20)
	})
}

func TestDestinationBehindTheStoreStopsThePipeline(t *testing.T) {
	k := messages.Receipt{Part: "orders/0", Load: "orders", Version: messages.Version{Load: 1, Commit: 5}}
	d := k
	d.Version.Commit = 4
	for name, ev := range map[string]Recovered{
		"receipt behind":   {Stored: []messages.Receipt{k}, Durable: []messages.Receipt{d}},
		"receipt gone":     {Stored: []messages.Receipt{k}},
		"other position":   {Stored: []messages.Receipt{k}, Durable: []messages.Receipt{{Part: k.Part, Load: k.Load, Version: k.Version, Position: messages.Position{At: messages.Int64Cursor(1)}}}},
		"unfinished there": {StoredFinished: []messages.LoadID{k.LoadID()}, Begun: []messages.LoadID{k.LoadID()}},
		"load gone":        {StoredFinished: []messages.LoadID{k.LoadID()}},
	} {
		t.Run(name, func(t *testing.T) {
			x := &table{t: t, m: NewMachine(pipeline, 7)}
			x.step(ev)
			require.ErrorIs(t, x.stopped, ErrStateAhead)
			require.Nil(t, x.pending, "nothing is written")
		})
	}
}

func TestLoadWithoutPartsIsKnownAsFinished(t *testing.T) {
	id := messages.LoadID{Name: "orders", Number: 3}
	x := &table{t: t, m: NewMachine(pipeline, 7)}
	x.step(Recovered{Begun: []messages.LoadID{id}, Finished: []messages.LoadID{id}, StoredFinished: []messages.LoadID{id}})
	require.NoError(t, x.stopped)
}
