package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// portrait is everything of a table that a swap must keep, as the catalogue has it.
func (b *bench) portrait(table string) []string {
	b.t.Helper()
	return b.lines(strings.ReplaceAll(`
		SELECT 'table', pg_get_userbyid(relowner), relpersistence::text, relreplident::text, reloptions::text || coalesce((SELECT x.reloptions::text FROM pg_class x WHERE x.oid = c.reltoastrelid), ''), (SELECT amname FROM pg_am WHERE oid = relam),
			coalesce((SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(relacl) AS a), 'none'), obj_description(oid, 'pg_class') FROM pg_class c WHERE oid = $T
		UNION ALL
		SELECT 'column ' || attname, format_type(atttypid, atttypmod), attnotnull::text, attidentity::text || attgenerated::text, attoptions::text, attstattarget::text || attstorage::text || attcompression::text,
			(SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(attacl) AS a), col_description(attrelid, attnum) || coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum), '')
			FROM pg_attribute WHERE attrelid = $T AND attnum > 0 AND NOT attisdropped
		UNION ALL
		SELECT 'index', pg_get_indexdef(indexrelid), indisprimary::text, indisclustered::text, indisreplident::text, indimmediate::text,
			(SELECT string_agg(attstattarget::text, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = indexrelid), obj_description(indexrelid, 'pg_class') FROM pg_index WHERE indrelid = $T
		UNION ALL
		SELECT 'constraint ' || conname, pg_get_constraintdef(oid), convalidated::text, condeferred::text, '', '', '', obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conrelid = $T
		UNION ALL
		SELECT 'sequence of ' || a.attname, c.relname, d.deptype::text, pg_get_userbyid(c.relowner), c.relacl::text, s.seqstart::text || s.seqincrement || s.seqmax, '', obj_description(c.oid, 'pg_class')
			FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_sequence s ON s.seqrelid = c.oid JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
			WHERE d.refobjid = $T AND d.refclassid = 'pg_class'::regclass
		UNION ALL
		SELECT 'statistics', pg_get_statisticsobjdef(oid), '', '', '', '', '', '' FROM pg_statistic_ext WHERE stxrelid = $T
		ORDER BY 1, 2`, "$T", "'"+table+"'::regclass"))
}

// kept is a table with everything that a rename takes over.
const kept = `
GRANT CREATE, USAGE ON SCHEMA public TO OWNER_ROLE;
CREATE SEQUENCE by_hand;
CREATE TABLE orders (
	id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 5) CONSTRAINT "my key" PRIMARY KEY,
	gone int, name text COLLATE "C" DEFAULT 'x', n serial, h int DEFAULT nextval('by_hand'),
	e text UNIQUE DEFERRABLE INITIALLY DEFERRED, v int CONSTRAINT positive CHECK (v > 0), g text GENERATED ALWAYS AS (upper(name)) STORED,
	r int4range, CONSTRAINT "no overlap" EXCLUDE USING gist (r WITH &&), CHECK (id > 0) NOT VALID
) WITH (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE orders DROP COLUMN gone;
CREATE INDEX part ON orders (v DESC NULLS LAST) INCLUDE (name) WHERE v > 3;
CREATE INDEX "the expr" ON orders (lower(name) text_pattern_ops, (v + 1)) WITH (fillfactor = 50);
CREATE UNIQUE INDEX alone ON orders (name, v);
CREATE INDEX hashed ON orders USING hash (name);
CREATE STATISTICS s1 (ndistinct, dependencies) ON name, v FROM orders;
ALTER TABLE orders CLUSTER ON "my key"; ALTER INDEX "the expr" ALTER COLUMN 2 SET STATISTICS 55;
ALTER TABLE orders ALTER name SET STATISTICS 321, ALTER v SET (n_distinct = 7), ALTER name SET STORAGE EXTERNAL;
ALTER TABLE orders ALTER v SET NOT NULL, ALTER name SET NOT NULL;
ALTER TABLE orders REPLICA IDENTITY USING INDEX alone;
COMMENT ON TABLE orders IS 'it''s a table'; COMMENT ON COLUMN orders.name IS 'the name'; COMMENT ON INDEX part IS 'an index'; COMMENT ON CONSTRAINT "my key" ON orders IS 'the key';
COMMENT ON CONSTRAINT positive ON orders IS 'a check';
GRANT SELECT, INSERT ON orders TO READER WITH GRANT OPTION; GRANT SELECT ON orders TO PUBLIC; GRANT UPDATE (name), REFERENCES (v) ON orders TO READER;
GRANT USAGE ON SEQUENCE orders_id_seq TO READER;
INSERT INTO orders (name, v) SELECT 'old' || i, i FROM generate_series(1, 20) AS i;
ALTER TABLE orders OWNER TO OWNER_ROLE;`

