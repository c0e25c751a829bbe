package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
)

// typeBook resolves the types that columns want against those of the server. What a
// type says about itself came with the data and is never part of a statement as it is:
// built-in types are spelled by the server, names are quoted, only the checks of a domain
// are taken over, in a statement that can hold nothing else.
type typeBook struct {
	schema       string // where missing types are made
	schemaExists bool
	found        map[leaf][]foundType  // types of that name at the server, by what a column wants
	defs         map[qname]*codec.Type // definitions of those that users make
	made         map[qname]resolved    // by the name at the source
	statements   []statement           // that make and widen types, in order
	widened      map[qname][]string    // labels that statements add
}

// leaf is a named type with its modifier.
type leaf struct {
	schema, name string
	mod          int32
}

// resolved is a type of the server, or one that a statement of the book makes.
type resolved struct {
	sql       string // as a statement spells it
	indexable bool   // a btree can hold it
}

// foundType is a type of the server.
type foundType struct {
	oid          uint32
	schema, name string
	kind         codec.Kind
	bare, text   string // as format_type spells it, without and with the modifier
	btree        bool   // a btree can hold it
}

// spell writes the type as a statement does under any search_path.
func (f foundType) spell() string {
	return (&typeRow{schema: f.schema, name: f.name, bare: f.bare}).spell(typeRef{f.oid, -1, f.text})
}

// typeError says why a type cannot be had.
type typeError struct{ why, next string }

func newTypeBook(schema string) *typeBook {
	return &typeBook{
		schema: schema, found: make(map[leaf][]foundType), defs: make(map[qname]*codec.Type),
		made: make(map[qname]resolved), widened: make(map[qname][]string),
	}
}

func (g goal) readTypeBook(ctx context.Context, conn *pgx.Conn, slots []slot) (*typeBook, error) {
	b := newTypeBook(g.cfg.Schema)
	for _, s := range slots {
		b.collect(s.want, 0)
	}
	if g.shelf.types(b) {
		return b, nil
	}
	if err := b.look(ctx, conn); err != nil {
		return nil, fmt.Errorf("look types up: %w", err)
	}
	return b, nil
}

// collect notes the named types that t consists of.
func (b *typeBook) collect(t *codec.Type, depth int) {
	if t == nil || depth > nestingMax {
		return
	}
	if t.Kind == codec.KindArray {
		b.collect(t.Elem, depth+1)
		return
	}
	b.found[leafOf(t)] = nil
	b.collect(t.Base, depth+1)
	for _, a := range t.Attributes {
		b.collect(a.Type, depth+1)
	}
}

func leafOf(t *codec.Type) leaf { return leaf{t.Schema, t.Name, t.Mod} }

// findSQL finds types by name in any schema. A type can be indexed by the operators of
// its own kind or of a type that it is binary coercible to.
const findSQL = `
SELECT w.n, t.oid, n.nspname::text, t.typname::text, t.typtype::text, format_type(t.oid, NULL), format_type(t.oid, w.mod),
	t.typtype IN ('e', 'r', 'm') OR EXISTS (
		SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
		WHERE o.opcdefault AND (o.opcintype = t.oid OR EXISTS (
			SELECT FROM pg_catalog.pg_cast k WHERE k.castsource = t.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i')))
FROM unnest($1::text[], $2::int4[]) WITH ORDINALITY AS w(name, mod, n)
JOIN pg_catalog.pg_type t ON t.typname = w.name
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
ORDER BY w.n, n.nspname`

// look reads what the server has under the names, and the definitions of what users made.
func (b *typeBook) look(ctx context.Context, conn *pgx.Conn) error {
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", b.schema).Scan(&b.schemaExists); err != nil {
		return err
	}
	leaves := slices.Collect(maps.Keys(b.found))
	names, mods := make([]string, len(leaves)), make([]int32, len(leaves))
	for i, l := range leaves {
		names[i], mods[i] = l.name, l.mod
	}
	rows, err := conn.Query(ctx, findSQL, names, mods)
	if err != nil {
		return err
	}
	var n int64
	var kind string
	var own []typeRef
	var t foundType
	_, err = pgx.ForEachRow(rows, []any{&n, &t.oid, &t.schema, &t.name, &kind, &t.bare, &t.text, &t.btree}, func() error {
		t.kind = codec.Kind(kind[0])
		b.found[leaves[n-1]] = append(b.found[leaves[n-1]], t)
		if userMade(t.kind) {
			own = append(own, typeRef{t.oid, -1, t.bare})
		}
		return nil
	})
	if err != nil || len(own) == 0 {
		return err
	}
	defs, err := readTypes(ctx, conn, own)
	for _, d := range defs {
		b.defs[qname{d.Schema, d.Name}] = d
	}
	return err
}

// userMade reports whether types of a kind can be created from their definition alone.
func userMade(k codec.Kind) bool {
	return k == codec.KindEnum || k == codec.KindDomain || k == codec.KindComposite
}

