package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// Discover lists the streams that are asked for, or all that this role can read.
func (s *Source) Discover(ctx context.Context, specs []connectors.StreamSpec) ([]connectors.Discovered, error) {
	var out []connectors.Discovered
	err := s.inspect(ctx, "discover the streams", func(conn *pgx.Conn) error {
		asked := len(specs) > 0
		if !asked {
			names, err := s.list(ctx, conn)
			if err != nil {
				return err
			}
			for _, n := range names {
				specs = append(specs, connectors.StreamSpec{Stream: s.streamID(n)})
			}
		}
		found, err := s.describeAll(ctx, conn, specs, func(err error) bool { return !asked && isLeftOut(err) })
		for _, d := range found {
			out = append(out, connectors.Discovered{StreamPlan: d.plan, Cursors: d.cursors(), View: d.rel.kind == kindView || d.rel.kind == kindMaterialised})
		}
		return err
	})
	return out, err
}

// isLeftOut reports whether discovery passes a relation by: one that cannot be a stream,
// or that has gone since it was listed.
func isLeftOut(err error) bool {
	e, ok := errors.AsType[*connectors.Error](err)
	return ok && (e.Code == messages.CodeSchemaEmpty || e.Code == messages.CodeSourceDenied || e.Code == messages.CodeStreamUnknown)
}

// list names what can be read, sorted as streams are: without the partitions of a table,
// which belong to it.
func (s *Source) list(ctx context.Context, conn *pgx.Conn) ([]qname, error) {
	rows, err := conn.Query(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
			AND n.nspname <> 'information_schema' AND n.nspname <> $1 AND n.nspname !~ '^pg_'
			AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')`, bookkeeping)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n qname, err error) {
		err = row.Scan(&n.schema, &n.name)
		return n, err
	})
	slices.SortFunc(names, func(a, b qname) int { return strings.Compare(string(s.streamID(a)), string(s.streamID(b))) })
	return names, err
}

// described is a stream as it is read.
type described struct {
	spec    connectors.StreamSpec
	rel     *relation
	plan    connectors.StreamPlan
	columns []attribute // that are read, in the order of the document
	text    []bool      // which of them travel as text
}

