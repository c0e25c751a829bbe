package postgres

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// guardSQL is the first statement of every transaction: the layout is the one that this
// program knows, and a commit is on disk when it returns, whatever lies between.
const guardSQL = `SELECT version, set_config('synchronous_commit', 'on', true) FROM _rapidbyte_state.store`

// guard queues it.
func guard(b *pgx.Batch) {
	b.Queue(guardSQL).Query(func(rows pgx.Rows) error {
		var version int
		var ignored string
		found := false
		for rows.Next() {
			found = true
			if err := rows.Scan(&version, &ignored); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if !found {
			return damaged("the table store is empty")
		}
		return checkVersion(version)
	})
}

// cells queues a query of id, value and sum.
func cells(b *pgx.Batch, into *[]cell, sql string, args ...any) {
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var c cell
			if err := rows.Scan(&c.row, &c.value, &c.sum); err != nil {
				return err
			}
			*into = append(*into, c)
		}
		return rows.Err()
	})
}

// enter bounds a call and refuses it where it cannot be done; done ends it.
func (s *Store) enter(ctx context.Context) (_ context.Context, done func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	s.using.RLock()
	if s.closed {
		s.using.RUnlock()
		return nil, nil, fmt.Errorf("the store: %w", os.ErrClosed)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, callMax, fmt.Errorf("the server did not answer in %s", callMax))
	return ctx, func() { cancel(); s.using.RUnlock() }, nil
}

// read runs queries of one snapshot, in one round trip.
func (s *Store) read(ctx context.Context, queries func(b *pgx.Batch)) error {
	ctx, done, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	b := &pgx.Batch{}
	b.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	guard(b)
	queries(b)
	b.Queue("COMMIT")
	return s.transact(ctx, func(conn *pgxpool.Conn) error { return conn.SendBatch(ctx, b).Close() })
}

// transact runs fn, which begins a transaction and ends it if all is well, on a
// connection of its own.
func (s *Store) transact(ctx context.Context, fn func(conn *pgxpool.Conn) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return caused(ctx, err)
	}
	defer conn.Release() // a connection in a transaction is closed by it
	if err := fn(conn); err != nil {
		err = caused(ctx, err)
		rollback(ctx, conn)
		return err
	}
	return nil
}

// rollback gives locks up now instead of when the server notices.
func rollback(ctx context.Context, conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() || conn.Conn().PgConn().IsBusy() || conn.Conn().PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer cancel()
	_, _ = conn.Conn().PgConn().Exec(ctx, "ROLLBACK").ReadAll() // Release closes what is still in a transaction
}

// begin queues the beginning of a transaction that writes.
func begin(b *pgx.Batch) {
	b.Queue("BEGIN ISOLATION LEVEL READ COMMITTED") // not READ WRITE, of which a standby says less
	guard(b)
}

// commit sends what b has and COMMIT, in one round trip. It is not given up when the
// caller is: nobody would know how it ended. An error may come though it was done; to do
// it again is right, because every update says how things shall be, not what to add.
func commit(ctx context.Context, conn *pgxpool.Conn, b *pgx.Batch) error {
	b.Queue("COMMIT")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callMax)
	defer cancel()
	return conn.SendBatch(ctx, b).Close()
}
