package postgres

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// shapeOf describes columns, nullability and key of a table.
func (b *bench) shapeOf(table string) []string {
	b.t.Helper()
	return b.lines(fmt.Sprintf(`SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END FROM pg_attribute a
		WHERE a.attrelid = %[1]s::regclass AND a.attnum > 0 AND NOT a.attisdropped
		UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %[1]s::regclass AND contype = 'p'`, query.Literal(table)))
}

func TestPGExistingTargets(t *testing.T) {
	const unique = "CREATE UNIQUE INDEX i ON orders (id)"
	for _, c := range []struct {
		name, sql string
		mode      connectors.WriteMode
		kind      connectors.Kind
		code      messages.Code
		says      string
		next      string
		shape     []string
	}{
		{"fits", `CREATE TABLE orders (id bigint, name text)`, "append", "", "", "", "", []string{"id bigint", "name text"}},
		{"column is added", `CREATE TABLE orders (id bigint)`, "append", "", "", "", "", []string{"id bigint", "name text"}},
		{"other columns are null or default", `CREATE TABLE orders (name text, x int, id bigint, y int NOT NULL DEFAULT 7, z int GENERATED ALWAYS AS IDENTITY, g int NOT NULL GENERATED ALWAYS AS (1) STORED)`, "append", "", "", "", "", nil},
		{"wider and narrower integers", `CREATE TABLE orders (id int, name varchar(20))`, "append", "", "", "", "", nil},
		{"partitioned", `CREATE TABLE orders (id bigint, name text) PARTITION BY RANGE (id)`, "append", "", "", "", "", nil},
		{"upsert by an index", `CREATE TABLE orders (id bigint, name text); ` + unique, "upsert", "", "", "", "", nil},
		{"upsert without an index", `CREATE TABLE orders (id bigint, name text)`, "upsert", connectors.KindConfig, messages.CodeSchemaColumn, "unique index on exactly (id)", `CREATE UNIQUE INDEX ON "public"."orders" ("id");`, nil},
		{"upsert by a partial index", `CREATE TABLE orders (id bigint, name text); ` + unique + " WHERE id > 0", "upsert", connectors.KindConfig, messages.CodeSchemaColumn, "unique index", "CREATE UNIQUE", nil},
		{"upsert by a wider index", `CREATE TABLE orders (id bigint, name text, UNIQUE (id, name))`, "upsert", connectors.KindConfig, messages.CodeSchemaColumn, "unique index", "CREATE UNIQUE", nil},
		{"upsert by a deferred key", `CREATE TABLE orders (id bigint PRIMARY KEY DEFERRABLE, name text)`, "upsert", connectors.KindConfig, messages.CodeSchemaColumn, "unique index", "CREATE UNIQUE", nil},
		{"other type", `CREATE TABLE orders (id date, name text)`, "append", connectors.KindSchema, messages.CodeSchemaType, "column id is date in the table and bigint in the stream", "Cast", nil},
		{"other type of a replace", `CREATE TABLE orders (id date, name text)`, "replace", connectors.KindSchema, messages.CodeSchemaType, "column id is date", "Cast", nil},
		{"required column", `CREATE TABLE orders (id bigint, name text, z int NOT NULL)`, "append", connectors.KindSchema, messages.CodeSchemaColumn, "column z of the table is NOT NULL", `ALTER COLUMN "z" DROP NOT NULL`, nil},
		{"name in other case is another column", `CREATE TABLE orders ("ID" bigint, name text)`, "append", "", "", "", "", []string{"ID bigint", "name text", "id bigint"}},
		{"view", `CREATE VIEW orders AS SELECT 1 AS id`, "append", connectors.KindConfig, messages.CodeSchemaName, "a view", "target", nil},
		{"view is not replaced", `CREATE VIEW orders AS SELECT 1 AS id`, "replace", connectors.KindConfig, messages.CodeSchemaName, "a view", "target", nil},
		{"materialized view", `CREATE MATERIALIZED VIEW orders AS SELECT 1 AS id`, "append", connectors.KindConfig, messages.CodeSchemaName, "a materialized view", "target", nil},
		{"index of that name", `CREATE TABLE x (id int); CREATE INDEX orders ON x (id)`, "append", connectors.KindConfig, messages.CodeSchemaName, "an index", "target", nil},
		{"type of that name", `CREATE TYPE orders AS (a int)`, "append", connectors.KindConfig, messages.CodeSchemaName, "a composite type", "target", nil},
		{"rule on a table to replace", `CREATE TABLE orders (id bigint PRIMARY KEY, name text); CREATE RULE r AS ON INSERT TO orders DO ALSO NOTHING`, "replace", connectors.KindConfig, messages.CodeDocConflict, "rule r on public.orders", "Drop the rule", nil},
		{
			"foreign keys without a key", `CREATE TABLE orders (id bigint, name text UNIQUE); CREATE TABLE x (o text REFERENCES orders (name))`, "replace",
			connectors.KindConfig, messages.CodeDocConflict, "foreign key x_o_fkey of public.x", "primary key", nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := benchOf(t, c.mode, c.sql)
			found := b.check(b.conn)
			p, err := b.prepare()
			if c.kind != "" {
				e := wantError(t, err, c.kind, c.code, c.says)
				require.Contains(t, e.Next, c.next)
				require.Len(t, found, 1, "check predicts it")
				require.Equal(t, c.code, found[0].Code)
				require.Contains(t, found[0].Message, c.says)
				require.Contains(t, found[0].Remedy, c.next)
				return
			}
			require.NoError(t, err)
			require.Empty(t, found)
			if c.shape != nil {
				require.Equal(t, c.shape, b.shapeOf("orders"))
			}
			l, err := b.goal.layout(t.Context(), b.conn, p.stage)
			require.NoError(t, err)
			require.Len(t, l.columns, 2)
			require.Equal(t, "id", l.columns[0].name)
			require.NotZero(t, l.columns[0].typ.OID)
			require.Equal(t, c.mode == "upsert", l.keyed)
			again, err := b.goal.plan(t.Context(), b.conn)
			require.NoError(t, err)
			require.Empty(t, again.statements, "nothing is left to do")
		})
	}
}

