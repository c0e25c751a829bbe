package arena

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/scenario"
)

// prepare makes the source, the state before a run, and the digest that is expected.
func (c *contest) prepare(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := c.server.create(ctx, sourceDB, "template0"); err != nil {
		return err
	}
	for _, statements := range [][]string{{"CREATE SCHEMA " + scenario.Schema}, c.create(c.s, true), {"VACUUM (FREEZE, ANALYZE)"}} {
		if err := c.server.exec(ctx, sourceDB, statements...); err != nil {
			return err
		}
	}
	var err error
	if c.columns, err = c.server.columns(ctx, sourceDB, scenario.Schema+"."+peer.Ident(c.s.Tables()[0])); err != nil {
		return err
	}
	if c.expected, err = c.server.digestOf(ctx, sourceDB, c.columns, c.wanted()...); err != nil {
		return err
	}
	if err := c.template(ctx); err != nil {
		return err
	}
	return c.input(ctx)
}

// create returns the statements that make the tables, with their rows or without.
func (c *contest) create(s *scenario.Scenario, rows bool) []string {
	var out []string
	for _, name := range s.Tables() {
		if len(s.Workload.Statements) > 0 {
			at := *s
			if !rows {
				at.Rows = 0
			}
			for _, text := range s.Workload.Statements {
				out = append(out, at.Expand(text, name))
			}
		} else {
			text := s.Expand("CREATE TABLE {table} AS {sql}", name)
			if !rows {
				text += " WITH NO DATA"
			}
			out = append(out, text)
		}
		if len(s.Key) > 0 {
			out = append(out, s.Expand("ALTER TABLE {table} ADD PRIMARY KEY ("+peer.Idents("", s.Key)+")", name))
		}
	}
	return out
}

// template makes the database that every target begins as.
func (c *contest) template(ctx context.Context) error {
	if err := c.server.create(ctx, templateDB, "template0"); err != nil {
		return err
	}
	var statements []string
	if !c.s.Workload.Fresh {
		statements = append([]string{"CREATE SCHEMA " + scenario.Schema}, c.create(c.s, false)...)
	}
	table := c.s.Tables()[0]
	if c.s.Workload.Base != "" {
		statements = append(statements, c.s.Expand("INSERT INTO {table} "+c.s.Workload.Base, table))
	}
	statements = append(statements, c.expand(c.s.Workload.Target)...)
	return c.server.exec(ctx, templateDB, append(statements, "VACUUM (FREEZE, ANALYZE)")...)
}

// wanted are queries for what should be there, in the source.
func (c *contest) wanted() []string {
	w := c.s.Workload
	table := c.s.Tables()[0]
	switch {
	case w.Expected != "":
		return []string{c.s.Expand(w.Expected, table)}
	case w.Base == "" || c.s.Mode == scenario.Replace:
		return c.tables()
	case c.s.Mode == scenario.Upsert:
		on := make([]string, len(c.s.Key))
		for i, k := range c.s.Key {
			on[i] = "s." + peer.Ident(k) + " = b." + peer.Ident(k)
		}
		return []string{c.s.Expand("SELECT * FROM {table} UNION ALL SELECT * FROM ("+w.Base+") b("+peer.Idents("", names(c.columns))+") WHERE NOT EXISTS (SELECT FROM {table} s WHERE "+
			strings.Join(on, " AND ")+")", table)}
	}
	return []string{c.s.Expand("SELECT * FROM {table} UNION ALL "+w.Base, table)}
}

// reset makes a contestant's target what it was, and warms the catalogue of its
// database, which the first to connect would pay for.
func (c *contest) reset(ctx context.Context, e *entrant) error {
	if c.s.To != scenario.Postgres {
		return nil
	}
	if err := c.server.create(ctx, e.db, templateDB); err != nil {
		return err
	}
	return c.server.exec(ctx, e.db, "SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid")
}

func (c *contest) checkpoint(ctx context.Context) error {
	return c.server.exec(ctx, adminDB, "CHECKPOINT")
}

// input makes the files that are read, when the source is not a database.
func (c *contest) input(ctx context.Context) error {
	if c.s.From == scenario.Postgres {
		return nil
	}
	c.in = filepath.Join(c.dir, "in")
	if c.s.From == scenario.DuckDB {
		c.in += ".duckdb"
	}
	config := map[string]any{"dsn": c.server.url(sourceDB)}
	doc := document(filepath.Join(c.dir, "in.db"))
	doc["source"] = map[string]any{"use": "postgres", "config": config, "streams": []any{map[string]any{"name": scenario.Schema + "." + c.s.Tables()[0], "sync_mode": "full_refresh"}}}
	doc["destination"] = destination(c.s.From, c.in)
	if err := c.once(ctx, doc, "in"); err != nil {
		return fmt.Errorf("make the files that are read: %w", err)
	}
	return nil
}
