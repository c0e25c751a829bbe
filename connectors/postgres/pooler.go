package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// pooler finds out whether sessions are ours. A pooler in transaction mode gives
// every transaction another one: settings, locks and snapshots of a session would be
// those of strangers.
type pooler struct {
	mu     sync.Mutex
	passed bool // sessions are ours
}

// check looks closely only if somebody stands between: the process that the login
// has named is then not the one that answers. other makes a second connection, on
// which nothing of the first session may be seen.
func (p *pooler) check(ctx context.Context, conn *pgx.Conn, other func(context.Context) (*pgx.Conn, error)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passed {
		return nil
	}
	var pid uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	if pid != conn.PgConn().PID() {
		if err := compare(ctx, conn, other); err != nil {
			return err
		}
	}
	p.passed = true
	return nil
}

func compare(ctx context.Context, conn *pgx.Conn, other func(context.Context) (*pgx.Conn, error)) error {
	mark := uuid.NewString()
	var seen string
	if err := conn.QueryRow(ctx, "SELECT set_config('rapidbyte.session', $1, false)", pgx.QueryExecModeExec, mark).Scan(&seen); err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	second, err := other(ctx)
	if err != nil {
		return err
	}
	const read = "SELECT coalesce(current_setting('rapidbyte.session', true), '')"
	theirs := second.QueryRow(ctx, read, pgx.QueryExecModeExec).Scan(&seen)
	shared := seen == mark
	ours := conn.QueryRow(ctx, read, pgx.QueryExecModeExec).Scan(&seen)
	if err := errors.Join(theirs, ours, second.Close(ctx)); err != nil {
		return fmt.Errorf("look for a pooler: %w", err)
	}
	if shared || seen != mark {
		return &connectors.Error{
			Op: "connect", Kind: connectors.KindConfig, Code: messages.CodeDocValue, Next: nextPooler,
			Err: errors.New("what answers is a pooler in transaction mode: a session does not last"),
		}
	}
	return nil
}
