package crashtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "github.com/duckdb/duckdb-go/v2" // the driver "duckdb"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
	"rapidbyte.io/node/statestore/postgres"
)

// mark is how far a load is.
type mark struct {
	number   uint64
	finished bool
}

// found is what is at a destination: its books, and the rows that its readers see.
type found struct {
	epoch    messages.Epoch
	loads    map[string]mark // by name, which is the stream
	receipts map[messages.PartID]messages.Receipt
	rows     map[string][]string // by target, which is the stream
	dead     int64               // dead letters
}

func nothing() found {
	return found{loads: map[string]mark{}, receipts: map[messages.PartID]messages.Receipt{}, rows: map[string][]string{}}
}

// counted sums what the receipts of the newest load of a name say.
func (f found) counted(name string) (out messages.Counts) {
	for _, r := range f.receipts {
		if r.Load == name && r.Version.Load == f.loads[name].number {
			out.Applied += r.Rows.Applied
			out.Rejected += r.Rows.Rejected
		}
	}
	return out
}

// texts is a row in SQL as row.text writes it.
const texts = "id || '|' || name || '|' || qty"

// destination reads what the program has written.
type destination interface {
	read(ctx context.Context) (found, error)
	// tidy says what runs that ended in order have left behind.
	tidy(ctx context.Context) error
}

// database is the destination of a server.
type database struct {
	url     string
	streams []stream
}

// using runs do with a connection that is closed behind it.
func using(ctx context.Context, url string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close(ctx))
}

func (d database) read(ctx context.Context) (found, error) {
	out := nothing()
	return out, using(ctx, d.url, func(conn *pgx.Conn) error {
		options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
		return pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error { return d.readTx(ctx, tx, &out) })
	})
}

