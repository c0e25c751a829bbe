package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

// The statements of plans and swaps are reviewed like code.
func TestPGStatementsOfPlans(t *testing.T) {
	source := benchOf(t, "append", `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN year AS int CHECK (VALUE > 1900); CREATE TYPE pair AS (m mood[], y year);
		CREATE TABLE orders (id bigint PRIMARY KEY, m mood NOT NULL, p pair[], n numeric(10,2))`)
	var out strings.Builder
	for _, c := range []struct {
		name, sql string
		mode      connectors.WriteMode
		change    func(*bench)
	}{
		{"append to no table", "", "append", func(b *bench) { b.goal.cfg.Schema = "raw" }},
		{"upsert into no table, with types and metadata", "", "upsert", func(b *bench) { b.like(source.conn, "public", "orders"); b.goal.policy.Metadata = true }},
		{"new column and new label", "CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE orders (id bigint, m mood)", "append", func(b *bench) { b.like(source.conn, "public", "orders") }},
		{"replace of no table", "", "replace", nil},
		{"replace by rename", "CREATE TABLE orders (id bigint, t text) WITH (fillfactor = 50, toast.autovacuum_enabled = off)", "replace", nil},
		{"replace in place", "CREATE TABLE orders (id bigint); CREATE VIEW v AS TABLE orders", "replace", nil},
	} {
		b := benchOf(t, c.mode, c.sql)
		if c.change != nil {
			c.change(b)
		}
		p, err := b.goal.plan(t.Context(), b.conn)
		require.NoError(t, err)
		fmt.Fprintf(&out, "%s\n----\n", c.name)
		for _, s := range p.statements {
			fmt.Fprintf(&out, "%s\n\tlocks: %s\n", s.SQL, s.Lock)
		}
		out.WriteString("\n")
	}
	for _, c := range []struct {
		name string
		m    merging
	}{
		{"merge without a key", merging{columns: []string{"id", "name"}}},
		{"merge by key", merging{key: []string{"id", "b"}, columns: []string{"id", "b", "name", "_rb_run"}, set: []string{"id", "b", "name", "_rb_run"}, compare: []string{"id", "b", "name"}}},
		{"merge by key, rewriting", merging{key: []string{"id"}, columns: []string{"id", "name"}, compare: []string{"id", "name"}, rewrite: true}},
	} {
		c.m.target, c.m.from, c.m.stage = `"public"."t"`, `ONLY "public"."t"`, `"public"."s"`
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", c.name, c.m.statement())
	}
	golden(t, "target_statements.txt", out.String())
}

// golden compares with a file of testdata; RB_UPDATE=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("RB_UPDATE") == "1" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