// describeAll describes streams, in order. skip, if not nil, decides which refusals leave a
// stream out; any other error ends it.
func (s *Source) describeAll(ctx context.Context, conn *pgx.Conn, specs []connectors.StreamSpec, skip func(error) bool) ([]*described, error) {
	relations, err := s.resolve(ctx, conn, specs)
	if err != nil {
		return nil, err
	}
	var out []*described
	for i, spec := range specs {
		d, err := s.describe(ctx, conn, spec, relations[i])
		if err != nil && skip != nil && skip(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// describe decides how one stream is read.
func (s *Source) describe(ctx context.Context, conn *pgx.Conn, spec connectors.StreamSpec, rel *relation) (*described, error) {
	if rel == nil {
		return nil, s.unknown(ctx, conn, spec.Stream)
	}
	d := &described{spec: spec, rel: rel}
	if err := d.project(); err != nil {
		return nil, err
	}
	if err := s.mayRead(ctx, conn, d); err != nil {
		return nil, err
	}
	fields := make([]arrow.Field, len(d.columns))
	d.text = make([]bool, len(d.columns))
	for i, c := range d.columns {
		fields[i], d.text[i] = codec.Field(c.Column, s.wantsText(rel, c))
	}
	d.plan = connectors.StreamPlan{Stream: spec.Stream, Schema: arrow.NewSchema(fields, nil), Key: d.key(), Rows: rel.rows}
	return d, d.probe(ctx, conn)
}

// project finds the columns that are read.
func (d *described) project() error {
	fail := func(kind connectors.Kind, code messages.Code, field string, err error) error {
		e := streamError("plan the stream", kind, code, d.spec.Stream, err)
		e.Place.Field = field
		return e
	}
	if len(d.rel.columns) == 0 {
		return fail(connectors.KindSchema, messages.CodeSchemaEmpty, "", errors.New("the table has no columns"))
	}
	if len(d.spec.Columns) == 0 {
		d.columns = d.rel.columns
		return nil
	}
	for _, name := range d.spec.Columns {
		c, ok := d.rel.column(name)
		if !ok {
			return fail(connectors.KindSchema, messages.CodeSchemaColumn, name, fmt.Errorf("the table has no column %q%s", name, nearest(name, d.rel.names(), "")))
		}
		if slices.ContainsFunc(d.columns, func(o attribute) bool { return o.Name == name }) {
			return fail(connectors.KindConfig, messages.CodeDocConflict, name, fmt.Errorf("column %q is listed twice", name))
		}
		d.columns = append(d.columns, c)
	}
	return nil
}

// names returns the names of the columns.
func (r *relation) names() []string {
	out := make([]string, len(r.columns))
	for i, c := range r.columns {
		out[i] = c.Name
	}
	return out
}

// mayRead refuses a table that this role cannot select from.
func (s *Source) mayRead(ctx context.Context, conn *pgx.Conn, d *described) error {
	all := d.rel.usage
	for _, c := range d.columns {
		all = all && c.readable
	}
	if all && !d.rel.rowSecurity {
		return nil
	}
	var role string
	if err := conn.QueryRow(ctx, "SELECT current_user::text").Scan(&role); err != nil {
		return err
	}
	if all {
		e := streamError("plan the stream", connectors.KindConfig, messages.CodeSourceDenied, d.spec.Stream,
			fmt.Errorf("row level security of %s would hide rows from this role", query.Qualified(d.rel.schema, d.rel.name)))
		e.Next = "Run as a superuser: ALTER ROLE " + query.Ident(role) + " BYPASSRLS; or read as the owner of the table."
		return e
	}
	e := streamError("plan the stream", connectors.KindConfig, messages.CodeSourceDenied, d.spec.Stream,
		fmt.Errorf("role %q may not read %s", role, query.Qualified(d.rel.schema, d.rel.name)))
	e.Next = "Run as its owner: " + d.rel.grant(role)
	return e
}

// wantsText reports whether the configuration lists the column or its type in as_text.
func (s *Source) wantsText(r *relation, c attribute) bool {
	for _, entry := range s.cfg.AsText {
		if entry == r.schema+"."+r.name+"."+c.Name || entry == r.name+"."+c.Name && r.schema == s.cfg.Schema {
			return true
		}
		for t := c.Type; t != nil; {
			if strings.EqualFold(entry, t.Name) || strings.EqualFold(entry, t.SQL) || strings.EqualFold(entry, t.Schema+"."+t.Name) {
				return true
			}
			if t.Base != nil {
				t = t.Base
			} else {
				t = t.Elem
			}
		}
	}
	return false
}

// key returns the primary key, if all of it is read and it holds for all rows.
func (d *described) key() []string {
	if len(d.spec.Key) > 0 {
		return d.spec.Key
	}
	if d.rel.inherited {
		return nil
	}
	for _, k := range d.rel.key {
		if !slices.ContainsFunc(d.columns, func(c attribute) bool { return c.Name == k }) {
			return nil
		}
	}
	return slices.Clone(d.rel.key)
}

// cursors suggests columns that grow: times of change, then of creation, then other
// times, then a key that counts.
func (d *described) cursors() []string {
	var changed, created, times, keys []string
	for _, c := range d.columns {
		name := strings.ToLower(c.Name)
		has := func(words ...string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
		}
		switch t := baseType(c.Type); {
		case t.Schema != "pg_catalog":
		case t.Name == "timestamp" || t.Name == "timestamptz":
			switch {
			case has("updat", "modif", "chang"):
				changed = append(changed, c.Name)
			case has("creat", "insert"):
				created = append(created, c.Name)
			default:
				times = append(times, c.Name)
			}
		case slices.Contains([]string{"int2", "int4", "int8"}, t.Name) && slices.Equal(d.rel.key, []string{c.Name}) && (c.identity != 0 || c.hasDefault):
			keys = append(keys, c.Name)
		}
	}
	return slices.Concat(changed, created, times, keys)
}

// baseType returns what a domain stands for.
func baseType(t *codec.Type) *codec.Type {
	for t.Base != nil {
		t = t.Base
	}
	return t
}

// probe lets the server parse the filter. It refuses what is no condition over this
// table, more than one statement, and a parameter.
func (d *described) probe(ctx context.Context, conn *pgx.Conn) error {
	if d.spec.Filter == "" {
		return nil
	}
	sql, err := query.Select(d.stream())
	if err == nil {
		var sd *pgconn.StatementDescription
		sd, err = conn.PgConn().Prepare(ctx, "", sql, nil)
		if err == nil && len(sd.ParamOIDs) > 0 {
			err = errors.New("it has parameters, and nothing can be bound to them")
		}
	}
	if err == nil {
		return nil
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok && ctx.Err() != nil || ok && len(pg.Code) == 5 && pg.Code[:2] != "42" && pg.Code[:2] != "22" {
		return err
	}
	e := streamError("plan the stream", connectors.KindConfig, messages.CodeDocValue, d.spec.Stream, fmt.Errorf("the filter: %w", err))
	e.Place.Field = "filter"
	return e
}

// stream is the query of all rows.
func (d *described) stream() query.Stream {
	out := query.Stream{Schema: d.rel.schema, Table: d.rel.name, Filter: d.spec.Filter}
	for i, c := range d.columns {
		out.Columns = append(out.Columns, query.Column{Name: c.Name, Text: d.text[i]})
	}
	return out
}
