package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// fitter collects what makes a stream fit its target.
type fitter struct {
	goal
	out      planned
	conn     *pgx.Conn
	table    *relation // the target as it is; nil: none
	slots    []slot
	types    *typeBook
	method   Swap // of a replace of a table that exists
	problems []*connectors.Error
}

// fitter looks at everything that a plan depends on. Problems that a user can solve are
// collected; an error is one of the server.
func (g goal) fitter(ctx context.Context, conn *pgx.Conn) (*fitter, error) {
	p := &fitter{goal: g, conn: conn, problems: g.sound()}
	if len(p.problems) > 0 {
		return p, nil
	}
	found, err := g.shelf.read(ctx, conn, g.target(), g.stage())
	if err != nil {
		return nil, err
	}
	p.table = found[g.target()]
	var bad []*connectors.Error
	if p.slots, bad = g.slots(p.table); len(bad) > 0 {
		p.problems = bad
		return p, nil
	}
	if p.types, err = g.readTypeBook(ctx, conn, p.slots); err != nil {
		return nil, err
	}
	if !p.types.schemaExists {
		p.add("CREATE SCHEMA IF NOT EXISTS "+query.Ident(g.cfg.Schema), "none")
	}
	if found[g.stage()] != nil {
		p.add("DROP TABLE "+g.stage().sql(), "ACCESS EXCLUSIVE on "+g.stage().String())
	}
	if p.table == nil {
		p.planNew()
		return p, p.checkName(ctx)
	}
	return p, p.planExisting(ctx)
}

func (p *fitter) add(sql, lock string) {
	p.out.statements = append(p.out.statements, statement{SQL: sql, Lock: lock})
}

func (p *fitter) bad(kind connectors.Kind, code messages.Code, field string, next string, err error) {
	e := p.fail(kind, code, field, err)
	e.Next = next
	p.problems = append(p.problems, e)
}

func (p *fitter) warn(code messages.Code, field, message, remedy string) {
	p.out.warnings = append(p.out.warnings, connectors.Finding{
		Severity: connectors.SeverityWarning, Code: code, Message: message, Remedy: remedy,
		Where: messages.Place{Stage: connectors.StageDestination, Stream: p.stream.Stream, Field: field},
	})
}

// checkName finds what else holds the name of a table that is to be created.
func (p *fitter) checkName(ctx context.Context) error {
	kind, err := p.shelf.holder(ctx, p.conn, p.target())
	if err == nil && kind != "" {
		p.bad(connectors.KindConfig, messages.CodeSchemaName, "", "Set `target:` for the stream.", fmt.Errorf("%s of that name exists", kind))
	}
	return err
}

// planNew creates the table, or the staging table that will be it.
func (p *fitter) planNew() {
	types := make([]resolved, len(p.slots))
	columns := make([]string, len(p.slots))
	for i, s := range p.slots {
		types[i] = p.resolve(s)
		columns[i] = columnSQL(s, types[i].sql)
	}
	p.addTypes()
	into := p.target()
	if p.mode == connectors.ModeReplace {
		into, p.out.stage = p.stage(), p.stage().name
	} else if p.keyIndexable(types) {
		columns = append(columns, "PRIMARY KEY ("+idents(p.stream.Key)+")")
	}
	p.add("CREATE TABLE "+into.sql()+" ("+strings.Join(columns, ", ")+")", "none")
	p.noteWidth()
}

// keyIndexable reports whether the stream's key can become a primary key. For an upsert
// it must.
func (p *fitter) keyIndexable(types []resolved) bool {
	if len(p.stream.Key) == 0 || len(p.stream.Key) > keyMax {
		return false
	}
	for _, k := range p.stream.Key {
		i := slices.IndexFunc(p.slots, func(s slot) bool { return s.name == k })
		if i < 0 {
			return false
		}
		if types[i].indexable {
			continue
		}
		if p.mode == connectors.ModeUpsert {
			p.bad(connectors.KindConfig, messages.CodeDocValue, k, "Name another key in `destination.primary_key`.",
				fmt.Errorf("the key column %s is %s, which cannot be indexed", k, types[i].sql))
		}
		return false
	}
	return true
}

// columnSQL defines a column as the stream has it.
func columnSQL(s slot, typ string) string {
	out := query.Ident(s.name) + " " + typ
	if !s.null {
		out += " NOT NULL"
	}
	return out
}

