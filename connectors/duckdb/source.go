package duckdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// splitRows is the least number of rows that is worth a part of its own: a row
// group of DuckDB.
const splitRows = 122_880

// Source implements connectors.Source.
type Source struct {
	cfg       SourceConfig
	splitRows int64
}

// NewSource returns the source of cfg. It does no I/O.
func NewSource(cfg SourceConfig) (*Source, error) {
	if p := cfg.Problems(); len(p) > 0 {
		return nil, configError("configure the duckdb source", p)
	}
	return &Source{cfg: cfg, splitRows: splitRows}, nil
}

// readOnly are the settings of a database that is read.
func readOnly(memory connectors.ByteSize) map[string]string {
	o := options(memory)
	o["access_mode"] = "read_only"
	return o
}

// session is an open database with one connection, both read-only.
type session struct {
	db   *duckarrow.DB
	conn *duckarrow.Conn
}

func (s *session) close() {
	s.conn.Close()
	s.db.Close()
}

// open opens the file read-only. What runs in it reaches nothing else: a filter is
// SQL of the document.
func (s *Source) open(ctx context.Context) (*session, error) {
	path := resolve(s.cfg.Path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.fail("open the database", connectors.KindConfig, messages.CodeSourceMissing, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, s.fail("open the database", connectors.KindConfig, messages.CodeSourceDenied, err)
	case err != nil:
		return nil, s.fail("open the database", connectors.KindTransient, messages.CodeSource, err)
	case !info.Mode().IsRegular():
		return nil, s.fail("open the database", connectors.KindConfig, messages.CodeSourceMissing, errors.New("it is not a file"))
	case opened.writing(path):
		e := s.fail("open the database", connectors.KindConfig, messages.CodeDocConflict,
			errors.New("this process has it open for writing: a pipeline cannot read the DuckDB file that it writes"))
		e.Next = "Write to another file."
		return nil, e
	}
	db, err := openPatiently(ctx, path, readOnly(s.cfg.MaxMemory))
	if err != nil {
		return nil, s.classify(ctx, "open the database", err)
	}
	conn, err := db.Connect()
	if err != nil {
		db.Close()
		return nil, s.classify(ctx, "open the database", err)
	}
	out := &session{db: db, conn: conn}
	if _, err := conn.Exec(ctx, "SET TimeZone = 'UTC'; SET enable_external_access = false"); err != nil {
		out.close()
		return nil, s.classify(ctx, "open the database", err)
	}
	return out, nil
}

func (s *Source) fail(op string, kind connectors.Kind, code messages.Code, err error) *connectors.Error {
	return &connectors.Error{
		Op: op, Kind: kind, Code: code, Place: messages.Place{File: s.cfg.Path, Stage: connectors.StageSource}, Err: err,
	}
}

// classify is classify in the words of a source.
func (s *Source) classify(ctx context.Context, op string, err error) error {
	err = classify(ctx, op, s.cfg.Path, err)
	e, ok := errors.AsType[*connectors.Error](err)
	if !ok {
		return err
	}
	e.Place.Stage = connectors.StageSource
	switch e.Code {
	case messages.CodeDestDamaged:
		e.Code = messages.CodeFileDamaged
	case messages.CodeDestDenied:
		e.Code = messages.CodeSourceDenied
	case messages.CodeDestMissing:
		e.Code = messages.CodeSourceMissing
	case messages.CodeDest, messages.CodeDestBusy, messages.CodeDestFull:
		e.Code = messages.CodeSource
	default: // says it already
	}
	return err
}

// Check opens the file and plans each stream.
func (s *Source) Check(ctx context.Context, streams []connectors.StreamSpec) ([]connectors.Finding, error) {
	db, err := s.open(ctx)
	if f, ok := finding(err); ok {
		return []connectors.Finding{f}, nil
	} else if err != nil {
		return nil, err
	}
	defer db.close()
	var out []connectors.Finding
	for _, spec := range streams {
		_, err := s.describe(ctx, db, spec)
		if f, ok := finding(err); ok {
			out = append(out, f)
		} else if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Discover lists the streams that are asked for, or all tables and views.
func (s *Source) Discover(ctx context.Context, streams []connectors.StreamSpec) ([]connectors.Discovered, error) {
	db, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer db.close()
	var views map[messages.StreamID]bool
	if len(streams) == 0 {
		names, isView, err := s.list(ctx, db)
		if err != nil {
			return nil, err
		}
		views = isView
		for _, n := range names {
			streams = append(streams, connectors.StreamSpec{Stream: n})
		}
	}
	var out []connectors.Discovered
	for _, spec := range streams {
		r, err := s.describe(ctx, db, spec)
		if err != nil {
			return nil, err
		}
		out = append(out, connectors.Discovered{StreamPlan: r.plan, Cursors: r.cursors(), View: views[spec.Stream]})
	}
	return out, nil
}

// list names the tables and views of the configured schema, or of all.
func (s *Source) list(ctx context.Context, db *session) (names []messages.StreamID, views map[messages.StreamID]bool, err error) {
	rows, err := db.conn.Rows(ctx, `SELECT schema_name, table_name, 'table' FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal AND NOT temporary
		UNION ALL SELECT schema_name, view_name, 'view' FROM duckdb_views() WHERE database_name = current_database() AND NOT internal AND NOT temporary ORDER BY ALL`)
	if err != nil {
		return nil, nil, s.classify(ctx, "list the tables", err)
	}
	views = map[messages.StreamID]bool{}
	for _, values := range rows {
		r := row{values: values}
		schema, name, kind := r.text(), r.text(), r.text()
		if schema == bookkeeping || strings.HasPrefix(name, stagePrefix) || s.cfg.Schema != "" && !strings.EqualFold(schema, s.cfg.Schema) {
			continue
		}
		if !strings.EqualFold(schema, s.schema()) {
			name = schema + "." + name
		}
		names = append(names, messages.StreamID(name))
		views[messages.StreamID(name)] = kind == "view"
	}
	return names, views, nil
}

// schema is where names without a schema are looked up.
func (s *Source) schema() string {
	if s.cfg.Schema == "" {
		return schemaDefault
	}
	return s.cfg.Schema
}

// find resolves a stream: the name as a whole, then as schema and table.
func (s *Source) find(ctx context.Context, db *session, stream messages.StreamID) (*table, error) {
	whole := string(stream)
	tries := [][2]string{{s.schema(), whole}}
	for i := range len(whole) {
		if whole[i] == '.' {
			tries = append(tries, [2]string{whole[:i], whole[i+1:]})
		}
	}
	for _, try := range tries {
		if try[0] == bookkeeping {
			continue
		}
		t, err := readTable(ctx, db.conn, try[0], try[1])
		if err != nil {
			return nil, s.classify(ctx, "read the catalogue", err)
		}
		if t != nil {
			return t, nil
		}
	}
	names, _, err := s.list(ctx, db)
	if err != nil {
		return nil, err
	}
	e := s.fail("find the stream", connectors.KindConfig, messages.CodeStreamUnknown, fmt.Errorf("there is no table or view %q%s", whole, nearest(whole, names)))
	e.Place.Stream = stream
	return nil, e
}

const nearestMax = 3

// nearest suggests names, closest first.
func nearest(name string, names []messages.StreamID) string {
	type candidate struct {
		name     string
		distance int
	}
	var all []candidate
	for _, n := range names {
		d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(string(n)))
		all = append(all, candidate{string(n), d})
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.distance - b.distance })
	if len(all) == 0 {
		return ": the database has none"
	}
	var out []string
	for _, c := range all[:min(len(all), nearestMax)] {
		out = append(out, c.name)
	}
	return "; nearest: " + strings.Join(out, ", ")
}
