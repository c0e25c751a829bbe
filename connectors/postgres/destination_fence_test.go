package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// cutCommit resets the next connection that commits: before the server sees it, or before
// the client hears that it is committed.
func cutCommit(p *pgtest.Proxy, committed bool) {
	done := false
	p.Judge(func(m pgtest.Message) pgtest.Fate {
		if done || m.FromServer != committed || !m.Says("COMMIT") {
			return pgtest.Pass
		}
		done = true
		return pgtest.ResetAt(0)
	})
}

// C09: the connection is lost around COMMIT. The next writer's receipt says what
// became of it, and the rows are there once whatever it was.
func TestPGUnknownCommitIsResolvedByTheReceipt(t *testing.T) {
	for _, c := range []struct {
		name      string
		committed bool
	}{{"before the server saw it", false}, {"before the client heard it", true}} {
		for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace} {
			t.Run(c.name+"/"+string(mode), func(t *testing.T) {
				p := pgtest.NewProxy(t, pgtest.Shared(t).Port()) // before the rig: it outlives its connections
				r := newRig(t, connectors.WritePolicy{}, nil)
				r.dest = newDestination(t, r.server, r.db, connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, func(cfg *DestinationConfig) {
					cfg.Host, cfg.Port = "127.0.0.1", p.Port()
				})
				w := r.writer(mode, orders, 1)
				r.write(w, orders, []any{1, "a"})
				r.commit(w, messages.BarrierPeriodic, 1, 1)
				r.write(w, orders, []any{2, "b"})
				cutCommit(p, c.committed)
				_, err := w.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, 2, 1))
				e, ok := errors.AsType[*connectors.Error](err)
				require.True(t, ok, "%v", err)
				require.Equal(t, connectors.KindTransient, e.Kind, "%v", err)
				require.Equal(t, connectors.CommitUnknown, e.Commit)
				require.NoError(t, w.Close(t.Context()))

				part := connectors.Part{ID: "orders", Load: messages.LoadID{Name: "orders", Number: 1}, Streams: []messages.StreamID{"orders"}}
				again, receipt, err := r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: 2})
				require.NoError(t, err)
				at, _ := receipt.Position.At.Int64()
				require.Equal(t, c.committed, at == 2, "position %d", at)
				if !c.committed {
					r.write(again, orders, []any{2, "b"})
				}
				r.commit(again, messages.BarrierEnd, 3, 0)
				require.NoError(t, again.Close(t.Context()))
				require.NoError(t, r.s.Finish(t.Context(), part.Load))
				require.ElementsMatch(t, []string{"1|a", "2|b"}, r.rows("orders"))
			})
		}
	}
}

func TestPGOlderOwnerIsFencedAndItsSessionsEnd(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	old := r.writer(connectors.ModeAppend, orders, 1)
	r.write(old, orders, []any{1, "zombie"})
	oldSession := r.s
	defer func() { require.NoError(t, oldSession.Close(t.Context())) }()
	r.s = nil
	s := r.next()
	require.Equal(t, [][]string{{"0"}}, r.server.Query(t, r.db, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'rb:%:e:1'"), "ended")
	_, err := old.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, 1, 1))
	require.Error(t, err)
	require.NoError(t, old.Close(t.Context()))
	require.Equal(t, connectors.KindFenced, connectors.KindOf(oldSession.Begin(t.Context(), loadOf(connectors.ModeAppend, 2, orders, "orders"))))
	require.Equal(t, uint64(0), s.Recovered().Receipts[0].Version.Commit)
	require.Empty(t, r.rows("orders"))
	_, err = r.dest.Open(t.Context(), connectors.SessionRequest{Pipeline: testPipeline, Epoch: 1, Store: "store"})
	require.Equal(t, connectors.KindFenced, connectors.KindOf(err))
}

