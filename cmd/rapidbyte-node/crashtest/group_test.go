package crashtest

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// group is where the cells of one mode and one store happen, one after the other: a
// folder, and databases that are made anew for each from what a first run has left.
type group struct {
	mode   mode
	store  string
	binary string
	dir    string
	server *pgtest.Server
	admin  *pgx.Conn
	to     destination

	bases map[string]base
	last  string                  // run that loaded the targets for the first time
	epoch messages.Epoch          // after it
	hits  map[failpoint.Point]int // of an undisturbed run, or of one that was drained
}

func newGroup(t *testing.T, m mode, store, binary string, server *pgtest.Server) (*group, error) {
	t.Helper()
	g := &group{mode: m, store: store, binary: binary, dir: t.TempDir(), server: server, bases: map[string]base{}}
	switch {
	case m.servers:
		g.to = database{server.URL(g.name("to")), m.streams}
	case m.to == "duckdb":
		g.to = duck{g.in("out.duckdb")}
	default:
		g.to = folder{g.in("out")}
	}
	admin, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = admin.Close(context.Background()) }) // the server goes with the test
	g.admin = admin
	return g, g.prepare(t.Context())
}

// name is that of a database.
func (g *group) name(what string) string { return "crash_" + g.mode.name + "_" + g.store + "_" + what }

func (g *group) in(path ...string) string {
	return filepath.Join(append([]string{g.dir}, path...)...)
}

// databases are those that a run connects to.
func (g *group) databases() (out []string) {
	if g.mode.servers {
		out = append(out, g.name("from"), g.name("to"))
	}
	if g.store == "postgres" {
		out = append(out, g.name("state"))
	}
	return out
}

// changing are the databases that a run changes.
func (g *group) changing() []string {
	return slices.DeleteFunc(g.databases(), func(name string) bool { return name == g.name("from") })
}

