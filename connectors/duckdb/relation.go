package duckdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2/mapping"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// relation is a table or view as it is read.
type relation struct {
	table  *table
	spec   connectors.StreamSpec
	plan   connectors.StreamPlan
	names  []string // expressions that are selected
	rowids bool     // a table that can be split and resumed by rowid
}

const rowidColumn = "rowid"

// describe resolves a stream and reads its schema.
func (s *Source) describe(ctx context.Context, db *session, spec connectors.StreamSpec) (*relation, error) {
	if spec.Sync != "" && spec.Sync != connectors.SyncFullRefresh {
		e := s.fail("plan the stream", connectors.KindConfig, messages.CodeNotAvailable, fmt.Errorf("a DuckDB source has no sync mode %q: want full_refresh", spec.Sync))
		e.Place.Stream = spec.Stream
		return nil, e
	}
	t, err := s.find(ctx, db, spec.Stream)
	if err != nil {
		return nil, err
	}
	r := &relation{table: t, spec: spec}
	_, shadowed := t.column(rowidColumn)
	r.rowids = !t.view && !shadowed
	columns, err := s.project(t, spec)
	if err != nil {
		return nil, err
	}
	if err := r.read(ctx, db, columns); err != nil {
		return nil, s.place(ctx, spec, err)
	}
	r.plan.Stream, r.plan.Key, r.plan.Rows = spec.Stream, r.key(), t.rows
	if len(spec.Key) > 0 {
		r.plan.Key = spec.Key
	}
	return r, r.probe(ctx, db, s)
}

func (s *Source) place(ctx context.Context, spec connectors.StreamSpec, err error) error {
	err = s.classify(ctx, "plan the stream", err)
	if e, ok := err.(*connectors.Error); ok { //nolint:errorlint // just made
		e.Place.Stream = spec.Stream
	}
	return err
}

// project returns the columns that are read, in the order of the document.
func (s *Source) project(t *table, spec connectors.StreamSpec) ([]column, error) {
	if len(spec.Columns) == 0 {
		return t.columns, nil
	}
	var out []column
	for _, name := range spec.Columns {
		c, ok := t.column(name)
		if !ok {
			e := s.fail("plan the stream", connectors.KindSchema, messages.CodeSchemaColumn, fmt.Errorf("the table has no column %q", name))
			e.Place.Stream, e.Place.Field = spec.Stream, name
			return nil, e
		}
		if slices.ContainsFunc(out, func(o column) bool { return o.name == c.name }) {
			e := s.fail("plan the stream", connectors.KindConfig, messages.CodeDocConflict, fmt.Errorf("column %q is listed twice", name))
			e.Place.Stream, e.Place.Field = spec.Stream, name
			return nil, e
		}
		out = append(out, c)
	}
	return out, nil
}

// read builds the query and asks DuckDB for its schema.
func (r *relation) read(ctx context.Context, db *session, columns []column) error {
	from := " FROM " + duckarrow.Quote(r.table.schema) + "." + duckarrow.Quote(r.table.name)
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = duckarrow.Quote(c.name)
	}
	types, err := columnsOf(ctx, db, "SELECT "+strings.Join(names, ", ")+from)
	if err != nil {
		return err
	}
	for i, c := range types {
		if c.Type.Lossy() != "" { // an enum, a bit string: as text
			names[i] += "::VARCHAR AS " + names[i]
		}
	}
	r.names = names
	stmt, err := db.conn.Prepare(ctx, "SELECT "+strings.Join(names, ", ")+from+" LIMIT 0")
	if err != nil {
		return err
	}
	defer stmt.Close()
	res, err := stmt.Query(ctx)
	if err != nil {
		return err
	}
	defer res.Close()
	raw, err := res.Schema()
	if err != nil {
		return err
	}
	fields := make([]arrow.Field, raw.NumFields())
	for i, f := range raw.Fields() {
		fields[i] = arrow.Field{Name: columns[i].name, Type: duckarrow.Canonical(f.Type), Nullable: !columns[i].notNull || r.table.view}
		if meaning := meaningOf(types[i], columns[i]); meaning != "" {
			fields[i].Metadata = arrow.NewMetadata([]string{typeKey}, []string{meaning})
		}
	}
	r.plan.Schema = arrow.NewSchema(fields, nil)
	return nil
}

// meaningOf says what a text stands for.
func meaningOf(c duckarrow.Column, of column) string {
	switch {
	case c.Type.ID == mapping.TypeUUID:
		return "uuid"
	case of.typ == "JSON":
		return "json"
	}
	return ""
}

func columnsOf(ctx context.Context, db *session, query string) ([]duckarrow.Column, error) {
	stmt, err := db.conn.Prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	defer stmt.Close()
	return stmt.Columns(), nil
}

// key returns the primary key, if all of it is read.
func (r *relation) key() []string {
	for _, k := range r.table.primary {
		if indexOf(r.plan.Schema, k) < 0 {
			return nil
		}
	}
	return slices.Clone(r.table.primary)
}

// cursors suggests columns that grow: times of change first, then the key.
func (r *relation) cursors() []string {
	var changed, times, keys []string
	for _, f := range r.plan.Schema.Fields() {
		name := strings.ToLower(f.Name)
		switch {
		case f.Type.ID() == arrow.TIMESTAMP && (strings.Contains(name, "updat") || strings.Contains(name, "modif") || strings.Contains(name, "chang")):
			changed = append(changed, f.Name)
		case f.Type.ID() == arrow.TIMESTAMP:
			times = append(times, f.Name)
		case arrow.IsInteger(f.Type.ID()) && len(r.table.primary) == 1 && strings.EqualFold(r.table.primary[0], f.Name):
			keys = append(keys, f.Name)
		}
	}
	return slices.Concat(changed, times, keys)
}

// probe prepares the query as it will run: it finds mistakes of the filter.
func (r *relation) probe(ctx context.Context, db *session, s *Source) error {
	stmt, err := db.conn.Prepare(ctx, r.split(fingerprint{}).query())
	if err == nil {
		params := stmt.Params()
		stmt.Close()
		if params == r.params() {
			return nil
		}
		err = errors.New("it has parameters, and nothing can be bound to them")
	}
	if r.spec.Filter == "" || ctx.Err() != nil {
		return s.place(ctx, r.spec, err)
	}
	e := s.fail("plan the stream", connectors.KindConfig, messages.CodeDocValue, fmt.Errorf("the filter: %w", err))
	e.Place.Stream, e.Place.Field = r.spec.Stream, "filter"
	return e
}

func (r *relation) params() int {
	if r.rowids {
		return 2
	}
	return 0
}