func TestPGRenameKeepsEverything(t *testing.T) {
	for _, defaults := range []string{"", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO READER; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO OWNER_ROLE"} {
		b := benchOf(t, "replace", "")
		roles := strings.NewReplacer("READER", b.role(""), "OWNER_ROLE", b.role(""))
		b.sql(roles.Replace(kept))
		b.sql(roles.Replace(defaults))
		b.goal.cfg.Swap = SwapRename
		b.goal.stream.Schema = schemaOf("id", "name", "v")
		want := b.portrait("orders")
		require.Empty(t, b.check(b.conn))
		stage := b.staged("id, name, v", "(1, 'a', 1), (2, 'b', 2)")
		before := b.lines("SELECT oid FROM pg_class WHERE relname = 'orders'")
		require.NoError(t, b.swap(stage))
		require.Equal(t, want, b.portrait("orders"))
		require.NotEqual(t, before, b.lines("SELECT oid FROM pg_class WHERE relname = 'orders'"))
		require.Equal(t, []string{"1|a|1|A", "2|b|2|B"}, b.lines("SELECT id, name, v, g FROM orders ORDER BY id"))
		require.Equal(t, []string{"0"}, b.lines("SELECT count(*) FROM pg_class WHERE relname LIKE '%rb_load%'"))
		b.sql("INSERT INTO orders (name, v, r) VALUES ('next', 9, NULL)")
		require.Equal(t, []string{"200|23|3"}, b.lines("SELECT id, n, h - 20 FROM orders WHERE name = 'next'"), "sequences go on")
	}
}

func TestPGIdentityNeverGoesBehindTheRows(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text); INSERT INTO orders (name) VALUES ('x')")
	require.NoError(t, b.swap(b.staged("id, name", "(5000, 'a')")))
	require.Equal(t, []string{"5001"}, b.lines("INSERT INTO orders (name) VALUES ('b') RETURNING id"))
	require.Equal(t, []string{"orders_id_seq"}, b.lines("SELECT relname FROM pg_class WHERE relkind = 'S'"))
}

func TestPGDescendingIdentity(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1) PRIMARY KEY, name text)")
	require.NoError(t, b.swap(b.staged("id, name", "(-1, 'a'), (-7, 'b')")))
	require.Equal(t, []string{"-8"}, b.lines("INSERT INTO orders (name) VALUES ('b') RETURNING id"))
	b = benchOf(t, "replace", "CREATE TABLE orders (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text)")
	require.NoError(t, b.swap(b.staged("id, name", "(1, 'a')")))
	require.Equal(t, []string{"2"}, b.lines("INSERT INTO orders (name) VALUES ('b') RETURNING id"), "of a sequence that nobody had used")
}

// A tree is rebuilt: the parent of a row goes, and its new parent comes, in one swap.
func TestPGInPlaceSwapOfATree(t *testing.T) {
	for _, key := range []string{"PRIMARY KEY", "UNIQUE"} {
		b := benchOf(t, "replace", "CREATE TABLE orders (id bigint "+key+", parent bigint REFERENCES orders (id)); INSERT INTO orders VALUES (1, NULL), (2, 1)")
		b.goal.stream.Schema, b.goal.stream.Key = schemaOf("id", "parent"), nil
		if key == "UNIQUE" {
			_, err := b.prepare()
			require.NoError(t, err, "the only foreign key is the table's own")
			b.goal.load++
		}
		require.NoError(t, b.swap(b.staged("id, parent", "(2, 3), (3, NULL)")))
		require.Equal(t, []string{"2|3", `3|\N`}, b.lines("SELECT * FROM orders ORDER BY id"))
	}
}