func TestStreamsThatFitNoTable(t *testing.T) {
	field := func(name string) arrow.Field { return arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int64} }
	long := strings.Repeat("é", 32)
	for _, c := range []struct {
		name   string
		change func(*goal)
		kind   connectors.Kind
		code   messages.Code
		says   string
	}{
		{"no key", func(g *goal) { g.mode, g.stream.Key = "upsert", nil }, connectors.KindConfig, messages.CodeDocMissing, "primary key"},
		{"unknown key", func(g *goal) { g.mode, g.stream.Key = "upsert", []string{"nope"} }, connectors.KindSchema, messages.CodeSchemaColumn, "nope"},
		{"key twice", func(g *goal) { g.mode, g.stream.Key = "upsert", []string{"id", "id"} }, connectors.KindConfig, messages.CodeDocConflict, "twice"},
		{"mode", func(g *goal) { g.mode = "merge" }, connectors.KindConfig, messages.CodeDocValue, "merge"},
		{"no columns", func(g *goal) { g.stream.Schema = arrow.NewSchema(nil, nil) }, connectors.KindSchema, messages.CodeSchemaEmpty, "no columns"},
		{"no target", func(g *goal) { g.stream.Target = "" }, connectors.KindSchema, messages.CodeSchemaName, "empty"},
		{"long target", func(g *goal) { g.stream.Target = long }, connectors.KindSchema, messages.CodeSchemaName, "64 bytes"},
		{"staging target", func(g *goal) { g.stream.Target = stageName("p", "x", 1) }, connectors.KindSchema, messages.CodeSchemaName, "reserved"},
		{"zero byte", func(g *goal) { g.stream.Target = "a\x00b" }, connectors.KindSchema, messages.CodeSchemaName, "zero byte"},
		{"not UTF-8", func(g *goal) { g.stream.Target = "a\xffb" }, connectors.KindSchema, messages.CodeSchemaName, "UTF-8"},
		{"long column", func(g *goal) { g.stream.Schema = arrow.NewSchema([]arrow.Field{field(long)}, nil) }, connectors.KindSchema, messages.CodeSchemaName, "64 bytes"},
		{"column twice", func(g *goal) { g.stream.Schema = arrow.NewSchema([]arrow.Field{field("a"), field("a")}, nil) }, connectors.KindSchema, messages.CodeSchemaName, "twice"},
		{"system column", func(g *goal) { g.stream.Schema = arrow.NewSchema([]arrow.Field{field("ctid")}, nil) }, connectors.KindSchema, messages.CodeSchemaName, "system"},
		{"metadata column", func(g *goal) {
			g.policy.Metadata = true
			g.stream.Schema = arrow.NewSchema([]arrow.Field{field("_rb_run")}, nil)
		}, connectors.KindSchema, messages.CodeSchemaName, "metadata"},
		{"too many", func(g *goal) {
			g.policy.Metadata = true
			many := make([]arrow.Field, 1599)
			for i := range many {
				many[i] = field(fmt.Sprint("c", i))
			}
			g.stream.Schema = arrow.NewSchema(many, nil)
		}, connectors.KindSchema, messages.CodeSchemaColumn, "1601 columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := goal{cfg: DestinationConfig{Schema: "public"}, mode: "append", stream: connectors.StreamPlan{Stream: "orders", Target: "orders", Schema: plainSchema()}}
			c.change(&g)
			bad := g.sound()
			if len(bad) == 0 {
				_, bad = g.slots(nil)
			}
			require.Len(t, bad, 1)
			wantError(t, bad[0], c.kind, c.code, c.says)
		})
	}
}

