package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// follow is how an incremental stream is read: in the order of its keys, behind a
// position, up to a bound that was read before the snapshot was taken.
type follow struct {
	Keys     []followKey `json:"keys"`           // cursor, then tie-breakers
	Unique   bool        `json:"unique"`         // no two rows share a position
	Apart    bool        `json:"apart"`          // nor, of the tie-breakers alone, do rows without a cursor
	UpTo     *string     `json:"upto,omitempty"` // greatest cursor to read; nil: there is none
	Lookback string      `json:"lookback,omitempty"`
	First    bool        `json:"nulls_first,omitempty"` // rows without a cursor are read, once, before the others
}

// followKey is a column by which rows are ordered.
type followKey struct {
	Column string              `json:"column"`
	Type   string              `json:"type"`                // as a cast spells it
	Schema string              `json:"operators,omitempty"` // of its operators, empty: pg_catalog
	Cursor messages.CursorType `json:"cursor"`
	At     int                 `json:"at"`    // its column of the split
	Exact  bool                `json:"exact"` // equal values have equal texts
}

// keys returns the keys as a query has them.
func (f *follow) keys() []query.Key {
	out := make([]query.Key, len(f.Keys))
	for i, k := range f.Keys {
		out[i] = query.Key{Column: k.Column, Type: k.Type, Schema: k.Schema}
	}
	return out
}

// continues reports whether the positions of was mean something to fresh.
func (f *follow) continues(was, fresh *readSplit) bool {
	return was.Follow != nil && was.Relation == fresh.Relation && slices.EqualFunc(was.Follow.Keys, f.Keys, func(a, b followKey) bool {
		return a.Column == b.Column && a.Type == b.Type && a.Cursor == b.Cursor
	})
}

// cursorTypes are the server's own types that a cursor column can have.
var cursorTypes = map[string]messages.CursorType{
	"int2": messages.CursorInt64, "int4": messages.CursorInt64, "int8": messages.CursorInt64,
	"text": messages.CursorText, "varchar": messages.CursorText, "bpchar": messages.CursorText, "name": messages.CursorText,
	"timestamp": messages.CursorTimestamp, "timestamptz": messages.CursorTimestampTZ, "date": messages.CursorDate,
	"numeric": messages.CursorNumeric, "float4": messages.CursorNumeric, "float8": messages.CursorNumeric, "uuid": messages.CursorUUID,
}

// key decides how a column orders rows; what names it in an error.
func (p *scanPlanner) key(ctx context.Context, d *described, c attribute, what string) (followKey, error) {
	t := baseType(c.Type)
	k := followKey{Column: c.Name, Type: query.Qualified(t.Schema, t.Name), Cursor: messages.CursorText}
	if known, ok := cursorTypes[t.Name]; ok && t.Schema == "pg_catalog" {
		k.Cursor = known
		switch t.Name {
		case "numeric", "float4", "float8": // 1.0 is 1.00, 0 is -0
			_, k.Exact = d.decimal(c)
		default:
			k.Exact = c.bytewise
		}
		return k, nil
	}
	if t.Kind == codec.KindEnum {
		k.Exact = true
		return k, nil
	}
	// Any other type orders by its default operator class, which may be an extension's.
	err := p.conn.QueryRow(ctx, `SELECT n.nspname::text FROM pg_catalog.pg_opclass c
		JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
		JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amoplefttype = c.opcintype AND o.amoprighttype = c.opcintype AND o.amopstrategy = 5
		JOIN pg_catalog.pg_operator f ON f.oid = o.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = f.oprnamespace
		WHERE c.opcdefault AND c.opcintype = $1`, t.OID).Scan(&k.Schema)
	if errors.Is(err, pgx.ErrNoRows) {
		e := streamError("plan the stream", connectors.KindConfig, messages.CodeDocValue, d.spec.Stream,
			fmt.Errorf("column %q of type %s has no order", c.Name, c.Type.SQL))
		e.Place.Field, e.Next = what, "Name another column."
		return k, e
	}
	if k.Schema == "pg_catalog" {
		k.Schema = ""
	}
	return k, err
}

