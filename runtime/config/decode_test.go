package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// accepted are documents that Parse and the schema both take.
var accepted = []string{
	minimal,
	with("transforms: [{use: sql, config: {query: 'SELECT 1'}, streams: [a]}, {use: transform-validate, config: {rules: [{assert_unique: id}]}}]"),
	with("transforms: [{use: validate, config: {rules: [{assert_regex: {field: a, pattern: b}}, {assert_regex: [{field: a, pattern: b}]}]}}]"),
	with("transforms: [{use: ghcr.io/acme/mask@1.2, config: {any: [1, {x: y}]}, limits: {max_memory: 64mb, timeout_seconds: 5}}]"),
	with("resources: {max_memory: 1gb, parallelism: auto, checkpoint_interval_bytes: 0, checkpoint_interval_rows: '${SRC_PORT}'}"),
	with("resources: {parallelism: 8, autotune: {enabled: false, partition_mode: mod_hash, flush_bytes: 1mb}}"),
	with("state: {backend: bbolt, connection: state/x.db}"),
	with("state: {backend: postgres, connection: 'postgresql://u:p@h/d'}"),
	strings.Replace(minimal, "{name: a}", "{name: a, sync_mode: incremental, cursor_field: t, tie_breaker_field: id, cursor_mode: lookback, lookback: 1h30m, null_cursor: first, columns: [id, t], partition_key: id, write_mode: upsert, on_lost_snapshot: restart, target: b}", 1),
	strings.Replace(minimal, "{name: a}", "{name: public.*, exclude: [public.audit_*]}", 1),
	strings.Replace(minimal, "use: table", "use: file\n  config: {path: 'x/*.csv', csv: {delimiter: ';', null_values: ['', 'NA']}, columns: {id: int64}, ratio: 0.5, strict: false}", 1),
	strings.Replace(minimal, "{use: blackhole, write_mode: append}", "{use: file, config: {path: out}, write_mode: replace, primary_key: id, delete_mode: soft, on_data_error: skip, max_dlq_rows: 0, max_dlq_ratio: 0.01, metadata_columns: true, target: 't_{table}', permissions: {network: {allowed_hosts: ['*.x.y', 'h:1']}, env: {allowed_vars: [A_B]}, fs: {allowed_preopens: [/data]}}, limits: {timeout_seconds: 1}}", 1),
}

func TestDefaultsOfAMinimalDocument(t *testing.T) {
	doc := good(t, minimal, nil)
	require.Equal(t, messages.PipelineID("p"), doc.Pipeline)
	require.Equal(t, "table", doc.Source.Name)
	require.Equal(t, fileConfig{CSV: csvConfig{Delimiter: ",", Nulls: []string{"", "NULL"}}, Strict: true}, doc.Source.Config)
	require.Equal(t, config.State{Backend: config.BackendBolt, LeaseTTL: 15 * time.Second}, doc.State)
	require.Equal(t, ".rapidbyte/state.db", doc.State.Path())
	require.Equal(t, config.Resources{
		MaxMemory: 256 << 20, MaxBatchBytes: 64 << 20, MaxRowBytes: 16 << 20, CheckpointIntervalBytes: 64 << 20,
		MaxRetries: 3, Compression: "none", MaxInflightBatches: 16, StallTimeoutSeconds: 900, Passthrough: config.PassthroughAuto, Autotune: config.Autotune{Enabled: true},
	}, doc.Resources)
	require.Equal(t, 15*time.Minute, doc.Resources.StallTimeout())
	require.Zero(t, doc.Resources.CheckpointInterval())
	require.Equal(t, 4, doc.Resources.Count(4))
	require.Empty(t, doc.Resources.Pinned())
	require.True(t, doc.Resources.Autotune.Enabled)
	require.Equal(t, connectors.DataFail, doc.Destination.OnDataError)
	require.Equal(t, "hard", doc.Destination.DeleteMode)
	require.Equal(t, config.SchemaEvolution{NewColumn: "add", RemovedColumn: "ignore", TypeChange: "fail", NullabilityChange: "allow"}, doc.Destination.SchemaEvolution)
	require.Empty(t, doc.Unavailable())
}

