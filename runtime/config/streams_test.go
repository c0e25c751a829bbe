package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

func streams(lines ...string) string {
	return strings.Replace(minimal, "    - {name: a}", "    - "+strings.Join(lines, "\n    - "), 1)
}

func TestTargetsComeFromStreamThenTemplateThenName(t *testing.T) {
	doc := good(t, streams("{name: public.users}", "{name: sales.orders, target: o}", "{name: plain}"), nil)
	require.Equal(t, "users", doc.Target("public.users"))
	require.Equal(t, "o", doc.Target("sales.orders"))
	require.Equal(t, "plain", doc.Target("plain"))
	require.Empty(t, doc.Target("other"))

	text := strings.NewReplacer("append}", "append, target: '{schema}__{table}'}", "use: table", "use: postgres\n  config: {host: h, schema: app}").
		Replace(streams("{name: public.users}", "{name: orders}"))
	doc = good(t, text, nil)
	require.Equal(t, "public__users", doc.Target("public.users"))
	require.Equal(t, "app__orders", doc.Target("orders"), "the schema of the source's config")
}

func TestNamesOfASourceWithoutSchemasAreNotCut(t *testing.T) {
	doc := good(t, strings.Replace(streams("{name: a.x, path: x}", "{name: b.x, path: y}"), "use: table", "use: file", 1), nil)
	require.Equal(t, "a.x", doc.Target("a.x"))
	require.Equal(t, "b.x", doc.Target("b.x"))
	require.Equal(t, "y", doc.Specs()[1].Path)
}

func TestTransformsApplyToTheStreamsTheyName(t *testing.T) {
	doc := good(t, streams("{name: a}", "{name: b}", "{name: bc}")+
		"transforms:\n  - {use: sql, config: {query: q}}\n  - {use: sql, config: {query: q}, streams: ['b*']}\n  - {use: sql, config: {query: q}, streams: [a, bc]}\n", nil)
	require.Equal(t, []int{0, 2}, doc.TransformsFor("a"))
	require.Equal(t, []int{0, 1}, doc.TransformsFor("b"))
	require.Equal(t, []int{0, 1, 2}, doc.TransformsFor("bc"))
}

func TestSpecsAreCopies(t *testing.T) {
	doc := good(t, strings.Replace(streams("{name: a, columns: [x]}"), "append}", "append, primary_key: [x]}", 1), nil)
	first := doc.Specs()
	first[0].Columns[0], first[0].Key[0] = "changed", "changed"
	require.Equal(t, []string{"x"}, doc.Specs()[0].Columns)
	require.Equal(t, []string{"x"}, doc.Specs()[0].Key)
}

func ids(names ...string) (out []messages.StreamID) {
	for _, n := range names {
		out = append(out, messages.StreamID(n))
	}
	return out
}

func names(doc *config.Document) (out []string) {
	for _, s := range doc.Source.Streams {
		out = append(out, s.Name)
	}
	return out
}

func TestExpandReplacesPatterns(t *testing.T) {
	doc := good(t, streams("{name: 'public.*', exclude: ['public.audit_*'], write_mode: replace}", "{name: public.users, write_mode: upsert}", "{name: 's?.x'}"), nil)
	require.True(t, doc.Patterns())
	found := ids("public.orders", "public.users", "public.audit_log", "s1.x", "other.y")
	out, err := doc.Expand(found)
	require.NoError(t, err)
	require.Equal(t, []string{"public.orders", "public.users", "s1.x"}, names(out))
	require.False(t, out.Patterns())
	require.Equal(t, connectors.ModeReplace, out.Specs()[0].Mode)
	require.Equal(t, connectors.ModeUpsert, out.Specs()[1].Mode, "a name that is spelled out keeps its own settings")
	require.Equal(t, "orders", out.Target("public.orders"))
	require.Equal(t, []string{"public.*", "public.users", "s?.x"}, names(doc), "the document itself is unchanged")
	require.Equal(t, 6, out.Place("source.streams[0].name").Line)

	again, err := out.Expand(found)
	require.NoError(t, err)
	require.Same(t, out, again)
}

