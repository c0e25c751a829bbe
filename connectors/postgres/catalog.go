package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
)

// qname is the name of a relation, exactly as the catalogue has it.
type qname struct{ schema, name string }

// The kinds of relations that hold or show rows.
const (
	kindTable        byte = 'r'
	kindPartitioned  byte = 'p'
	kindView         byte = 'v'
	kindMaterialised byte = 'm'
	kindForeign      byte = 'f'
)

// relation is a table or a view at the server, as it is now.
type relation struct {
	oid       uint32
	schema    string
	name      string
	kind      byte // one of the kinds above
	owner     string
	partition bool // of another table
	unlogged  bool
	inherited bool // other tables inherit from it: its keys say nothing about their rows
	heap      bool // rows of it, and of all that belong to it, have a ctid in a heap

	columns []attribute // live ones, in the order of the table
	key     []string    // primary key, in the order of its index; empty: none
	unique  [][]string  // columns of valid, immediate indexes over all rows and no expression, the primary key first
	leading []string    // columns that lead a valid btree index over all rows

	pages int64 // as last counted by the server, over all that belong to it; 0 also when it is not known
	rows  int64 // likewise

	usage       bool // the current role may use the schema
	readable    bool // the current role may select all columns
	rowSecurity bool // policies filter what the current role sees
	triggers    bool // an enabled trigger of a user
	rowTriggers bool // one of them runs before the insert or update of a row, and may change or drop it
}

// attribute is a column of a relation.
type attribute struct {
	codec.Column
	num        int
	generated  bool   // computed from other columns
	identity   byte   // 'a' always, 'd' by default, 0 none
	hasDefault bool   // also when it is generated
	collation  string // as a statement spells it; empty: the type's own
	readable   bool   // the current role may select it
	bytewise   bool   // equal values of a text are equal bytes
}

// qname returns the relation's name.
func (r *relation) qname() qname { return qname{r.schema, r.name} }

// column finds a column by its exact name.
func (r *relation) column(name string) (attribute, bool) {
	i := slices.IndexFunc(r.columns, func(a attribute) bool { return a.Name == name })
	if i < 0 {
		return attribute{}, false
	}
	return r.columns[i], true
}

// readRelation reads one relation; nil when there is none of that name.
func readRelation(ctx context.Context, conn *pgx.Conn, schema, name string) (*relation, error) {
	n := qname{schema, name}
	found, err := readRelations(ctx, conn, []qname{n})
	return found[n], err
}

// readRelations reads the relations that exist, in a number of round trips that does
// not depend on how many there are.
func readRelations(ctx context.Context, conn *pgx.Conn, names []qname) (map[qname]*relation, error) {
	schemas, tables := make([]string, len(names)), make([]string, len(names))
	for i, n := range names {
		schemas[i], tables[i] = n.schema, n.name
	}
	restore, err := plainPath(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("read relations: %w", err)
	}
	defer restore()
	out, byOID := make(map[qname]*relation), make(map[uint32]*relation)
	rows, err := conn.Query(ctx, relationsSQL, schemas, tables)
	if err != nil {
		return nil, fmt.Errorf("read relations: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanRelation)
	if err != nil {
		return nil, fmt.Errorf("read relations: %w", err)
	}
	oids := make([]uint32, len(all))
	for i, r := range all {
		out[r.qname()], byOID[r.oid], oids[i] = r, r, r.oid
	}
	if len(oids) == 0 {
		return out, nil
	}
	var columns []columnRow
	one := []any{oids}
	got := conn.SendBatch(ctx, &pgx.Batch{QueuedQueries: []*pgx.QueuedQuery{
		{SQL: treesSQL, Arguments: one}, {SQL: indexesSQL, Arguments: one}, {SQL: columnsSQL, Arguments: one},
	}})
	err = errors.Join(readTrees(got, byOID), readIndexes(got, byOID))
	if err == nil {
		columns, err = next(got, func(rows pgx.Rows) ([]columnRow, error) { return pgx.CollectRows(rows, scanColumn) })
	}
	if closing := got.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return nil, fmt.Errorf("read relations: %w", err)
	}
	if err := addColumns(ctx, conn, columns, byOID); err != nil {
		return nil, fmt.Errorf("read columns: %w", err)
	}
	return out, nil
}

// plainPath empties the search_path until restore is called: names inside of defaults and
// checks are then spelled with their schemas.
func plainPath(ctx context.Context, conn *pgx.Conn) (restore func(), err error) {
	var before string
	got := conn.SendBatch(ctx, &pgx.Batch{QueuedQueries: []*pgx.QueuedQuery{
		{SQL: "SELECT current_setting('search_path')"}, {SQL: "SELECT set_config('search_path', 'pg_catalog', false)"},
	}})
	if err = got.QueryRow().Scan(&before); err == nil {
		_, err = got.Exec()
	}
	if closing := got.Close(); err == nil {
		err = closing
	}
	if err != nil { // the path is as it was: all of it was one transaction
		return nil, err
	}
	return func() {
		_, _ = conn.Exec(ctx, "SELECT set_config('search_path', $1, false)", before) // a transaction that failed rolls it back
	}, nil
}

const relationsSQL = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, pg_get_userbyid(c.relowner)::text, c.relispartition, c.relpersistence = 'u',
	coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_table_privilege(c.oid, 'SELECT'), false),
	c.relrowsecurity AND row_security_active(c.oid),
	EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'),
	EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0)