func TestPGLongNamesOfKeys(t *testing.T) {
	b := benchOf(t, "replace", "")
	b.goal.stream.Target = strings.Repeat("é", 31)
	require.NoError(t, b.swap(b.staged("id, name", "(1, 'a')")))
	require.Equal(t, []string{strings.Repeat("é", 29) + "_pkey"}, b.lines("SELECT conname FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace"))
}

func TestPGReplaceOfNoTable(t *testing.T) {
	b := benchOf(t, "replace", "")
	require.NoError(t, b.swap(b.staged("id, name", "(1, 'a')")))
	require.Equal(t, []string{"id bigint NOT NULL", "name text", "PRIMARY KEY (id)"}, b.shapeOf("orders"))
	require.Equal(t, []string{"orders_pkey"}, b.lines("SELECT conname FROM pg_constraint WHERE conrelid = 'orders'::regclass"))
	b.goal.load = 2
	stage := b.staged("id, name", "(2, 'a'), (3, 'b')")
	b.sql("DROP TABLE orders")
	require.NoError(t, b.swap(stage), "the target was dropped meanwhile")
	require.Equal(t, []string{"2|a", "3|b"}, b.lines("SELECT * FROM orders ORDER BY 1"))
	b.goal.load = 3
	stage = b.staged("id, name", "(4, 'a'), (4, 'b')")
	wantError(t, b.swap(stage), connectors.KindData, messages.CodeRowRefused, "Key (id)=(4) is duplicated")
	require.Equal(t, []string{"2|a", "3|b"}, b.lines("SELECT * FROM orders ORDER BY 1"))
}

// inPlace lists what forces an in-place swap, with a look at what must still be there.
var inPlace = []struct{ name, sql, look, want string }{
	{"view", "CREATE VIEW v AS SELECT * FROM orders", "SELECT string_agg(name, ',' ORDER BY id) FROM v", "a2,same,new"},
	{"view of a view", "CREATE VIEW v0 AS SELECT * FROM orders; CREATE VIEW v AS SELECT * FROM v0", "SELECT count(*) FROM v", "3"},
	{"materialized view", "CREATE MATERIALIZED VIEW v AS SELECT * FROM orders", "SELECT count(*) FROM v", "3"},
	{"rule of another table", "CREATE TABLE x (); CREATE RULE r AS ON INSERT TO x DO ALSO DELETE FROM orders", "SELECT count(*) FROM pg_rules WHERE rulename = 'r'", "1"},
	{"foreign key to it", "CREATE TABLE x (o bigint REFERENCES orders); INSERT INTO x VALUES (1)", "SELECT count(*) FROM pg_constraint WHERE contype = 'f'", "1"},
	{"foreign key of it", "CREATE TABLE x (n text PRIMARY KEY); INSERT INTO x VALUES ('a'), ('same'), ('gone'), ('a2'), ('new'); ALTER TABLE orders ADD FOREIGN KEY (name) REFERENCES x", "SELECT count(*) FROM pg_constraint WHERE contype = 'f'", "1"},
	{"foreign key to itself", "ALTER TABLE orders ADD parent bigint REFERENCES orders", "SELECT count(*) FROM pg_constraint WHERE contype = 'f'", "1"},
	{"trigger", "CREATE TABLE log (x text); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP); RETURN NULL; END'; CREATE TRIGGER g AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION f()", "SELECT string_agg(x, ',' ORDER BY x) FROM log", "DELETE,INSERT,UPDATE"},
	{"row level security", "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON orders USING (true)", "SELECT count(*) FROM pg_policies", "1"},
	{"publication", "CREATE PUBLICATION pub FOR TABLE orders", "SELECT count(*) FROM pg_publication_tables", "1"},
	{"publication of all tables", "CREATE PUBLICATION pub FOR ALL TABLES", "SELECT 1", "1"},
	{"publication of the schema", "CREATE PUBLICATION pub FOR TABLES IN SCHEMA public", "SELECT 1", "1"},
	{"function of the row type", "CREATE FUNCTION f(orders) RETURNS text LANGUAGE sql AS 'SELECT $1.name'", "SELECT count(*) FROM orders o WHERE f(o) = o.name", "3"},
	{"column of the row type", "CREATE TABLE x (o orders[])", "SELECT count(*) FROM x", "0"},
	{"function over the table", "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders; END", "SELECT f()", "3"},
	{"child table", "CREATE TABLE child () INHERITS (orders); INSERT INTO child VALUES (77, 'child')", "SELECT name FROM child", "child"},
	{"parent table", "CREATE TABLE parent (id bigint); ALTER TABLE orders INHERIT parent", "SELECT count(*) FROM parent", "3"},
	{"unlogged", "ALTER TABLE orders SET UNLOGGED", "SELECT relpersistence FROM pg_class WHERE relname = 'orders'", "u"},
	{"another unique index", "CREATE VIEW v AS SELECT 1 FROM orders; CREATE UNIQUE INDEX u ON orders (name)", "SELECT count(*) FROM v", "3"},
}