// A zombie that holds the row lock of its receipt, or a lock on the table, cannot hold
// a take-over up: its session is ended.
func TestPGTakeOverIsNotHeldUpByAZombie(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, func(c *DestinationConfig) { c.LockTimeout = time.Minute })
	w := r.writer(connectors.ModeAppend, orders, 1)
	r.write(w, orders, []any{1, "a"})
	z := w.(*Writer)
	require.NoError(t, z.sinks[0].finish(t.Context()))
	next := z.next(barrierAt(messages.BarrierPeriodic, 1, 1))
	require.NoError(t, z.writeReceipt(t.Context(), next), "the row of the owner is locked now")
	zombie := r.s
	defer func() { require.NoError(t, zombie.Close(t.Context())) }()
	r.s = nil
	begun := time.Now()
	r.next()
	require.Less(t, time.Since(begun), 20*time.Second)
	again := r.writer(connectors.ModeAppend, orders, 1)
	r.write(again, orders, []any{1, "a"})
	r.commit(again, messages.BarrierEnd, 1, 1)
	require.NoError(t, again.Close(t.Context()))
	require.NoError(t, w.Close(t.Context()))
	require.Equal(t, []string{"1|a"}, r.rows("orders"))
}

func TestPGForeignLockIsNamed(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.sql("CREATE TABLE orders (id bigint, name text)")
	w := r.writer(connectors.ModeAppend, orders, 1)
	conn, err := pgx.Connect(t.Context(), r.server.URL(r.db))
	require.NoError(t, err)
	defer closeConn(conn)
	_, err = conn.Exec(t.Context(), "SET application_name = 'nightly report'; BEGIN; LOCK TABLE orders")
	require.NoError(t, err)
	err = w.Write(t.Context(), r.batch(orders, []any{1, "a"}))
	if err == nil {
		_, err = w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 1, 1))
	}
	requireError(t, err, connectors.KindTransient, messages.CodeDestBusy, fmt.Sprintf("pid %d", conn.PgConn().PID()), "nightly report")
	require.NoError(t, w.Close(t.Context()))
}

func TestPGDroppedTargetIsNoticed(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	w := r.writer(connectors.ModeAppend, orders, 1)
	r.write(w, orders, []any{1, "a"})
	r.commit(w, messages.BarrierPeriodic, 1, 1)
	require.NoError(t, w.Close(t.Context()))
	r.sql("DROP TABLE orders")
	part := connectors.Part{ID: "orders", Load: messages.LoadID{Name: "orders", Number: 1}, Streams: []messages.StreamID{"orders"}}
	_, _, err := r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: 2})
	require.Error(t, err)
	r.sql("CREATE TABLE orders (id bigint, name text)")
	_, _, err = r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: 3})
	requireError(t, err, connectors.KindConfig, messages.CodeStateAhead, "dropped and made again")
}

func TestPGReceiptThatAUserChangedIsRefused(t *testing.T) {
	for _, c := range []struct{ sql, says string }{
		{"DELETE FROM _rapidbyte.receipt", "gone"},
		{"UPDATE _rapidbyte.receipt SET commit_no = 7", "commit 7"},
		{"DELETE FROM _rapidbyte.owner", "owner is gone"},
	} {
		r := newRig(t, connectors.WritePolicy{}, nil)
		w := r.writer(connectors.ModeAppend, orders, 1)
		r.write(w, orders, []any{1, "a"})
		r.sql(c.sql)
		_, err := w.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, 1, 1))
		requireError(t, err, connectors.KindConfig, messages.CodeDestDamaged, c.says)
		require.Empty(t, r.rows("orders"))
		require.NoError(t, w.Close(t.Context()))
	}
}

