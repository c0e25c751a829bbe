package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// streamOf is a stream of its own target.
func streamOf(name string) connectors.StreamPlan {
	sp := orders
	sp.Stream, sp.Target = messages.StreamID(name), name
	return sp
}

// noted is what the bookkeeping says of begun loads, without the OIDs of their tables.
func (r *rig) noted() [][]string {
	r.t.Helper()
	return r.server.Query(r.t, r.db, `SELECT l.name, l.load_no, l.finished, l.status::text, s->>'stream', s->>'target', s->>'stage', (s->>'oid')::oid = coalesce(to_regclass(s->>'stage'), to_regclass(s->>'target')),
			s->>'schema', c.part, c.load_no, c.commit_no, c.epoch, c.position::text, c.plan::text, c.source_identity
		FROM _rapidbyte.load l JOIN _rapidbyte.receipt c ON c.load = l.name, json_array_elements(l.streams) s ORDER BY l.name, c.part`)
}

// other is a session of somebody else in the same database.
func (r *rig) other() *pgx.Conn {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.server.URL(r.db))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { closeConn(conn) })
	return conn
}

func TestPGLoadsBegunTogetherAreAsThoseBegunAlone(t *testing.T) {
	loads := func(mode connectors.WriteMode, number uint64) (out []connectors.Load) {
		for i := range 2*beginMost + 1 {
			name := fmt.Sprintf("t%03d", i)
			out = append(out, loadOf(mode, number, streamOf(name), messages.PartID(name+"/1"), messages.PartID(name+"/2")))
		}
		return out
	}
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace} {
		var want [][][]string
		for _, together := range []bool{false, true} {
			r := newRig(t, connectors.WritePolicy{}, nil)
			s := r.next()
			r.sql("CREATE TABLE t001 (id bigint PRIMARY KEY, name text); CREATE TABLE t002 (id bigint)") // one fits, one is widened
			for number := range uint64(2) {
				all := loads(mode, number+1)
				if together {
					require.NoError(t, s.(connectors.Beginner).BeginAll(t.Context(), all))          //nolint:forcetypeassert // that is what it is for
					require.NoError(t, s.(connectors.Beginner).BeginAll(t.Context(), all), "again") //nolint:forcetypeassert // likewise
				} else {
					for _, l := range all {
						require.NoError(t, s.Begin(t.Context(), l))
					}
				}
				got := r.noted()
				require.Len(t, got, 2*len(all))
				if !together {
					want = append(want, got)
					continue
				}
				require.Equal(t, want[number], got, "%s, load %d", mode, number+1)
			}
			if mode == connectors.ModeAppend {
				require.Equal(t, [][]string{{"id"}, {"name"}}, r.server.Query(t, r.db, "SELECT attname FROM pg_attribute WHERE attrelid = 't002'::regclass AND attnum > 0 ORDER BY 1"))
			}
		}
	}
}

// One table that cannot be made keeps all of its step from being begun, and is named.
func TestPGALoadThatCannotBeBegunIsNamedAmongOthers(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	s := r.next()
	r.sql("CREATE VIEW b AS SELECT 1 AS id; CREATE SEQUENCE d")
	all := []connectors.Load{loadOf(connectors.ModeAppend, 1, streamOf("a"), "a"), loadOf(connectors.ModeAppend, 1, streamOf("b"), "b"), loadOf(connectors.ModeAppend, 1, streamOf("c"), "c")}
	err := s.(connectors.Beginner).BeginAll(t.Context(), all) //nolint:forcetypeassert // that is what it is for
	e := requireError(t, err, connectors.KindConfig, messages.CodeSchemaName, "a view of that name exists")
	require.Equal(t, messages.StreamID("b"), e.Place.Stream)
	require.Empty(t, r.noted())
	all[1] = loadOf(connectors.ModeAppend, 1, streamOf("d"), "d")
	err = s.(connectors.Beginner).BeginAll(t.Context(), all) //nolint:forcetypeassert // likewise
	e = requireError(t, err, connectors.KindConfig, messages.CodeSchemaName, "a sequence of that name exists")
	require.Equal(t, messages.StreamID("d"), e.Place.Stream)
	all[1] = loadOf(connectors.ModeAppend, 1, streamOf("a_pkey"), "e") // the name of the index of the table before it
	err = s.(connectors.Beginner).BeginAll(t.Context(), all)           //nolint:forcetypeassert // likewise
	e = requireError(t, err, connectors.KindConfig, messages.CodeSchemaName, "an index of that name exists")
	require.Equal(t, messages.StreamID("a_pkey"), e.Place.Stream)
	require.Empty(t, r.noted())
}