func TestValuesReachTheirFields(t *testing.T) {
	doc := good(t, accepted[8], nil)
	s, ok := doc.Stream("a")
	require.True(t, ok)
	require.Equal(t, 90*time.Minute, s.Lookback)
	require.Equal(t, config.LostRestart, s.OnLostSnapshot)
	require.Equal(t, []connectors.StreamSpec{{
		Stream: "a", Sync: connectors.SyncIncremental, Mode: connectors.ModeUpsert, CursorField: "t", TieBreaker: "id", CursorMode: "lookback",
		Lookback: 90 * time.Minute, NullCursor: "first", PartitionKey: "id", Columns: []string{"id", "t"},
	}}, doc.Specs())

	doc = good(t, accepted[11], nil)
	dst := doc.Destination
	require.Equal(t, []string{"id"}, dst.PrimaryKey)
	require.Equal(t, int64(0), *dst.MaxDLQRows)
	require.InEpsilon(t, 0.01, *dst.MaxDLQRatio, 1e-9)
	require.Equal(t, []string{"*.x.y", "h:1"}, dst.Permissions.Network.AllowedHosts)
	require.Equal(t, 1, dst.Limits.TimeoutSeconds)

	doc = good(t, accepted[5], nil)
	require.Equal(t, 8, doc.Resources.Count(2))
	require.Equal(t, "resources.parallelism", doc.Resources.Pinned())
	doc.Resources.Parallelism, doc.Resources.Autotune.Parallelism = 0, 3
	require.Equal(t, "resources.autotune.parallelism", doc.Resources.Pinned())
	require.False(t, doc.Resources.Autotune.Enabled)

	doc = good(t, accepted[3], nil)
	require.Empty(t, doc.Transforms[0].Name)
	require.Equal(t, map[string]any{"any": []any{1, map[string]any{"x": "y"}}}, doc.Transforms[0].Config)

	doc = good(t, accepted[10], nil)
	half := 0.5
	require.Equal(t, fileConfig{
		Path: "x/*.csv", CSV: csvConfig{Delimiter: ";", Nulls: []string{"", "NA"}}, Columns: map[string]string{"id": "int64"}, Ratio: &half,
	}, doc.Source.Config)
}

func TestRemovedColumnAddActsAsIgnore(t *testing.T) {
	doc := good(t, strings.Replace(minimal, "write_mode: append", "write_mode: append, schema_evolution: {removed_column: add}", 1), nil)
	require.Equal(t, "ignore", doc.Destination.SchemaEvolution.RemovedColumn)
	require.Empty(t, doc.Unavailable())
}

func TestBoundsThatTheDocumentDoesNotStateShrinkWithMaxMemory(t *testing.T) {
	doc := good(t, with("resources: {max_memory: 8mb}"), nil)
	require.Equal(t, connectors.ByteSize(8<<20), doc.Resources.MaxBatchBytes)
	require.Equal(t, connectors.ByteSize(8<<20), doc.Resources.MaxRowBytes)
}

func TestPostgresURLAloneMeansThePostgresBackend(t *testing.T) {
	for _, url := range []string{"postgres://h/d", "postgresql://h/d"} {
		doc := good(t, with("state: {connection: '"+url+"'}"), nil)
		require.Equal(t, config.BackendPostgres, doc.State.Backend)
		require.Empty(t, doc.State.Path())
		require.Equal(t, url, doc.State.Connection.Reveal())
		require.Empty(t, doc.Unavailable())
	}
	require.Equal(t, time.Minute, good(t, with("state: {connection: 'postgres://h/d', lease_ttl: 1m}"), nil).State.LeaseTTL)
	require.Equal(t, "x.db", good(t, with("state: {connection: x.db}"), nil).State.Path())
}

func TestKeyWithoutValueIsNoKey(t *testing.T) {
	doc := good(t, with("transforms:", "state:", "resources: {max_memory: , parallelism: ~}"), nil)
	require.Empty(t, doc.Transforms)
	require.Equal(t, connectors.ByteSize(256<<20), doc.Resources.MaxMemory)
}

func TestAliasesNameTheSameConnector(t *testing.T) {
	text := strings.NewReplacer("use: table", "use: source-file\n  config: {path: x}", "use: blackhole", "use: dest-file").Replace(minimal)
	doc := good(t, text, nil)
	require.Equal(t, "source-file", doc.Source.Use)
	require.Equal(t, "file", doc.Source.Name)
	require.Equal(t, "file", doc.Destination.Name)
}

