package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/runtime/config"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := config.Schema(catalogue())
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	require.NoError(t, c.AddResource("pipeline.json", value))
	s, err := c.Compile("pipeline.json")
	require.NoError(t, err)
	return s
}

// instance turns YAML into what a JSON validator takes.
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

func TestSchemaAgreesWithTheSampleDocuments(t *testing.T) {
	s := compiled(t)
	files, err := filepath.Glob("testdata/rapidbyte/*.yaml")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		err = s.Validate(instance(t, text))
		switch filepath.Base(file) {
		case "broken.yaml", "sqlite-state.yaml":
			require.Error(t, err, file)
		default:
			require.NoError(t, err, file)
		}
	}
}

func TestSchemaAcceptsWhatParseAccepts(t *testing.T) {
	s := compiled(t)
	for _, text := range accepted {
		good(t, text, servers)
		require.NoError(t, s.Validate(instance(t, []byte(text))), text)
	}
}

func TestSchemaRefusesUnknownKeysOfEveryConnector(t *testing.T) {
	s := compiled(t)
	for _, text := range []string{
		with("extra: 1"),
		with("resources: {max_memory: 1tb}"),
		with("resources: {parallelism: 0}"),
		with("resources: {compression: gzip}"),
		with("transforms: [{use: sql, config: {}}]"),
		with("transforms: [{use: sql}]"),
		with("transforms: [{use: sql, config: {query: q, qery: q}}]"),
		with("transforms: [{use: sqll, config: {query: q}}]"),
		with("transforms: [{use: validate, config: {rules: [{assert_regex: {feld: a}}]}}]"),
	} {
		_, problems := parse(t, text, nil)
		require.NotEmpty(t, problems, text)
		require.Error(t, s.Validate(instance(t, []byte(text))), text)
	}
}

func TestSchemaIsStable(t *testing.T) {
	first, err := config.Schema(catalogue())
	require.NoError(t, err)
	second, err := config.Schema(catalogue())
	require.NoError(t, err)
	require.Equal(t, string(first), string(second))
	require.True(t, bytes.HasSuffix(first, []byte("}\n")))
}