// resolve finds t at the server, or notes the statements that make it.
func (b *typeBook) resolve(t *codec.Type, depth int) (resolved, *typeError) {
	switch {
	case t == nil || depth > nestingMax:
		return resolved{}, &typeError{why: "its type is incomplete, or nested too deeply"}
	case t.Kind == codec.KindArray:
		r, err := b.resolve(t.Elem, depth+1)
		r.sql += "[]"
		return r, err
	case userMade(t.Kind):
		return b.userType(t, depth)
	}
	var best *foundType
	for i, f := range b.found[leafOf(t)] {
		if f.schema == t.Schema {
			best = &b.found[leafOf(t)][i]
			break
		}
		// A type of an extension may be in any schema.
		if t.Schema != catalogSchema && f.schema != catalogSchema && f.kind == t.Kind && (best == nil || f.schema == b.schema) {
			best = &b.found[leafOf(t)][i]
		}
	}
	if best == nil {
		return resolved{}, noType(t)
	}
	return resolved{sql: best.spell(), indexable: best.btree}, nil
}

// extensionOf names the extensions that bring types which people have in tables.
var extensionOf = map[string]string{
	"citext": "citext", "hstore": "hstore", "ltree": "ltree", "lquery": "ltree", "ltxtquery": "ltree", "cube": "cube", "seg": "seg", "isbn": "isn", "isbn13": "isn",
	"ean13": "isn", "issn": "isn", "geometry": "postgis", "geography": "postgis", "raster": "postgis_raster", "vector": "vector", "halfvec": "vector", "sparsevec": "vector",
	"query_int": "intarray", "semver": "semver", "uint8": "uint", "hll": "hll", "h3index": "h3", "roaringbitmap": "roaringbitmap", "bitemp": "bitemp",
}

func noType(t *codec.Type) *typeError {
	e := &typeError{
		why:  fmt.Sprintf("the server has no type %s", qname{t.Schema, t.Name}),
		next: fmt.Sprintf("Create the type %s, or cast the column to text in a transform.", qname{t.Schema, t.Name}),
	}
	if ext := extensionOf[t.Name]; ext != "" && t.Schema != catalogSchema {
		e.next = "CREATE EXTENSION " + query.Ident(ext) + ";"
	}
	return e
}

// userType finds or makes an enum, a domain or a composite type: first where it is at the
// source, then where targets are.
func (b *typeBook) userType(t *codec.Type, depth int) (resolved, *typeError) {
	name := qname{t.Schema, t.Name}
	if r, ok := b.made[name]; ok {
		return r, nil
	}
	if why := badName(t.Name); why != "" {
		return resolved{}, &typeError{why: fmt.Sprintf("the type name %q %s", clipName(t.Name), why)}
	}
	own := qname{b.schema, t.Name}
	r := resolved{sql: name.sql(), indexable: b.sortable(t, 0)}
	if have := b.defs[name]; have != nil && name != own && sameType(t, have, false) {
		b.made[name] = r
		return r, nil
	}
	r.sql = own.sql()
	if have := b.defs[own]; have != nil {
		if !sameType(t, have, true) {
			return resolved{}, &typeError{
				why:  fmt.Sprintf("the type %s exists and is %s, the stream has %s", own, describeType(have), describeType(t)),
				next: "Drop or rename that type, or load into another schema.",
			}
		}
		b.widen(t, have)
		b.made[name] = r
		return r, nil
	}
	if others := b.found[leafOf(t)]; slices.ContainsFunc(others, func(f foundType) bool { return f.schema == own.schema }) {
		return resolved{}, &typeError{why: fmt.Sprintf("the type %s exists and is of another kind than %s", own, describeType(t)), next: "Drop or rename that type, or load into another schema."}
	}
	for other, made := range b.made {
		if made.sql == r.sql && other != name {
			return resolved{}, &typeError{why: fmt.Sprintf("the types %s and %s have one name in schema %s", other, name, b.schema), next: "Rename one of them."}
		}
	}
	if err := b.create(t, own, depth); err != nil {
		return resolved{}, err
	}
	b.made[name] = r
	return r, nil
}

// create notes the statement that makes t, behind those of what it consists of.
func (b *typeBook) create(t *codec.Type, own qname, depth int) *typeError {
	var sql string
	switch t.Kind {
	case codec.KindEnum:
		labels := make([]string, len(t.Labels))
		for i, l := range t.Labels {
			labels[i] = query.Literal(l)
		}
		sql = "CREATE TYPE " + own.sql() + " AS ENUM (" + strings.Join(labels, ", ") + ")"
	case codec.KindComposite:
		attributes := make([]string, len(t.Attributes))
		for i, a := range t.Attributes {
			r, err := b.resolve(a.Type, depth+1)
			if err != nil {
				return err
			}
			attributes[i] = query.Ident(a.Name) + " " + r.sql
		}
		sql = "CREATE TYPE " + own.sql() + " AS (" + strings.Join(attributes, ", ") + ")"
	default:
		r, err := b.resolve(t.Base, depth+1)
		if err != nil {
			return err
		}
		sql = "CREATE DOMAIN " + own.sql() + " AS " + r.sql
		if t.NotNull {
			sql += " NOT NULL"
		}
		for _, c := range t.Checks {
			if !strings.HasPrefix(c.Definition, "CHECK (") {
				return &typeError{why: fmt.Sprintf("the check %q of domain %s is not one", clipName(c.Name), own)}
			}
			sql += " CONSTRAINT " + query.Ident(c.Name) + " " + c.Definition
		}
	}
	b.statements = append(b.statements, statement{SQL: sql, Lock: "none"})
	return nil
}

