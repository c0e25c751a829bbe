package plugin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	schemaFile = "../../docs/pipeline.schema.json"
	samples    = "../config/testdata/rapidbyte/*.yaml"
)

var servers = map[string]string{
	"SRC_HOST": "src.internal", "SRC_PORT": "5433", "DST_HOST": "dst.internal", "DST_PORT": "5434", "PG_PASSWORD": "s3cret-canary",
}

func env() config.Env {
	return config.Env{
		LookupEnv: func(name string) (string, bool) { v, ok := servers[name]; return v, ok },
		ReadFile:  func(string) ([]byte, error) { return nil, os.ErrNotExist },
	}
}

func parse(t *testing.T, file string) (*config.Document, error) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return config.Parse(filepath.Base(file), text, plugin.Builtins(), env())
}

// local is a document of connectors that this version has.
const local = `version: "1.0"
pipeline: local
source: {use: SOURCE, config: {SCONFIG}, streams: [{name: orders}]}
transforms: [{use: transform-sql, config: {query: "SELECT * FROM orders"}}]
destination: {use: DEST, config: {DCONFIG}, write_mode: append}
`

func document(source, sourceConfig, dest, destConfig string) string {
	return strings.NewReplacer("SCONFIG", sourceConfig, "DCONFIG", destConfig, "SOURCE", source, "DEST", dest).Replace(local)
}

// pairs are the built-in connectors, by name and alias, with the least config.
func pairs() []string {
	return []string{
		document("file", "path: in/*.csv", "file", "path: out"),
		document("source-file", "path: in.parquet", "dest-file", "path: out, format: csv"),
		document("duckdb", "path: in.duckdb", "duckdb", "path: out.duckdb"),
		document("source-duckdb", "path: in.duckdb", "dest-duckdb", "path: out.duckdb"),
		document("generator", "rows: 10", "blackhole", ""),
		document("source-generator", "", "dest-blackhole", ""),
		document("postgres", "host: h, user: u, database: d", "postgres", "dsn: postgres:///e"),
		document("source-postgres", "dsn: 'host=h user=u'", "dest-postgres", "host: h, user: u, database: d"),
	}
}

func TestEveryBuiltinIsMadeFromItsConfig(t *testing.T) {
	for _, text := range pairs() {
		doc, err := config.Parse("local.yaml", []byte(text), plugin.Builtins(), env())
		require.NoError(t, err)
		require.Empty(t, doc.Unavailable(), text)
		source, err := plugin.Source(doc.Source.Stage)
		require.NoError(t, err, text)
		require.NotNil(t, source)
		transform, err := plugin.Transform(doc.Transforms[0].Stage)
		require.NoError(t, err, text)
		require.NotNil(t, transform)
		destination, err := plugin.Destination(doc.Destination.Stage, connectors.WritePolicy{})
		require.NoError(t, err, text)
		require.NotNil(t, destination)
	}
}

func TestOneDuckDBFileCannotBeBothEnds(t *testing.T) {
	for path, same := range map[string]bool{"in.duckdb": true, "./in.duckdb": true, "x/../in.duckdb": true, "out.duckdb": false} {
		doc, err := config.Parse("local.yaml", []byte(document("duckdb", "path: in.duckdb", "duckdb", "path: "+path)), plugin.Builtins(), env())
		require.NoError(t, err)
		err = plugin.Check(doc)
		if !same {
			require.NoError(t, err, path)
			continue
		}
		var p config.Problems
		require.ErrorAs(t, err, &p, path)
		require.Equal(t, messages.CodeDocConflict, p[0].Code)
		require.Equal(t, 5, p[0].Where.Line)
		require.Equal(t, "destination.config.path", p[0].Where.Field)
	}
	doc, err := config.Parse("local.yaml", []byte(pairs()[0]), plugin.Builtins(), env())
	require.NoError(t, err)
	require.NoError(t, plugin.Check(doc))
}

func TestATableIsNotWrittenIntoItself(t *testing.T) {
	const here = "host: h, user: u, database: d"
	for _, c := range []struct {
		source, dest, more string
		conflict           bool
	}{
		{here, here, "", true},
		{here, "dsn: 'postgres://other@h:5432/d'", "", true},
		{here, here + ", schema: raw", "", false},
		{here + ", schema: raw", here + ", schema: raw", "", true},
		{here, here, "target: 'copy_of_{table}', ", false},
		{here, "host: h, user: u, database: e", "", false},
	} {
		text := strings.Replace(document("postgres", c.source, "postgres", c.dest), "write_mode", c.more+"write_mode", 1)
		doc, err := config.Parse("local.yaml", []byte(text), plugin.Builtins(), env())
		require.NoError(t, err)
		err = plugin.Check(doc)
		if !c.conflict {
			require.NoError(t, err, text)
			continue
		}
		var p config.Problems
		require.ErrorAs(t, err, &p, text)
		require.Equal(t, messages.CodeDocConflict, p[0].Code)
		require.Equal(t, "source.streams[0].name", p[0].Where.Field)
		require.Equal(t, 3, p[0].Where.Line)
	}
}

