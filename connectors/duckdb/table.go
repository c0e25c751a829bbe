package duckdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// table is what the catalogue says of a table or view.
type table struct {
	schema, name string
	view         bool
	rows         int64 // estimate
	columns      []column
	primary      []string
	unique       [][]string // the primary key too
}

type column struct {
	name     string
	typ      string // DuckDB's name of it
	notNull  bool
	defaults bool // has a default
}

// column finds a column; SQL ignores case.
func (t *table) column(name string) (column, bool) {
	at := slices.IndexFunc(t.columns, func(c column) bool { return strings.EqualFold(c.name, name) })
	if at < 0 {
		return column{}, false
	}
	return t.columns[at], true
}

// readTable returns the table or view of that name, nil if there is none.
func readTable(ctx context.Context, conn *duckarrow.Conn, schema, name string) (*table, error) {
	rows, err := conn.Rows(ctx, `SELECT schema_name, table_name, false, estimated_size::BIGINT FROM duckdb_tables()
			WHERE database_name = current_database() AND NOT temporary AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
		UNION ALL SELECT schema_name, view_name, true, 0::BIGINT FROM duckdb_views()
			WHERE database_name = current_database() AND NOT temporary AND lower(schema_name) = lower(?) AND lower(view_name) = lower(?)`,
		schema, name, schema, name)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	r := row{values: rows[0]}
	t := &table{schema: r.text(), name: r.text(), view: r.flag(), rows: r.number()}
	rows, err = conn.Rows(ctx, `SELECT column_name, data_type, NOT is_nullable, column_default IS NOT NULL FROM duckdb_columns()
		WHERE database_name = current_database() AND schema_name = ? AND table_name = ? ORDER BY column_index`, t.schema, t.name)
	if err != nil {
		return nil, err
	}
	for _, values := range rows {
		r := row{values: values}
		t.columns = append(t.columns, column{name: r.text(), typ: r.text(), notNull: r.flag(), defaults: r.flag()})
	}
	rows, err = conn.Rows(ctx, `SELECT constraint_type, constraint_index, unnest(constraint_column_names) FROM duckdb_constraints()
		WHERE database_name = current_database() AND schema_name = ? AND table_name = ? AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')`, t.schema, t.name)
	if err != nil {
		return nil, err
	}
	t.readKeys(rows)
	return t, nil
}

func (t *table) readKeys(rows [][]any) {
	byIndex := map[int64][]string{}
	var order []int64
	for _, values := range rows {
		r := row{values: values}
		primary, index, name := r.text() == "PRIMARY KEY", r.number(), r.text()
		if byIndex[index] == nil {
			order = append(order, index)
		}
		byIndex[index] = append(byIndex[index], name)
		if primary {
			t.primary = append(t.primary, name)
		}
	}
	for _, i := range order {
		t.unique = append(t.unique, byIndex[i])
	}
}

// row reads the values of a result row in order; a NULL is the zero value.
type row struct {
	values []any
	at     int
}

func (r *row) next() any {
	v := r.values[r.at]
	r.at++
	return v
}

func (r *row) text() string {
	s, _ := r.next().(string)
	return s
}

func (r *row) number() int64 {
	n, _ := r.next().(int64)
	return n
}

func (r *row) flag() bool {
	b, _ := r.next().(bool)
	return b
}

// shape plans how a stream is put into a table.
type shape struct {
	path   string
	schema string
	target string
	stream connectors.StreamPlan
	mode   connectors.WriteMode
	types  []string // of the stream's columns
}

// newShape checks what does not depend on the file.
func newShape(path, schema string, mode connectors.WriteMode, sp connectors.StreamPlan) (*shape, error) {
	s := &shape{path: path, schema: schema, target: sp.Target, stream: sp, mode: mode}
	switch mode {
	case connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace:
	default:
		return nil, s.fail(connectors.KindConfig, messages.CodeDocValue, "", fmt.Errorf("write mode %q is unknown: want append, upsert or replace", mode))
	}
	if sp.Target == "" || strings.ContainsRune(sp.Target, 0) || strings.HasPrefix(strings.ToLower(sp.Target), stagePrefix) {
		return nil, s.fail(connectors.KindSchema, messages.CodeSchemaName, "", fmt.Errorf("the target name %q cannot be used", sp.Target))
	}
	if sp.Schema == nil || sp.Schema.NumFields() == 0 {
		return nil, s.fail(connectors.KindSchema, messages.CodeSchemaEmpty, "", errors.New("the stream has no columns"))
	}
	seen := map[string]string{}
	for _, f := range sp.Schema.Fields() {
		if f.Name == "" || strings.ContainsRune(f.Name, 0) {
			return nil, s.fail(connectors.KindSchema, messages.CodeSchemaName, f.Name, fmt.Errorf("the column name %q cannot be used", f.Name))
		}
		if other, ok := seen[strings.ToLower(f.Name)]; ok {
			return nil, s.fail(connectors.KindSchema, messages.CodeSchemaName, f.Name,
				fmt.Errorf("columns %q and %q are the same name in DuckDB, which ignores case", other, f.Name))
		}
		seen[strings.ToLower(f.Name)] = f.Name
		t, err := columnType(f)
		if err != nil {
			return nil, s.fail(connectors.KindSchema, messages.CodeSchemaType, f.Name, err)
		}
		s.types = append(s.types, t)
	}
	return s, s.checkKey(seen)
}