// Two streams of one target see what the other has made.
func TestPGLoadsOfOneTargetAreBegunTogether(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	s := r.next()
	one, two := streamOf("one"), streamOf("two")
	one.Target, two.Target = "both", "both"
	two.Schema = fields(idField, nameField, nameField)
	f := two.Schema.Fields()
	f[2].Name = "more"
	two.Schema = fields(f...)
	all := []connectors.Load{loadOf(connectors.ModeAppend, 1, one, "one"), loadOf(connectors.ModeAppend, 1, two, "two")}
	require.NoError(t, s.(connectors.Beginner).BeginAll(t.Context(), all)) //nolint:forcetypeassert // that is what it is for
	var columns []string
	for _, row := range r.server.Query(t, r.db, "SELECT attname FROM pg_attribute WHERE attrelid = 'both'::regclass AND attnum > 0 ORDER BY attnum") {
		columns = append(columns, row[0])
	}
	require.Equal(t, []string{"id", "name", "more"}, columns)
}

// What Begin has read of a table is good for its writers until somebody changes the table.
func TestPGAWriterSeesTheTableAsItIs(t *testing.T) {
	for name, tc := range map[string]struct {
		change string
		known  bool
		error  messages.Code
	}{
		"nothing":           {"SELECT 1", true, ""},
		"rows":              {"INSERT INTO orders VALUES (7, 'x'); ANALYZE orders", true, ""},
		"another column":    {"ALTER TABLE orders ADD COLUMN more int", false, ""},
		"a trigger":         {"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER g BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()", false, ""},
		"an index":          {"CREATE UNIQUE INDEX ON orders (name)", false, ""},
		"another type":      {"ALTER TABLE orders ALTER COLUMN name TYPE int USING 0", false, messages.CodeSchemaType},
		"a column less":     {"ALTER TABLE orders DROP COLUMN name", false, messages.CodeSchemaColumn},
		"not null":          {"ALTER TABLE orders ADD COLUMN more int NOT NULL", false, messages.CodeSchemaColumn},
		"another table":     {makeOrdersAgain, false, ""},
		"no table":          {"DROP TABLE orders", false, messages.CodeDestMissing},
		"a type of a user":  {"CREATE DOMAIN words AS text; ALTER TABLE orders ALTER COLUMN name TYPE words", false, messages.CodeSchemaType},
		"another collation": {`ALTER TABLE orders ALTER COLUMN name TYPE text COLLATE "C"`, false, ""},
	} {
		r := newRig(t, connectors.WritePolicy{}, nil)
		s := r.next()
		l := loadOf(connectors.ModeAppend, 1, orders, "orders")
		require.NoError(t, s.Begin(t.Context(), l), name)
		r.sql(tc.change)
		w, _, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: r.epoch, Attempt: 1})
		if tc.error != "" {
			requireError(t, err, connectors.KindSchema, tc.error)
			continue
		}
		require.NoError(t, err, name)
		begun := s.(*Session).laid["orders"].lay
		require.NotNil(t, begun, name)
		require.Equal(t, tc.known, w.(*Writer).sinks[0].lay == begun, name)
		r.write(w, orders, []any{1, nil})
		r.commit(w, messages.BarrierEnd, 1, 1)
		require.NoError(t, w.Close(t.Context()))
	}
}

