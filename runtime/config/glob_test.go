package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// tables are what a source with schemas has; those of its default schema are bare.
var tables = ids("audit_log", "orders", "users", "sales.audit_log", "sales.orders", "sales.v2.raw")

func TestPatternsKnowTheDefaultSchema(t *testing.T) {
	postgres := "use: postgres\n  config: {host: h}"
	for _, c := range []struct {
		stream string
		want   []string
	}{
		{"{name: '*'}", []string{"audit_log", "orders", "users"}},
		{"{name: 'public.*'}", []string{"audit_log", "orders", "users"}},
		{"{name: 'p*.o*'}", []string{"orders"}},
		{"{name: 'sales.*'}", []string{"sales.audit_log", "sales.orders", "sales.v2.raw"}},
		{"{name: 'sales.v2.*'}", []string{"sales.v2.raw"}},
		{"{name: '*.*', target: '{schema}_{table}', exclude: ['audit_*']}", []string{"orders", "users", "sales.orders", "sales.v2.raw"}},
		{"{name: '*.*', target: '{schema}_{table}', exclude: ['public.*', 'sales.orders']}", []string{"sales.audit_log", "sales.v2.raw"}},
		{"{name: 'public.*', exclude: [users, 'public.audit_log']}", []string{"orders"}},
		{"{name: 'sales.*', exclude: ['audit_*']}", []string{"sales.orders", "sales.v2.raw"}},
	} {
		doc := good(t, strings.Replace(streams(c.stream), "use: table", postgres, 1), nil)
		out, err := doc.Expand(tables)
		require.NoError(t, err, c.stream)
		require.Equal(t, c.want, names(out), c.stream)
	}
	doc := good(t, strings.Replace(streams("{name: 'main.*'}"), "use: table", "use: duck\n  config: {path: x}", 1), nil)
	out, err := doc.Expand(tables)
	require.NoError(t, err)
	require.Equal(t, []string{"audit_log", "orders", "users"}, names(out), "the default of the connector")
}

func TestPatternsOfASourceWithoutSchemasMatchWholeNames(t *testing.T) {
	doc := good(t, strings.Replace(streams("{name: '*'}"), "use: table", "use: file\n  config: {path: x}", 1), nil)
	out, err := doc.Expand(ids("a", "b.x"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b.x"}, names(out))
}

func TestAPatternLeavesATableToTheEntryThatNamesIt(t *testing.T) {
	text := strings.Replace(streams("{name: 'public.*'}", "{name: public.users, target: people}"), "use: table", "use: postgres\n  config: {host: h}", 1)
	out, err := good(t, text, nil).Expand(tables)
	require.NoError(t, err)
	require.Equal(t, []string{"audit_log", "orders", "public.users"}, names(out))
	require.Equal(t, "people", out.Target("public.users"))
}

func TestOneTableUnderTwoNamesIsRefused(t *testing.T) {
	text := strings.Replace(streams("{name: users}", "{name: public.users, target: other}"), "use: table", "use: postgres\n  config: {host: h}", 1)
	_, p := parse(t, text, nil)
	require.Len(t, p, 1)
	require.Equal(t, messages.CodeDocConflict, p[0].Code)
	require.Equal(t, `the streams "users" and "public.users" are one table`, p[0].What)
	require.Equal(t, "source.streams[1].name", p[0].Where.Field)
	doc := good(t, strings.Replace(text, "host: h", "host: h, schema: app", 1), nil)
	require.True(t, doc.Names("app.users", "users"))
	require.False(t, doc.Names("public.users", "users"))
}

func TestAPatternThatMatchesNothingSaysHowItIsMeant(t *testing.T) {
	doc := good(t, strings.Replace(streams("{name: 'audit2*'}"), "use: table", "use: postgres\n  config: {host: h}", 1), nil)
	_, err := doc.Expand(tables)
	var p config.Problems
	require.ErrorAs(t, err, &p)
	require.Equal(t, "a pattern without a schema stands for tables of \"public\"; `*.audit2*` stands for those of all", p[0].Next)
}

func TestIncrementalIsNoReplace(t *testing.T) {
	text := streams("{name: a, sync_mode: incremental, cursor_field: t, write_mode: MODE}")
	for mode, refused := range map[string]bool{"append": false, "upsert": false, "replace": true} {
		if !refused {
			good(t, strings.Replace(text, "MODE", mode, 1), nil)
			continue
		}
		_, p := parse(t, strings.Replace(text, "MODE", mode, 1), nil)
		require.Len(t, p, 1)
		require.Equal(t, messages.CodeDocConflict, p[0].Code)
		require.Equal(t, "source.streams[0].sync_mode", p[0].Where.Field)
	}
}

func TestTransformsFindAStreamByEitherName(t *testing.T) {
	text := strings.Replace(streams("{name: users}", "{name: sales.orders}"), "use: table", "use: postgres\n  config: {host: h}", 1) +
		"transforms:\n  - {use: sql, config: {query: q}, streams: [public.users]}\n  - {use: sql, config: {query: q}, streams: ['*']}\n"
	doc := good(t, text, nil)
	require.Equal(t, []int{0, 1}, doc.TransformsFor("users"))
	require.Equal(t, []int{1}, doc.TransformsFor("sales.orders"))
}
