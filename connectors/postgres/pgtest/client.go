package pgtest

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// statementsMax is the time that one call may take.
const statementsMax = 5 * time.Minute

// conn is a connection of the helpers, never of what is tested.
type conn struct{ pg *pgconn.PgConn }

func (s *Server) connect(ctx context.Context, db string) (*conn, error) {
	cfg, err := pgconn.ParseConfig(s.URL(db))
	if err != nil {
		return nil, err
	}
	cfg.ConnectTimeout = 30 * time.Second
	cfg.RuntimeParams = map[string]string{"application_name": "pgtest", "client_encoding": "UTF8"}
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &conn{pg}, nil
}

func (c *conn) close(ctx context.Context) error { return c.pg.Close(ctx) }

// statements runs sql and returns the rows of the last that has some columns.
func (s *Server) statements(db, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statementsMax)
	defer cancel()
	c, err := s.connect(ctx, db)
	if err != nil {
		return nil, err
	}
	results, err := c.pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		_ = c.close(ctx) // the first cause counts
		return nil, err
	}
	var out [][]string
	for _, r := range results {
		if len(r.FieldDescriptions) > 0 {
			out = texts(r.Rows)
		}
	}
	return out, c.close(ctx)
}

func texts(rows [][][]byte) [][]string {
	out := make([][]string, 0, len(rows))
	for _, row := range rows {
		line := make([]string, len(row))
		for i, v := range row {
			line[i] = string(v)
			if v == nil {
				line[i] = `\N`
			}
		}
		out = append(out, line)
	}
	return out
}

// Exec runs statements, as many as there are, outside of a transaction if there is
// only one.
func (s *Server) Exec(t T, db, sql string) {
	t.Helper()
	_, err := s.statements(db, sql)
	checkSQL(t, sql, err)
}

// Query returns the rows of a query as texts; NULL is \N.
func (s *Server) Query(t T, db, sql string) [][]string {
	t.Helper()
	rows, err := s.statements(db, sql)
	checkSQL(t, sql, err)
	return rows
}

// Psql gives a script, such as a dump, to psql, which stops at the first error.
func (s *Server) Psql(t T, db string, script io.Reader) {
	t.Helper()
	path := filepath.Join(string(s.bin), "psql")
	if s.bin == "" {
		path = "psql"
	}
	cmd := exec.Command(path, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", s.URL(db))
	cmd.Env = append(cmd.Environ(), "PGOPTIONS=", "PGCLIENTENCODING=UTF8")
	cmd.Stdin = script
	if out, err := cmd.CombinedOutput(); err != nil {
		check(t, fmt.Errorf("psql: %w\n%s", err, out))
	}
}

func checkSQL(t T, sql string, err error) {
	t.Helper()
	if err != nil {
		check(t, fmt.Errorf("%.200s: %w", sql, err))
	}
}