// sortable reports whether a btree can hold values of t.
func (b *typeBook) sortable(t *codec.Type, depth int) bool {
	switch {
	case t == nil || depth > nestingMax:
		return false
	case t.Kind == codec.KindArray:
		return b.sortable(t.Elem, depth+1)
	case t.Kind == codec.KindEnum:
		return true
	case t.Kind == codec.KindDomain:
		return b.sortable(t.Base, depth+1)
	case t.Kind == codec.KindComposite:
		return !slices.ContainsFunc(t.Attributes, func(a codec.Attribute) bool { return !b.sortable(a.Type, depth+1) })
	}
	return slices.ContainsFunc(b.found[leafOf(t)], func(f foundType) bool { return f.schema == t.Schema && f.btree })
}

// sameType reports whether a column of type have holds exactly the values of want, under
// the same names. wider allows enums that lack labels at the server: they can be added.
func sameType(want, have *codec.Type, wider bool) bool {
	if want == nil || have == nil || want.Kind != have.Kind {
		return want == have
	}
	switch want.Kind {
	case codec.KindArray:
		return sameType(want.Elem, have.Elem, wider)
	case codec.KindEnum:
		return want.Name == have.Name && sameOrder(want.Labels, have.Labels) && (wider || len(missingLabels(want.Labels, have.Labels)) == 0)
	case codec.KindDomain:
		return want.Name == have.Name && want.NotNull == have.NotNull && sameType(want.Base, have.Base, wider) && slices.Equal(definitions(want), definitions(have))
	case codec.KindComposite:
		return want.Name == have.Name && slices.EqualFunc(want.Attributes, have.Attributes, func(a, b codec.Attribute) bool {
			return a.Name == b.Name && sameType(a.Type, b.Type, wider)
		})
	default:
		return want.Name == have.Name && want.Mod == have.Mod && (want.Schema == catalogSchema) == (have.Schema == catalogSchema)
	}
}

func definitions(t *codec.Type) []string {
	out := make([]string, len(t.Checks))
	for i, c := range t.Checks {
		out[i] = c.Definition
	}
	slices.Sort(out)
	return out
}

func missingLabels(want, have []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(l string) bool { return slices.Contains(have, l) })
}

// sameOrder reports whether the labels that both have are in one order.
func sameOrder(want, have []string) bool {
	at := -1
	for _, l := range want {
		i := slices.Index(have, l)
		if i >= 0 && i < at {
			return false
		}
		at = max(at, i)
	}
	return true
}

// widen adds the labels that the enums of have lack, each behind the one that it
// follows in want.
func (b *typeBook) widen(want, have *codec.Type) {
	if !sameType(want, have, true) {
		return
	}
	switch want.Kind {
	case codec.KindArray:
		b.widen(want.Elem, have.Elem)
	case codec.KindDomain:
		b.widen(want.Base, have.Base)
	case codec.KindComposite:
		for i := range want.Attributes {
			b.widen(want.Attributes[i].Type, have.Attributes[i].Type)
		}
	case codec.KindEnum:
		b.widenEnum(want.Labels, qname{have.Schema, have.Name}, have.Labels)
	default:
	}
}

func (b *typeBook) widenEnum(want []string, name qname, have []string) {
	for i, l := range want {
		if slices.Contains(have, l) || slices.Contains(b.widened[name], l) {
			continue
		}
		b.widened[name] = append(b.widened[name], l)
		sql := "ALTER TYPE " + name.sql() + " ADD VALUE IF NOT EXISTS " + query.Literal(l)
		switch {
		case i > 0:
			sql += " AFTER " + query.Literal(want[i-1])
		case len(have) > 0:
			sql += " BEFORE " + query.Literal(have[0])
		}
		b.statements = append(b.statements, statement{SQL: sql, Lock: "none"})
	}
}

// describeType says what a type is, for a message.
func describeType(t *codec.Type) string {
	switch t.Kind {
	case codec.KindEnum:
		return "an enum of (" + clipName(strings.Join(t.Labels, ", ")) + ")"
	case codec.KindDomain:
		return "a domain over " + typeText(t.Base) + " " + clipName(strings.Join(definitions(t), " "))
	case codec.KindComposite:
		names := make([]string, len(t.Attributes))
		for i, a := range t.Attributes {
			names[i] = a.Name + " " + typeText(a.Type)
		}
		return "a composite type of (" + clipName(strings.Join(names, ", ")) + ")"
	default:
		return t.SQL
	}
}

func typeText(t *codec.Type) string {
	if t == nil {
		return "nothing"
	}
	return t.SQL
}
