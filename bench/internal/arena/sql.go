package arena

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/bench/internal/peer"
)

// server is a PostgreSQL that we use; each contestant has a database of its own there.
type server struct {
	base     *url.URL
	pid      int // 0 of a server that is not ours
	own      bool
	version  string
	settings []string // besides the defaults
	stop     func()
}

// The databases.
const (
	sourceDB   = "rb_bench_source"
	templateDB = "rb_bench_template" // what is there before a run
	verifyDB   = "rb_bench_verify"   // files are loaded there to look at them
	targetDB   = "rb_bench_target_"  // and a number
)

// adminDB is where databases are made.
const adminDB = "postgres"

func (s *server) url(db string) string {
	u := *s.base
	u.Path = "/" + db
	return u.String()
}

// open connects; the caller closes.
func (s *server) open(ctx context.Context, db string) (*pgconn.PgConn, error) {
	cfg, err := pgconn.ParseConfig(s.url(db))
	if err != nil {
		return nil, err
	}
	cfg.ConnectTimeout = 30 * time.Second
	cfg.RuntimeParams["application_name"] = "bench"
	return pgconn.ConnectConfig(ctx, cfg)
}

// query runs statements, each by itself, and returns the rows of the last.
func (s *server) query(ctx context.Context, db string, statements ...string) ([][]string, error) {
	c, err := s.open(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close(ctx) }() // nothing is pending
	var rows [][]string
	for _, sql := range statements {
		if rows, err = ask(ctx, c, sql); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func ask(ctx context.Context, c *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%.200s: %w", sql, err)
	}
	var rows [][]string
	for _, r := range results {
		rows = rows[:0]
		for _, row := range r.Rows {
			line := make([]string, len(row))
			for i, v := range row {
				line[i] = string(v)
			}
			rows = append(rows, line)
		}
	}
	return rows, nil
}

func (s *server) exec(ctx context.Context, db string, statements ...string) error {
	_, err := s.query(ctx, db, statements...)
	return err
}

// create makes a database anew. A connection warms its catalogue, which the first
// contestant would pay for otherwise.
func (s *server) create(ctx context.Context, db, template string) error {
	return s.exec(ctx, adminDB, drop(db), fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY FILE_COPY", db, template))
}

func drop(db string) string { return "DROP DATABASE IF EXISTS " + db + " WITH (FORCE)" }

// column is a column of the source.
type column struct{ name, kind string }

// columns lists those of a table with their types as SQL writes them.
func (s *server) columns(ctx context.Context, db, table string) ([]column, error) {
	rows, err := s.query(ctx, db, fmt.Sprintf(`SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = '%s'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, table))
	if err != nil {
		return nil, err
	}
	out := make([]column, len(rows))
	for i, r := range rows {
		out[i] = column{r[0], r[1]}
	}
	return out, nil
}

// digest is a query for the count and the hash of rows, whatever their order. Columns
// are taken by name, as the types that they have in the source.
func digest(columns []column, queries ...string) string {
	casts := make([]string, len(columns))
	for i, c := range columns {
		casts[i] = fmt.Sprintf("q.%s::%s AS %s", peer.Ident(c.name), c.kind, peer.Ident(c.name))
	}
	parts := make([]string, len(queries))
	for i, q := range queries {
		parts[i] = fmt.Sprintf("SELECT hashtextextended(t::text, %d) AS h FROM (SELECT %s FROM (%s) q) t", i, strings.Join(casts, ", "), q)
	}
	return fmt.Sprintf("SELECT count(*), coalesce(sum(h), 0) FROM (%s) all_rows", strings.Join(parts, " UNION ALL "))
}

// digestOf runs one and returns "rows hash".
func (s *server) digestOf(ctx context.Context, db string, columns []column, queries ...string) (string, error) {
	rows, err := s.query(ctx, db, digest(columns, queries...))
	if err != nil {
		return "", err
	}
	return strings.Join(rows[0], " "), nil
}
