package duckdb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// pendingBytesMax is how much an appender collects before it writes.
const pendingBytesMax = 32 << 20

// sink puts the rows of one stream where they belong: append into the target,
// replace into its staging table, upsert into a temporary table that apply merges.
// It belongs to one writer.
type sink struct {
	shape *shape
	table duckarrow.Table // that is appended to
	fed   *arrow.Schema   // of the appender
	named bool            // fed has the table's spelling of names

	appender *duckarrow.Appender
	pending  int64   // bytes in the appender
	up       *upsert // nil for append and replace
}

// upsert is what a sink keeps of a commit of an upsert.
type upsert struct {
	columns []stagedColumn // of the temporary table, which has them as c0, c1, ..
	staged  bool           // the temporary table exists
	rows    bool           // it has rows
	emptied bool           // the target is to be emptied first
	keyed   *bool          // the target has a unique index on the key; nil: not looked up
}

type stagedColumn struct{ name, typ string }

// newSink returns the sink of a stream. Temporary names are ours: a column of the
// stream may be called rowid, which orders the rows.
func newSink(sh *shape, stage string, number int) *sink {
	s := &sink{shape: sh, fed: fedSchema(sh.stream.Schema), table: duckarrow.Table{Schema: sh.schema, Name: sh.target}}
	if stage != "" {
		s.table.Name = stage
	}
	if sh.mode == connectors.ModeUpsert {
		s.table = duckarrow.Table{Catalog: "temp", Schema: "main", Name: fmt.Sprintf("stage_%d", number)}
		s.up = &upsert{}
		s.feedStaged()
	}
	return s
}

// feedStaged adds columns to the temporary table's and names what is fed after them.
func (s *sink) feedStaged() (added []int) {
	fields := fedSchema(s.shape.stream.Schema).Fields()
	for i, f := range fields {
		at := slices.IndexFunc(s.up.columns, func(c stagedColumn) bool { return strings.EqualFold(c.name, f.Name) })
		if at < 0 {
			at = len(s.up.columns)
			s.up.columns = append(s.up.columns, stagedColumn{name: f.Name, typ: s.shape.types[i]})
			added = append(added, at)
		}
		fields[i] = arrow.Field{Name: stagedName(at), Type: f.Type, Nullable: true}
	}
	s.fed = arrow.NewSchema(fields, nil)
	return added
}

// fedSchema is schema with the types that are appended, see convert.
func fedSchema(schema *arrow.Schema) *arrow.Schema {
	fields := schema.Fields()
	for i, f := range fields {
		fields[i] = arrow.Field{Name: f.Name, Type: f.Type, Nullable: true}
		if isTextUUID(f) {
			fields[i].Type = extensions.NewUUIDType()
		}
	}
	return arrow.NewSchema(fields, nil)
}

func stagedName(i int) string { return fmt.Sprintf("c%d", i) }

// matches checks that rec has the announced columns.
func (s *sink) matches(rec arrow.RecordBatch) error {
	want := s.shape.stream.Schema
	if int(rec.NumCols()) != want.NumFields() {
		return fmt.Errorf("a batch has %d columns, announced were %d", rec.NumCols(), want.NumFields())
	}
	for i, f := range want.Fields() {
		if rec.ColumnName(i) != f.Name || !arrow.TypeEqual(rec.Column(i).DataType(), f.Type) {
			return fmt.Errorf("column %d of a batch is %s %s, announced was %s %s",
				i+1, rec.ColumnName(i), rec.Column(i).DataType(), f.Name, f.Type)
		}
	}
	return nil
}

// append copies rows into the appender, and to the table when it has enough.
func (s *sink) append(ctx context.Context, conn *duckarrow.Conn, rows messages.ArrowRows) error {
	if rows.Len() == 0 {
		return nil
	}
	if err := s.checkKeys(rows.Record); err != nil {
		return err
	}
	if s.appender == nil {
		if err := s.open(ctx, conn); err != nil {
			return err
		}
	}
	cols, release, err := s.convert(rows.Record)
	if err != nil {
		return err
	}
	rec := array.NewRecordBatch(s.fed, cols, rows.Len())
	release()
	defer rec.Release()
	if err := s.appender.Append(ctx, rec); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.DestCopyMid); err != nil {
		return err
	}
	if s.up != nil {
		s.up.rows = true
	}
	s.pending += rows.Bytes()
	if s.pending < pendingBytesMax {
		return nil
	}
	s.pending = 0
	return s.appender.Flush(ctx)
}

