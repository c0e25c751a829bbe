package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// ordersPart is the part of the loads of rig.writer.
func ordersPart(mode connectors.WriteMode) connectors.Part {
	return loadOf(mode, 1, orders, "orders").Parts[0]
}

// A new login may not end the sessions of the one before: the rows of owner and receipt
// hold a zombie off by themselves.
func TestPGOlderOwnerOfAnotherLoginIsFencedByTheRows(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	owner := "owner_" + r.db
	r.sql("CREATE ROLE " + owner + "; GRANT CREATE ON DATABASE " + r.db + " TO " + owner + "; GRANT CREATE, USAGE ON SCHEMA public TO " + owner)
	t.Cleanup(func() { r.sql("DROP OWNED BY " + owner + "; DROP ROLE " + owner) })
	as := func(login string) *Destination {
		r.sql("CREATE ROLE " + login + " LOGIN IN ROLE " + owner + "; ALTER ROLE " + login + " SET role = " + owner)
		t.Cleanup(func() { r.sql("DROP ROLE " + login) })
		return newDestination(t, r.server, r.db, connectors.WritePolicy{}, func(c *DestinationConfig) { c.User = login })
	}
	r.dest = as("first_" + r.db)
	zombie := r.writer(connectors.ModeAppend, orders, 1)
	r.write(zombie, orders, []any{1, "zombie"})
	old := r.s
	r.s, r.dest = nil, as("second_"+r.db)
	next := r.next()
	require.NotEqual(t, [][]string{{"0"}}, r.server.Query(t, r.db, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'rb:%:e:1'"), "still there")
	_, err := zombie.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, 1, 1))
	require.Equal(t, connectors.KindFenced, connectors.KindOf(err), "%v", err)
	require.Empty(t, r.rows("orders"))
	require.Equal(t, uint64(0), next.Recovered().Receipts[0].Version.Commit)

	w := r.writer(connectors.ModeAppend, orders, 1)
	r.write(w, orders, []any{1, "a"})
	r.commit(w, messages.BarrierEnd, 1, 1)
	require.Equal(t, connectors.KindFenced, connectors.KindOf(old.Finish(t.Context(), ordersPart(connectors.ModeAppend).Load)))
	require.NoError(t, zombie.Close(t.Context()))
	require.NoError(t, old.Close(t.Context()))
	require.NoError(t, w.Close(t.Context()))
	require.NoError(t, r.s.Close(t.Context()))
	require.Equal(t, []string{"1|a"}, r.rows("orders"))
}

// What sets rows aside belongs to the commit: an attempt that is given up leaves no
// letter, and a commit whose reply is lost has them all.
func TestPGDeadLettersComeAndGoWithTheirCommit(t *testing.T) {
	p := pgtest.NewProxy(t, pgtest.Shared(t).Port())
	for name, setAside := range map[string]func(*rig, connectors.Writer){
		"by the server": func(r *rig, w connectors.Writer) { r.write(w, orders, []any{1, "a"}, []any{2, "refused"}) },
		"by a transform": func(r *rig, w connectors.Writer) {
			r.write(w, orders, []any{1, "a"})
			b := r.batch(orders, []any{2, "rejected"})
			require.NoError(t, w.Write(t.Context(), messages.Rejected{Stream: b.Stream, Reason: "filter", Rows: b.Rows}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, connectors.WritePolicy{OnDataError: connectors.DataDLQ}, func(cfg *DestinationConfig) { cfg.Host, cfg.Port = "127.0.0.1", p.Port() })
			r.sql("CREATE TABLE orders (id bigint, name text CHECK (name <> 'refused'))")
			letters := func() int {
				found, err := r.dest.DeadLetters(t.Context(), connectors.DeadLetterQuery{Pipeline: testPipeline})
				require.NoError(t, err)
				return len(found)
			}
			w := r.writer(connectors.ModeAppend, orders, 1)
			setAside(r, w)
			require.Zero(t, letters(), "before the commit")
			require.NoError(t, w.Close(t.Context()))
			require.Zero(t, letters(), "of an attempt that was given up")

			for attempt, c := range []struct {
				committed bool
				letters   int
			}{{false, 0}, {true, 1}} {
				w, receipt, err := r.s.OpenWriter(t.Context(), ordersPart(connectors.ModeAppend), messages.Token{Epoch: r.epoch, Attempt: messages.Attempt(2 + attempt)}) //nolint:gosec // small
				require.NoError(t, err)
				require.Zero(t, receipt.Version.Commit)
				setAside(r, w)
				cutCommit(p, c.committed)
				_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 2, 2))
				require.Equal(t, connectors.KindTransient, connectors.KindOf(err), "%v", err)
				require.NoError(t, w.Close(t.Context()))
				require.Equal(t, c.letters, letters())
			}
			w, receipt, err := r.s.OpenWriter(t.Context(), ordersPart(connectors.ModeAppend), messages.Token{Epoch: r.epoch, Attempt: 4})
			require.NoError(t, err)
			require.Equal(t, messages.Counts{Read: 2, Arrived: 2, Applied: 1, Rejected: 1}, receipt.Rows)
			require.NoError(t, w.Close(t.Context()))
			require.Equal(t, []string{"1|a"}, r.rows("orders"))
		})
	}
}