func TestPGServerThatDiesIsTransient(t *testing.T) {
	for _, how := range []string{"terminate", "immediate", "kill"} {
		for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
			t.Run(how+"/"+string(mode), func(t *testing.T) {
				r := newRigOn(t, how != "terminate", connectors.WritePolicy{})
				w := r.writer(mode, orders, 1)
				r.write(w, orders, []any{1, "a"})
				r.commit(w, messages.BarrierPeriodic, 1, 1)
				var rows [][]any
				for i := range 5000 {
					rows = append(rows, []any{i + 2, "text of some length, to fill the buffers"})
				}
				r.write(w, orders, rows...)
				switch how {
				case "immediate":
					r.server.Immediate(t)
					r.server.Restart(t)
				case "kill":
					r.server.Kill9(t)
					r.server.Restart(t)
				default:
					r.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'rb:%' AND datname = current_database()")
				}
				var err error
				for range 100 {
					if err = w.Write(t.Context(), r.batch(orders, rows...)); err != nil {
						break
					}
				}
				if err == nil {
					_, err = w.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, 2, 5000))
				}
				require.Equal(t, connectors.KindTransient, connectors.KindOf(err), "%v", err)
				require.NoError(t, errors.Join(w.Close(t.Context())))
				part := connectors.Part{ID: "orders", Load: messages.LoadID{Name: "orders", Number: 1}, Streams: []messages.StreamID{"orders"}}
				var again connectors.Writer
				var receipt messages.Receipt
				for attempt := messages.Attempt(2); ; attempt++ {
					again, receipt, err = r.s.OpenWriter(t.Context(), part, messages.Token{Epoch: r.epoch, Attempt: attempt})
					if err == nil {
						break
					}
					require.Equal(t, connectors.KindTransient, connectors.KindOf(err), "%v", err)
					require.Less(t, attempt, messages.Attempt(10))
				}
				require.Equal(t, uint64(1), receipt.Version.Commit)
				r.write(again, orders, []any{2, "b"})
				r.commit(again, messages.BarrierEnd, 2, 1)
				require.NoError(t, again.Close(t.Context()))
				require.ElementsMatch(t, []string{"1|a", "2|b"}, r.rows("orders"))
			})
		}
	}
}

// A login that takes another role on by default finds and ends its own sessions.
func TestPGTakeOverByALoginWithAnotherRole(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	login, owner := "login_"+r.db, "owner_"+r.db
	r.sql("CREATE ROLE " + owner + "; CREATE ROLE " + login + " LOGIN IN ROLE " + owner + "; ALTER ROLE " + login + " SET role = " + owner +
		"; GRANT CREATE ON DATABASE " + r.db + " TO " + owner + "; GRANT CREATE, USAGE ON SCHEMA public TO " + owner)
	t.Cleanup(func() { r.sql("DROP OWNED BY " + owner + ", " + login + "; DROP ROLE " + owner + ", " + login) })
	r.dest = newDestination(t, r.server, r.db, connectors.WritePolicy{NewColumn: connectors.ColumnAdd}, func(c *DestinationConfig) { c.User = login })
	w := r.writer(connectors.ModeAppend, orders, 1)
	r.write(w, orders, []any{1, "a"})
	z := w.(*Writer)
	require.NoError(t, z.sinks[0].finish(t.Context()))
	require.NoError(t, z.writeReceipt(t.Context(), z.next(barrierAt(messages.BarrierPeriodic, 1, 1))), "the row of the owner is locked now")
	zombie := r.s
	r.s = nil
	r.next()
	require.Equal(t, [][]string{{"0"}}, r.server.Query(t, r.db, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'rb:%:e:1'"))
	require.Equal(t, [][]string{{owner}}, r.server.Query(t, r.db, "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'"))
	require.NoError(t, w.Close(t.Context()))
	require.NoError(t, zombie.Close(t.Context()))
	require.NoError(t, r.s.Close(t.Context()))
}

func TestPGWriterThatHasFailedCommitsNothing(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	r.sql("CREATE TABLE orders (id bigint, name varchar(3))")
	w := r.writer(connectors.ModeAppend, orders, 1)
	require.Error(t, w.Write(t.Context(), r.batch(orders, []any{1, "a"}, []any{2, "too long"}, []any{3, "c"})))
	requireError(t, w.Write(t.Context(), r.batch(orders, []any{4, "d"})), connectors.KindInternal, messages.CodeInternal, "has failed before")
	_, err := w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 3, 3))
	requireError(t, err, connectors.KindInternal, messages.CodeInternal, "has failed before", "too long")
	require.NoError(t, w.Close(t.Context()))
	require.Empty(t, r.rows("orders"))
}