func TestPGInPlaceSwapKeepsWhatDepends(t *testing.T) {
	const table = "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'a'), (2, 'same'), (3, 'gone');"
	for _, c := range inPlace {
		t.Run(c.name, func(t *testing.T) {
			b := benchOf(t, "replace", table+c.sql)
			before := b.lines("SELECT oid FROM pg_class WHERE relname = 'orders'")
			untouched := b.lines("SELECT ctid, xmin FROM ONLY orders WHERE id = 2")
			require.Empty(t, b.check(b.conn))
			require.NoError(t, b.swap(b.staged("id, name", "(2, 'same'), (1, 'a2'), (4, 'new')")))
			require.Equal(t, []string{"1|a2", "2|same", "4|new"}, b.lines("SELECT id, name FROM ONLY orders ORDER BY id"))
			require.Equal(t, before, b.lines("SELECT oid FROM pg_class WHERE relname = 'orders'"))
			require.Equal(t, untouched, b.lines("SELECT ctid, xmin FROM ONLY orders WHERE id = 2"), "unchanged rows are not written")
			if strings.HasPrefix(c.name, "mat") {
				b.sql("REFRESH MATERIALIZED VIEW v")
			}
			require.Equal(t, []string{c.want}, b.lines(c.look))
			require.Equal(t, []string{"0"}, b.lines("SELECT count(*) FROM pg_class WHERE relname LIKE '%rb_load%'"))
		})
	}
	for _, c := range inPlace {
		b := benchOf(t, "replace", table+c.sql)
		b.goal.cfg.Swap = SwapRename
		found := b.check(b.conn)
		_, err := b.prepare()
		e := wantError(t, err, connectors.KindConfig, messages.CodeDocConflict, "would lose")
		require.Contains(t, e.Next, "swap: auto")
		require.Len(t, found, 1, c.name)
		require.Equal(t, messages.CodeDocConflict, found[0].Code)
	}
}

