package postgres

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const lockNotAvailable = "55P03"

// lockTimeout is how long a statement waits for a lock.
func (c Connection) lockTimeout() time.Duration { return cmp.Or(c.LockTimeout, defaultLockTimeout) }

// endOlder ends sessions of this login of lower epochs of a pipeline in this database and
// waits until they are gone. Nothing milder frees the locks of a client that is frozen.
func endOlder(ctx context.Context, conn *pgx.Conn, p messages.PipelineID, e messages.Epoch) error {
	const older = `FROM pg_stat_activity WHERE datname = current_database() AND usename = session_user AND pid <> pg_backend_pid()
		AND application_name ~ ('^' || $1 || '[0-9]{1,18}$') AND substr(application_name, length($1) + 1)::bigint < $2`
	prefix := strings.TrimSuffix(applicationName(p, 1), "1")
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		var n int
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL ROLE NONE"); err != nil { // the login may end its sessions, the role that it takes on may not
				return err
			}
			return tx.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) "+older, prefix, int64(e)).Scan(&n) //nolint:gosec // checked by Open
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watcher looks, over a connection of its own, at who blocks a backend that has waited
// for long: when the wait has failed nobody can say any more.
type watcher struct {
	timer *time.Timer
	done  chan struct{}
	end   context.CancelFunc

	mu   sync.Mutex
	held string
}

// watch begins to look when most of the lock timeout is over.
func (s *Session) watch(pid uint32) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{done: make(chan struct{}), end: cancel}
	after := s.d.cfg.lockTimeout() * 2 / 3
	w.timer = time.AfterFunc(after, func() {
		defer close(w.done)
		text, err := s.blockers(ctx, pid)
		if err != nil {
			return // the error that follows says that a lock was not had
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held = text
	})
	return w
}

// stop ends the watch and returns who was seen, "" nobody.
func (w *watcher) stop() string {
	w.end()
	if !w.timer.Stop() {
		<-w.done
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held
}

// blockers describes the sessions that a backend waits for.
func (s *Session) blockers(ctx context.Context, pid uint32) (string, error) {
	conn, err := s.dial.control(ctx)
	if err != nil {
		return "", err
	}
	defer closeConn(conn)
	return blockersOf(ctx, conn, pid)
}

func blockersOf(ctx context.Context, conn *pgx.Conn, pid uint32) (string, error) {
	rows, err := conn.Query(ctx, `SELECT format('pid %s of role %s (application %s, %s since %s)', a.pid, a.usename, quote_literal(a.application_name), a.state,
			to_char(coalesce(a.xact_start, a.state_change), 'HH24:MI:SS'))
		FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1)) ORDER BY a.pid LIMIT 5`, int32(pid)) //nolint:gosec // a process number
	if err != nil {
		return "", err
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(held, ", "), err
}

// blockedError says who held the lock.
func blockedError(ctx context.Context, op, held string, err error) error {
	out := classify(ctx, connectors.StageDestination, op, err)
	if e, ok := out.(*connectors.Error); ok && held != "" { //nolint:errorlint // just made
		e.Err = fmt.Errorf("the lock is held by %s: %w", held, e.Err) // not err: it may be e itself
		e.Next = "End that session, or wait until its transaction ends, then run again."
	}
	return out
}
