package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
)

// typeRef names a type with its modifier, and how format_type spells it.
type typeRef struct {
	oid  uint32
	mod  int32
	text string
}

// typeRow is one row of pg_type with what belongs to it.
type typeRow struct {
	oid      uint32
	schema   string
	name     string
	kind     byte   // typtype, or codec.KindArray
	bare     string // as format_type spells it without a modifier
	elem     uint32 // of an array
	base     typeRef
	notNull  bool
	def      string // default of a domain, as SQL
	labels   []string
	checks   []codec.Check
	attNames []string // of a composite
	attRefs  []typeRef
}

const typesSQL = `
SELECT t.oid, n.nspname::text, t.typname::text, CASE WHEN e.oid IS NOT NULL THEN 'A' ELSE t.typtype::text END, format_type(t.oid, NULL),
	coalesce(e.oid, 0::oid), t.typbasetype, t.typtypmod, coalesce(format_type(nullif(t.typbasetype, 0), t.typtypmod), ''),
	t.typnotnull, coalesce(pg_get_expr(t.typdefaultbin, 0), ''),
	ARRAY(SELECT l.enumlabel::text FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid ORDER BY l.enumsortorder),
	ARRAY(SELECT k.conname::text FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.conname),
	ARRAY(SELECT pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c' ORDER BY k.conname),
	ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
	ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
	ARRAY(SELECT a.atttypmod FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
	ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
WHERE t.oid = ANY($1)`

func scanType(row pgx.CollectableRow) (*typeRow, error) {
	t, kind := &typeRow{}, ""
	var checks, defs, texts []string
	var oids []uint32
	var mods []int32
	err := row.Scan(&t.oid, &t.schema, &t.name, &kind, &t.bare, &t.elem, &t.base.oid, &t.base.mod, &t.base.text,
		&t.notNull, &t.def, &t.labels, &checks, &defs, &t.attNames, &oids, &mods, &texts)
	if err != nil {
		return nil, err
	}
	t.kind = kind[0]
	for i := range checks {
		t.checks = append(t.checks, codec.Check{Name: checks[i], Definition: defs[i]})
	}
	for i := range oids {
		t.attRefs = append(t.attRefs, typeRef{oids[i], mods[i], texts[i]})
	}
	return t, nil
}

// readTypes returns the types of refs, complete: one round trip per level of nesting.
func readTypes(ctx context.Context, conn *pgx.Conn, refs []typeRef) ([]*codec.Type, error) {
	known := make(typeSet)
	wanted, asked := []uint32(nil), make(map[uint32]bool)
	want := func(oid uint32) {
		if oid != 0 && !asked[oid] {
			asked[oid] = true
			wanted = append(wanted, oid)
		}
	}
	for _, r := range refs {
		want(r.oid)
	}
	for len(wanted) > 0 {
		rows, err := conn.Query(ctx, typesSQL, wanted)
		if err != nil {
			return nil, err
		}
		level, err := pgx.CollectRows(rows, scanType)
		if err != nil {
			return nil, err
		}
		wanted = nil
		for _, t := range level {
			known[t.oid] = t
			want(t.elem)
			want(t.base.oid)
			for _, a := range t.attRefs {
				want(a.oid)
			}
		}
	}
	out := make([]*codec.Type, len(refs))
	built := make(map[typeRef]*codec.Type)
	for i, r := range refs {
		t, ok := built[r]
		if !ok {
			var err error
			if t, err = known.build(r, 0); err != nil {
				return nil, err
			}
			built[r] = t
		}
		out[i] = t
	}
	return out, nil
}

// typeSet holds types by OID.
type typeSet map[uint32]*typeRow

// nestingMax bounds a chain of types. The server forbids cycles, and has no such limit.
const nestingMax = 64

// build makes the type of r from what was read.
func (s typeSet) build(r typeRef, depth int) (*codec.Type, error) {
	row := s[r.oid]
	if row == nil || depth > nestingMax {
		return nil, fmt.Errorf("type %s (%d) has changed while it was read, or is nested too deeply", r.text, r.oid)
	}
	t := &codec.Type{OID: r.oid, Schema: row.schema, Name: row.name, Mod: r.mod, Kind: codec.Kind(row.kind), Labels: row.labels}
	var err error
	switch {
	case row.elem != 0:
		if t.Elem, err = s.build(typeRef{row.elem, r.mod, strings.TrimSuffix(r.text, "[]")}, depth+1); err != nil {
			return nil, err
		}
		t.SQL = t.Elem.SQL + "[]"
		return t, nil
	case row.base.oid != 0:
		t.NotNull, t.Default, t.Checks = row.notNull, row.def, row.checks
		if t.Base, err = s.build(row.base, depth+1); err != nil {
			return nil, err
		}
	}
	for i, a := range row.attRefs {
		of, err := s.build(a, depth+1)
		if err != nil {
			return nil, err
		}
		t.Attributes = append(t.Attributes, codec.Attribute{Name: row.attNames[i], Type: of})
	}
	t.SQL = row.spell(r)
	return t, nil
}

// spell writes the type as a statement does under any search_path: what format_type makes
// of a name outside pg_catalog depends on it, the modifier behind the name does not.
func (t *typeRow) spell(r typeRef) string {
	if t.schema == "pg_catalog" {
		return strings.TrimPrefix(r.text, "pg_catalog.")
	}
	return query.Qualified(t.schema, t.name) + strings.TrimPrefix(r.text, t.bare)
}