func TestPGInPlaceSwapByKeyOrWithout(t *testing.T) {
	for _, c := range []struct{ name, sql, columns, values, want string }{
		{"no key", "CREATE TABLE orders (id bigint, name text); INSERT INTO orders VALUES (1, 'x'), (1, 'x')", "id, name", "(1, 'x'), (NULL, 'y'), (NULL, 'y')", "1 x,NULL y,NULL y"},
		{"nullable key", "CREATE TABLE orders (id bigint UNIQUE, name text); INSERT INTO orders VALUES (NULL, 'x')", "id, name", "(1, 'x'), (NULL, 'y'), (NULL, 'y')", "1 x,NULL y,NULL y"},
		{"unique values change places", "CREATE TABLE orders (id bigint PRIMARY KEY, name text UNIQUE); INSERT INTO orders VALUES (1, 'x'), (2, 'y')", "id, name", "(1, 'y'), (2, 'x')", "1 y,2 x"},
		{"other columns stay", "CREATE TABLE orders (id bigint PRIMARY KEY, name text, mine text DEFAULT 'm'); INSERT INTO orders VALUES (1, 'x', 'kept'), (2, 'y', 'lost')", "id, name", "(1, 'z'), (3, 'n')", "1 zkept,3 nm"},
		{"key by another comparison", "CREATE TABLE orders (id bigint, name text COLLATE nocase PRIMARY KEY); INSERT INTO orders VALUES (1, 'ab'), (2, 'cd')", "id, name", "(1, 'AB'), (2, 'cd')", "1 AB,2 cd"},
		{"identity", "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, name text PRIMARY KEY); INSERT INTO orders (name) VALUES ('a'), ('b')", "id, name", "(9, 'a'), (2, 'b')", "9 a,2 b"},
		{"partitions", "CREATE TABLE orders (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF orders FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF orders FOR VALUES FROM (10) TO (20); INSERT INTO orders VALUES (1, 'x'), (15, 'y')", "id, name", "(2, 'n'), (15, 'z')", "2 n,15 z"},
		{"a partition", "CREATE TABLE root (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id); CREATE TABLE orders PARTITION OF root FOR VALUES FROM (0) TO (10); INSERT INTO orders VALUES (1, 'x')", "id, name", "(2, 'n')", "2 n"},
		{"empty version", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'x')", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := benchOf(t, "replace", "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"+c.sql)
			b.goal.cfg.Swap = SwapMVCC
			if c.values == "" {
				require.NoError(t, b.swap(b.begun().stage))
			} else {
				require.NoError(t, b.swap(b.staged(c.columns, c.values)))
			}
			rest := ""
			if strings.Contains(c.sql, "mine") {
				rest = " || mine"
			}
			got := b.lines("SELECT coalesce(string_agg(coalesce(id::text, 'NULL') || ' ' || name" + rest + ", ',' ORDER BY name COLLATE \"C\"), '') FROM orders")
			require.ElementsMatch(t, strings.Split(c.want, ","), strings.Split(got[0], ","))
		})
	}
}

func TestPGInPlaceSwapAddsColumnsAndKeepsRuns(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); CREATE VIEW v AS SELECT id FROM orders; INSERT INTO orders VALUES (1, 'x'), (2, 'y')")
	b.goal.policy.Metadata = true
	require.NoError(t, b.swap(b.staged("id, name, _rb_run", "(1, 'x', 'r1'), (2, 'z', 'r1')")))
	require.Equal(t, []string{`1|x|\N`, "2|z|r1"}, b.lines("SELECT id, name, _rb_run FROM orders ORDER BY id"))
	b.goal.load = 2
	require.NoError(t, b.swap(b.staged("id, name, _rb_run", "(1, 'x', 'r2'), (2, 'q', 'r2')")))
	require.Equal(t, []string{`1|x|\N`, "2|q|r2"}, b.lines("SELECT id, name, _rb_run FROM orders ORDER BY id"))
}

// ownBase is a base type such as an extension brings, with operators in its schema.
const ownBase = `
CREATE TYPE k; CREATE FUNCTION k_in(cstring) RETURNS k IMMUTABLE STRICT LANGUAGE internal AS 'int4in'; CREATE FUNCTION k_out(k) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'int4out';
CREATE TYPE k (INPUT = k_in, OUTPUT = k_out, LIKE = int4);
CREATE FUNCTION k_lt(k, k) RETURNS bool IMMUTABLE STRICT LANGUAGE internal AS 'int4lt'; CREATE FUNCTION k_le(k, k) RETURNS bool IMMUTABLE STRICT LANGUAGE internal AS 'int4le';
CREATE FUNCTION k_eq(k, k) RETURNS bool IMMUTABLE STRICT LANGUAGE internal AS 'int4eq'; CREATE FUNCTION k_ge(k, k) RETURNS bool IMMUTABLE STRICT LANGUAGE internal AS 'int4ge';
CREATE FUNCTION k_gt(k, k) RETURNS bool IMMUTABLE STRICT LANGUAGE internal AS 'int4gt'; CREATE FUNCTION k_cmp(k, k) RETURNS int IMMUTABLE STRICT LANGUAGE internal AS 'btint4cmp';
CREATE OPERATOR < (LEFTARG = k, RIGHTARG = k, FUNCTION = k_lt); CREATE OPERATOR <= (LEFTARG = k, RIGHTARG = k, FUNCTION = k_le);
CREATE OPERATOR = (LEFTARG = k, RIGHTARG = k, FUNCTION = k_eq, MERGES); CREATE OPERATOR >= (LEFTARG = k, RIGHTARG = k, FUNCTION = k_ge);
CREATE OPERATOR > (LEFTARG = k, RIGHTARG = k, FUNCTION = k_gt);
CREATE OPERATOR CLASS k_ops DEFAULT FOR TYPE k USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 k_cmp(k, k);
CREATE DOMAIN dk AS k; CREATE TABLE orders (id dk PRIMARY KEY, name text, c int CHECK (c > 0)); CREATE INDEX ON orders ((name::text || 'x'), id); INSERT INTO orders VALUES ('1', 'a'), ('2', 'b');`