// Loads that are finished together are finished, or none of them is.
func TestPGLoadsAreFinishedTogether(t *testing.T) {
	r := newRig(t, connectors.WritePolicy{}, nil)
	s := r.next()
	var ids []messages.LoadID
	for _, name := range []string{"a", "b", "c"} {
		w := r.writer(connectors.ModeAppend, streamOf(name), 1)
		if name != "c" {
			r.commit(w, messages.BarrierEnd, 0, 0)
		}
		require.NoError(t, w.Close(t.Context()))
		ids = append(ids, messages.LoadID{Name: name, Number: 1})
	}
	finished := func() (out []string) {
		for _, row := range r.server.Query(t, r.db, "SELECT name FROM _rapidbyte.load WHERE finished ORDER BY 1") {
			out = append(out, row[0])
		}
		return out
	}
	all := s.(connectors.Finisher) //nolint:forcetypeassert // that is what it is for
	requireError(t, all.FinishAll(t.Context(), ids), connectors.KindInternal, messages.CodeInternal, "c", "1 parts are not final")
	require.Empty(t, finished())
	requireError(t, all.FinishAll(t.Context(), append(slices.Clone(ids[:2]), messages.LoadID{Name: "a", Number: 2})), connectors.KindInternal, messages.CodeInternal)
	require.Empty(t, finished())
	for range 2 {
		require.NoError(t, all.FinishAll(t.Context(), ids[:2]))
		require.Equal(t, []string{"a", "b"}, finished())
	}
	stale := s
	r.epoch++
	next, err := r.dest.Open(t.Context(), connectors.SessionRequest{Pipeline: testPipeline, Epoch: r.epoch, Run: "run-1", Store: "store"})
	require.NoError(t, err)
	require.Equal(t, connectors.KindFenced, connectors.KindOf(stale.(connectors.Finisher).FinishAll(t.Context(), ids[:2])))
	require.Equal(t, connectors.KindFenced, connectors.KindOf(stale.(connectors.Beginner).BeginAll(t.Context(), []connectors.Load{loadOf(connectors.ModeAppend, 2, orders, "x")})))
	require.NoError(t, next.Close(t.Context()))
}

// A change between two looks at the catalogue is not taken for one that has been seen.
func TestPGATableThatChangesWhileItIsBegunIsReadAgain(t *testing.T) {
	p := pgtest.NewProxy(t, pgtest.Shared(t).Port())
	r := newRig(t, connectors.WritePolicy{}, func(c *DestinationConfig) { c.Host, c.Port, c.SSLMode = "127.0.0.1", p.Port(), "disable" })
	r.sql("CREATE TABLE orders (id bigint PRIMARY KEY, name text); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	somebody := r.other()
	var changed []error
	p.Judge(func(m pgtest.Message) pgtest.Fate {
		if len(changed) == 0 && !m.FromServer && m.Type == 'P' && bytes.Contains(m.Body, []byte("string_agg(t.oid")) {
			_, err := somebody.Exec(context.Background(), "CREATE TRIGGER g BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()")
			changed = append(changed, err)
		}
		return pgtest.Pass
	})
	w := r.writer(connectors.ModeUpsert, orders, 1)
	p.Judge(nil)
	require.Equal(t, []error{nil}, changed)
	r.write(w, orders, []any{1, "a"})
	_, err := w.Commit(t.Context(), barrierAt(messages.BarrierEnd, 1, 1))
	requireError(t, err, connectors.KindConfig, messages.CodeRowsSwallowed)
	require.NoError(t, w.Close(t.Context()))
}

// The layouts that a session keeps are bounded, however many tables there are, and those of
// finished loads are not kept.
func TestLayoutsAreKeptWithinBounds(t *testing.T) {
	s := &Session{begun: map[string]connectors.WriteMode{}, laid: map[messages.StreamID]laid{}}
	wide := &layout{columns: make([]layoutColumn, 1000)}
	var loads []connectors.Load
	var made []*beginning
	var stored []storedLoad
	for i := range 2 * laidMost / 1000 {
		sp := streamOf(fmt.Sprintf("t%d", i))
		l := loadOf(connectors.ModeAppend, 1, sp)
		loads, stored = append(loads, l), append(stored, storedLoad{streams: []storedStream{{Stream: sp.Stream}}})
		made = append(made, &beginning{load: l, goals: []goal{{stream: sp}}, stages: []string{""}, lays: []*layout{wide}, marks: []string{"m"}})
	}
	for range 2 {
		s.remember(loads, made)
		require.Len(t, s.laid, laidMost/1000)
		require.Equal(t, laidMost, s.columns)
	}
	s.unlayAll(stored)
	require.Empty(t, s.laid)
	require.Zero(t, s.columns)
}
