package postgres

import (
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/messages"
)

// everyType is a table with types of every kind that a user can make.
const everyType = `
CREATE SCHEMA app;
CREATE TYPE public.mpaa_rating AS ENUM ('G', 'PG', 'PG-13', 'R', 'it''s \x');
CREATE DOMAIN public.year AS integer CONSTRAINT year_check CHECK (VALUE >= 1901 AND VALUE <= 2155);
CREATE DOMAIN app.code AS varchar(5) NOT NULL DEFAULT 'x' CHECK (VALUE ~ '^[a-z]+$') CHECK (length(VALUE) > 0);
CREATE TYPE app."Point 3" AS (x numeric(10,2), "the y" public.mpaa_rating[], z app.code);
CREATE TYPE public.nested AS (p app."Point 3", q public.year);
CREATE TABLE orders (
	id bigint PRIMARY KEY, r public.mpaa_rating NOT NULL, y public.year, c app.code, p app."Point 3", n public.nested[], rs public.mpaa_rating[],
	n1 numeric(10,2), n2 numeric, v varchar(20), ch char(3), ts timestamp(3), tz timestamptz(0), t time(1), iv interval(2), b bit(4), vb bit varying(8),
	j json, jb jsonb, u uuid, by bytea, i2 smallint[], tv tsvector, ip inet, ci cidr, mac macaddr, pt point, r1 int4range, r2 tstzrange, mr int4multirange, x xml, m money, na name, "char" "char", a2 varchar(7)[])`

// typesOf lists columns with their types and what these consist of.
func (b *bench) typesOf(table string) []string {
	b.t.Helper()
	r, err := readRelation(b.t.Context(), b.conn, b.goal.cfg.Schema, table)
	require.NoError(b.t, err)
	require.NotNil(b.t, r)
	var out []string
	var describe func(t *codec.Type) string
	describe = func(t *codec.Type) string {
		if t == nil {
			return ""
		}
		s := t.Name + strings.TrimPrefix(t.SQL[strings.LastIndexAny(t.SQL, `"`)+1:], t.Name) + "<" + strings.Join(t.Labels, ",") + describe(t.Base) + describe(t.Elem)
		for _, a := range t.Attributes {
			s += a.Name + " " + describe(a.Type)
		}
		for _, c := range t.Checks {
			s += c.Name + " " + c.Definition
		}
		if t.NotNull {
			s += " NOT NULL"
		}
		return s + ">"
	}
	for _, c := range r.columns {
		out = append(out, c.Name+" "+describe(c.Type))
	}
	return out
}

func TestPGTypesAreCreatedAsAtTheSource(t *testing.T) {
	source := benchOf(t, "append", everyType)
	source.goal.cfg.Schema = "public"
	b := benchOf(t, "append", "")
	b.like(source.conn, "public", "orders")
	b.goal.cfg.Schema = "raw"
	for _, mode := range []connectors.WriteMode{"append", "upsert", "replace"} {
		b.goal.mode, b.goal.stream.Target = mode, "orders_"+string(mode)
		p := b.begun()
		if p.stage != "" {
			require.NoError(t, b.swap(p.stage))
		}
		require.Equal(t, source.typesOf("orders"), b.typesOf(b.goal.stream.Target))
		require.Equal(t, source.lines("SELECT attname || attnotnull FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 ORDER BY attnum"),
			b.lines("SELECT attname || attnotnull FROM pg_attribute WHERE attrelid = 'raw."+b.goal.stream.Target+"'::regclass AND attnum > 0 ORDER BY attnum"))
		again, err := b.goal.plan(t.Context(), b.conn)
		require.NoError(t, err)
		if mode != "replace" {
			require.Empty(t, again.statements)
		}
		require.Equal(t, []string{"PRIMARY KEY (id)"}, b.lines("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'raw."+b.goal.stream.Target+"'::regclass"))
	}
	require.Equal(t, []string{"5"}, b.lines("SELECT count(*) FROM pg_type WHERE typnamespace = 'raw'::regnamespace AND typtype IN ('e', 'd') OR typname IN ('Point 3', 'nested')"))
}

func TestPGEqualTypesOfTheSourcesSchemaAreUsed(t *testing.T) {
	source := benchOf(t, "append", everyType)
	b := benchOf(t, "append", everyType)
	b.sql("DROP TABLE orders; CREATE SCHEMA raw")
	b.like(source.conn, "public", "orders")
	b.goal.cfg.Schema = "raw"
	b.begun()
	require.Equal(t, []string{"0"}, b.lines("SELECT count(*) FROM pg_type WHERE typnamespace = 'raw'::regnamespace AND typtype IN ('e', 'd')"))
	require.Equal(t, source.typesOf("orders"), b.typesOf("orders"))
}

func TestPGEnumsGainLabels(t *testing.T) {
	source := benchOf(t, "append", `CREATE TYPE mood AS ENUM ('new', 'sad', 'ok', 'better', 'happy', 'last'); CREATE DOMAIN d AS mood; CREATE TYPE c AS (m mood[]);
		CREATE TABLE orders (id bigint PRIMARY KEY, m mood, ms mood[], d d, c c)`)
	for _, table := range []string{"", "CREATE DOMAIN d AS mood; CREATE TYPE c AS (m mood[]); CREATE TABLE orders (id bigint PRIMARY KEY, m mood, ms mood[], d d, c c)"} {
		b := benchOf(t, "append", `CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'extra');`+table)
		b.like(source.conn, "public", "orders")
		require.Empty(t, b.check(b.conn))
		b.begun()
		require.Equal(t, []string{"new", "sad", "ok", "better", "happy", "last", "extra"}, b.lines("SELECT unnest(enum_range(NULL::mood))"))
		p, err := b.goal.plan(t.Context(), b.conn)
		require.NoError(t, err)
		require.Empty(t, p.statements)
	}
}