func idents(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = query.Ident(n)
	}
	return strings.Join(out, ", ")
}

// resolve finds or makes the type of a slot at the server.
func (p *fitter) resolve(s slot) resolved {
	r, err := p.types.resolve(s.want, 0)
	if err != nil {
		p.bad(connectors.KindSchema, messages.CodeSchemaType, s.name, err.next, fmt.Errorf("column %s: %s", s.name, err.why))
	}
	return r
}

// planExisting brings a table that exists to shape.
func (p *fitter) planExisting(ctx context.Context) error {
	if !p.writable() {
		return nil
	}
	p.problems = append(p.problems, p.fits(p.table, p.slots)...)
	missing := p.missing()
	for _, s := range p.slots {
		if s.has == nil {
			continue
		}
		if s.has.generated {
			p.warn(messages.CodeSchemaColumn, s.name, fmt.Sprintf("column %s is computed by the table and is left out", s.name), "")
			continue
		}
		p.types.widen(s.want, s.has.Type)
	}
	adds := make([]string, len(missing))
	for i, s := range missing {
		s.null = true // rows that are there have no value
		adds[i] = "ADD COLUMN " + columnSQL(s, p.resolve(s).sql)
	}
	p.addTypes()
	if n := len(p.table.columns) + len(adds); n > columnsMax {
		p.bad(connectors.KindSchema, messages.CodeSchemaColumn, "", "", fmt.Errorf("the table would have %d columns, it can have %d", n, columnsMax))
	}
	switch p.mode {
	case connectors.ModeReplace:
		return p.planReplace(ctx, adds)
	case connectors.ModeUpsert:
		p.checkKey()
	case connectors.ModeAppend:
	}
	p.alter(p.target(), adds)
	return nil
}

// addTypes makes and widens types, before what needs them.
func (p *fitter) addTypes() {
	p.out.statements = append(p.out.statements, p.types.statements...)
	p.out.alters = p.out.alters || len(p.types.statements) > 0
}

func (p *fitter) alter(table qname, adds []string) {
	if len(adds) > 0 {
		p.out.alters, p.out.locks = true, p.out.locks || table == p.target()
		p.add("ALTER TABLE "+table.sql()+" "+strings.Join(adds, ", "), "ACCESS EXCLUSIVE on "+table.String())
	}
}

// writable refuses targets that rows cannot be written to as they are.
func (p *fitter) writable() bool {
	what := map[byte]string{kindView: "a view", kindMaterialised: "a materialized view", kindForeign: "a foreign table"}[p.table.kind]
	if what != "" {
		p.bad(connectors.KindConfig, messages.CodeSchemaName, "", "Set `target:` for the stream, or drop it.", fmt.Errorf("%s of that name exists", what))
		return false
	}
	return true
}

// missing returns the columns to add; the policy may refuse them or leave them out.
func (p *fitter) missing() []slot {
	var out []slot
	written := 0
	for _, s := range p.slots {
		switch {
		case s.has != nil:
			if !s.has.generated {
				written++
			}
		case s.meta != "" || p.policy.NewColumn == connectors.ColumnAdd:
			out = append(out, s)
			written++
		case p.policy.NewColumn == connectors.ColumnIgnore:
			p.warn(messages.CodeSchemaColumn, s.name, fmt.Sprintf("column %s is not in the table %s and is left out", s.name, p.target()),
				"Set `schema_evolution.new_column: add`.")
		default:
			p.bad(connectors.KindSchema, messages.CodeSchemaColumn, s.name,
				"Set `schema_evolution.new_column: add`, or add the column.", fmt.Errorf("the table has no column %s", s.name))
		}
	}
	if written == 0 && len(p.problems) == 0 {
		p.bad(connectors.KindSchema, messages.CodeSchemaEmpty, "", "Set `schema_evolution.new_column: add`.", errors.New("the table has none of the stream's columns"))
	}
	return out
}