func TestStageNamesFitAndDiffer(t *testing.T) {
	a := stageName("p", "s", 1<<63)
	require.LessOrEqual(t, len(a)+len("_i1600"), identifierMax)
	require.NotEqual(t, stageName("p", "s", 1), stageName("p", "s", 2))
	require.NotEqual(t, stageName("p", "s", 1), stageName("ps", "", 1))
	require.Equal(t, "_rb_load_c6728888e0819810_1", stageName("p", "s", 1), "a later run finds it")
}

func TestPGNewTables(t *testing.T) {
	for _, mode := range []connectors.WriteMode{"append", "upsert"} {
		b := benchOf(t, mode, "")
		b.goal.cfg.Schema, b.goal.policy.Metadata = `new "schema"`, true
		b.begun()
		require.Equal(t, []string{"id bigint NOT NULL", "name text", "_rb_run text", "_rb_loaded_at timestamp with time zone", "PRIMARY KEY (id)"}, b.shapeOf(`"new ""schema"""."orders"`))
		l, err := b.goal.layout(t.Context(), b.conn, "")
		require.NoError(t, err)
		require.Equal(t, []int{0, 1, -1, -1}, []int{l.columns[0].field, l.columns[1].field, l.columns[2].field, l.columns[3].field})
		require.Equal(t, connectors.ColumnLoadedAt, l.columns[3].meta)
		require.Equal(t, []string{"p"}, b.lines("SELECT relpersistence FROM pg_class WHERE relname = 'orders'"), "logged")
	}
	b := benchOf(t, "append", "")
	b.goal.stream.Schema = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String, Metadata: arrow.NewMetadata([]string{"x"}, []string{"y"})}}, nil)
	b.begun()
	require.Equal(t, []string{"id text NOT NULL", "PRIMARY KEY (id)"}, b.shapeOf("orders"))
}

func TestPGNewColumnPolicies(t *testing.T) {
	for policy, says := range map[connectors.ColumnPolicy]string{connectors.ColumnAdd: "", connectors.ColumnIgnore: "", connectors.ColumnFail: "no column name", "": "no column name"} {
		for _, mode := range []connectors.WriteMode{"append", "replace"} {
			b := benchOf(t, mode, "CREATE TABLE orders (id bigint)")
			b.goal.policy.NewColumn = policy
			p, err := b.prepare()
			if says != "" {
				wantError(t, err, connectors.KindSchema, messages.CodeSchemaColumn, says)
				continue
			}
			require.NoError(t, err)
			l, err := b.goal.layout(t.Context(), b.conn, p.stage)
			require.NoError(t, err)
			if policy == connectors.ColumnIgnore {
				require.Len(t, p.warnings, 1)
				require.Contains(t, p.warnings[0].Message, "column name is not in the table")
				require.Len(t, l.columns, 1)
				continue
			}
			require.Len(t, l.columns, 2)
			require.Empty(t, p.warnings)
		}
	}
}

