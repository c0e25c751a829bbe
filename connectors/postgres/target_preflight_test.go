package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// A role that lacks something is told the exact statement, and nothing is found once it
// was run.
func TestPGPreflightNamesTheRemedy(t *testing.T) {
	const table = "CREATE TABLE orders (id bigint PRIMARY KEY, name text); GRANT CREATE ON DATABASE DB TO ROLE1;"
	for _, c := range []struct {
		name, sql string
		mode      connectors.WriteMode
		change    func(*goal)
		says      []string // in order; each with its remedy as a superuser runs it
	}{
		{"schemas", "", "append", func(g *goal) { g.cfg.Schema = "raw" }, []string{"may not create schemas in database DB, and _rapidbyte and raw must be created"}},
		{"bookkeeping", "CREATE SCHEMA raw AUTHORIZATION ROLE1", "append", func(g *goal) { g.cfg.Schema = "raw" }, []string{"and _rapidbyte must be created"}},
		{"rights on the bookkeeping", "CREATE SCHEMA _rapidbyte; CREATE TABLE _rapidbyte.owner (); CREATE SCHEMA raw AUTHORIZATION ROLE1", "append", func(g *goal) { g.cfg.Schema = "raw" }, []string{"lacks rights on the bookkeeping"}},
		{"new table", "GRANT CREATE ON DATABASE DB TO ROLE1", "append", nil, []string{"lacks USAGE, CREATE on schema public"}},
		{"append", table, "append", nil, []string{"lacks INSERT on table public.orders"}},
		{"upsert", table + "GRANT SELECT ON orders TO ROLE1", "upsert", nil, []string{"lacks INSERT, UPDATE on table public.orders"}},
		{"rights on columns", table + "GRANT INSERT (id, name) ON orders TO ROLE1", "append", nil, nil},
		{"rights on some columns", table + "GRANT INSERT (id) ON orders TO ROLE1", "append", nil, []string{"lacks INSERT on table public.orders"}},
		{"labels of somebody's enum", "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE orders (id bigint, name mood); GRANT ALL ON orders TO ROLE1; GRANT CREATE ON DATABASE DB TO ROLE1", "append", func(g *goal) { g.stream.Schema = moods("a", "b") }, []string{"the enum public.mood needs new labels, and only its owner USER may add them"}},
		{"temporary tables", table + "GRANT ALL ON orders TO ROLE1; REVOKE TEMPORARY ON DATABASE DB FROM PUBLIC", "upsert", nil, []string{"may not create temporary tables"}},
		{"new column", "CREATE TABLE orders (id bigint); GRANT ALL ON orders TO ROLE1; GRANT CREATE ON DATABASE DB TO ROLE1", "append", nil, []string{"must be altered, and only its owner USER may do that"}},
		{"replace by rename", table + "GRANT CREATE ON SCHEMA public TO ROLE1; ALTER TABLE orders OWNER TO ROLE2; GRANT ROLE2 TO ROLE1; REVOKE ALL ON orders FROM ROLE2; GRANT CREATE ON SCHEMA public TO ROLE2", "replace", nil, []string{"lacks SELECT, DELETE on table public.orders"}},
		{"replace of somebody's table", table + "GRANT SELECT ON orders TO ROLE1; GRANT CREATE ON SCHEMA public TO ROLE1", "replace", nil, []string{"lacks INSERT, UPDATE, DELETE on table public.orders"}},
		{"rename of somebody's table", table + "GRANT ALL ON orders TO ROLE1; GRANT CREATE ON SCHEMA public TO ROLE1", "replace", func(g *goal) { g.cfg.Swap = SwapRename }, []string{"would lose owner USER"}},
		{"row level security", table + "GRANT ALL ON orders TO ROLE1; ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "append", nil, []string{"row level security of table public.orders applies"}},
		{"row level security of a replace", table + "GRANT ALL ON orders TO ROLE1; GRANT CREATE ON SCHEMA public TO ROLE1; ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "replace", nil, []string{"row level security hides rows"}},
		{"published without a key", "CREATE TABLE orders (id bigint, name text); CREATE PUBLICATION p FOR TABLE orders; GRANT ALL ON orders TO ROLE1; GRANT CREATE ON SCHEMA public TO ROLE1; GRANT CREATE ON DATABASE DB TO ROLE1", "replace", nil, []string{"cannot be deleted while publication p publishes it"}},
		{"read-only", table + "GRANT ALL ON orders TO ROLE1; ALTER ROLE ROLE1 IN DATABASE DB SET default_transaction_read_only = on", "append", nil, []string{"are read-only by default"}},
		{"two at once", table + "REVOKE USAGE ON SCHEMA public FROM PUBLIC", "append", nil, []string{"lacks USAGE on schema public", "lacks INSERT on table public.orders"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := benchOf(t, c.mode, "")
			role, other := b.role("LOGIN"), b.role("")
			names := strings.NewReplacer("ROLE1", role, "ROLE2", other, "DB", b.db, "USER", b.server.User())
			b.sql(names.Replace(c.sql))
			if c.change != nil {
				c.change(&b.goal)
			}
			found := b.check(b.connect(role))
			require.Len(t, found, len(c.says), "%+v", found)
			for i, says := range c.says {
				require.Equal(t, connectors.SeverityError, found[i].Severity)
				require.Contains(t, found[i].Message, names.Replace(says))
				require.NotEmpty(t, found[i].Remedy)
				if !strings.HasPrefix(found[i].Remedy, "Set") {
					b.sql(found[i].Remedy)
				} else {
					b.goal.cfg.Swap = SwapAuto
				}
			}
			conn := b.connect(role)
			require.Empty(t, b.check(conn))
			// What preflight lets through works.
			require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				p, err := b.goal.prepare(t.Context(), tx)
				require.NoError(t, err)
				_, err = b.goal.layout(t.Context(), conn, p.stage)
				require.NoError(t, err)
				if p.stage == "" {
					return nil
				}
				_, err = tx.Exec(t.Context(), "INSERT INTO "+p.stage+" VALUES (7, 'x')")
				require.NoError(t, err)
				return b.goal.swap(t.Context(), tx, p.stage)
			}))
		})
	}
}

