package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const makeOrdersAgain = "DROP TABLE orders; CREATE TABLE orders (id bigint PRIMARY KEY, name text)"

// Rule 8: rows that were committed are gone with their table. Whoever comes to it next
// must not go on as if they were there.
func TestPGTableMadeAgainIsNoticedByAnOpenWriter(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
		r := newRig(t, connectors.WritePolicy{}, nil)
		w := r.writer(mode, orders, 1)
		r.write(w, orders, []any{1, "a"})
		r.commit(w, messages.BarrierPeriodic, 1, 1)
		r.sql(makeOrdersAgain)
		r.write(w, orders, []any{2, "b"})
		_, err := w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 2, 1))
		requireError(t, err, connectors.KindConfig, messages.CodeStateAhead, "orders", "dropped and made again")
		require.NoError(t, w.Close(t.Context()))
		require.Empty(t, r.rows("orders"))
		require.Equal(t, uint64(1), r.next().Recovered().Receipts[0].Version.Commit)
	}
}

func TestPGTableMadeAgainIsNoticedByAnotherPart(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	s := r.next()
	l := loadOf(connectors.ModeAppend, 1, orders, "first", "second")
	require.NoError(t, s.Begin(t.Context(), l))
	w, _, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: r.epoch, Attempt: 1})
	require.NoError(t, err)
	r.write(w, orders, []any{1, "a"})
	r.commit(w, messages.BarrierEnd, 1, 1)
	require.NoError(t, w.Close(t.Context()))
	r.sql(makeOrdersAgain)
	_, _, err = s.OpenWriter(t.Context(), l.Parts[1], messages.Token{Epoch: r.epoch, Attempt: 2})
	requireError(t, err, connectors.KindConfig, messages.CodeStateAhead)
	requireError(t, r.next().Begin(t.Context(), l), connectors.KindConfig, messages.CodeStateAhead)
	r.sql("DROP TABLE orders")
	requireError(t, r.next().Begin(t.Context(), l), connectors.KindConfig, messages.CodeStateAhead)
}

// Nothing is lost with a table that nothing was committed to.
func TestPGTableMadeAgainBeforeTheFirstCommit(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	w := r.writer(connectors.ModeAppend, orders, 1)
	require.NoError(t, w.Close(t.Context()))
	r.sql(makeOrdersAgain)
	part := loadOf(connectors.ModeAppend, 1, orders, "orders").Parts[0]
	for attempt := messages.Attempt(2); attempt < 4; attempt++ {
		w, _, err := r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: attempt})
		require.NoError(t, err)
		r.write(w, orders, []any{int(attempt), "a"})
		r.commit(w, messages.BarrierDrain, int64(attempt), 1)
		require.NoError(t, w.Close(t.Context()))
	}
	require.ElementsMatch(t, []string{"2|a", "3|a"}, r.rows("orders"))
}

// A version that is begun again reads its bad rows again: the letters and the count of
// the one that was given up go with it.
func TestPGDeadLettersOfAVersionThatWasGivenUp(t *testing.T) {
	most := int64(3)
	r := newRig(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ, DeadRowsMax: &most}, nil)
	r.sql("CREATE TABLE orders (id bigint, name varchar(3))")
	part := loadOf(connectors.ModeReplace, 1, orders, "orders").Parts[0]
	var bad []messages.Counts
	for number := uint64(1); number < 5; number++ {
		if number == 3 {
			r.next() // and in one session
		}
		w := r.writer(connectors.ModeReplace, orders, number)
		r.write(w, orders, []any{1, "a"}, []any{2, "too long"}, []any{3, "as well"})
		bad = append(bad, r.commit(w, messages.BarrierEnd, 3, 3).Rows)
		require.NoError(t, w.Close(t.Context()))
	}
	require.EqualValues(t, 2, bad[3].Rejected)
	part.Load.Number = 4
	require.NoError(t, r.s.Finish(t.Context(), part.Load))
	letters, err := r.dest.DeadLetters(t.Context(), connectors.DeadLetterQuery{Pipeline: testPipeline})
	require.NoError(t, err)
	require.Len(t, letters, 2)
	require.Equal(t, []string{"1|a"}, r.rows("orders"))
}