func TestPGTypesThatDoNotFit(t *testing.T) {
	source := benchOf(t, "append", `CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN d AS int CHECK (VALUE > 0); CREATE TYPE c AS (x int);
		CREATE TABLE e (m mood); CREATE TABLE dd (d d); CREATE TABLE cc (c c)`)
	for _, c := range []struct{ table, sql, says string }{
		{"e", "CREATE TYPE mood AS ENUM ('b', 'a')", "the type public.mood exists and is an enum of (b, a), the stream has an enum of (a, b)"},
		{"e", "CREATE DOMAIN mood AS text", "the type public.mood exists and is a domain over text"},
		{"e", "CREATE TABLE mood (x int)", "the type public.mood exists and is a composite type of (x integer)"},
		{"e", "CREATE TYPE mood AS RANGE (subtype = int4)", "of another kind than an enum of (a, b)"},
		{"dd", "CREATE DOMAIN d AS int CHECK (VALUE > 1)", "a domain over integer CHECK ((VALUE > 1)), the stream has a domain over integer CHECK ((VALUE > 0))"},
		{"dd", "CREATE DOMAIN d AS bigint CHECK (VALUE > 0)", "a domain over bigint"},
		{"dd", "CREATE DOMAIN d AS int NOT NULL CHECK (VALUE > 0)", "the type public.d exists"},
		{"cc", "CREATE TYPE c AS (x int, y int)", "a composite type of (x integer, y integer), the stream has a composite type of (x integer)"},
	} {
		b := benchOf(t, "append", c.sql)
		b.like(source.conn, "public", c.table)
		_, err := b.prepare()
		wantError(t, err, connectors.KindSchema, messages.CodeSchemaType, c.says)
		found := b.check(b.conn)
		require.Len(t, found, 1)
		require.Contains(t, found[0].Message, c.says)
	}
}

func TestPGTypesOfExtensions(t *testing.T) {
	define := func(name string, kind codec.Kind) *arrow.Schema {
		f, _ := codec.Field(codec.Column{Name: "id", Type: &codec.Type{Schema: "public", Name: name, Mod: -1, SQL: "public." + name, Kind: kind}}, false)
		return arrow.NewSchema([]arrow.Field{f}, nil)
	}
	b := benchOf(t, "append", "CREATE SCHEMA ext; CREATE TYPE ext.span AS RANGE (subtype = int4)")
	b.goal.stream.Schema = define("citext", codec.KindBase)
	_, err := b.prepare()
	require.Equal(t, `CREATE EXTENSION "citext";`, wantError(t, err, connectors.KindSchema, messages.CodeSchemaType, "the server has no type public.citext").Next)
	b.goal.stream.Schema = define("oddity", codec.KindBase)
	_, err = b.prepare()
	require.Contains(t, wantError(t, err, connectors.KindSchema, messages.CodeSchemaType, "public.oddity").Next, "cast the column to text")
	b.goal.stream.Schema = define("span", codec.KindRange)
	b.begun()
	require.Equal(t, []string{"id ext.span NOT NULL", "PRIMARY KEY (id)"}, b.shapeOf("orders"), "a key that can be indexed")
}

// Metadata of a field is foreign text: nothing of it ends a statement and begins another.
func TestPGDefinitionsCannotSmuggleStatements(t *testing.T) {
	evil := "x) ; DROP TABLE victim; --"
	for _, typ := range []*codec.Type{
		{Schema: "public", Name: `e"; DROP TABLE victim; --`, Mod: -1, Kind: codec.KindEnum, Labels: []string{`a'); DROP TABLE victim; --`, `\'`}},
		{Schema: "public", Name: "d", Mod: -1, Kind: codec.KindDomain, Base: builtinType("int4", "integer"), Checks: []codec.Check{{Name: evil, Definition: "CHECK (true); DROP TABLE victim"}}},
		{Schema: "public", Name: "d", Mod: -1, Kind: codec.KindDomain, Base: builtinType("int4", "integer"), Checks: []codec.Check{{Name: "c", Definition: "; DROP TABLE victim"}}},
		{Schema: "public", Name: "c", Mod: -1, Kind: codec.KindComposite, Attributes: []codec.Attribute{{Name: evil, Type: builtinType("int4", evil)}}},
		{Schema: "pg_catalog", Name: "int4", Mod: -1, SQL: "int4); DROP TABLE victim; --", Kind: codec.KindBase},
		{Schema: "pg_catalog", Name: "numeric", Mod: 5, SQL: "numeric", Kind: codec.KindBase},
	} {
		b := benchOf(t, "append", "CREATE TABLE victim ()")
		if typ.SQL == "" {
			typ.SQL = "x"
		}
		f, _ := codec.Field(codec.Column{Name: "id", Type: typ}, true)
		b.goal.stream.Schema = arrow.NewSchema([]arrow.Field{f}, nil)
		_, err := b.prepare()
		if err != nil {
			require.NotContains(t, err.Error(), "panic")
		}
		require.Equal(t, []string{"1"}, b.lines("SELECT count(*) FROM pg_class WHERE relname = 'victim'"), "%+v", typ)
	}
}