// decimal reports whether a column is read as a decimal, whose texts all have its scale.
func (d *described) decimal(c attribute) (at int, ok bool) {
	at = slices.IndexFunc(d.columns, func(o attribute) bool { return o.Name == c.Name })
	return at, at >= 0 && isDecimal(d.plan.Schema.Field(at).Type)
}

// bound is what is known of an incremental stream before the snapshot.
type bound struct {
	keys []followKey
	upto *string
}

// readBounds reads, for each incremental stream, up to which cursor it is read, and then
// waits for whoever may still add rows below it.
func (p *scanPlanner) readBounds(ctx context.Context) error {
	p.bounds = make([]bound, len(p.streams))
	var wait []*described
	for i, d := range p.streams {
		switch d.spec.Sync {
		case connectors.SyncIncremental:
		case connectors.SyncFullRefresh, "":
			continue
		default:
			return noSyncMode(d.spec)
		}
		var err error
		if p.bounds[i].keys, err = p.keys(ctx, d); err != nil {
			return err
		}
		if p.bounds[i].upto, err = p.upto(ctx, d, p.bounds[i].keys[0]); err != nil {
			return p.source.classify(ctx, "read the upper bound of the cursor", d.spec.Stream, err)
		}
		if d.strict() && !p.request.Preview {
			wait = append(wait, d)
		}
	}
	if len(wait) == 0 {
		return nil
	}
	if err := p.requireStrict(ctx, wait); err != nil {
		return err
	}
	return p.waitForWriters(ctx, wait)
}

// strict reports whether rows that commit late must be waited for.
func (d *described) strict() bool {
	return d.spec.Sync == connectors.SyncIncremental && (d.spec.CursorMode == "" || d.spec.CursorMode == cursorStrict)
}

func noSyncMode(spec connectors.StreamSpec) error {
	e := streamError("plan the stream", connectors.KindConfig, messages.CodeNotAvailable, spec.Stream, fmt.Errorf("a PostgreSQL source has no sync mode %q here", spec.Sync))
	e.Place.Field = "sync_mode"
	return e
}

// The cursor modes of the document.
const (
	cursorStrict   = "strict"
	cursorLookback = "lookback"
)