func (d database) readTx(ctx context.Context, tx pgx.Tx, out *found) error {
	var books bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('_rapidbyte.receipt') IS NOT NULL").Scan(&books); err != nil {
		return err
	}
	if books {
		if err := readServerBooks(ctx, tx, out); err != nil {
			return err
		}
	}
	for _, s := range d.streams {
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", "public."+s.name).Scan(&there); err != nil {
			return err
		}
		if !there {
			continue
		}
		rows, err := tx.Query(ctx, "SELECT "+texts+" FROM public."+s.name)
		if err == nil {
			out.rows[s.name], err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readServerBooks(ctx context.Context, tx pgx.Tx, out *found) error {
	err := tx.QueryRow(ctx, "SELECT epoch FROM _rapidbyte.owner").Scan(&out.epoch)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM _rapidbyte.dlq").Scan(&out.dead); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, "SELECT name, load_no, finished FROM _rapidbyte.load")
	if err != nil {
		return err
	}
	var name string
	var m mark
	if _, err := pgx.ForEachRow(rows, []any{&name, &m.number, &m.finished}, func() error {
		out.loads[name] = m
		return nil
	}); err != nil {
		return err
	}
	if rows, err = tx.Query(ctx, "SELECT part, load, load_no, commit_no, final, rows_applied, rows_rejected FROM _rapidbyte.receipt"); err != nil {
		return err
	}
	var r messages.Receipt
	_, err = pgx.ForEachRow(rows, []any{&r.Part, &r.Load, &r.Version.Load, &r.Version.Commit, &r.Final, &r.Rows.Applied, &r.Rows.Rejected}, func() error {
		out.receipts[r.Part] = r
		return nil
	})
	return err
}

// tidy finds tables that are no targets, and what would refuse a row that is there twice.
func (d database) tidy(ctx context.Context) error {
	var left []string
	err := using(ctx, d.url, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT 'table ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> ALL ($1)
			UNION ALL SELECT 'unique index ' || x.indexrelid::regclass FROM pg_index x WHERE x.indisunique AND x.indrelid::regclass::text = ANY ($2)`,
			streamNames(d.streams, func(stream) bool { return true }), streamNames(d.streams, func(s stream) bool { return s.mode == appends }))
		if err == nil {
			left, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		return err
	})
	return errors.Join(err, none(left))
}

func streamNames(streams []stream, which func(stream) bool) (out []string) {
	for _, s := range streams {
		if which(s) {
			out = append(out, s.name)
		}
	}
	return out
}

func none(left []string) error {
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
}

// folder is the destination of files.
type folder struct{ dir string }

func (d folder) books() string { return filepath.Join(d.dir, "_rapidbyte", pipeline) }

// manifest returns the newest one, nil when there is none.
func (d folder) manifest() (*manifest.Manifest, error) {
	entries, err := os.ReadDir(d.books())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // killed before there was any
	}
	var highest uint64
	for _, e := range entries {
		if n, ok := manifest.ParseName(e.Name()); ok {
			highest = max(highest, n)
		}
	}
	if err != nil || highest == 0 {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(d.books(), manifest.Name(highest)))
	if err != nil {
		return nil, err
	}
	return manifest.Decode(b, highest, pipeline)
}

// read lets DuckDB read the files that the newest manifest lists.
func (d folder) read(ctx context.Context) (found, error) {
	out := nothing()
	m, err := d.manifest()
	if err != nil || m == nil {
		return out, err
	}
	out.epoch, out.receipts = m.Epoch, m.Receipts
	for name, l := range m.Loads {
		out.loads[name] = mark{number: l.Number, finished: l.Finished}
	}
	for target, t := range m.Targets {
		var files []string
		var rows int64
		for _, f := range t.Files {
			files = append(files, "'"+filepath.Join(d.dir, target, f.Name)+"'")
			rows += f.Rows
		}
		if len(files) == 0 {
			continue
		}
		if err := inDuckDB(ctx, "", func(db *sql.DB) (err error) {
			out.rows[target], err = texted(ctx, db, "SELECT "+texts+" FROM read_parquet(["+strings.Join(files, ", ")+"])")
			return err
		}); err != nil {
			return out, fmt.Errorf("%s: %w", target, err)
		}
		if n := len(out.rows[target]); int64(n) != rows {
			return out, fmt.Errorf("%s: %d rows, the manifest says %d", target, n, rows)
		}
	}
	return out, nil
}

func (d folder) tidy(context.Context) error {
	m, err := d.manifest()
	if err != nil || m == nil {
		return errors.Join(err, errors.New("no manifest"))
	}
	var left []string
	err = filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(d.dir, path)
		if err != nil {
			return err
		}
		target, name := filepath.Split(rel)
		_, listed := manifest.ParseName(name)
		if filepath.Join(d.dir, target) != d.books() || !listed {
			listed = m.Names(filepath.Clean(target))[name]
		}
		if !listed {
			left = append(left, rel)
		}
		return nil
	})
	for name, l := range m.Loads {
		if len(l.Staged) > 0 {
			left = append(left, "staged files of load "+name)
		}
	}
	return errors.Join(err, none(left))
}

// duck is the destination of a DuckDB file. A copy is read, so that it is left to the
// program to recover what a kill has left in the log beside it.
type duck struct{ path string }

func (d duck) copied(ctx context.Context, use func(*sql.DB) error) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(d.path), "look-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	there, err := copyFiles(dir, d.path, d.path+".wal")
	if err != nil || !there {
		return err
	}
	return inDuckDB(ctx, filepath.Join(dir, filepath.Base(d.path)), use)
}

// inDuckDB opens a database; "" is one in memory.
func inDuckDB(ctx context.Context, path string, use func(*sql.DB) error) error {
	db, err := sql.Open("duckdb", path)
	if err != nil {
		return err
	}
	if err := db.PingContext(ctx); err != nil {
		return errors.Join(err, db.Close())
	}
	return errors.Join(use(db), db.Close())
}

// copyFiles copies what exists; there reports whether the first one does.
func copyFiles(dir string, paths ...string) (there bool, err error) {
	for i, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return there, err
		}
		there = there || i == 0
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600); err != nil {
			return there, err
		}
	}
	return there, nil
}

func (d duck) read(ctx context.Context) (found, error) {
	out := nothing()
	return out, d.copied(ctx, func(db *sql.DB) error {
		tables, err := texted(ctx, db, "SELECT schema_name || '.' || table_name FROM duckdb_tables()")
		if err != nil {
			return err
		}
		for _, t := range tables {
			switch schema, name, _ := strings.Cut(t, "."); {
			case t == "_rapidbyte.receipt":
				err = readDuckBooks(ctx, db, &out)
			case schema == "main" && !strings.HasPrefix(name, "_rapidbyte"):
				out.rows[name], err = texted(ctx, db, "SELECT "+texts+` FROM main."`+name+`"`)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func readDuckBooks(ctx context.Context, db *sql.DB, out *found) error {
	err := each(ctx, db, "SELECT epoch FROM _rapidbyte.owner", func(scan func(...any) error) error { return scan(&out.epoch) })
	err = errors.Join(err, each(ctx, db, "SELECT name, number, finished FROM _rapidbyte.load", func(scan func(...any) error) error {
		var name string
		var m mark
		err := scan(&name, &m.number, &m.finished)
		out.loads[name] = m
		return err
	}))
	return errors.Join(err, each(ctx, db, "SELECT part, load, load_no, commit_no, final, rows_applied, rows_rejected FROM _rapidbyte.receipt", func(scan func(...any) error) error {
		var r messages.Receipt
		err := scan(&r.Part, &r.Load, &r.Version.Load, &r.Version.Commit, &r.Final, &r.Rows.Applied, &r.Rows.Rejected)
		out.receipts[r.Part] = r
		return err
	}))
}

func each(ctx context.Context, db *sql.DB, query string, one func(scan func(...any) error) error) (err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := one(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func texted(ctx context.Context, db *sql.DB, query string) (out []string, err error) {
	err = each(ctx, db, query, func(scan func(...any) error) error {
		var s string
		err := scan(&s)
		out = append(out, s)
		return err
	})
	return out, err
}

// tidy also finds what would refuse a row that is there twice.
func (d duck) tidy(ctx context.Context) error {
	var left []string
	err := d.copied(ctx, func(db *sql.DB) (err error) {
		left, err = texted(ctx, db, `SELECT 'table ' || table_name FROM duckdb_tables() WHERE schema_name <> '_rapidbyte' AND starts_with(table_name, '_rapidbyte')
			UNION ALL SELECT 'unique in ' || table_name FROM duckdb_constraints() WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE') AND table_name = 'a'`)
		return err
	})
	return errors.Join(err, none(left))
}