func TestExpandFindsWhatOnlyTheStreamsShow(t *testing.T) {
	doc := good(t, streams("{name: '*.users'}", "{name: 'none*'}", "{name: 'x'}")+
		"transforms: [{use: sql, config: {query: q}, streams: [c.users]}]\n", nil)
	for range 2 { // a failed Expand leaves nothing behind
		_, err := doc.Expand(ids("a.users", "b.users"))
		var p config.Problems
		require.ErrorAs(t, err, &p)
		var got []string
		for _, f := range p {
			got = append(got, string(f.Code)+" "+f.Where.Field)
		}
		require.Equal(t, []string{
			"RB-2005 source.streams[0].name", // two users
			"RB-2020 source.streams[1].name",
		}, got)
	}
	_, err := doc.Expand(ids("a.users", "nonesuch"))
	require.ErrorContains(t, err, `transforms[0].streams[0]: the transform names the stream "c.users"`)
}

func TestPlaceOfAKey(t *testing.T) {
	doc := good(t, minimal, nil)
	require.Equal(t, messages.Place{File: "p.yaml", Line: 6, Column: 14, Field: "source.streams[0].name"}, doc.Place("source.streams[0].name"))
	require.Equal(t, messages.Place{File: "p.yaml", Line: 6, Column: 7, Field: "source.streams[0].columns"}, doc.Place("source.streams[0].columns"))
	require.Equal(t, 1, doc.Place("resources.max_memory").Line)
}

func TestUnavailableIsPositioned(t *testing.T) {
	text := strings.NewReplacer(
		"use: table", "use: ./my.wasm", "use: blackhole, write_mode: append",
		"use: file, config: {path: x}, write_mode: upsert, on_data_error: dlq, metadata_columns: true, schema_evolution: {type_change: coerce, nullability_change: fail}",
	).Replace(streams("{name: a, sync_mode: cdc}", "{name: b, sync_mode: incremental, cursor_field: t}", "{name: c, write_mode: upsert, filter: x}")) +
		"transforms: [{use: validate, config: {rules: [{assert_unique: a}]}}, {use: acme/mask@1}]\n"
	doc := good(t, text, nil)
	var got []string
	line := 0
	for _, f := range doc.Unavailable() {
		require.Equal(t, messages.CodeNotAvailable, f.Code)
		require.Contains(t, f.What, "not available in this version")
		require.GreaterOrEqual(t, f.Where.Line, line, "document order")
		line = f.Where.Line
		got = append(got, f.Where.Field)
	}
	require.Equal(t, []string{
		"source.use", "source.streams[0].sync_mode", "source.streams[1].sync_mode", "source.streams[2].write_mode",
		"destination.write_mode", "destination.on_data_error", "destination.metadata_columns",
		"destination.schema_evolution.type_change", "destination.schema_evolution.nullability_change",
		"transforms[0].use", "transforms[1].use",
	}, got)
}

func TestPoliciesAreAMatterOfTheDestination(t *testing.T) {
	keys := "on_data_error: dlq, metadata_columns: true, schema_evolution: {new_column: NEW}, "
	text := strings.Replace(minimal, "use: blackhole, ", "use: postgres, config: {host: h}, "+keys, 1)
	fields := func(doc *config.Document) (out []string) {
		for _, f := range doc.Unavailable() {
			out = append(out, f.Where.Field)
		}
		return out
	}
	doc := good(t, strings.Replace(text, "NEW", "ignore", 1), nil)
	require.Equal(t, []string{"destination.use"}, fields(doc))
	doc = good(t, strings.Replace(text, "NEW", "fail", 1), nil)
	require.Equal(t, []string{"destination.use", "destination.schema_evolution.new_column"}, fields(doc))
	doc = good(t, strings.NewReplacer("NEW", "ignore", "use: postgres, config: {host: h}", "use: blackhole").Replace(text), nil)
	require.Equal(t, []string{"destination.on_data_error", "destination.metadata_columns", "destination.schema_evolution.new_column"}, fields(doc))
	require.Equal(t, "on_data_error dlq of the destination blackhole is not available in this version", doc.Unavailable()[0].What)
}

func TestIncrementalAndFilterAreAMatterOfTheConnector(t *testing.T) {
	text := streams("{name: a, sync_mode: incremental, cursor_field: t, filter: x}")
	require.Empty(t, good(t, text, nil).Unavailable())
	doc := good(t, strings.NewReplacer("use: table", "use: file\n  config: {path: x}").Replace(text), nil)
	require.Len(t, doc.Unavailable(), 2)
	require.Equal(t, "sync_mode incremental of the source file is not available in this version", doc.Unavailable()[0].What)
	require.Equal(t, "a filter of the source file is not available in this version", doc.Unavailable()[1].What)
}