func (s *shape) checkKey(names map[string]string) error {
	if s.mode != connectors.ModeUpsert {
		return nil
	}
	if len(s.stream.Key) == 0 {
		err := s.fail(connectors.KindConfig, messages.CodeDocMissing, "", errors.New("an upsert needs a primary key, and the source has none"))
		err.Next = "Set `destination.primary_key`."
		return err
	}
	for _, k := range s.stream.Key {
		if names[strings.ToLower(k)] == "" {
			return s.fail(connectors.KindSchema, messages.CodeSchemaColumn, k, fmt.Errorf("the key column %s is not among the stream's columns", k))
		}
	}
	return nil
}

func (s *shape) fail(kind connectors.Kind, code messages.Code, field string, err error) *connectors.Error {
	e := destError(fmt.Sprintf("prepare the table %q", s.target), kind, code, s.path, err)
	e.Place.Stream, e.Place.Field = s.stream.Stream, field
	return e
}

// changes returns the statements that bring a table, as it is, to this shape. The
// types of columns are compared by conn. nil is a table that does not exist.
func (s *shape) changes(ctx context.Context, conn *duckarrow.Conn, t *table) ([]string, error) {
	if t == nil {
		return []string{s.create(s.target, s.mode == connectors.ModeUpsert)}, nil
	}
	if t.view {
		return nil, s.fail(connectors.KindConfig, messages.CodeSchemaName, "", errors.New("a view of that name exists"))
	}
	if t.name != s.target {
		return nil, s.fail(connectors.KindSchema, messages.CodeSchemaName, "",
			fmt.Errorf("the table %q exists, and DuckDB ignores case in names", t.name))
	}
	var out []string
	for i, f := range s.stream.Schema.Fields() {
		has, ok := t.column(f.Name)
		if !ok {
			out = append(out, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s", s.qualified(s.target), duckarrow.Quote(f.Name), s.types[i]))
			continue
		}
		same, err := sameType(ctx, conn, has.typ, s.types[i])
		if err != nil {
			return nil, err
		}
		if !same {
			return nil, s.fail(connectors.KindSchema, messages.CodeSchemaType, f.Name,
				fmt.Errorf("column %s is %s in the table and %s in the stream", f.Name, has.typ, s.types[i]))
		}
	}
	for _, c := range t.columns {
		if c.notNull && !c.defaults && indexOf(s.stream.Schema, c.name) < 0 {
			return nil, s.fail(connectors.KindSchema, messages.CodeSchemaColumn, c.name,
				fmt.Errorf("column %s of the table is NOT NULL, and the stream does not have it", c.name))
		}
	}
	return out, nil
}

func indexOf(schema *arrow.Schema, name string) int {
	return slices.IndexFunc(schema.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
}

// sameType compares two names of types; DuckDB decides what a name means.
func sameType(ctx context.Context, conn *duckarrow.Conn, has, want string) (bool, error) {
	if has == want || has == "JSON" && want == "VARCHAR" {
		return true, nil
	}
	rows, err := conn.Rows(ctx, "SELECT typeof(CAST(NULL AS "+want+"))")
	if err != nil {
		return false, err
	}
	return rows[0][0] == has, nil
}

func (s *shape) qualified(name string) string {
	return duckarrow.Quote(s.schema) + "." + duckarrow.Quote(name)
}

// create returns the statement that makes the table under a name.
func (s *shape) create(name string, key bool) string {
	var cols []string
	for i, f := range s.stream.Schema.Fields() {
		col := duckarrow.Quote(f.Name) + " " + s.types[i]
		if !f.Nullable {
			col += " NOT NULL"
		}
		cols = append(cols, col)
	}
	if key {
		cols = append(cols, "PRIMARY KEY ("+strings.Join(quoteAll(s.stream.Key), ", ")+")")
	}
	return "CREATE TABLE " + s.qualified(name) + " (" + strings.Join(cols, ", ") + ")"
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = duckarrow.Quote(n)
	}
	return out
}
