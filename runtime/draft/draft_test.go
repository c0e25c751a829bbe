package draft_test

import (
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/duckdb"
	"rapidbyte.io/node/connectors/file"
	"rapidbyte.io/node/connectors/postgres"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/draft"
	"rapidbyte.io/node/runtime/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "s3cret-canary"

func end(t *testing.T, side draft.Side, uri string) draft.End {
	t.Helper()
	e, err := draft.Parse(side, uri)
	require.NoError(t, err, uri)
	return e
}

func env() config.Env {
	return config.Env{
		LookupEnv: func(string) (string, bool) { return "", false },
		ReadFile:  func(string) ([]byte, error) { return nil, os.ErrNotExist },
	}
}

func between(t *testing.T, from, to string) draft.Draft {
	t.Helper()
	d := draft.Draft{From: end(t, draft.SideSource, from), To: end(t, draft.SideDestination, to), Mode: connectors.ModeReplace}
	d.Pipeline = draft.ShortName(d.From, d.To)
	return d
}

func parse(t *testing.T, d draft.Draft, text []byte) *config.Document {
	t.Helper()
	require.NotContains(t, string(text), canary)
	doc, err := config.Parse("draft", text, plugin.Builtins(), d.Env(env()))
	require.NoError(t, err, string(text))
	return doc
}

func TestPostgresEndsBecomeKeys(t *testing.T) {
	for uri, want := range map[string]postgres.Connection{
		"postgres://app@db/shop":                                {Host: "db", Port: 5432, User: "app", Database: "shop"},
		"postgresql://app:" + canary + "%40@db:5433/shop":       {Host: "db", Port: 5433, User: "app", Password: connectors.NewSecret(canary + "@"), Database: "shop"},
		"postgres://app@/shop?host=/run/pg&port=6000":           {Host: "/run/pg", Port: 6000, User: "app", Database: "shop"},
		"postgres://app@[::1]:5432/shop?sslmode=require":        {Host: "::1", Port: 5432, User: "app", Database: "shop", SSLMode: "require"},
		"postgres://a%24%7BX%7D@db/sh%20op?sslmode=verify-full": {Host: "db", Port: 5432, User: "a${X}", Database: "sh op", SSLMode: "verify-full"},
		"postgres:///shop":                                      {Port: 5432, DSN: connectors.NewSecret("postgres:///shop")},
		"postgres://app@db/shop?application_name=x":             {Port: 5432, DSN: connectors.NewSecret("postgres://app@db/shop?application_name=x")},
		"postgres://app:" + canary + "@a,b/shop":                {Port: 5432, DSN: connectors.NewSecret("postgres://app:" + canary + "@a,b/shop")},
		"postgres://app@db/shop?password=" + canary:             {Port: 5432, DSN: connectors.NewSecret("postgres://app@db/shop?password=" + canary)},
		"POSTGRES://app@db/shop":                                {Host: "db", Port: 5432, User: "app", Database: "shop"},
	} {
		d := between(t, uri, uri)
		doc := parse(t, d, d.Wanted())
		got, ok := doc.Source.Config.(postgres.SourceConfig)
		require.True(t, ok)
		want.ConnectTimeout, want.LockTimeout = got.ConnectTimeout, got.LockTimeout
		require.Equal(t, want, got.Connection, uri)
		require.Equal(t, want.Password.Reveal(), got.Password.Reveal())
		require.Equal(t, want.DSN.Reveal(), got.DSN.Reveal())
		dst, ok := doc.Destination.Config.(postgres.DestinationConfig)
		require.True(t, ok)
		require.Equal(t, want, dst.Connection, uri)
	}
}

func TestPathsBecomeKeys(t *testing.T) {
	d := between(t, "file:in/*.csv?format=csv", "duckdb:/tmp/a b.duckdb")
	doc := parse(t, d, d.Wanted())
	require.Equal(t, "in/*.csv", doc.Source.Config.(file.SourceConfig).Path)
	require.Equal(t, "csv", doc.Source.Config.(file.SourceConfig).Format)
	require.Equal(t, "/tmp/a b.duckdb", doc.Destination.Config.(duckdb.DestinationConfig).Path)
	d = between(t, "duckdb:///x.duckdb", "file:///out?format=jsonl&compression=gzip")
	doc = parse(t, d, d.Wanted())
	require.Equal(t, "/x.duckdb", doc.Source.Config.(duckdb.SourceConfig).Path)
	require.Equal(t, "/out", doc.Destination.Config.(file.DestinationConfig).Path)
	require.Equal(t, "gzip", doc.Destination.Config.(file.DestinationConfig).Compression)
}

func TestWhatIsNoURIIsRefusedWithoutRepeatingIt(t *testing.T) {
	for _, uri := range []string{
		"", canary, "mysql://u:" + canary + "@h/d", "postgres://u:" + canary + "%zz@h/d", "postgres://u:" + canary + "@h/d#x", "postgres://u:" + canary + "@h:99999/d",
		"duckdb:", "file:?format=csv", "file:x?" + canary + "=1", "duckdb:x?format=csv",
	} {
		_, err := draft.Parse(draft.SideSource, uri)
		var f messages.Failure
		require.ErrorAs(t, err, &f, uri)
		require.Equal(t, messages.CodeUsage, f.Code)
		require.NotContains(t, f.What+f.Why+f.Next, canary)
		require.Contains(t, f.What, "--from")
	}
}

func TestTheNameIsThatOfBothEndsWithoutSecrets(t *testing.T) {
	name := func(from, to, schema string) string {
		return string(draft.PipelineName(end(t, draft.SideSource, from), end(t, draft.SideDestination, to), schema))
	}
	first := name("postgres://app:a@db/Shop", "postgres://u@wh:5432/dw", "")
	require.Regexp(t, `^copy_shop_to_dw_[0-9a-f]{8}$`, first)
	require.Equal(t, first, name("postgres://other:b@db:5432/Shop?sslmode=require", "postgres://u@wh/dw", ""), "who connects, and how, is no other copy")
	for _, other := range []string{
		name("postgres://app@db2/Shop", "postgres://u@wh/dw", ""), name("postgres://app@db:1/Shop", "postgres://u@wh/dw", ""),
		name("postgres://app@db/Shop", "postgres://u@wh/dw", "raw"), name("postgres://app@db/Shop", "duckdb:dw", ""),
	} {
		require.NotEqual(t, first, other)
	}
	long := name("duckdb:"+strings.Repeat("ä", 300)+".db", "duckdb:///x/ .db", "")
	require.Regexp(t, `^[a-z0-9_-]{1,128}$`, long)
}

func found(name string, key []string, cursors ...string) connectors.Discovered {
	return connectors.Discovered{
		StreamPlan: connectors.StreamPlan{Stream: messages.StreamID(name), Schema: arrow.NewSchema(nil, nil), Key: key, Rows: 1200}, Cursors: cursors,
	}
}

func TestTheDocumentSaysWhatIsKnown(t *testing.T) {
	d := between(t, "postgres://app:"+canary+"@db/shop", "postgres://loader@wh/dw?sslmode=require")
	d.Schema, d.Parallelism, d.State = "raw", 4, "state dir/s.db"
	got := d.Text([]connectors.Discovered{found("orders", []string{"id"}, "updated_at", "id"), found("log", nil), found("sales.orders", []string{"a", "b"}, "at")})
	require.Equal(t, `version: "1.0"
pipeline: shop_to_dw  # names the state: keep it

source:
  use: postgres
  config:  # set SOURCE_PASSWORD to the password
    host: db
    user: app
    password: ${SOURCE_PASSWORD}
    database: shop
  streams:
    # about 1200 rows, key id
    # incremental: `+"`sync_mode: incremental`, `cursor_field: updated_at`, `tie_breaker_field: id`"+`, write_mode append or upsert
    - name: orders
    # about 1200 rows, no key: upsert needs destination.primary_key
    - name: log
    # about 1200 rows, key a, b
    # incremental: `+"`sync_mode: incremental`, `cursor_field: at`"+`, write_mode append or upsert
    - name: sales.orders

destination:
  use: postgres
  config:  # no password: .pgpass is looked at
    host: wh
    user: loader
    database: dw
    sslmode: require
    schema: raw
  write_mode: replace  # append | replace | upsert
  target: "{schema}_{table}"  # tables of several schemas have one name

state:
  connection: "state dir/s.db"

resources:
  parallelism: 4
`, string(got))
	doc := parse(t, d, got)
	require.Equal(t, "public_orders", doc.Target("orders"))
	require.Equal(t, "sales_orders", doc.Target("sales.orders"))
}

// Names from a database are data: none of them changes the document.
func TestNamesCannotChangeTheDocument(t *testing.T) {
	d := between(t, "duckdb:in.duckdb", "duckdb:out.duckdb")
	odd := []string{"null", "Yes", "12", "a: b", "- x", "# c", `q"uote`, "tab\"le'", "${HOME}", "$$x", "größe 表", "{table}", "a,b", "&a", "*b\\", "x?[1]", "c\\d", "!t", "%d", "@x", "`b`", " lead", "trail "}
	var list []connectors.Discovered
	for _, name := range odd {
		list = append(list, found(name, []string{"k\n- name: evil"}, "c"))
	}
	text := d.Text(list)
	doc := parse(t, d, text)
	var got []string
	ids := make([]messages.StreamID, len(odd))
	for i, name := range odd {
		ids[i] = messages.StreamID(name)
	}
	names, err := doc.Choose(append(ids, "yb\\", "x11", "other"))
	require.NoError(t, err)
	for _, n := range names {
		got = append(got, string(n))
	}
	require.Equal(t, odd, got)
}

func TestPatternsAndExcludesAreAskedFor(t *testing.T) {
	d := between(t, "duckdb:in.duckdb", "duckdb:out.duckdb")
	d.Tables, d.Exclude = []string{"main.*", "other.one"}, []string{"tmp_*", "a"}
	doc := parse(t, d, d.Wanted())
	names, err := doc.Choose([]messages.StreamID{"a", "b", "tmp_1", "other.two"})
	require.NoError(t, err)
	require.Equal(t, []messages.StreamID{"b", "other.one"}, names)
	d.Tables = nil
	names, err = parse(t, d, d.Wanted()).Choose([]messages.StreamID{"a", "b", "other.two"})
	require.NoError(t, err)
	require.Equal(t, []messages.StreamID{"b"}, names)
}

func TestColumnsThatTravelAsText(t *testing.T) {
	d := between(t, "postgres://app@db/shop", "duckdb:out.duckdb")
	d.AsText = []string{"timestamptz", "public.a b.c: d"}
	for _, text := range [][]byte{d.Wanted(), d.Text([]connectors.Discovered{found("orders", nil)})} {
		require.Equal(t, d.AsText, parse(t, d, text).Source.Config.(postgres.SourceConfig).AsText)
	}
}

func TestExistingReadsFromTheDestination(t *testing.T) {
	d := between(t, "file:in.csv", "postgres://loader:"+canary+"@wh/dw")
	d.Schema = "raw"
	text, ok := d.Existing()
	require.True(t, ok)
	got := parse(t, d, text).Source.Config.(postgres.SourceConfig)
	require.Equal(t, "wh", got.Host)
	require.Equal(t, "raw", got.Schema)
	require.Equal(t, canary, got.Password.Reveal())
	_, ok = between(t, "duckdb:x", "file:out").Existing()
	require.False(t, ok)
}