func TestWhatIsNotAvailableIsAConfigError(t *testing.T) {
	doc, err := parse(t, filepath.Join(filepath.Dir(samples), "contracts.yaml"))
	require.NoError(t, err)
	_, err = plugin.Transform(doc.Transforms[0].Stage)
	requireUnavailable(t, err)
	_, err = plugin.Destination(config.Stage{Use: "acme/lake@1", Config: map[string]any{}}, connectors.WritePolicy{})
	requireUnavailable(t, err)
	_, err = plugin.Source(config.Stage{Use: "acme/crm@1.2", Config: map[string]any{}})
	requireUnavailable(t, err)
}

func requireUnavailable(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*connectors.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, connectors.KindConfig, e.Kind)
	require.Equal(t, messages.CodeNotAvailable, e.Code)
}

func TestABrokenConfigIsNotAConnector(t *testing.T) {
	doc, err := config.Parse("local.yaml", []byte(pairs()[0]), plugin.Builtins(), env())
	require.NoError(t, err)
	stage := doc.Destination.Stage
	for _, c := range plugin.Builtins() {
		if c.Role == config.RoleDestination && c.Name == "file" {
			stage.Config = c.Shape // without its path
		}
	}
	d, err := plugin.Destination(stage, connectors.WritePolicy{})
	require.Error(t, err)
	require.Nil(t, d, "no interface around a nil pointer")
}

// Names of the built-ins never look like plugin references, and no two answer to one.
func TestCatalogueIsUnambiguous(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range plugin.Builtins() {
		for _, name := range append([]string{c.Name}, c.Aliases...) {
			key := string(c.Role) + " " + name
			require.False(t, seen[key], key)
			seen[key] = true
			require.NotContains(t, name, "/")
			require.NotContains(t, name, ".")
		}
		require.NotNil(t, c.Shape, c.Name)
		require.Equal(t, c.Role == config.RoleDestination, len(c.Modes) > 0, c.Name)
		_, ok := c.Shape.(interface{ Problems() []connectors.Problem })
		require.True(t, ok, "%s %s checks its config", c.Role, c.Name)
	}
}

func TestSampleDocumentsWithTheRealConnectors(t *testing.T) {
	files, err := filepath.Glob(samples)
	require.NoError(t, err)
	require.Len(t, files, 8)
	var got strings.Builder
	for _, file := range files {
		doc, err := parse(t, file)
		switch filepath.Base(file) {
		case "broken.yaml", "sqlite-state.yaml":
			require.Error(t, err)
			got.WriteString("# " + filepath.Base(file) + "\n" + err.Error() + "\n\n")
		default:
			require.NoError(t, err, file)
			got.WriteString("# " + filepath.Base(file) + "\n")
			for _, f := range doc.Unavailable() {
				got.WriteString(f.Where.Field + ": " + f.What + "\n")
			}
			got.WriteString("\n")
		}
	}
	require.NotContains(t, got.String(), "s3cret-canary")
	golden(t, "testdata/samples.golden", got.String())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("RB_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "RB_UPDATE=1 rewrites %s", path)
}

// The schema that is shipped is the one of the Go types.
func TestGoldenSchemaIsShipped(t *testing.T) {
	text, err := config.Schema(plugin.Builtins())
	require.NoError(t, err)
	golden(t, schemaFile, string(text))
}

func TestShippedSchemaAgreesWithParse(t *testing.T) {
	s := compiled(t)
	files, err := filepath.Glob(samples)
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		_, parsed := config.Parse(file, text, plugin.Builtins(), env())
		require.Equal(t, parsed == nil, s.Validate(instance(t, text)) == nil, file)
	}
	for _, text := range pairs() {
		require.NoError(t, s.Validate(instance(t, []byte(text))), text)
	}
	for _, text := range []string{
		document("file", "pth: in", "file", "path: out"),
		document("file", "path: in", "file", ""),
		document("file", "path: in, format: xml", "file", "path: out"),
		document("generator", "rows: many", "blackhole", ""),
		document("generator", "columns: [{name: a, kind: sound}]", "blackhole", ""),
		document("generatr", "", "blackhole", ""),
		document("blackhole", "", "blackhole", ""),
	} {
		_, err := config.Parse("local.yaml", []byte(text), plugin.Builtins(), env())
		require.Error(t, err, text)
		require.Error(t, s.Validate(instance(t, []byte(text))), text)
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	require.NoError(t, c.AddResource("pipeline.schema.json", value))
	s, err := c.Compile("pipeline.schema.json")
	require.NoError(t, err)
	return s
}

func instance(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	require.NoError(t, yaml.Unmarshal(text, &value))
	b, err := json.Marshal(value)
	require.NoError(t, err)
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	require.NoError(t, err)
	return out
}
