package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// document is a pipeline from the source's schema into a contestant's.
type document struct {
	streams string // name or pattern
	mode    string // write mode
	tasks   int
}

// text is the document of a run; dsn and state are where it reads, writes and keeps its
// state.
func (d document) text(dsn, schema, state, pipeline string) string {
	stream := d.streams
	if !strings.Contains(stream, ".") {
		stream = sourceSchema + "." + stream
	}
	return fmt.Sprintf(`version: "1.0"
pipeline: %s
source:
  use: postgres
  config: {dsn: %q}
  streams:
    - {name: %q, sync_mode: full_refresh}
destination:
  use: postgres
  config: {dsn: %q, schema: %s}
  write_mode: %s
state: {connection: %q}
resources: {parallelism: %d}
`, pipeline, dsn, stream, dsn, schema, d.mode, state, d.tasks)
}

// write writes the document of a round: each is a pipeline of its own that has never run.
func (b *bed) write(d document, schema string, round int) (string, error) {
	name := fmt.Sprintf("pgcopy_%d", round)
	path := filepath.Join(b.dir, name+".yaml")
	text := d.text(b.url(), schema, filepath.Join(b.dir, name+".db"), name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