// What somebody does to the target while it is loaded ends the run with the reason, and
// without half a commit.
func TestPGTargetThatChangesUnderALoad(t *testing.T) {
	for _, c := range []struct {
		sql  string
		kind connectors.Kind
		says string
	}{
		{"ALTER TABLE orders DROP COLUMN name", connectors.KindSchema, "name"},
		{"ALTER TABLE orders RENAME COLUMN name TO label", connectors.KindSchema, "name"},
		{"ALTER TABLE orders RENAME TO moved", connectors.KindConfig, "orders"},
		{"ALTER TABLE orders ALTER COLUMN id TYPE integer", connectors.KindSchema, "id"},
		{"ALTER TABLE orders ADD COLUMN z integer NOT NULL DEFAULT 1; ALTER TABLE orders ALTER COLUMN z DROP DEFAULT", connectors.KindData, "z"},
	} {
		for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert} {
			t.Run(string(mode)+"/"+c.sql, func(t *testing.T) {
				r := newRig(t, connectors.WritePolicy{}, nil)
				w := r.writer(mode, orders, 1)
				r.write(w, orders, []any{1, "a"})
				r.commit(w, messages.BarrierPeriodic, 1, 1)
				r.sql(c.sql)
				err := w.Write(t.Context(), r.batch(orders, []any{2, "b"}))
				if err == nil {
					_, err = w.Commit(t.Context(), barrierAt(messages.BarrierPeriodic, 2, 1))
				}
				require.NoError(t, w.Close(t.Context()))
				if err == nil { // an upsert casts by assignment, and the value fits
					require.Contains(t, c.sql, "TYPE integer")
					return
				}
				require.Equal(t, c.kind, connectors.KindOf(err), "%v", err)
				require.ErrorContains(t, err, c.says)
				require.Equal(t, [][]string{{"1"}}, r.server.Query(t, r.db, "SELECT commit_no FROM _rapidbyte.receipt"))
				for _, table := range []string{"orders", "moved"} {
					if rows := r.rows(table); rows != nil {
						require.Len(t, rows, 1, "nothing of the failed commit")
					}
				}
			})
		}
	}
}

// A commit whose context ends while the server works on it says that nobody knows.
func TestCommitThatIsGivenUpIsUnknown(t *testing.T) {
	cause := errors.New("the task was ended")
	err := withCommit(fmt.Errorf("commit: %w", cause), true)
	require.ErrorIs(t, err, cause)
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok)
	require.Equal(t, connectors.CommitUnknown, e.Commit)
	fenced := &connectors.FencedError{}
	require.Equal(t, error(fenced), withCommit(fenced, true))
	require.Equal(t, cause, withCommit(cause, false))
}

// An owner that is not one any more hears so at once: it takes no lock, and waits for none.
func TestPGAFencedOwnerDoesNotTouchTheReceipt(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, func(c *DestinationConfig) { c.LockTimeout = time.Minute })
	r.next()
	l := loadOf(connectors.ModeAppend, 1, orders, "orders")
	require.NoError(t, r.s.Begin(t.Context(), l))
	stale, epoch := r.s, r.epoch
	r.s = nil
	r.next()
	defer func() { require.NoError(t, stale.Close(t.Context())) }()
	owner := r.other()
	_, err := owner.Exec(t.Context(), "BEGIN; SELECT FROM _rapidbyte.receipt FOR UPDATE")
	require.NoError(t, err)
	late := errors.New("it waited")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, late)
	defer cancel()
	for range 2 { // its connection has been ended, and it makes another one
		_, _, err = stale.OpenWriter(ctx, l.Parts[0], messages.Token{Epoch: epoch, Attempt: 1})
		require.Equal(t, connectors.KindFenced, connectors.KindOf(err), "%v", err)
	}
	require.NoError(t, ctx.Err(), "at once")
}
