package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// A change that waits for a lock ends with the lock timeout of its session, and is
// possible again behind it.
func TestPGChangesWaitForLocksBoundedly(t *testing.T) {
	b := benchOf(t, "append", "CREATE TABLE orders (id bigint)")
	holder := b.connect(b.server.User())
	_, err := holder.Exec(t.Context(), "BEGIN; SELECT * FROM orders")
	require.NoError(t, err)
	_, err = b.conn.Exec(t.Context(), "SET lock_timeout = '100ms'")
	require.NoError(t, err)
	_, err = b.prepare()
	require.Equal(t, lockNotAvailable, stateOf(err), "%v", err)
	e := wantError(t, blockedError(t.Context(), "begin", "pid 7", err), connectors.KindOf(err), messages.CodeDestBusy, "the lock is held by pid 7", "lock timeout")
	require.NotEmpty(t, e.Next)
	_, err = holder.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	b.begun()
}

// Everybody who makes types or tables does it one behind the other.
func TestPGPlansOfTwoLoadsDoNotCross(t *testing.T) {
	b := benchOf(t, "append", "")
	other := b.connect(b.server.User())
	tx, err := other.Begin(t.Context())
	require.NoError(t, err)
	_, err = b.goal.prepare(t.Context(), tx)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		done <- pgx.BeginFunc(t.Context(), b.conn, func(tx pgx.Tx) error {
			p, err := b.goal.prepare(t.Context(), tx)
			if err == nil && len(p.statements) > 0 {
				t.Errorf("a table that exists was planned again: %v", p.statements)
			}
			return err
		})
	}()
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
}