// stored is what the state store holds.
type stored struct {
	state statestore.State
	last  statestore.Run // the newest run; zero: none
	there bool
}

func (s *stored) load(ctx context.Context, from statestore.Store) (err error) {
	if s.state, err = from.Load(ctx, pipeline); err != nil {
		return err
	}
	runs, err := from.Runs(ctx, pipeline, 1)
	if len(runs) > 0 {
		s.last = runs[0]
	}
	return err
}

// readBolt reads a copy of the embedded store.
func readBolt(ctx context.Context, path string) (out stored, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(path)), "look-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if out.there, err = copyFiles(dir, path, path+".id"); err != nil || !out.there {
		return out, err
	}
	s, err := bbolt.Open(ctx, bbolt.Config{Path: filepath.Join(dir, filepath.Base(path)), Timeout: time.Minute})
	if err != nil {
		return out, err
	}
	return out, errors.Join(out.load(ctx, s), s.Close())
}

// readServer reads the shared store.
func readServer(ctx context.Context, url string) (out stored, err error) {
	if err := using(ctx, url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT to_regclass('_rapidbyte_state.store') IS NOT NULL").Scan(&out.there)
	}); err != nil || !out.there {
		return out, err
	}
	s, err := postgres.Open(ctx, postgres.Config{URL: url})
	if err != nil {
		return out, err
	}
	return out, errors.Join(out.load(ctx, s), s.Close())
}

// leased reports whether somebody has the lease of the pipeline.
func leased(ctx context.Context, url string) (held bool, err error) {
	return held, using(ctx, url, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM _rapidbyte_state.lease WHERE expires > now())").Scan(&held)
	})
}

// alone waits until no session is left in the databases: a server notices by itself that
// a client is gone, and a COMMIT that was sent takes effect after the kill.
func alone(ctx context.Context, admin *pgx.Conn, databases []string) error {
	const patience = 20 * time.Second
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		rows, err := admin.Query(ctx, `SELECT format('%s in %s (%s: %s)', application_name, datname, state, left(query, 60)) FROM pg_stat_activity
			WHERE datname = ANY ($1) AND backend_type = 'client backend'`, databases)
		if err != nil {
			return err
		}
		left, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(left) == 0 {
			return err
		}
		if time.Now().After(end) {
			slices.Sort(left)
			return errors.New("sessions of a process that is gone: " + strings.Join(left, ", "))
		}
	}
}