// convert returns the columns as the table has them: a text that stands for a UUID
// is one there. Call release when they are taken.
func (s *sink) convert(rec arrow.RecordBatch) (cols []arrow.Array, release func(), err error) {
	cols = slices.Clone(rec.Columns())
	var made []arrow.Array
	release = func() {
		for _, a := range made {
			a.Release()
		}
	}
	for i, f := range s.fed.Fields() {
		if f.Type.ID() != arrow.EXTENSION || cols[i].DataType().ID() != arrow.STRING {
			continue
		}
		if cols[i], err = duckarrow.UUIDs(cols[i]); err != nil {
			release()
			name := s.shape.stream.Schema.Field(i).Name
			return nil, nil, s.shape.fail(connectors.KindData, messages.CodeValueRange, name, fmt.Errorf("column %s: %w", name, err))
		}
		made = append(made, cols[i])
	}
	return cols, release, nil
}

// checkKeys refuses a missing value in the key of an upsert.
func (s *sink) checkKeys(rec arrow.RecordBatch) error {
	if s.up == nil {
		return nil
	}
	for _, k := range s.shape.stream.Key {
		if rec.Column(indexOf(s.shape.stream.Schema, k)).NullN() > 0 {
			return s.shape.fail(connectors.KindData, messages.CodeValueRange, k, fmt.Errorf("a row has no value for the key column %s", k))
		}
	}
	return nil
}

func (s *sink) open(ctx context.Context, conn *duckarrow.Conn) error {
	if s.up != nil && !s.up.staged {
		if err := s.stage(ctx, conn); err != nil {
			return err
		}
	}
	if s.up == nil && !s.named {
		if err := s.name(ctx, conn); err != nil {
			return err
		}
	}
	a, err := conn.Appender(s.table, s.fed)
	if err != nil {
		return err
	}
	s.appender = a
	return nil
}

// name takes the table's own spelling of the columns: an appender minds case.
func (s *sink) name(ctx context.Context, conn *duckarrow.Conn) error {
	t, err := readTable(ctx, conn, s.table.Schema, s.table.Name)
	if err != nil {
		return err
	}
	fields := s.fed.Fields()
	for i, f := range fields {
		if t == nil {
			break // the appender says that the table is gone
		}
		if c, ok := t.column(f.Name); ok {
			fields[i].Name = c.name
		}
	}
	s.fed, s.named = arrow.NewSchema(fields, nil), true
	return nil
}

// stage makes the temporary table; it lives until the commit.
func (s *sink) stage(ctx context.Context, conn *duckarrow.Conn) error {
	cols := make([]string, len(s.up.columns))
	for i, c := range s.up.columns {
		cols[i] = stagedName(i) + " " + c.typ
	}
	_, err := conn.Exec(ctx, "CREATE TEMPORARY TABLE "+s.table.Name+" ("+strings.Join(cols, ", ")+")")
	s.up.staged = err == nil
	return err
}

// flush writes what the appender holds and closes it: the table may change next.
func (s *sink) flush(ctx context.Context) error {
	if s.appender == nil {
		return nil
	}
	defer s.discard()
	return s.appender.Flush(ctx)
}

// discard drops what the appender holds.
func (s *sink) discard() {
	if s.appender != nil {
		s.appender.Discard()
	}
	s.appender, s.pending = nil, 0
}

// truncate empties the target in this transaction; an upsert does so in apply.
func (s *sink) truncate(ctx context.Context, conn *duckarrow.Conn) error {
	s.discard()
	if s.up == nil {
		_, err := conn.Exec(ctx, "DELETE FROM "+s.shape.qualified(s.table.Name))
		return err
	}
	s.up.emptied, s.up.rows = true, false
	if !s.up.staged {
		return nil
	}
	_, err := conn.Exec(ctx, "DELETE FROM "+s.staged())
	return err
}

func (s *sink) staged() string { return "temp.main." + s.table.Name }

