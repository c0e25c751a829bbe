package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
)

const in = "_rapidbyte_state."

// damages are what may become of the rows of pipeline a; b has rows too.
var damages = map[string]string{
	"a receipt edited by hand":  "UPDATE " + in + "receipt SET value = replace(value, '\"commit\":3', '\"commit\":4') WHERE pipeline = sha256('a') AND id = sha256('orders/0')",
	"a checksum edited by hand": "UPDATE " + in + "receipt SET sum = sum + 1 WHERE pipeline = sha256('a') AND id = sha256('orders/0')",
	"a receipt that is no JSON": "UPDATE " + in + "receipt SET value = 'x' WHERE pipeline = sha256('a') AND id = sha256('orders/0')",
	"a receipt moved":           "UPDATE " + in + "receipt SET id = sha256('orders/x') WHERE pipeline = sha256('a') AND id = sha256('orders/0')",
	"a receipt of another":      "UPDATE " + in + "receipt r SET value = o.value, sum = o.sum FROM " + in + "receipt o WHERE r.pipeline = sha256('a') AND o.pipeline = sha256('b') AND r.id = o.id",
	"a receipt lost":            "DELETE FROM " + in + "receipt WHERE pipeline = sha256('a') AND id = sha256('orders/0')",
	"a receipt of yesterday":    "", // see yesterday
	"the receipts truncated":    "DELETE FROM " + in + "receipt WHERE pipeline = sha256('a')",
	"the marks truncated":       "DELETE FROM " + in + "load WHERE pipeline = sha256('a')",
	"a mark edited by hand":     "UPDATE " + in + "load SET value = replace(value, '\"finished\":1', '\"finished\":2') WHERE pipeline = sha256('a')",
	"the runs truncated":        "DELETE FROM " + in + "run WHERE pipeline = sha256('a')",
	"the orders truncated":      "DELETE FROM " + in + "orders WHERE pipeline = sha256('a')",
	"the pipeline lost":         "DELETE FROM " + in + "pipeline WHERE id = sha256('a')",
	"an epoch edited by hand":   "UPDATE " + in + "pipeline SET value = replace(value, '\"epoch\":1', '\"epoch\":7') WHERE id = sha256('a')",
	"a digest edited by hand":   "UPDATE " + in + "pipeline SET value = replace(value, '\"count\":', '\"count\":1') WHERE id = sha256('a')",
	"the row of b as that of a": "UPDATE " + in + "pipeline p SET value = o.value, sum = o.sum FROM " + in + "pipeline o WHERE p.id = sha256('a') AND o.id = sha256('b')",
}

// yesterday puts back what stood in a row one save ago.
func yesterday(t *testing.T, p place, s *postgres.Store, e messages.Epoch) {
	t.Helper()
	p.exec(t, "CREATE TABLE old AS SELECT id, value, sum FROM "+in+"receipt WHERE pipeline = sha256('a') AND id = sha256('orders/0')")
	require.NoError(t, s.Save(t.Context(), "a", e, commitOf(messages.Version{Load: 1, Commit: 4}, e)))
	p.exec(t, "UPDATE "+in+"receipt r SET value = old.value, sum = old.sum FROM old WHERE r.id = old.id AND r.pipeline = sha256('a')")
}