// refusal is what one problem must say: position, code, key path, and words of
// What and Next.
type refusal struct {
	at    string
	code  messages.Code
	field string
	words string
}

func requireRefused(t *testing.T, text string, values map[string]string, want ...refusal) {
	t.Helper()
	_, problems := parse(t, text, values)
	var got []refusal
	for i, p := range problems {
		r := refusal{fmt.Sprintf("%d:%d", p.Where.Line, p.Where.Column), p.Code, p.Where.Field, p.What + "; " + p.Next}
		if i < len(want) {
			require.Contains(t, r.words, want[i].words, "%v", problems)
			r.words = want[i].words
		}
		got = append(got, r)
	}
	require.Equal(t, want, got, "%v\n%s", problems, text)
}

func TestRefusedValues(t *testing.T) {
	source := func(s string) string { return strings.Replace(minimal, "use: table", s, 1) }
	stream := func(s string) string { return strings.Replace(minimal, "{name: a}", s, 1) }
	dst := func(s string) string {
		return strings.Replace(minimal, "{use: blackhole, write_mode: append}", s, 1)
	}
	for name, c := range map[string]struct {
		text string
		want []refusal
	}{
		"unknown key":          {with("resurces: {}"), []refusal{{"8:1", messages.CodeDocKey, "resurces", "did you mean `resources`?"}}},
		"far off key":          {with("zzzzzzzz: {}"), []refusal{{"8:1", messages.CodeDocKey, "zzzzzzzz", `unknown key "zzzzzzzz", expected version,`}}},
		"key of another place": {with("write_mode: append"), []refusal{{"8:1", messages.CodeDocKey, "write_mode", "it belongs to `source.streams[]` or `destination`"}}},
		"duplicate key":        {with("state: {}", "state: {}"), []refusal{{"9:1", messages.CodeDocSyntax, "state", "given twice, first in line 8"}}},
		"key that is a list":   {with("? [a]", ": b"), []refusal{{"8:3", messages.CodeDocSyntax, "", "a key that is no text"}}},
		"numeric key":          {with("1: b"), []refusal{{"8:1", messages.CodeDocKey, "1", `unknown key "1"`}}},
		"key of odd letters":   {with(`"a.b": b`), []refusal{{"8:1", messages.CodeDocKey, `["a.b"]`, `unknown key "a.b"`}}},
		"boolean as text":      {source("use: true"), []refusal{{"4:8", messages.CodeDocValue, "source.use", "found true, expected the name of a connector; put quotes"}}},
		"list as text":         {source("use: [a]"), []refusal{{"4:8", messages.CodeDocValue, "source.use", "found a list"}}},
		"text as mapping":      {with("state: x"), []refusal{{"8:8", messages.CodeDocValue, "state", "found \"x\", expected a mapping with the keys backend, connection or lease_ttl"}}},
		"text as list":         {with("transforms: x"), []refusal{{"8:13", messages.CodeDocValue, "transforms", `found "x", expected a list`}}},
		"quoted number":        {with("resources: {max_retries: '3'}"), []refusal{{"8:26", messages.CodeDocValue, "resources.max_retries", "remove the quotes"}}},
		"number with fraction": {with("resources: {max_retries: 3.0}"), []refusal{{"8:26", messages.CodeDocValue, "resources.max_retries", "found 3.0, expected a whole number from 0"}}},
		"hexadecimal number":   {with("resources: {max_retries: 0x3}"), []refusal{{"8:26", messages.CodeDocValue, "resources.max_retries", "found 0x3"}}},
		"huge number":          {with("resources: {max_retries: " + strings.Repeat("9", 50) + "}"), []refusal{{"8:26", messages.CodeDocValue, "resources.max_retries", "whole number"}}},
		"negative bytes":       {with("resources: {max_batch_bytes: -1}"), []refusal{{"8:30", messages.CodeDocValue, "resources.max_batch_bytes", "a number of bytes such as"}}},
		"unknown unit":         {with("resources: {max_memory: 5tb}"), []refusal{{"8:25", messages.CodeDocValue, "resources.max_memory", `found "5tb"`}}},
		"zero batch":           {with("resources: {max_batch_bytes: 0}"), []refusal{{"8:30", messages.CodeDocValue, "resources.max_batch_bytes", "of at least 1"}}},
		"parallelism none":     {with("resources: {parallelism: none}"), []refusal{{"8:26", messages.CodeDocValue, "resources.parallelism", "auto or a number"}}},
		"yes for a boolean":    {with("resources: {autotune: {enabled: yes}}"), []refusal{{"8:33", messages.CodeDocValue, "resources.autotune.enabled", `found "yes", expected true or false`}}},
		"ratio over one":       {dst("{use: blackhole, write_mode: append, max_dlq_ratio: 1.5}"), []refusal{{"7:66", messages.CodeDocValue, "destination.max_dlq_ratio", "a number from 0 to 1"}}},
		"not a number":         {dst("{use: blackhole, write_mode: append, max_dlq_ratio: .nan}"), []refusal{{"7:66", messages.CodeDocValue, "destination.max_dlq_ratio", "found .nan"}}},
		"lookback in words":    {stream("{name: a, lookback: ten}"), []refusal{{"6:27", messages.CodeDocValue, "source.streams[0].lookback", "a duration such as 90s"}}},
		"column given twice":   {stream("{name: a, columns: [x, y, x]}"), []refusal{{"6:33", messages.CodeDocValue, "source.streams[0].columns[2]", `found "x" twice`}}},
		"null in a list":       {stream("{name: a, columns: [x, null]}"), []refusal{{"6:30", messages.CodeDocValue, "source.streams[0].columns[1]", "found nothing, expected text"}}},
		"enum typing error":    {stream("{name: a, sync_mode: ful_refresh}"), []refusal{{"6:28", messages.CodeDocValue, "source.streams[0].sync_mode", "did you mean `full_refresh`?"}}},
		"relative preopen":     {source("use: table\n  permissions: {fs: {allowed_preopens: [data]}}"), []refusal{{"5:41", messages.CodeDocValue, "source.permissions.fs.allowed_preopens[0]", "an absolute path"}}},
		"host with a scheme":   {source("use: table\n  permissions: {network: {allowed_hosts: ['http://x']}}"), []refusal{{"5:43", messages.CodeDocValue, "source.permissions.network.allowed_hosts[0]", "a host name"}}},
		"unknown connector":    {source("use: tabel"), []refusal{{"4:8", messages.CodeDocValue, "source.use", "expected a source: postgres, duck, file or table; did you mean `table`?"}}},
		"connector elsewhere":  {source("use: sql"), []refusal{{"4:8", messages.CodeDocValue, "source.use", "it is a transform"}}},
		"pipeline in capitals": {strings.Replace(minimal, "pipeline: p", "pipeline: P", 1), []refusal{{"2:11", messages.CodeDocValue, "pipeline", `found "P", expected 1 to 128 characters`}}},
		"everything missing": {"{}", []refusal{
			{"1:1", messages.CodeDocMissing, "version", "the key `version` is missing, expected 1.0"},
			{"1:1", messages.CodeDocMissing, "pipeline", "missing"},
			{"1:1", messages.CodeDocMissing, "source", "missing"},
			{"1:1", messages.CodeDocMissing, "destination", "missing"},
		}},
		"no streams":        {strings.Replace(minimal, "streams:\n    - {name: a}", "streams: []", 1), []refusal{{"5:12", messages.CodeDocMissing, "source.streams", "a list of at least one stream"}}},
		"stream no mapping": {stream("a"), []refusal{{"6:7", messages.CodeDocValue, "source.streams[0]", "a mapping with the keys name"}}},
		"no write mode":     {dst("{use: blackhole}"), []refusal{{"7:14", messages.CodeDocMissing, "destination.write_mode", "append, replace or upsert"}}},
		"config of the connector": {source("use: table\n  config: {path: bad, columns: {id: int65}, csv: {delimiter: ab}}"), []refusal{
			{"5:18", messages.CodeDocValue, "source.config.path", `found "bad", expected a good path`},
			{"5:37", messages.CodeDocValue, "source.config.columns.id", `found "int65"`},
			{"5:62", messages.CodeDocValue, "source.config.csv.delimiter", "a single character"},
		}},
		"column with a dot": {source("use: table\n  config: {columns: {a.b: int65}}"), []refusal{{"5:27", messages.CodeDocValue, `source.config.columns["a.b"]`, `found "int65"`}}},
		"required config":   {source("use: postgres"), []refusal{{"4:3", messages.CodeDocMissing, "source.config.host", "the key `host` is missing"}}},
		"single rule": {with("transforms:", "  - use: validate", "    config: {rules: [{assert_regex: {field: a, pattern: (}}]}"), []refusal{
			{"10:57", messages.CodeDocValue, "transforms[0].config.rules[0].assert_regex.pattern", "does not compile"},
		}},
		"listed rule": {with("transforms:", "  - use: validate", "    config: {rules: [{assert_regex: [{field: a, pattern: (}]}]}"), []refusal{
			{"10:58", messages.CodeDocValue, "transforms[0].config.rules[0].assert_regex[0].pattern", "does not compile"},
		}},
	} {
		t.Run(name, func(t *testing.T) { requireRefused(t, c.text, nil, c.want...) })
	}
}