// keys returns cursor and tie-breakers of a stream.
func (p *scanPlanner) keys(ctx context.Context, d *described) ([]followKey, error) {
	names, fields := []string{d.spec.CursorField}, []string{"cursor_field"}
	switch {
	case d.spec.TieBreaker != "":
		names, fields = append(names, d.spec.TieBreaker), append(fields, "tie_breaker_field")
	default:
		for _, k := range d.rel.key {
			names, fields = append(names, k), append(fields, "cursor_field")
		}
	}
	var out []followKey
	for i, name := range names {
		if i > 0 && name == names[0] {
			continue // the cursor is part of the key
		}
		c, ok := d.rel.column(name)
		if !ok {
			e := streamError("plan the stream", connectors.KindSchema, messages.CodeSchemaColumn, d.spec.Stream,
				fmt.Errorf("the table has no column %q%s", name, nearest(name, d.rel.names(), "")))
			e.Place.Field = fields[i]
			return nil, e
		}
		k, err := p.key(ctx, d, c, fields[i])
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	if d.spec.CursorMode == cursorLookback && !isTime(out[0].Cursor) {
		e := streamError("plan the stream", connectors.KindConfig, messages.CodeDocValue, d.spec.Stream,
			fmt.Errorf("cursor_mode lookback looks back in time, and column %q is no time", d.spec.CursorField))
		e.Place.Field, e.Next = "cursor_mode", "Use cursor_mode strict."
		return nil, e
	}
	return out, nil
}

func isTime(t messages.CursorType) bool {
	return t == messages.CursorTimestamp || t == messages.CursorTimestampTZ || t == messages.CursorDate
}

// upto returns the greatest cursor that is read now, nil if there is none. A time that is
// far ahead of the server's clock would hide all that comes: it is left for later.
func (p *scanPlanner) upto(ctx context.Context, d *described, k followKey) (*string, error) {
	cursor := query.Qualified(d.rel.name, k.Column) // alone it would mean a column of the result in ORDER BY
	sql := "SELECT " + cursor + "::text, false, NULL FROM "
	if isTime(k.Cursor) {
		sql = "SELECT least(" + cursor + ", (now() + interval '24 hours')::" + k.Type + ")::text, " +
			cursor + " > (now() + interval '24 hours')::" + k.Type + ", (now() + interval '24 hours')::text FROM "
	}
	sql += query.Qualified(d.rel.schema, d.rel.name) + "\nWHERE " + cursor + " IS NOT NULL"
	if d.spec.Filter != "" {
		sql += " AND (\n" + d.spec.Filter + "\n)"
	}
	var upto, ahead *string
	var future bool
	err := p.conn.QueryRow(ctx, sql+"\nORDER BY "+cursor+" DESC LIMIT 1").Scan(&upto, &future, &ahead)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no row has a cursor
	}
	if err == nil && future {
		p.plan.Warnings = append(p.plan.Warnings, connectors.Finding{
			Severity: connectors.SeverityWarning, Code: messages.CodeValueRange, Where: messages.Place{Stream: d.spec.Stream, Stage: connectors.StageSource, Field: k.Column},
			Message: fmt.Sprintf("rows of %s with a cursor after %s are left for later: they lie ahead of the server's clock", d.spec.Stream, *ahead),
			Remedy:  "Correct the times in the future, or wait until they have come.",
		})
	}
	return upto, err
}

// followed plans the one part of an incremental stream.
func (p *scanPlanner) followed(ctx context.Context, d *described, b bound, id messages.LoadID) ([]connectors.Part, error) {
	s := d.split()
	f := &follow{Keys: slices.Clone(b.keys), UpTo: b.upto, First: d.spec.NullCursor == "first"}
	if d.spec.CursorMode == cursorLookback {
		f.Lookback = fmt.Sprintf("%d microseconds", d.spec.Lookback.Microseconds())
	}
	for i, k := range f.Keys {
		f.Keys[i].At = s.place(d, k)
	}
	all := d.rel.names()
	f.Unique, f.Apart = d.unique(f.Keys), d.unique(f.Keys[1:])
	for i, k := range f.Keys {
		c := d.rel.columns[slices.Index(all, k.Column)]
		if c.NotNull || i == 0 && d.spec.NullCursor != "" && d.spec.NullCursor != "fail" {
			continue
		}
		if err := p.refuseNulls(ctx, d, c.Name, i == 0); err != nil {
			return nil, err
		}
	}
	s.Follow = f
	return partsOf(d, []readSplit{s}, id)
}

// place returns the column of the split whose text is the position of k. One that the
// stream does not have, or not exactly, is read beside it as text.
func (s *readSplit) place(d *described, k followKey) int {
	for i := range d.columns {
		if d.columns[i].Name == k.Column && hasText(d.plan.Schema.Field(i).Type) {
			return i
		}
	}
	c, _ := d.rel.column(k.Column)
	s.Columns = append(s.Columns, splitColumn{Name: c.Name, Type: c.Type, NotNull: c.NotNull, Text: true})
	return len(s.Columns) - 1
}

// unique reports whether no two rows have the same values of keys.
func (d *described) unique(keys []followKey) bool {
	return !d.rel.inherited && slices.ContainsFunc(append(slices.Clone(d.rel.unique), d.rel.key), func(set []string) bool {
		return len(set) > 0 && !slices.ContainsFunc(set, func(name string) bool {
			return !slices.ContainsFunc(keys, func(k followKey) bool { return k.Column == name })
		})
	})
}