// checkKey wants an index by which the server can find the row of a key.
func (p *fitter) checkKey() {
	for _, k := range p.stream.Key {
		if a, ok := p.table.column(k); !ok {
			p.bad(connectors.KindSchema, messages.CodeSchemaColumn, k, "", fmt.Errorf("the table has no key column %s", k))
			return
		} else if a.generated {
			p.bad(connectors.KindConfig, messages.CodeDocConflict, k, "", fmt.Errorf("the key column %s is computed by the table", k))
			return
		}
	}
	if p.table.keyed(p.stream.Key) {
		return
	}
	p.bad(connectors.KindConfig, messages.CodeSchemaColumn, "",
		fmt.Sprintf("CREATE UNIQUE INDEX ON %s (%s);", p.target().sql(), idents(p.stream.Key)),
		fmt.Errorf("an upsert needs a unique index on exactly (%s), and the table has none", strings.Join(p.stream.Key, ", ")))
}

// keyed reports whether a unique index over exactly these columns exists.
func (r *relation) keyed(key []string) bool {
	want := slices.Sorted(slices.Values(key))
	return len(key) > 0 && slices.ContainsFunc(r.unique, func(u []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(u)), want)
	})
}

// planReplace makes the staging table in the shape of the target.
func (p *fitter) planReplace(ctx context.Context, adds []string) error {
	if len(p.problems) > 0 {
		return nil
	}
	d, err := readDependants(ctx, p.conn, p.table)
	if err != nil {
		return err
	}
	method, refusal := p.swapMethod(p.conn.Config().User, p.table, d)
	if refusal != nil {
		p.problems = append(p.problems, refusal)
		return nil
	}
	p.method, p.out.stage = method, p.stage().name
	p.out.warnings = append(p.out.warnings, d.warnings(p.goal, method)...)
	storage := ""
	if method == SwapRename {
		if storage, err = readStorage(ctx, p.conn, p.table.oid); err != nil {
			return err
		}
	} else {
		p.alter(p.target(), adds)
	}
	like := "DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY INCLUDING STORAGE INCLUDING COMMENTS"
	if serverVersion(p.conn) >= 14 {
		like += " INCLUDING COMPRESSION"
	}
	p.add(fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING %s)%s", p.stage().sql(), p.target().sql(), like, storage), "ACCESS SHARE on "+p.target().String())
	if method == SwapRename {
		p.alter(p.stage(), adds)
	}
	return nil
}

// readStorage spells how a table is stored, as CREATE TABLE takes it.
func readStorage(ctx context.Context, conn *pgx.Conn, oid uint32) (string, error) {
	var out string
	err := conn.QueryRow(ctx, `SELECT coalesce(' USING ' || quote_ident(m.amname), '')
			|| coalesce(' WITH (' || (SELECT string_agg(format('%s%I = %L', o.prefix, split_part(o.opt, '=', 1), substr(o.opt, strpos(o.opt, '=') + 1)), ', ')
				FROM (SELECT '' AS prefix, unnest(c.reloptions) AS opt UNION ALL SELECT 'toast.', unnest(x.reloptions)) AS o) || ')', '')
			|| coalesce(' TABLESPACE ' || quote_ident(s.spcname), '')
		FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
			LEFT JOIN pg_catalog.pg_class x ON x.oid = c.reltoastrelid
		WHERE c.oid = $1`, oid).Scan(&out)
	return out, err
}

// pageRoom is what one page has for a row whose values are all moved out of line as far
// as they can be.
const pageRoom = 8160

// fixedWidths are the bytes of types that stay in the row; every other value leaves a
// pointer of 18 bytes there.
var fixedWidths = map[string]int{
	"bool": 1, "int2": 2, "int4": 4, "int8": 8, "float4": 4, "float8": 8, "date": 4, "time": 8, "timetz": 12, "timestamp": 8, "timestamptz": 8,
	"uuid": 16, "interval": 16, "oid": 4, "char": 1, "money": 8,
}

// noteWidth warns of rows that may not fit a page when every column has a long value.
func (p *fitter) noteWidth() {
	width := 24 + (len(p.slots)+7)/8
	for _, s := range p.slots {
		n, fixed := fixedWidths[s.want.Name]
		if !fixed || s.want.Schema != catalogSchema {
			n = 18
		}
		width += n
	}
	if width > pageRoom {
		p.warn(messages.CodeSchemaColumn, "", fmt.Sprintf("rows of %d columns may be too big: with a long value in each they take %d bytes of a page that has %d", len(p.slots), width, pageRoom),
			"Leave columns out with `streams[].columns`.")
	}
}

func serverVersion(conn *pgx.Conn) int {
	return serverMajor(conn.PgConn().ParameterStatus("server_version"))
}
