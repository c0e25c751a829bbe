package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
)

func TestPGConcurrentOpensMakeOneStore(t *testing.T) {
	p := newPlace(t)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			s, err := postgres.Open(t.Context(), p.config())
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			ids[i] = s.Identity()
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.NotEmpty(t, id)
		require.Equal(t, ids[0], id)
	}
	require.Equal(t, "1", p.one(t, "SELECT count(*) FROM _rapidbyte_state.store"))
}

// filled returns a store with something of everything, and its owner's epoch.
func filled(t *testing.T, c postgres.Config, id messages.PipelineID) (*postgres.Store, messages.Epoch) {
	t.Helper()
	s := open(t, c)
	e := acquire(t, s, id)
	u := commitOf(messages.Version{Load: 1, Commit: 3}, e)
	u.Finished = []messages.LoadID{{Name: "orders", Number: 1}}
	u.Orders = []statestore.Order{{Load: messages.LoadID{Name: "orders", Number: 1}, Given: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}}
	require.NoError(t, s.Save(t.Context(), id, e, u))
	return s, e
}

func load(t *testing.T, s *postgres.Store, id messages.PipelineID) statestore.State {
	t.Helper()
	st, err := s.Load(t.Context(), id)
	require.NoError(t, err)
	return st
}

func TestPGAStoreGoesBackAndForthByOneVersion(t *testing.T) {
	p := newPlace(t)
	url := p.URL(p.db)
	s, e := filled(t, p.config(), "a")
	acquire(t, s, "b")
	want := load(t, s, "a")
	runs, err := s.Runs(t.Context(), "a", 10)
	require.NoError(t, err)
	require.Len(t, want.Orders, 1)

	err = postgres.Migrate(t.Context(), url, 1)
	require.ErrorContains(t, err, "1 orders wait to be done")
	require.ErrorContains(t, err, "pipeline a")
	require.Equal(t, want, load(t, s, "a"), "nothing has changed")
	// One that is void because the load has been begun anew does not wait.
	next := messages.Receipt{Part: "orders/9", Load: "orders", Version: messages.Version{Load: 2}}
	require.NoError(t, s.Save(t.Context(), "a", e, statestore.Update{Receipts: []messages.Receipt{next}}))
	want = load(t, s, "a")
	require.Empty(t, want.Orders)
	require.Equal(t, "1", p.one(t, "SELECT count(*) FROM _rapidbyte_state.orders"))

	require.NoError(t, postgres.Migrate(t.Context(), url, 1))
	require.Equal(t, "1", p.one(t, "SELECT version FROM _rapidbyte_state.store"))
	require.Equal(t, "0", p.one(t, "SELECT count(*) FROM pg_class WHERE relname IN ('history', 'orders') AND relnamespace = '_rapidbyte_state'::regnamespace"))
	for _, err := range []error{
		s.Save(t.Context(), "a", e, commit(9)), func() error { _, err := s.Acquire(t.Context(), "a", statestore.Claim{}); return err }(),
	} {
		require.ErrorIs(t, err, statestore.ErrForeign, "an open store notices")
		require.ErrorContains(t, err, "was brought back to version 1")
	}
	require.NoError(t, postgres.Migrate(t.Context(), url, 1), "again")

	require.NoError(t, postgres.Migrate(t.Context(), url, 2))
	again := open(t, p.config())
	require.Equal(t, s.Identity(), again.Identity())
	require.Equal(t, want, load(t, again, "a"))
	require.EqualValues(t, 1, load(t, again, "b").Epoch)
	gotRuns, err := again.Runs(t.Context(), "a", 10)
	require.NoError(t, err)
	require.Equal(t, runs, gotRuns)
	kept, err := again.History(t.Context(), "a", "orders/9")
	require.NoError(t, err)
	require.Empty(t, kept)
	require.NoError(t, s.Save(t.Context(), "a", e, commitOf(messages.Version{Load: 2, Commit: 7}, e)), "the owner goes on")
	kept, err = again.History(t.Context(), "a", "orders/0")
	require.NoError(t, err)
	require.Len(t, kept, 1)
}

func TestPGOpenBringsAnOlderStoreForward(t *testing.T) {
	p := newPlace(t)
	require.NoError(t, postgres.Migrate(t.Context(), p.URL(p.db), 1), "it creates one too")
	require.Equal(t, "1", p.one(t, "SELECT version FROM _rapidbyte_state.store"))
	s, _ := filled(t, p.config(), "a")
	require.Len(t, load(t, s, "a").Receipts, 10)
	require.Equal(t, "2", p.one(t, "SELECT version FROM _rapidbyte_state.store"))
}

func TestPGANewerStoreIsForeign(t *testing.T) {
	p := newPlace(t)
	s, e := filled(t, p.config(), "a")
	p.exec(t, "UPDATE _rapidbyte_state.store SET version = 3")
	_, err := postgres.Open(t.Context(), p.config())
	require.ErrorIs(t, err, statestore.ErrForeign)
	require.Equal(t, messages.CodeStateForeign, statestore.CodeOf(err))
	require.ErrorContains(t, err, "has version 3, this program knows 2: use the newer program")
	rebuild := p.config()
	rebuild.Rebuild = true
	_, err = postgres.Open(t.Context(), rebuild)
	require.ErrorIs(t, err, statestore.ErrForeign, "it is not damaged")
	require.ErrorIs(t, s.Save(t.Context(), "a", e, commit(9)), statestore.ErrForeign)
	require.ErrorIs(t, postgres.Migrate(t.Context(), p.URL(p.db), 2), statestore.ErrForeign)
	for _, version := range []int{0, 3, -1} {
		require.ErrorContains(t, postgres.Migrate(t.Context(), p.URL(p.db), version), "there is no version")
	}
}

// A migration waits for the transactions of others, but not for ever.
func TestPGAMigrationWaitsForItsContextOnly(t *testing.T) {
	p := newPlace(t)
	conn, err := pgx.Connect(t.Context(), p.URL(p.db))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", int64(0x7262_7374_6174_6501))
	require.NoError(t, err)
	why := errors.New("the user pressed a key")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, why)
	defer cancel()
	_, err = postgres.Open(ctx, p.config())
	require.ErrorIs(t, err, why)
	require.NoError(t, tx.Rollback(t.Context()))
	open(t, p.config())
}