func TestContradictions(t *testing.T) {
	stream := func(s string) string { return strings.Replace(minimal, "{name: a}", s, 1) }
	long := strings.Repeat("x", 63)
	for name, c := range map[string]struct {
		text string
		want []refusal
	}{
		"stream twice":              {stream("{name: a}\n    - {name: a}"), []refusal{{"7:14", messages.CodeDocConflict, "source.streams[1].name", "given twice"}}},
		"one target":                {stream("{name: a}\n    - {name: b, target: a}"), []refusal{{"7:25", messages.CodeDocConflict, "source.streams[1].target", `"a" and "b" have one target`}}},
		"one target of two schemas": {stream("{name: x.a}\n    - {name: y.a}"), []refusal{{"7:14", messages.CodeDocConflict, "source.streams[1].name", "have one target"}}},
		"case folding":              {stream("{name: a}\n    - {name: A}"), []refusal{{"7:14", messages.CodeDocConflict, "source.streams[1].name", "after case folding"}}},
		"truncation":                {stream("{name: " + long + "1}\n    - {name: " + long + "2}"), []refusal{{"7:14", messages.CodeDocConflict, "source.streams[1].name", "after truncation to 63 bytes"}}},
		"target without schema":     {strings.Replace(minimal, "write_mode: append", "write_mode: append, target: '{schema}_{table}'", 1), []refusal{{"7:59", messages.CodeDocConflict, "destination.target", "the target uses {schema}, and stream \"a\" has none"}}},
		"target with other braces":  {stream("{name: a, target: '{tabel}'}"), []refusal{{"6:25", messages.CodeDocConflict, "source.streams[0].target", "braces enclose schema or table"}}},
		"target that is a folder":   {stream("{name: a, target: ..}"), []refusal{{"6:25", messages.CodeDocValue, "source.streams[0].target", "relative folder"}}},
		"incremental":               {stream("{name: a, sync_mode: incremental}"), []refusal{{"6:7", messages.CodeDocConflict, "source.streams[0].cursor_field", "needs a cursor_field"}}},
		"tie breaker":               {stream("{name: a, tie_breaker_field: id}"), []refusal{{"6:36", messages.CodeDocConflict, "source.streams[0].tie_breaker_field", "without a cursor_field"}}},
		"lookback alone":            {stream("{name: a, lookback: 10m}"), []refusal{{"6:27", messages.CodeDocConflict, "source.streams[0].lookback", "unless cursor_mode is lookback"}}},
		"lookback missing":          {stream("{name: a, cursor_mode: lookback}"), []refusal{{"6:30", messages.CodeDocConflict, "source.streams[0].cursor_mode", "needs a lookback"}}},
		"lookback of an append":     {stream("{name: a, sync_mode: incremental, cursor_field: t, cursor_mode: lookback, lookback: 10m}"), []refusal{{"6:71", messages.CodeDocConflict, "source.streams[0].cursor_mode", "append the rows of the window again"}}},
		"restart of an append":      {stream("{name: a, on_lost_snapshot: restart}"), []refusal{{"6:35", messages.CodeDocConflict, "source.streams[0].on_lost_snapshot", "append cannot take rows back"}}},
		"path of a table":           {stream("{name: a, path: x}"), []refusal{{"6:23", messages.CodeDocConflict, "source.streams[0].path", "reads no files"}}},
		"exclude without pattern":   {stream("{name: a, exclude: [b]}"), []refusal{{"6:26", messages.CodeDocConflict, "source.streams[0].exclude", "unless name is a pattern"}}},
		"broken pattern":            {stream("{name: 'a[', exclude: ['b[']}"), []refusal{{"6:14", messages.CodeDocValue, "source.streams[0].name", "expected a pattern"}, {"6:30", messages.CodeDocValue, "source.streams[0].exclude[0]", "expected a pattern"}}},
		"one target for a pattern":  {stream("{name: 'a*', target: b}"), []refusal{{"6:28", messages.CodeDocConflict, "source.streams[0].target", "use {table}"}}},
		"empty name":                {stream("{name: ''}"), []refusal{{"6:14", messages.CodeDocMissing, "source.streams[0].name", "is empty"}}},
		"NUL in a name":             {stream(`{name: "a\0b"}`), []refusal{{"6:14", messages.CodeDocValue, "source.streams[0].name", "NUL"}}},
		"line break in a name":      {stream(`{name: "a\nb"}`), []refusal{{"6:14", messages.CodeDocValue, "source.streams[0].name", "control character"}}},
		"blank name":                {stream(`{name: "  "}`), []refusal{{"6:14", messages.CodeDocValue, "source.streams[0].name", "blank"}}},
		"transform of nothing": {with("transforms: [{use: sql, config: {query: q}, streams: [a, users]}]"), []refusal{
			{"8:58", messages.CodeDocConflict, "transforms[0].streams[1]", `names the stream "users"`},
		}},
		"transform typing error": {with("transforms: [{use: sql, config: {query: q}, streams: [aa]}]"), []refusal{
			{"8:55", messages.CodeDocConflict, "transforms[0].streams[0]", "did you mean `a`?"},
		}},
		"batch over memory": {with("resources: {max_memory: 4mb, max_batch_bytes: 5mb, max_row_bytes: 6mb}"), []refusal{
			{"8:47", messages.CodeDocConflict, "resources.max_batch_bytes", "larger than max_memory (4mb)"},
			{"8:67", messages.CodeDocConflict, "resources.max_row_bytes", "larger than max_memory (4mb)"},
		}},
		"bbolt with a URL":      {with("state: {backend: bbolt, connection: 'postgres://h'}"), []refusal{{"8:37", messages.CodeDocConflict, "state.connection", "the backend is bbolt"}}},
		"postgres without one":  {with("state: {backend: postgres, connection: x.db}"), []refusal{{"8:40", messages.CodeDocConflict, "state.connection", "postgres://"}}},
		"postgres with nothing": {with("state: {backend: postgres}"), []refusal{{"8:8", messages.CodeDocConflict, "state.connection", "postgres://"}}},
		"a short lease":         {with("state: {connection: 'postgres://h', lease_ttl: 999ms}"), []refusal{{"8:48", messages.CodeDocValue, "state.lease_ttl", "found 999ms, expected a duration from 1s to 10m"}}},
		"a long lease":          {with("state: {connection: 'postgres://h', lease_ttl: 11m}"), []refusal{{"8:48", messages.CodeDocValue, "state.lease_ttl", "from 1s to 10m"}}},
		"no lease":              {with("state: {connection: 'postgres://h', lease_ttl: 0s}"), []refusal{{"8:48", messages.CodeDocValue, "state.lease_ttl", "from 1s to 10m"}}},
		"a lease of bbolt":      {with("state: {lease_ttl: 20s}"), []refusal{{"8:20", messages.CodeDocConflict, "state.lease_ttl", "has no leases"}}},
		"another database":      {with("state: {connection: 'mysql://h'}"), []refusal{{"8:21", messages.CodeDocValue, "state.connection", "use bbolt or postgres"}}},
		"files without a path": {strings.Replace(minimal, "use: table", "use: file", 1), []refusal{
			{"6:7", messages.CodeDocMissing, "source.streams[0].path", "neither has the source's config"},
		}},
	} {
		t.Run(name, func(t *testing.T) { requireRefused(t, c.text, nil, c.want...) })
	}
}

func TestWriteModePerStreamStandsForTheDestinations(t *testing.T) {
	doc := good(t, strings.NewReplacer("{name: a}", "{name: a, write_mode: replace}", ", write_mode: append", "").Replace(minimal), nil)
	require.Equal(t, connectors.ModeReplace, doc.Specs()[0].Mode)
}
