package duckdb

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Rule 8: a table that rows were committed to is gone. The load does not go on as if they
// were there, and nothing is written.
func TestALostTableIsRefused(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHarness(t)
			l := load(mode, 1, orders, "orders")
			w := h.begin(l)
			require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "a"})))
			h.commit(w, messages.BarrierPeriodic, 5, 1)
			require.NoError(t, h.s.Close(t.Context()))
			table := "orders"
			if mode == connectors.ModeReplace {
				table = stageName("p", "orders", 1)
			}
			sqlFile(t, h.path, "DROP TABLE "+table)
			h.s = h.open(2)
			e := requireError(t, h.s.Begin(t.Context(), l), connectors.KindConfig, messages.CodeStateAhead,
				"task orders at load 1, commit 1, at 5, in table main."+table, "no such table any more")
			require.Equal(t, messages.StreamID("orders"), e.Place.Stream)
			require.Equal(t, "5", e.Place.Position)
			require.Empty(t, tableRows(t, h.path, "main", table))
			require.NoError(t, h.s.Begin(t.Context(), load(mode, 2, orders, "orders")), "whoever starts over does not need it")
		})
	}
}

func TestATableThatLostWhatIsNotReadAgainIsRefused(t *testing.T) {
	h := newHarness(t)
	l := load(connectors.ModeAppend, 1, orders, "orders")
	w := h.begin(l)
	require.NoError(t, w.Write(t.Context(), h.batch(orders, []any{1, "a"})))
	h.commit(w, messages.BarrierEnd, 5, 1)
	require.NoError(t, h.s.Finish(t.Context(), l.ID))
	require.NoError(t, h.s.Begin(t.Context(), l), "a finished load is begun")
	require.NoError(t, h.s.Close(t.Context()))
	sqlFile(t, h.path, "DROP TABLE orders")
	h.s = h.open(2)
	next := load(connectors.ModeAppend, 2, orders, "orders/b")
	next.Adds = true
	requireError(t, h.s.Begin(t.Context(), next), connectors.KindConfig, messages.CodeStateAhead, "task orders at load 1, commit 1")
	require.Len(t, h.s.Recovered().Receipts, 1)
	next.Adds = false
	require.NoError(t, h.s.Begin(t.Context(), next))
}