// refuseNulls fails if a row of the snapshot has no value where an order needs one.
func (p *scanPlanner) refuseNulls(ctx context.Context, d *described, column string, cursor bool) error {
	sql := "SELECT count(*) FROM " + query.Qualified(d.rel.schema, d.rel.name) + " WHERE " + query.Ident(column) + " IS NULL"
	if d.spec.Filter != "" {
		sql += " AND (\n" + d.spec.Filter + "\n)"
	}
	var n int64
	if err := p.conn.QueryRow(ctx, sql).Scan(&n); err != nil || n == 0 {
		return err
	}
	e := streamError("plan the stream", connectors.KindData, messages.CodeValueRange, d.spec.Stream,
		fmt.Errorf("%d rows of stream %s have no value in column %q", n, d.spec.Stream, column))
	e.Place.Field, e.Next = column, "Name a tie_breaker_field that is never NULL."
	if cursor {
		e.Next = "Give them one, or set null_cursor to first (read them once) or ignore (leave them out)."
	}
	return e
}

// position is what a reader has read of an incremental stream.
type followPosition struct {
	nulls  bool     // it stands in the pass over rows without a cursor
	begun  bool     // that pass is over, no row with a cursor has been read
	values []string // of the keys; in the pass over NULLs: of the tie-breakers
}

// The texts of an opaque cursor that stand for places outside of the values.
const (
	markNulls = "null"  // among the rows without a cursor
	markBegin = "begin" // behind them, before all others
)

// cursor returns p as it is kept.
func (f *follow) cursor(p followPosition) messages.Cursor {
	var parts []messages.Cursor
	keys := f.Keys
	switch {
	case p.begun:
		return messages.Cursor{Type: messages.CursorOpaque, Value: markBegin}
	case p.nulls:
		parts, keys = append(parts, messages.Cursor{Type: messages.CursorOpaque, Value: markNulls}), keys[1:]
	case len(p.values) == 0:
		return messages.Cursor{}
	}
	for i, v := range p.values {
		parts = append(parts, messages.Cursor{Type: keys[i].Cursor, Value: v})
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return messages.TupleCursor(parts...)
}

// parse reads a position that was kept.
func (f *follow) parse(c messages.Cursor) (p followPosition, err error) {
	if c.IsZero() {
		return p, nil
	}
	parts := []messages.Cursor{c}
	if c.Type == messages.CursorTuple {
		parts = c.Parts
	}
	want := f.Keys
	if len(parts) > 0 && parts[0].Type == messages.CursorOpaque {
		switch parts[0].Value {
		case markBegin:
			return followPosition{begun: true}, nil
		case markNulls:
			p.nulls, parts, want = true, parts[1:], want[1:]
		}
	}
	if len(parts) != len(want) && (!p.nulls || len(parts) > 0) {
		return p, fmt.Errorf("the position has %d parts, want %d", len(parts), len(want))
	}
	for i, part := range parts {
		if part.Type != want[i].Cursor {
			return p, fmt.Errorf("part %d of the position is %s, want %s", i+1, part.Type, want[i].Cursor)
		}
		p.values = append(p.values, part.Value)
	}
	return p, nil
}

// decodeSplit reads what planning wrote.
func decodeSplit(raw json.RawMessage) (*readSplit, error) {
	s := new(readSplit)
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	if len(s.Columns) == 0 || s.Visible < 1 || s.Visible > len(s.Columns) {
		return nil, errors.New("it has no columns")
	}
	if f := s.Follow; f != nil {
		if len(f.Keys) == 0 || slices.ContainsFunc(f.Keys, func(k followKey) bool { return k.At < 0 || k.At >= len(s.Columns) }) {
			return nil, errors.New("its keys are not among its columns")
		}
	}
	return s, nil
}