// apply merges the rows of an upsert into the target, in the open transaction.
func (s *sink) apply(ctx context.Context, conn *duckarrow.Conn) error {
	if s.up == nil {
		return nil
	}
	target := s.shape.qualified(s.shape.target)
	if s.up.emptied {
		if _, err := conn.Exec(ctx, "DELETE FROM "+target); err != nil {
			return err
		}
	}
	if s.up.rows {
		source, err := s.newest(ctx, conn)
		if err != nil {
			return err
		}
		keyed, err := s.keyed(ctx, conn)
		if err != nil {
			return err
		}
		sql := s.merge(target, source)
		if keyed {
			sql = s.onConflict(target, source)
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if !s.up.staged {
		return nil
	}
	_, err := conn.Exec(ctx, "DROP TABLE "+s.staged())
	return err
}

// keyed reports whether the target has a unique index on the key.
func (s *sink) keyed(ctx context.Context, conn *duckarrow.Conn) (bool, error) {
	if s.up.keyed == nil {
		t, err := readTable(ctx, conn, s.shape.schema, s.shape.target)
		if err != nil {
			return false, err
		}
		has := t != nil && t.hasKey(s.shape.stream.Key)
		s.up.keyed = &has
	}
	return *s.up.keyed, nil
}

// hasKey reports whether exactly these columns are unique.
func (t *table) hasKey(key []string) bool {
	fold := func(names []string) []string {
		out := make([]string, len(names))
		for i, n := range names {
			out[i] = strings.ToLower(n)
		}
		slices.Sort(out)
		return out
	}
	want := fold(key)
	return slices.ContainsFunc(t.unique, func(u []string) bool { return slices.Equal(fold(u), want) })
}

// newest returns a relation with one row per key, the last of this commit.
func (s *sink) newest(ctx context.Context, conn *duckarrow.Conn) (string, error) {
	keys := strings.Join(s.keyColumns(), ", ")
	rows, err := conn.Rows(ctx, "SELECT 1 FROM "+s.staged()+" GROUP BY "+keys+" HAVING count(*) > 1 LIMIT 1")
	if err != nil {
		return "", err
	}
	if len(rows) == 0 {
		return s.staged(), nil
	}
	return "(SELECT * FROM " + s.staged() + " QUALIFY row_number() OVER (PARTITION BY " + keys + " ORDER BY rowid DESC) = 1)", nil
}

// keyColumns returns the key in the names of the temporary table.
func (s *sink) keyColumns() []string {
	out := make([]string, len(s.shape.stream.Key))
	for i, k := range s.shape.stream.Key {
		out[i] = stagedName(slices.IndexFunc(s.up.columns, func(c stagedColumn) bool { return strings.EqualFold(c.name, k) }))
	}
	return out
}

// onConflict upserts through the target's unique index.
func (s *sink) onConflict(target, source string) string {
	var all, staged, sets []string
	keys := s.keyColumns()
	for i, c := range s.up.columns {
		name := duckarrow.Quote(c.name)
		all, staged = append(all, name), append(staged, stagedName(i))
		if !slices.Contains(keys, stagedName(i)) {
			sets = append(sets, name+" = excluded."+name)
		}
	}
	sql := "INSERT INTO " + target + " (" + strings.Join(all, ", ") + ") SELECT " + strings.Join(staged, ", ") + " FROM " + source +
		" ON CONFLICT (" + strings.Join(quoteAll(s.shape.stream.Key), ", ") + ") DO "
	if len(sets) == 0 {
		return sql + "NOTHING"
	}
	return sql + "UPDATE SET " + strings.Join(sets, ", ")
}

// merge upserts into a table without a unique index.
func (s *sink) merge(target, source string) string {
	var all, staged, on, sets []string
	keys := s.keyColumns()
	for i, c := range s.up.columns {
		name, value := duckarrow.Quote(c.name), "s."+stagedName(i)
		all, staged = append(all, name), append(staged, value)
		if slices.Contains(keys, stagedName(i)) {
			on = append(on, "t."+name+" = "+value)
		} else {
			sets = append(sets, name+" = "+value)
		}
	}
	sql := "MERGE INTO " + target + " AS t USING " + source + " AS s ON (" + strings.Join(on, " AND ") + ")"
	if len(sets) > 0 {
		sql += " WHEN MATCHED THEN UPDATE SET " + strings.Join(sets, ", ")
	}
	return sql + " WHEN NOT MATCHED THEN INSERT (" + strings.Join(all, ", ") + ") VALUES (" + strings.Join(staged, ", ") + ")"
}

// committed forgets what belonged to the last commit.
func (s *sink) committed() {
	if s.up != nil {
		s.up.rows, s.up.emptied, s.up.staged = false, false, false
	}
}

// reshape brings the tables that are written to a new shape. The rows before and
// after it are of one commit: the temporary table of an upsert has the columns of
// both.
func (s *sink) reshape(ctx context.Context, conn *duckarrow.Conn, sh *shape) error {
	real := *sh
	if s.up == nil {
		real.target = s.table.Name
	}
	t, err := readTable(ctx, conn, sh.schema, real.target)
	if err != nil {
		return err
	}
	sql, err := real.changes(ctx, conn, t)
	if err != nil {
		return err
	}
	s.shape = sh
	if s.up == nil {
		s.fed, s.named = fedSchema(sh.stream.Schema), false
	} else {
		for _, i := range s.feedStaged() {
			if s.up.staged {
				sql = append(sql, "ALTER TABLE "+s.staged()+" ADD COLUMN "+stagedName(i)+" "+s.up.columns[i].typ)
			}
		}
	}
	for _, stmt := range sql {
		if _, err := conn.Exec(ctx, stmt); err != nil {
			return err
		}
	}
	return nil
}

func sortedTargets(sinks map[messages.StreamID]*sink) []string {
	names := map[string]bool{}
	for _, s := range sinks {
		names[strings.ToLower(s.shape.target)] = true
	}
	return slices.Sorted(maps.Keys(names))
}