// moods makes a schema whose name is an enum.
func moods(labels ...string) *arrow.Schema {
	f, _ := codec.Field(codec.Column{Name: "name", Type: &codec.Type{Schema: "public", Name: "mood", SQL: "public.mood", Mod: -1, Kind: codec.KindEnum, Labels: labels}}, false)
	return arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, f}, nil)
}

func TestPGPreflightOfEncodings(t *testing.T) {
	for encoding, severity := range map[string]connectors.Severity{"SQL_ASCII": connectors.SeverityError, "LATIN1": connectors.SeverityWarning} {
		b := benchOf(t, "append", "")
		b.db = b.server.DatabaseLike(t, "template0", fmt.Sprintf("ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'", encoding))
		found := b.check(b.connect(b.server.User()))
		require.Len(t, found, 1)
		require.Equal(t, severity, found[0].Severity)
		require.Contains(t, found[0].Message, encoding)
		require.Empty(t, found[0].Where.Stream, "told once for all streams")
	}
}

// An owner that is not a superuser replaces a table of a group that it belongs to.
func TestPGRenameByAMemberOfTheOwner(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, n serial)")
	loader, group := b.role("LOGIN"), b.role("")
	b.sql(fmt.Sprintf("GRANT %[2]s TO %[1]s; GRANT CREATE ON SCHEMA public TO %[1]s, %[2]s; ALTER TABLE orders OWNER TO %[2]s; GRANT SELECT ON orders TO PUBLIC; GRANT CREATE ON DATABASE %[3]s TO %[1]s", loader, group, b.db))
	want := b.portrait("orders")
	b.conn = b.connect(loader)
	require.Empty(t, b.check(b.conn))
	p := b.begun()
	b.sql("INSERT INTO " + p.stage + " (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'a')")
	require.NoError(t, b.swap(p.stage))
	require.Equal(t, want, b.portrait("orders"))
}

func TestPGWideRowsAreTold(t *testing.T) {
	b := benchOf(t, "append", "")
	names := make([]string, 600)
	for i := range names {
		names[i] = fmt.Sprint("c", i)
	}
	b.goal.stream.Schema, b.goal.stream.Key = schemaOf(names...), nil
	require.Empty(t, b.check(b.conn))
	for len(names) < 1600 {
		names = append(names, fmt.Sprint("c", len(names)))
	}
	b.goal.stream.Schema = schemaOf(names...)
	found := b.check(b.conn)
	require.Len(t, found, 1)
	require.Equal(t, connectors.SeverityWarning, found[0].Severity)
	require.Contains(t, found[0].Message, "1600 columns may be too big")
	b.begun()
	require.Equal(t, []string{"1600"}, b.lines("SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0"))
	b.goal.policy.Metadata = true
	found = b.check(b.conn)
	require.Len(t, found, 1)
	require.Contains(t, found[0].Message, "1602 columns")
}

func TestPGCheckChangesNothing(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint)")
	before := b.lines("SELECT count(*), max(oid) FROM pg_class")
	b.check(b.conn)
	b.goal.cfg.Schema = "other"
	b.check(b.conn)
	require.Equal(t, before, b.lines("SELECT count(*), max(oid) FROM pg_class"))
	require.NoError(t, b.conn.Ping(context.Background()))
}

func TestPGPreflightOfAStandby(t *testing.T) {
	b := benchOf(t, "append", "")
	b.server, b.db = pgtest.Start(t), "postgres"
	b.server.Stop(t)
	b.server.File(t, "standby.signal", "")
	b.server.Restart(t)
	found := b.check(b.connect(b.server.User()))
	require.Len(t, found, 1)
	require.Contains(t, found[0].Message, "hot standby")
}

// A key that no index can hold is no key of a new table, unless an upsert needs it.
func TestPGKeysThatCannotBeIndexed(t *testing.T) {
	source := benchOf(t, "append", "CREATE DOMAIN doc AS json; CREATE TYPE pair AS (a int, b doc[]); CREATE TABLE orders (j json, d doc, p pair, pt point, ok int4range)")
	for _, key := range []string{"j", "d", "p", "pt", "ok"} {
		for _, mode := range []connectors.WriteMode{"append", "upsert", "replace"} {
			b := benchOf(t, mode, "")
			b.like(source.conn, "public", "orders")
			b.goal.stream.Key = []string{key}
			p, err := b.prepare()
			if mode == "upsert" && key != "ok" {
				wantError(t, err, connectors.KindConfig, messages.CodeDocValue, "the key column "+key, "cannot be indexed")
				continue
			}
			require.NoError(t, err)
			if p.stage != "" {
				require.NoError(t, b.swap(p.stage))
			}
			want := []string{"0"}
			if key == "ok" {
				want = []string{"1"}
			}
			require.Equal(t, want, b.lines("SELECT count(*) FROM pg_index WHERE indrelid = 'orders'::regclass"))
		}
	}
}