func TestPGSwapsUnderAnySearchPath(t *testing.T) {
	for _, method := range []Swap{SwapMVCC, SwapRename} {
		b := benchOf(t, "replace", ownBase)
		b.like(b.conn, "public", "orders")
		b.goal.cfg.Swap = method
		_, err := b.conn.Exec(t.Context(), "SET search_path = ''")
		require.NoError(t, err)
		require.Empty(t, b.check(b.conn))
		require.NoError(t, b.swap(b.staged("id, name", "('2', 'c'), ('3', 'd')")))
		require.Equal(t, []string{"2|c", "3|d"}, b.lines("SELECT id, name FROM orders ORDER BY id"))
		require.Equal(t, []string{"orders_expr_id_idx", "orders_pkey"}, b.lines("SELECT relname FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace ORDER BY 1"))
	}
}

func TestPGInPlaceSwapRefusesAKeyTwice(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'x')")
	b.goal.cfg.Swap = SwapMVCC
	wantError(t, b.swap(b.staged("id, name", "(1, 'a'), (1, 'b')")), connectors.KindData, messages.CodeRowRefused)
	require.Equal(t, []string{"1|x"}, b.lines("SELECT * FROM orders"))
}

func TestPGSwallowedRowsFailTheSwap(t *testing.T) {
	b := benchOf(t, "replace", `CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'x');
		CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.id = 3 THEN RETURN NULL; END IF; RETURN NEW; END'; CREATE TRIGGER g BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()`)
	wantError(t, b.swap(b.staged("id, name", "(2, 'a'), (3, 'b')")), connectors.KindData, messages.CodeRowsSwallowed, "2 rows", "has 1")
	require.Equal(t, []string{"1|x"}, b.lines("SELECT * FROM orders"))
}

func TestPGCascadesAreTold(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); CREATE TABLE x (o bigint REFERENCES orders ON DELETE CASCADE)")
	found := b.check(b.conn)
	require.Len(t, found, 1)
	require.Equal(t, connectors.SeverityWarning, found[0].Severity)
	require.Contains(t, found[0].Message, "foreign key x_o_fkey of public.x")
}

// A view that comes while the staging table is filled is not lost.
func TestPGSwapDecidesAgain(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'x')")
	stage := b.staged("id, name", "(1, 'a')")
	b.sql("CREATE VIEW v AS SELECT * FROM orders; ALTER TABLE orders ADD extra int DEFAULT 5")
	require.NoError(t, b.swap(stage))
	require.Equal(t, []string{"1|a"}, b.lines("SELECT * FROM v"))
	require.Equal(t, []string{"1|a|5"}, b.lines("SELECT * FROM orders"))

	b.goal.load = 2
	stage = b.staged("id, name", "(1, 'b')")
	require.NoError(t, pgx.BeginFunc(t.Context(), b.conn, func(tx pgx.Tx) error {
		s, err := b.goal.build(t.Context(), tx, stage)
		require.NoError(t, err)
		require.Equal(t, SwapMVCC, s.method)
		return s.exchange(t.Context())
	}))
	b.sql("DROP VIEW v")
	b.goal.load = 3
	stage = b.staged("id, name", "(1, 'c')")
	require.NoError(t, pgx.BeginFunc(t.Context(), b.conn, func(tx pgx.Tx) error {
		s, err := b.goal.build(t.Context(), tx, stage)
		require.NoError(t, err)
		require.Equal(t, SwapRename, s.method)
		b.sql("CREATE VIEW v AS SELECT * FROM orders")
		return s.exchange(t.Context())
	}))
	require.Equal(t, []string{"1|c|5"}, b.lines("SELECT * FROM v"))

	b.goal.load = 4
	stage = b.staged("id, name", "(1, 'd')")
	b.sql("DROP VIEW v; ALTER TABLE orders ALTER name TYPE varchar(9)")
	wantError(t, b.swap(stage), connectors.KindSchema, messages.CodeSchemaType, "column name was text when the load was begun")
}

