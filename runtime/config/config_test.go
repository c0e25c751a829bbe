package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The shapes of connectors that the tests know; the real ones are tested where
// they are wired.
type (
	serverConfig struct {
		Host        string              `yaml:"host" jsonschema:"required"`
		Port        int                 `yaml:"port" jsonschema:"minimum=1,maximum=65535,default=5432"`
		User        string              `yaml:"user"`
		Password    connectors.Secret   `yaml:"password"`
		Database    string              `yaml:"database"`
		Schema      string              `yaml:"schema" jsonschema:"default=public"`
		Slot        string              `yaml:"replication_slot"`
		Publication string              `yaml:"publication"`
		LoadMethod  string              `yaml:"load_method" jsonschema:"enum=copy,enum=insert,default=copy"`
		Timeout     time.Duration       `yaml:"timeout" jsonschema:"default=10s"`
		Flush       connectors.ByteSize `yaml:"flush" jsonschema:"default=8mb"`
	}
	fileConfig struct {
		Path    string            `yaml:"path"`
		CSV     csvConfig         `yaml:"csv"`
		Columns map[string]string `yaml:"columns"`
		Ratio   *float64          `yaml:"ratio" jsonschema:"minimum=0,maximum=1"`
		Strict  bool              `yaml:"strict" jsonschema:"default=true"`
	}
	csvConfig struct {
		Delimiter string   `yaml:"delimiter" jsonschema:"default=\\,,maxLength=1,minLength=1"`
		Nulls     []string `yaml:"null_values" jsonschema:"default=,default=NULL,uniqueItems=true"`
	}
	sqlConfig struct {
		Query string `yaml:"query" jsonschema:"required"`
	}
	rulesConfig struct {
		Rules []ruleConfig `yaml:"rules" jsonschema:"required"`
	}
	ruleConfig struct {
		NotNull []string      `yaml:"assert_not_null" jsonschema:"oneof_type=string;array"`
		Unique  []string      `yaml:"assert_unique" jsonschema:"oneof_type=string;array"`
		Regex   []regexConfig `yaml:"assert_regex" jsonschema:"oneof_type=object;array"`
		Range   []rangeConfig `yaml:"assert_range" jsonschema:"oneof_type=object;array"`
	}
	regexConfig struct {
		Field   string `yaml:"field" jsonschema:"required"`
		Pattern string `yaml:"pattern" jsonschema:"required"`
	}
	rangeConfig struct {
		Field string   `yaml:"field" jsonschema:"required"`
		Min   *float64 `yaml:"min"`
		Max   *float64 `yaml:"max"`
	}
)

func (c fileConfig) Problems() (p []connectors.Problem) {
	if c.Path == "bad" || c.Path == "hunter2" {
		p = append(p, connectors.Problem{Path: "path", Message: fmt.Sprintf("found %q, expected a good path", c.Path)})
	}
	for name, typ := range c.Columns {
		if typ != "int64" && typ != "text" {
			p = append(p, connectors.Problem{Path: "columns." + name, Message: fmt.Sprintf("found %q, expected int64 or text", typ)})
		}
	}
	return p
}

func (c rulesConfig) Problems() (p []connectors.Problem) {
	for i, r := range c.Rules {
		for j, x := range r.Regex {
			if x.Pattern == "(" {
				p = append(p, connectors.Problem{Path: fmt.Sprintf("rules[%d].assert_regex[%d].pattern", i, j), Message: "the pattern does not compile"})
			}
		}
	}
	return p
}

func catalogue() config.Catalogue {
	all := []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert}
	return config.Catalogue{
		{Name: "postgres", Aliases: []string{"source-postgres"}, Role: config.RoleSource, Shape: serverConfig{}, Planned: true, Filter: true, Schemas: true},
		{Name: "duck", Role: config.RoleSource, Shape: fileConfig{}, Schemas: true, DefaultSchema: "main"},
		{Name: "file", Aliases: []string{"source-file"}, Role: config.RoleSource, Shape: fileConfig{}, Files: true},
		{Name: "table", Role: config.RoleSource, Shape: fileConfig{}, Filter: true, Incremental: true, Schemas: true},
		{Name: "sql", Aliases: []string{"transform-sql"}, Role: config.RoleTransform, Shape: sqlConfig{}},
		{Name: "validate", Aliases: []string{"transform-validate"}, Role: config.RoleTransform, Shape: rulesConfig{}, Planned: true},
		{Name: "postgres", Aliases: []string{"dest-postgres"}, Role: config.RoleDestination, Shape: serverConfig{}, Planned: true, Modes: all, DeadLetters: true, Metadata: true, NewColumns: []connectors.ColumnPolicy{connectors.ColumnIgnore}},
		{Name: "file", Aliases: []string{"dest-file"}, Role: config.RoleDestination, Shape: fileConfig{}, Modes: all[:2]},
		{Name: "blackhole", Role: config.RoleDestination, Shape: struct{}{}, Modes: all},
	}
}

// env answers from a map; files are keys that begin with a slash.
func env(values map[string]string) config.Env {
	return config.Env{
		LookupEnv: func(name string) (string, bool) { v, ok := values[name]; return v, ok },
		ReadFile: func(path string) ([]byte, error) {
			if v, ok := values[path]; ok {
				return []byte(v), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
	}
}

var servers = map[string]string{
	"SRC_HOST": "src.internal", "SRC_PORT": "5433", "DST_HOST": "dst.internal", "DST_PORT": "5434", "PG_PASSWORD": "s3cret-canary",
}

func parse(t *testing.T, text string, values map[string]string) (*config.Document, config.Problems) {
	t.Helper()
	doc, err := config.Parse("p.yaml", []byte(text), catalogue(), env(values))
	if err == nil {
		require.NotNil(t, doc)
		return doc, nil
	}
	require.Nil(t, doc)
	p, ok := errors.AsType[config.Problems](err)
	require.True(t, ok, "%T", err)
	require.NotEmpty(t, p)
	for _, f := range p {
		require.Equal(t, "config", f.Kind)
		require.Equal(t, messages.ExitConfig, f.Code.Exit(), f)
		require.NotEmpty(t, f.What)
		require.Positive(t, f.Where.Line, f)
		require.Positive(t, f.Where.Column, f)
		require.Equal(t, "p.yaml", f.Where.File)
		require.Less(t, len(f.What)+len(f.Next), 4<<10)
	}
	return nil, p
}

func good(t *testing.T, text string, values map[string]string) *config.Document {
	t.Helper()
	doc, p := parse(t, text, values)
	require.NoError(t, p.ErrorOrNil())
	return doc
}

// golden compares got with a file of testdata; RB_UPDATE=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("RB_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

const minimal = `version: "1.0"
pipeline: p
source:
  use: table
  streams:
    - {name: a}
destination: {use: blackhole, write_mode: append}
`

// with puts further lines behind the minimal document.
func with(lines ...string) string { return minimal + strings.Join(lines, "\n") + "\n" }