func (g *group) exec(ctx context.Context, statements ...string) error {
	for _, s := range statements {
		if _, err := g.admin.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// prepare loads the targets for the first time, keeps what there is then, provides the
// rows of the crashes, and learns where an undisturbed run comes by.
func (g *group) prepare(ctx context.Context) error {
	if err := os.MkdirAll(g.in("log"), 0o750); err != nil {
		return err
	}
	for _, d := range g.databases() {
		if err := g.exec(ctx, "CREATE DATABASE "+d); err != nil {
			return err
		}
	}
	state := "state: {backend: bbolt, connection: state/state.db}\n"
	if g.store == "postgres" {
		state = fmt.Sprintf("state: {backend: postgres, connection: %q}\n", g.server.URL(g.name("state")))
	}
	document := g.mode.document(g.server.URL(g.name("from")), g.server.URL(g.name("to")), state)
	if err := os.WriteFile(g.in("p.yaml"), []byte(document), 0o600); err != nil {
		return err
	}
	for _, s := range g.mode.streams {
		if err := g.provide(ctx, s, 1, s.old); err != nil {
			return err
		}
	}
	if g.mode.loaded() {
		if err := g.first(ctx); err != nil {
			return err
		}
	}
	if err := g.keep(ctx); err != nil {
		return err
	}
	for _, s := range g.mode.streams {
		if err := g.provide(ctx, s, 2, s.fresh); err != nil {
			return err
		}
	}
	return g.learn(ctx)
}

// first is the first load.
func (g *group) first(ctx context.Context) error {
	if _, err := g.completes(ctx, 0, order{}); err != nil {
		return err
	}
	d, err := g.found(ctx)
	if err != nil {
		return err
	}
	k, err := g.stored(ctx)
	if err != nil {
		return err
	}
	g.last, g.epoch = k.last.ID, k.state.Epoch
	for _, s := range g.mode.streams {
		g.bases[s.name] = base{load: d.loads[s.name].number, counted: d.counted(s.name)}
		if err := compare(s.target(s.old), d.rows[s.name]).same(); err != nil {
			return fmt.Errorf("the first load of %s: %w", s.name, err)
		}
	}
	return nil
}

// learn runs without a crash, and once with a drain alone.
func (g *group) learn(ctx context.Context) error {
	if err := g.reset(ctx); err != nil {
		return err
	}
	e, err := g.completes(ctx, 0, order{})
	if err != nil {
		return err
	}
	if e.passed != slices.Contains(undecoded, g.mode.name) {
		return fmt.Errorf("rows pass through undecoded: %t", e.passed)
	}
	g.hits = e.hits
	w := g.witnesses()
	if err := g.judge(ctx, w, &figures{}); err != nil {
		return fmt.Errorf("a run without a crash: %w", err)
	}
	if err := g.reset(ctx); err != nil {
		return err
	}
	if e, err = g.execute(0, order{drain: g.usual(failpoint.SourceBatch)}); err != nil {
		return err
	}
	if e.code != messages.ExitCancelled {
		return fmt.Errorf("a drained run ended with exit code %d: %s", e.code, e.output)
	}
	g.hits[failpoint.Draining] = e.hits[failpoint.Draining]
	return nil
}

// usual is a hit in the middle of those of an undisturbed run.
func (g *group) usual(p failpoint.Point) int { return max(1, g.hits[p]/2) }

// keep copies what there is now; reset brings it back.
func (g *group) keep(ctx context.Context) error {
	if err := alone(ctx, g.admin, g.databases()); err != nil {
		return err
	}
	for _, d := range g.changing() {
		if err := g.exec(ctx, "CREATE DATABASE "+d+"_kept TEMPLATE "+d); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(g.in("kept"), 0o750); err != nil {
		return err
	}
	return g.copied(g.dir, g.in("kept"))
}

func (g *group) reset(ctx context.Context) error {
	if err := alone(ctx, g.admin, g.databases()); err != nil {
		return err
	}
	for _, d := range g.changing() {
		if err := g.exec(ctx, "DROP DATABASE IF EXISTS "+d+" WITH (FORCE)", "CREATE DATABASE "+d+" TEMPLATE "+d+"_kept"); err != nil {
			return err
		}
	}
	for _, name := range outputs {
		if err := os.RemoveAll(g.in(name)); err != nil {
			return err
		}
	}
	logs, err := filepath.Glob(g.in("log", "*"))
	for _, name := range logs {
		err = errors.Join(err, os.Remove(name))
	}
	return errors.Join(err, g.copied(g.in("kept"), g.dir))
}

// outputs are the files and folders that a run writes.
var outputs = []string{"out", "out.duckdb", "out.duckdb.wal", "state"}

func (g *group) copied(from, to string) error {
	for _, name := range outputs {
		info, err := os.Stat(filepath.Join(from, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.IsDir():
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name)))
		default:
			_, err = copyFiles(to, filepath.Join(from, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// provide puts rows of a generation where the source has them.
func (g *group) provide(ctx context.Context, s stream, generation int, rows []row) error {
	if !g.mode.servers {
		return g.files(ctx, s, generation, rows)
	}
	if generation == 1 {
		if err := g.tables(ctx, s); err != nil {
			return err
		}
	}
	return using(ctx, g.server.URL(g.name("from")), func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "CREATE TEMP TABLE fresh (id bigint, name text, qty bigint) ON COMMIT DROP"); err != nil {
				return err
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"fresh"}, []string{"id", "name", "qty"}, pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) {
				return []any{rows[i].id, rows[i].name, rows[i].qty}, nil
			}))
			if err == nil && s.mode == replaces {
				_, err = tx.Exec(ctx, "TRUNCATE "+s.name)
			}
			if err == nil {
				sql := "INSERT INTO " + s.name + " (id, name, qty) SELECT id, name, qty FROM fresh ORDER BY id"
				if s.mode == upserts {
					sql += " ON CONFLICT (id) DO UPDATE SET name = excluded.name, qty = excluded.qty"
				}
				_, err = tx.Exec(ctx, sql)
			}
			return err
		})
	})
}

