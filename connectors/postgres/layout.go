package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/messages"
)

// layout is how rows of the stream go into the table, or into the staging table, as it
// is now.
type layout struct {
	schema, table   string // that rows are written to: the target, or the staging table
	oid             uint32
	columns         []layoutColumn // in the order in which rows are sent: the stream's, then metadata
	key             []string       // of an upsert
	computed        []string       // columns of the stream that the table computes
	keyed           bool           // a unique index on exactly key exists
	rowTriggers     bool           // a trigger may change or drop a row before it is written
	generatedAlways bool           // some written column is GENERATED ALWAYS AS IDENTITY: INSERT needs OVERRIDING SYSTEM VALUE
}

// layoutColumn is one column that is written.
type layoutColumn struct {
	name      string
	field     int         // of the stream's schema; -1: metadata
	typ       *codec.Type // of the table's column, with OIDs of this server
	meta      string      // "", ColumnRun, ColumnLoadedAt
	collation string      // as a statement spells it; empty: the type's own
	lax       bool        // equal values need not be the same: 1.0 and 1.00
}

// layout reads what a writer needs to know. stage is the name of the staging table; empty
// stands for the target itself.
func (g goal) layout(ctx context.Context, conn *pgx.Conn, stage string) (*layout, error) {
	into := g.into(stage)
	t, err := readRelation(ctx, conn, into.schema, into.name)
	if err != nil {
		return nil, g.classify(ctx, err)
	}
	return g.layoutOf(into, t)
}

// into is the table that rows are written to.
func (g goal) into(stage string) qname {
	if stage != "" {
		return qname{g.cfg.Schema, stage}
	}
	return g.target()
}

// layoutOf is the layout of rows in t, the table into; nil: there is none.
func (g goal) layoutOf(into qname, t *relation) (*layout, error) {
	if t == nil {
		e := g.fail(connectors.KindSchema, messages.CodeDestMissing, "", fmt.Errorf("the table %s is gone", into))
		e.Next = "Restore it, or load again with `--full-refresh`."
		return nil, e
	}
	slots, bad := g.slots(t)
	if bad = append(bad, g.fits(t, slots)...); len(bad) > 0 {
		return nil, bad[0]
	}
	l := &layout{schema: t.schema, table: t.name, oid: t.oid, rowTriggers: t.rowTriggers}
	for _, s := range slots {
		switch {
		case s.has == nil && s.meta == "" && g.policy.NewColumn == connectors.ColumnIgnore:
			continue
		case s.has != nil && s.has.generated:
			l.computed = append(l.computed, s.name)
			continue
		case s.has == nil:
			return nil, g.fail(connectors.KindSchema, messages.CodeSchemaColumn, s.name, fmt.Errorf("the table %s has no column %s any more", into, s.name))
		}
		l.generatedAlways = l.generatedAlways || s.has.identity == 'a'
		l.columns = append(l.columns, layoutColumn{
			name: s.name, field: s.field, typ: s.has.Type, meta: s.meta, collation: s.has.collation,
			lax: s.has.identity == 0 && (!s.has.bytewise || laxType(s.has.Type)),
		})
	}
	if len(l.columns) == 0 {
		return nil, g.fail(connectors.KindSchema, messages.CodeSchemaEmpty, "", errors.New("the table has none of the stream's columns"))
	}
	if g.mode == connectors.ModeUpsert {
		l.key, l.keyed = g.stream.Key, t.keyed(g.stream.Key)
	}
	return l, nil
}

// laxType reports whether values of t may be equal and look different.
func laxType(t *codec.Type) bool {
	for t.Kind == codec.KindDomain && t.Base != nil || t.Kind == codec.KindArray && t.Elem != nil {
		if t.Kind == codec.KindDomain {
			t = t.Base
		} else {
			t = t.Elem
		}
	}
	switch {
	case t.Kind == codec.KindEnum:
		return false
	case t.Kind != codec.KindBase || t.Schema != catalogSchema:
		return true
	}
	return slices.Contains([]string{"numeric", "float4", "float8", "interval", "jsonb"}, t.Name)
}