// A server that is lax about what it has on disk loses what it has said yes to, unless
// each session asks for more.
func TestPGCommitsOutliveAServerThatIsKilled(t *testing.T) {
	server := pgtest.Start(t, "synchronous_commit=off", "wal_writer_delay=10s", "autovacuum=off")
	r := rigOf(t, server, connectors.WritePolicy{}, nil)
	w := r.writer(connectors.ModeAppend, orders, 1)
	for i := range int64(3) {
		r.write(w, orders, []any{int(i), "kept"})
		r.commit(w, messages.BarrierPeriodic, i+1, 1)
	}
	server.Kill9(t)
	server.Restart(t)
	require.NoError(t, w.Close(t.Context()))
	require.Equal(t, []string{"0|kept", "1|kept", "2|kept"}, r.rows("orders"))
	require.Equal(t, uint64(3), r.next().Recovered().Receipts[0].Version.Commit)
}

// I5: a swap that has done most of its work and ends, by whatever, leaves the old
// version, and nobody ever finds no table.
func TestPGSwapThatEndsHalfwayLeavesTheOldVersion(t *testing.T) {
	for _, method := range []Swap{SwapRename, SwapMVCC} {
		t.Run(string(method), func(t *testing.T) {
			b := benchOf(t, "replace", "CREATE TABLE orders (id bigint, name text); INSERT INTO orders VALUES (1, 'old')")
			b.goal.cfg.Swap, b.goal.cfg.LockTimeout, b.goal.stream.Key = method, 30*time.Second, nil
			stage := b.staged("id, name", "(1, 'new'), (2, 'new')")
			_, err := b.connect(b.server.User()).Exec(t.Context(), "BEGIN; SELECT FROM "+stage)
			require.NoError(t, err)
			reader := b.connect(b.server.User())
			_, err = reader.Exec(t.Context(), "SET lock_timeout = '50ms'")
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() { done <- b.swap(stage) }()
			waits := func() bool {
				return b.lines("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '" + stage + "'::regclass")[0] == "1"
			}
			require.Eventually(t, waits, 10*time.Second, 5*time.Millisecond, "the staging table goes last")
			var seen string
			err = reader.QueryRow(t.Context(), "SELECT string_agg(name, ',') FROM orders").Scan(&seen)
			if method == SwapRename {
				require.Equal(t, lockNotAvailable, stateOf(err), "it waits: %v", err)
			} else {
				require.NoError(t, err)
				require.Equal(t, "old", seen)
			}
			b.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = '" + stage + "'::regclass")
			require.Error(t, <-done)
			require.Equal(t, []string{"1|old"}, b.lines("SELECT * FROM orders"))
		})
	}
}