func TestPGDamageIsNoticedAndRebuilt(t *testing.T) {
	for name, sql := range damages {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			s, e := filled(t, p.config(), "a")
			filled(t, p.config(), "b")
			sound := load(t, s, "b")
			if sql == "" {
				yesterday(t, p, s, e)
			} else {
				p.exec(t, sql)
			}
			_, err := s.Load(t.Context(), "a")
			require.ErrorIs(t, err, statestore.ErrDamaged)
			require.Equal(t, messages.CodeStateDamaged, statestore.CodeOf(err))
			require.Equal(t, sound, load(t, s, "b"), "the others go on")
			if strings.Contains(name, "edited by hand") && strings.Contains(name, "receipt") {
				require.ErrorIs(t, s.Save(t.Context(), "a", e, commitOf(messages.Version{Load: 1, Commit: 9}, e)), statestore.ErrDamaged)
				require.ErrorContains(t, err, "task orders/0")
			}
			require.NoError(t, s.Close())

			c := p.config()
			c.Rebuild = true
			again := open(t, c)
			require.Empty(t, again.Aside(), "the store itself is sound")
			require.Equal(t, s.Identity(), again.Identity(), "destinations know it by that")
			require.Zero(t, load(t, again, "a"), "what Acquire will make of it")
			require.Equal(t, "0", p.one(t, "SELECT count(*) FROM "+in+"aside"), "to look at it changes nothing")
			next, err := again.Acquire(t.Context(), "a", statestore.Claim{Floor: 40})
			require.NoError(t, err)
			require.EqualValues(t, 41, next)
			require.Equal(t, statestore.State{Epoch: next}, load(t, again, "a"))
			require.NotEqual(t, "0", p.one(t, "SELECT count(*) FROM "+in+"aside"), "it is kept as it was")
			require.NoError(t, again.Save(t.Context(), "a", next, commit(1)))
			require.Equal(t, sound, load(t, again, "b"))
			require.NoError(t, again.Close())

			calm := open(t, c)
			require.EqualValues(t, 42, acquire(t, calm, "a"))
			require.Len(t, load(t, calm, "a").Receipts, 1, "what is sound is left alone")
			names, err := calm.Pipelines(t.Context())
			require.NoError(t, err)
			require.Equal(t, []messages.PipelineID{"a", "b"}, names)
		})
	}
}

func TestPGADamagedEpochIsNotHandedOutTwice(t *testing.T) {
	p := newPlace(t)
	s, _ := filled(t, p.config(), "a")
	for range 4 {
		acquire(t, s, "a")
	}
	require.NoError(t, s.Close())
	p.exec(t, "DELETE FROM "+in+"pipeline")
	c := p.config()
	c.Rebuild = true
	require.EqualValues(t, 6, acquire(t, open(t, c), "a"), "the lease knows it still")
}

func TestPGDamageOfTheStoreItselfIsNoticedAndRebuilt(t *testing.T) {
	for name, sql := range map[string]string{
		"the identity lost":           "TRUNCATE " + in + "store",
		"the identity edited by hand": "UPDATE " + in + "store SET value = replace(value, '\"identity\":\"', '\"identity\":\"0')",
		"the store dropped":           "DROP TABLE " + in + "store",
		"the receipts dropped":        "DROP TABLE " + in + "receipt",
		"the history dropped":         "DROP TABLE " + in + "history",
		"a version that never was":    "UPDATE " + in + "store SET version = 0",
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			s, e := filled(t, p.config(), "a")
			p.exec(t, sql)
			if name != "the identity edited by hand" && name != "a version that never was" {
				require.ErrorIs(t, s.Save(t.Context(), "a", e, commit(9)), statestore.ErrDamaged)
			}
			_, err := postgres.Open(t.Context(), p.config())
			require.ErrorIs(t, err, statestore.ErrDamaged)
			c := p.config()
			c.Rebuild = true
			_, err = postgres.Open(t.Context(), c)
			require.ErrorIs(t, err, statestore.ErrHeld, "a pipeline has an owner that lives")
			require.NoError(t, s.Close())
			again := open(t, c)
			require.Equal(t, "_rapidbyte_state_damaged_1", again.Aside())
			require.NotEqual(t, s.Identity(), again.Identity())
			require.Zero(t, load(t, again, "a"))
			require.EqualValues(t, 8, func() messages.Epoch {
				e, err := again.Acquire(t.Context(), "a", statestore.Claim{Floor: 7})
				require.NoError(t, err)
				return e
			}())
			require.Empty(t, open(t, c).Aside())
		})
	}
}