FROM unnest($1::text[], $2::text[]) AS w(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')`

func scanRelation(row pgx.CollectableRow) (*relation, error) {
	r, kind := &relation{}, ""
	err := row.Scan(&r.oid, &r.schema, &r.name, &kind, &r.owner, &r.partition, &r.unlogged,
		&r.usage, &r.readable, &r.rowSecurity, &r.triggers, &r.rowTriggers)
	if kind != "" {
		r.kind = kind[0]
	}
	return r, err
}

// treesSQL sums over each relation and all partitions and inheritors of it. The counts of
// a partitioned table itself stand for its partitions and are left out.
const treesSQL = `
WITH RECURSIVE tree(root, oid) AS (
	SELECT o, o FROM unnest($1::oid[]) AS o
	UNION
	SELECT tree.root, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
SELECT tree.root,
	coalesce(sum(greatest(c.relpages, 0)) FILTER (WHERE c.relkind <> 'p'), 0)::int8,
	coalesce(sum(greatest(c.reltuples, 0)::float8) FILTER (WHERE c.relkind <> 'p'), 0)::int8,
	bool_and(CASE c.relkind WHEN 'p' THEN true WHEN 'r' THEN m.amname = 'heap' WHEN 'm' THEN m.amname = 'heap' ELSE false END),
	count(*) > 1 AND bool_or(c.oid = tree.root AND c.relkind = 'r')
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
GROUP BY tree.root`

func readTrees(got pgx.BatchResults, byOID map[uint32]*relation) error {
	rows, err := got.Query()
	if err != nil {
		return err
	}
	var oid uint32
	var pages, count int64
	var heap, inherited bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &pages, &count, &heap, &inherited}, func() error {
		r := byOID[oid]
		r.pages, r.rows, r.heap, r.inherited = pages, count, heap, inherited
		return nil
	})
	return err
}

const columnsSQL = `
SELECT a.attrelid, a.attnum::int4, a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull,
	a.attgenerated <> '', a.attidentity::text, a.atthasdef, coalesce(has_column_privilege(a.attrelid, a.attnum, 'SELECT'), false),
	coalesce(l.collisdeterministic, true),
	CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(n.nspname) || '.' || quote_ident(l.collname) ELSE '' END
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum`

// columnRow is a column as it was read, before its type is known.
type columnRow struct {
	attribute
	of       uint32
	typ      typeRef
	identity string
}

func scanColumn(row pgx.CollectableRow) (c columnRow, err error) {
	err = row.Scan(&c.of, &c.num, &c.Name, &c.typ.oid, &c.typ.mod, &c.typ.text, &c.NotNull,
		&c.generated, &c.identity, &c.hasDefault, &c.readable, &c.bytewise, &c.collation)
	return c, err
}

// addColumns gives the relations their columns, in the order in which they were read.
func addColumns(ctx context.Context, conn *pgx.Conn, all []columnRow, byOID map[uint32]*relation) error {
	refs := make([]typeRef, len(all))
	for i, c := range all {
		refs[i] = c.typ
	}
	types, err := readTypes(ctx, conn, refs)
	if err != nil {
		return err
	}
	for i, c := range all {
		c.Type = types[i]
		if c.identity != "" {
			c.attribute.identity = c.identity[0]
		}
		byOID[c.of].columns = append(byOID[c.of].columns, c.attribute)
	}
	return nil
}

const indexesSQL = `
SELECT i.indrelid, i.indisprimary, i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL,
	m.amname = 'btree' AND i.indpred IS NULL AND i.indkey[0] <> 0,
	ARRAY(SELECT coalesce(a.attname::text, '') FROM generate_series(0, i.indnkeyatts - 1) AS k
		LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k] AND a.attnum <> 0 ORDER BY k)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam
WHERE i.indrelid = ANY($1) AND i.indisvalid
ORDER BY i.indrelid, NOT i.indisprimary, i.indexrelid`

func readIndexes(got pgx.BatchResults, byOID map[uint32]*relation) error {
	rows, err := got.Query()
	if err != nil {
		return err
	}
	var oid uint32
	var primary, unique, leads bool
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&oid, &primary, &unique, &leads, &columns}, func() error {
		r := byOID[oid]
		if primary {
			r.key = slices.Clone(columns)
		}
		if unique {
			r.unique = append(r.unique, slices.Clone(columns))
		}
		if leads && !slices.Contains(r.leading, columns[0]) {
			r.leading = append(r.leading, columns[0])
		}
		return nil
	})
	return err
}

// grant spells what lets role read the relation.
func (r *relation) grant(role string) string {
	var out []string
	if !r.usage {
		out = append(out, "GRANT USAGE ON SCHEMA "+query.Ident(r.schema)+" TO "+query.Ident(role)+";")
	}
	if !r.readable {
		out = append(out, "GRANT SELECT ON "+query.Qualified(r.schema, r.name)+" TO "+query.Ident(role)+";")
	}
	return strings.Join(out, " ")
}
