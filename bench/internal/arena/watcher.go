package arena

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// watcher looks at the server while a contestant works, over a connection of its own.
type watcher struct {
	conn *pgconn.PgConn
	most int // connections
	err  error
}

func (w *watcher) open(ctx context.Context, s *server, db string) (err error) {
	w.conn, err = s.open(ctx, db)
	return err
}

func (w *watcher) close(ctx context.Context) {
	if w.conn != nil {
		_ = w.conn.Close(ctx) // nothing is pending
	}
}

// number returns what a query counts, 0 when it cannot.
func (w *watcher) number(ctx context.Context, sql string) int64 {
	rows, err := ask(ctx, w.conn, sql)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return 0
	}
	n, err := strconv.ParseInt(rows[0][0], 10, 64)
	w.err = errors.Join(w.err, err)
	return n
}

// connections counts those of everybody else.
func (w *watcher) connections(ctx context.Context) {
	if w.err == nil {
		n := w.number(ctx, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'bench'")
		w.most = max(w.most, int(n))
	}
}

// rows counts those of the target.
func (w *watcher) rows(ctx context.Context, queries []string) int64 {
	if w.err != nil {
		return 0
	}
	return w.number(ctx, fmt.Sprintf("SELECT count(*) FROM (%s) q", strings.Join(queries, " UNION ALL ")))
}