// Whoever comes second finds the store that the first one has begun, and leaves it alone.
func TestPGConcurrentRebuildsMakeOneStore(t *testing.T) {
	p := newPlace(t)
	s, _ := filled(t, p.config(), "a")
	require.NoError(t, s.Close())
	p.exec(t, "TRUNCATE "+in+"store")
	c := p.config()
	c.Rebuild = true

	conn, err := pgx.Connect(t.Context(), c.URL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	const lock = 0x7262_7374_6174_6501 // of the migrations
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(lock))
	require.NoError(t, err)
	type opened struct {
		store *postgres.Store
		err   error
	}
	results := make(chan opened, 2)
	for range cap(results) {
		go func() {
			s, err := postgres.Open(t.Context(), c)
			results <- opened{s, err}
		}()
	}
	until(t, "both have found it damaged", func() bool {
		return p.one(t, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == "2"
	})
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_unlock($1)", int64(lock))
	require.NoError(t, err)
	identities, asides := map[string]bool{}, map[string]bool{}
	for range cap(results) {
		r := <-results
		require.NoError(t, r.err)
		identities[r.store.Identity()], asides[r.store.Aside()] = true, true
		require.NoError(t, r.store.Close())
	}
	require.Len(t, identities, 1)
	require.Equal(t, map[string]bool{"_rapidbyte_state_damaged_1": true, "": true}, asides)
}

func TestPGAnEmptiedStoreIsNotTakenAsEmpty(t *testing.T) {
	p := newPlace(t)
	s, e := filled(t, p.config(), "a")
	require.NoError(t, s.Save(t.Context(), "a", e, statestore.Update{Forget: []string{"orders"}}))
	p.exec(t, "TRUNCATE "+in+"pipeline, "+in+"receipt, "+in+"load, "+in+"run, "+in+"orders, "+in+"lease")
	_, err := s.Load(t.Context(), "a")
	require.ErrorIs(t, err, statestore.ErrDamaged)
	require.ErrorContains(t, err, "it holds 0 pipelines and should hold 1")
	_, err = s.Acquire(t.Context(), "a", statestore.Claim{})
	require.ErrorIs(t, err, statestore.ErrDamaged)
	_, err = s.Pipelines(t.Context())
	require.ErrorIs(t, err, statestore.ErrDamaged)

	// The schema goes while the store is open: a new one would have another identity.
	p.exec(t, "DROP SCHEMA _rapidbyte_state CASCADE")
	require.ErrorIs(t, s.Save(t.Context(), "a", e, commit(9)), statestore.ErrDamaged)
	_, err = s.Load(t.Context(), "a")
	require.ErrorIs(t, err, statestore.ErrDamaged)
	require.NotEqual(t, s.Identity(), open(t, p.config()).Identity())
}

// A backup is older than the destination, whose epoch raises that of the store.
func TestPGARestoredBackupDrawsAboveTheFloor(t *testing.T) {
	p := newPlace(t)
	s, _ := filled(t, p.config(), "a")
	want := load(t, s, "a")
	require.NoError(t, s.Close())
	backup := p.DatabaseLike(t, p.db, "")
	old := open(t, postgres.Config{URL: p.URL(backup)})
	require.Equal(t, s.Identity(), old.Identity())
	require.Equal(t, want, load(t, old, "a"))
	e, err := old.Acquire(t.Context(), "a", statestore.Claim{Floor: 5})
	require.NoError(t, err)
	require.EqualValues(t, 6, e)
}

func TestPGAnEditedCheckpointOfTheHistoryIsNoticed(t *testing.T) {
	p := newPlace(t)
	s, _ := filled(t, p.config(), "a")
	p.exec(t, "UPDATE "+in+"history SET value = replace(value, '\"commit\":3', '\"commit\":4') WHERE part = sha256('orders/1')")
	_, err := s.History(t.Context(), "a", "orders/1")
	require.ErrorIs(t, err, statestore.ErrDamaged)
	require.ErrorContains(t, err, "task orders/1")
	kept, err := s.History(t.Context(), "a", "orders/2")
	require.NoError(t, err)
	require.Len(t, kept, 1)
}