func TestPGSwapNamesWhoHoldsTheTable(t *testing.T) {
	for _, method := range []Swap{SwapRename, SwapMVCC} {
		b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'x')")
		b.goal.cfg.Swap = method
		stage := b.staged("id, name", "(1, 'a')")
		holder := b.connect(b.server.User())
		_, err := holder.Exec(t.Context(), "SET application_name = 'the holder'; BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE")
		require.NoError(t, err)
		e := wantError(t, b.swap(stage), connectors.KindTransient, messages.CodeDestBusy, fmt.Sprintf("pid %d", holder.PgConn().PID()), "'the holder'")
		require.Contains(t, e.Next, "End that session")
		_, err = holder.Exec(t.Context(), "COMMIT")
		require.NoError(t, err)
		require.NoError(t, b.swap(stage), "and works when it is free")
		require.Equal(t, []string{"1|a"}, b.lines("SELECT * FROM orders"))
	}
}

// A swap that waits lets readers through who come behind it.
func TestPGReadersPassAWaitingSwap(t *testing.T) {
	b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders VALUES (1, 'x')")
	b.goal.cfg.LockTimeout = 30 * time.Second
	stage := b.staged("id, name", "(1, 'a')")
	holder := b.connect(b.server.User())
	_, err := holder.Exec(t.Context(), "BEGIN; SELECT * FROM orders")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- b.swap(stage) }()
	waits := func() bool {
		return b.lines("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass")[0] == "1"
	}
	require.Eventually(t, waits, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, []string{"1|x"}, b.lines("SELECT * FROM orders"), "a reader behind the queue")
	_, err = holder.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Equal(t, []string{"1|a"}, b.lines("SELECT * FROM orders"))
}

// I5: whoever reads sees one whole version, and versions do not go back.
func TestPGReadersSeeWholeVersions(t *testing.T) {
	const rows = 200
	fill := func(load int) string {
		return fmt.Sprintf("SELECT i, 'v%d' FROM generate_series(1, %d) AS i", load, rows)
	}
	for _, method := range []Swap{SwapRename, SwapMVCC} {
		b := benchOf(t, "replace", "CREATE TABLE orders (id bigint PRIMARY KEY, name text); INSERT INTO orders "+fill(0))
		b.goal.cfg.Swap, b.goal.cfg.LockTimeout = method, 30*time.Second
		old := b.connect(b.server.User())
		_, err := old.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		reader, seen := b.connect(b.server.User()), make(chan error, 1)
		go func() {
			last := ""
			for ctx.Err() == nil {
				var n int
				var low, high string
				if err := reader.QueryRow(t.Context(), "SELECT count(*), min(name), max(name) FROM orders").Scan(&n, &low, &high); err != nil {
					seen <- err
					return
				}
				if n != rows || low != high || high < last {
					seen <- fmt.Errorf("saw %d rows of %s to %s behind %s", n, low, high, last)
					return
				}
				last = high
			}
			seen <- nil
		}()
		for load := 1; load <= 8; load++ {
			b.goal.load = uint64(load) //nolint:gosec // small
			stage := b.begun().stage
			b.sql("INSERT INTO " + stage + " " + fill(load))
			require.NoError(t, b.swap(stage))
		}
		stop()
		require.NoError(t, <-seen)
		var n int
		var name *string
		err = old.QueryRow(t.Context(), "SELECT count(*), min(name) FROM orders").Scan(&n, &name)
		require.NoError(t, err)
		if method == SwapMVCC {
			require.NotNil(t, name)
			require.Equal(t, "200 v0", fmt.Sprint(n, " ", *name), "an old snapshot sees the old version")
		}
		_, err = old.Exec(t.Context(), "COMMIT")
		require.NoError(t, err)
	}
}
