package arena

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/proc"
	"rapidbyte.io/node/bench/internal/scenario"
)

// document is a pipeline without its ends.
func document(state string) map[string]any {
	return map[string]any{
		"version": "1.0", "pipeline": "bench", "state": map[string]any{"connection": state}, "resources": map[string]any{"parallelism": 1},
	}
}

// destination is one that is not a database server.
func destination(kind scenario.Endpoint, path string) map[string]any {
	if kind == scenario.DuckDB {
		return map[string]any{"use": "duckdb", "config": map[string]any{"path": path}, "write_mode": "append"}
	}
	return map[string]any{"use": "file", "config": map[string]any{"path": path, "format": string(kind)}, "write_mode": "append"}
}

// source is one that is not a database server: what destination has written.
func source(kind scenario.Endpoint, path, table string) map[string]any {
	stream := map[string]any{"name": table, "sync_mode": "full_refresh"}
	if kind == scenario.DuckDB {
		return map[string]any{"use": "duckdb", "config": map[string]any{"path": path}, "streams": []any{stream}}
	}
	stream["path"] = filepath.Join(path, "**", "*."+string(kind))
	return map[string]any{"use": "file", "config": map[string]any{"path": path, "format": string(kind)}, "streams": []any{stream}}
}

// outFile is where a contestant writes, when the target is no database server.
func (c *contest) outPath(dir string) string {
	if c.s.To == scenario.DuckDB {
		return filepath.Join(dir, "out.duckdb")
	}
	return filepath.Join(dir, "out")
}

// plan is the document of a contestant of ours.
func (c *contest) plan(e *entrant, dir string) map[string]any {
	doc := document(filepath.Join(dir, "state.db"))
	doc["resources"] = map[string]any{"parallelism": c.s.Tasks}
	table := c.s.Tables()[0]
	if c.s.From == scenario.Postgres {
		name := scenario.Schema + "." + table
		if c.s.Workload.Tables > 0 {
			name = scenario.Schema + ".*"
		}
		stream := map[string]any{"name": name, "sync_mode": "full_refresh"}
		if c.s.Mode == scenario.Incremental {
			stream["sync_mode"], stream["cursor_field"] = "incremental", c.s.Cursor
		}
		doc["source"] = map[string]any{"use": "postgres", "config": map[string]any{"dsn": c.server.url(sourceDB)}, "streams": []any{stream}}
	} else {
		doc["source"] = source(c.s.From, c.in, table)
	}
	if c.s.To == scenario.Postgres {
		mode := c.s.Mode
		if mode == scenario.Incremental {
			mode = scenario.Append
		}
		doc["destination"] = map[string]any{
			"use": "postgres", "config": map[string]any{"dsn": c.server.url(e.db), "schema": scenario.Schema}, "write_mode": string(mode),
		}
		if mode == scenario.Upsert {
			doc["destination"] = scenario.Merge(doc["destination"].(map[string]any), map[string]any{"primary_key": c.s.Key}) //nolint:errcheck // set above
		}
	} else {
		doc["destination"] = destination(c.s.To, c.outPath(dir))
	}
	for _, fragment := range []map[string]any{c.s.Document, e.Document} {
		if filled, ok := scenario.FillAll(fragment, c.values(e, dir)).(map[string]any); ok {
			doc = scenario.Merge(doc, filled)
		}
	}
	return doc
}

// ours is how our program is called.
func (c *contest) ours(e *entrant, dir string, number int) (peer.Line, error) {
	text, err := yaml.Marshal(c.plan(e, dir))
	if err != nil {
		return peer.Line{}, err
	}
	path := filepath.Join(dir, "pipeline.yaml")
	args := []string{c.options.Programs[e.Program], "run", "--quiet", "--report", filepath.Join(dir, reportName), path}
	if c.profile && e.Program == "" && number > 0 {
		name := strings.ReplaceAll(e.Name, " ", "_")
		if c.point > 0 {
			name += "-" + strconv.FormatInt(c.point, 10)
		}
		profiles := filepath.Join(c.options.Profile, c.s.Name, name, "round-"+strconv.Itoa(number))
		if err := os.MkdirAll(profiles, 0o755); err != nil {
			return peer.Line{}, err
		}
		args = append(args, "--profile", profiles)
	}
	return peer.Line{Commands: [][]string{args}, Files: map[string]string{path: string(text)}, Env: e.Env}, nil
}

// reportName is what our program writes about its run.
const reportName = "report.json"

// chosen says what our program has chosen for speed, by its own report; nothing, when
// there is none.
func chosen(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, reportName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var report struct {
		Result struct {
			Streams []struct {
				Lane   string `json:"lane"`
				Reason string `json:"lane_reason"`
			}
			Tuning []struct{ What, Value string }
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("%s: %w", reportName, err)
	}
	var out []string
	for _, s := range report.Result.Streams {
		if s.Lane == "" {
			continue
		}
		words := "lane " + s.Lane
		if s.Reason != "" {
			words += " (" + s.Reason + ")"
		}
		if !slices.Contains(out, words) {
			out = append(out, words)
		}
	}
	for _, t := range report.Result.Tuning {
		out = append(out, t.What+" "+t.Value)
	}
	return out, nil
}

// once runs a document of the harness's own.
func (c *contest) once(ctx context.Context, doc map[string]any, name string) error {
	text, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, name+".yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	_, err = proc.Chain{Commands: [][]string{{c.options.Programs[""], "run", "--quiet", path}}}.Run(ctx, 0)
	return err
}

// load brings what a contestant wrote into a database, where it can be compared: CSV by
// psql, other formats by us.
func (c *contest) load(ctx context.Context, dir string) error {
	template := "template0"
	if c.s.To == scenario.CSV {
		template = templateDB
	}
	if err := c.server.create(ctx, verifyDB, template); err != nil {
		return err
	}
	table := c.s.Tables()[0]
	if c.s.To == scenario.CSV {
		return c.loadCSV(ctx, c.outPath(dir), table)
	}
	doc := document(filepath.Join(dir, "verify.db"))
	doc["source"] = source(c.s.To, c.outPath(dir), table)
	doc["destination"] = map[string]any{
		"use": "postgres", "config": map[string]any{"dsn": c.server.url(verifyDB), "schema": scenario.Schema}, "write_mode": "append",
	}
	return c.once(ctx, doc, "verify")
}

func (c *contest) loadCSV(ctx context.Context, dir, table string) error {
	psql, found, err := c.tool("psql")
	if err != nil || !found {
		return fmt.Errorf("CSV is compared with the help of psql: %w", err)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".csv" {
			return err
		}
		files++
		command := fmt.Sprintf(`\copy %s.%s FROM '%s' (FORMAT csv, HEADER)`, scenario.Schema, peer.Ident(table), path)
		_, err = proc.Chain{Commands: [][]string{{psql.Path, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", c.server.url(verifyDB), "-c", command}}}.Run(ctx, 0)
		return err
	})
	if err == nil && files == 0 {
		err = fmt.Errorf("found no *.csv in %s", dir)
	}
	return err
}