// tables makes those of a stream. Rows of the source are wide, one per block: a table is
// read, and committed, by ranges of blocks. A key of the source would become one of a
// target that is appended to, and hide rows there: that target is made without.
func (g *group) tables(ctx context.Context, s stream) error {
	key := ""
	if s.mode == upserts || s.follow {
		key = ", PRIMARY KEY (id)"
	}
	err := using(ctx, g.server.URL(g.name("from")), func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CREATE TABLE "+s.name+" (id bigint NOT NULL, name text NOT NULL, qty bigint NOT NULL, pad text DEFAULT repeat('-', 600)"+key+") WITH (fillfactor = 10)")
		return err
	})
	if err != nil || s.mode != appends {
		return err
	}
	check := ""
	if s.bad {
		check = ", CHECK (id % 50 <> 0)"
	}
	return using(ctx, g.server.URL(g.name("to")), func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CREATE TABLE "+s.name+" (id bigint NOT NULL, name text NOT NULL, qty bigint NOT NULL"+check+")")
		return err
	})
}

// files writes those of one generation, two of them. Those of a replace have the names of
// the generation before, and are Parquet if the destination has files too.
func (g *group) files(ctx context.Context, s stream, generation int, rows []row) error {
	if err := os.MkdirAll(g.in("in", s.name), 0o750); err != nil {
		return err
	}
	half := len(rows) / 2
	for i, part := range [][]row{rows[:half], rows[half:]} {
		path := g.in("in", s.name, fmt.Sprintf("%d-%d.csv", generation, i))
		if s.mode == replaces {
			path = g.in("in", s.name, fmt.Sprintf("%d.csv", i))
		}
		if err := writeCSV(path, part); err != nil {
			return err
		}
		if s.mode != replaces || g.mode.to != "file" {
			continue
		}
		parquet := strings.TrimSuffix(path, ".csv") + ".parquet"
		if err := inDuckDB(ctx, "", func(db *sql.DB) error {
			_, err := db.ExecContext(ctx, fmt.Sprintf("COPY (FROM read_csv('%s', header = true, columns = {id: 'BIGINT', name: 'VARCHAR', qty: 'BIGINT'})) TO '%s' (FORMAT parquet, ROW_GROUP_SIZE 2048)", path, parquet))
			return errors.Join(err, os.Remove(path))
		}); err != nil {
			return err
		}
	}
	return nil
}

func writeCSV(path string, rows []row) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := csv.NewWriter(f)
	lines := [][]string{{"id", "name", "qty"}}
	for _, r := range rows {
		lines = append(lines, []string{strconv.FormatInt(r.id, 10), r.name, strconv.FormatInt(r.qty, 10)})
	}
	return w.WriteAll(lines)
}

func (g *group) execute(number int, o order) (ended, error) {
	return execute(g.binary, g.dir, number, o)
}

// completes runs to the end, which must be a good one.
func (g *group) completes(ctx context.Context, number int, o order) (ended, error) {
	e, err := g.execute(number, o)
	if err == nil && (e.killed || e.code != messages.ExitOK) {
		err = fmt.Errorf("a run that nothing disturbs ended with exit code %d: %s", e.code, e.output)
	}
	if err == nil {
		err = alone(ctx, g.admin, g.databases())
	}
	return e, err
}

// found reads the destination when nobody is connected any more.
func (g *group) found(ctx context.Context) (found, error) {
	if err := alone(ctx, g.admin, g.databases()); err != nil {
		return nothing(), err
	}
	d, err := g.to.read(ctx)
	if err != nil {
		err = fmt.Errorf("the destination cannot be read: %w", err)
	}
	return d, err
}

func (g *group) stored(ctx context.Context) (stored, error) {
	var k stored
	var err error
	if g.store == "postgres" {
		k, err = readServer(ctx, g.server.URL(g.name("state")))
	} else {
		k, err = readBolt(ctx, g.in("state", "state.db"))
	}
	if err != nil {
		err = fmt.Errorf("the state store cannot be read: %w", err)
	}
	return k, err
}

func (g *group) witnesses() (out []*witness) {
	for _, s := range g.mode.streams {
		out = append(out, &witness{stream: s, base: g.bases[s.name], renewed: map[string]bool{}})
	}
	return out
}