func TestPGLayoutNoticesThatTheTableChanged(t *testing.T) {
	b := benchOf(t, "append", "CREATE TABLE orders (id bigint, name text)")
	b.begun()
	b.sql("ALTER TABLE orders DROP COLUMN name")
	_, err := b.goal.layout(t.Context(), b.conn, "")
	wantError(t, err, connectors.KindSchema, messages.CodeSchemaColumn, "no column name any more")
	b.sql("ALTER TABLE orders ALTER id TYPE text")
	_, err = b.goal.layout(t.Context(), b.conn, "")
	wantError(t, err, connectors.KindSchema, messages.CodeSchemaType, "column id is text")
	b.sql("DROP TABLE orders")
	_, err = b.goal.layout(t.Context(), b.conn, "")
	wantError(t, err, connectors.KindSchema, messages.CodeDestMissing, "gone")
}

func TestPGGeneratedColumnsAreLeftOut(t *testing.T) {
	b := benchOf(t, "append", "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, name text GENERATED ALWAYS AS ('x') STORED)")
	p := b.begun()
	require.Len(t, p.warnings, 1)
	require.Contains(t, p.warnings[0].Message, "column name is computed")
	l, err := b.goal.layout(t.Context(), b.conn, "")
	require.NoError(t, err)
	require.Len(t, l.columns, 1)
	require.True(t, l.generatedAlways)
}

func TestPGNamesAreTakenExactly(t *testing.T) {
	names := []string{
		`a"b`, `"; DROP TABLE victim;--`, "ünïcødé", "\u202eRTL", "😀", "1digit", "select", strings.Repeat("x", 63), strings.Repeat("é", 31), "a$b", "new\nline", `back\slash`, "quo'te", "Case", "case", " ", "%s", "$1",
	}
	b := benchOf(t, "append", "CREATE TABLE victim ()")
	for i, name := range names {
		for _, mode := range []connectors.WriteMode{"upsert", "replace"} {
			b.goal.mode, b.goal.load = mode, uint64(i+1) //nolint:gosec // small
			b.goal.stream.Stream, b.goal.stream.Target = messages.StreamID(name), name
			b.goal.stream.Key = []string{name}
			b.goal.stream.Schema = arrow.NewSchema([]arrow.Field{{Name: name, Type: arrow.PrimitiveTypes.Int64}, {Name: name[:1] + "2", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
			if name[0] > 127 {
				b.goal.stream.Schema = arrow.NewSchema([]arrow.Field{{Name: name, Type: arrow.PrimitiveTypes.Int64}}, nil)
			}
			p, err := b.prepare()
			require.NoError(t, err, "%q", name)
			_, err = b.goal.layout(t.Context(), b.conn, p.stage)
			require.NoError(t, err, "%q", name)
			if p.stage != "" {
				require.NoError(t, b.swap(p.stage), "%q", name)
			}
		}
	}
	var got []string
	for _, row := range b.server.Query(t, b.db, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'victim'") {
		got = append(got, row[0])
	}
	require.ElementsMatch(t, names, got)
	require.Equal(t, []string{"1"}, b.lines("SELECT count(*) FROM pg_class WHERE relname = 'victim'"))
}

func TestPGStreamsCreateOneTypeAtOnce(t *testing.T) {
	source := benchOf(t, "append", `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE orders (id bigint PRIMARY KEY, m mood)`)
	b := benchOf(t, "append", "")
	b.like(source.conn, "public", "orders")
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		conn := b.connect(b.server.User())
		g := b.goal
		g.stream.Target = fmt.Sprint("orders", i)
		wg.Go(func() {
			errs[i] = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				_, err := g.prepare(t.Context(), tx)
				return err
			})
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, []string{"6"}, b.lines("SELECT count(*) FROM pg_attribute WHERE atttypid = 'mood'::regtype AND attnum > 0"))
}
