package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// serverMin is the oldest server that is written to.
const serverMin = 12

// serverState is what a preflight wants to know of the server and of the role's rights,
// beyond the target.
type serverState struct {
	version                   int
	encoding                  string
	standby, readOnly         bool
	role, database            string
	createDatabase, temporary bool // the role may create schemas, temporary tables
	schema, schemaUse         bool // the schema of targets exists, the role may use it
	schemaCreate              bool // the role may create tables there
	book, bookUse             bool // the schema of the bookkeeping exists, the role may use it
	bookTables                int  // tables of the bookkeeping that exist
	bookDenied                []string
}

const serverSQL = `
SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'), pg_is_in_recovery(),
	current_setting('default_transaction_read_only') = 'on', current_user::text, current_database()::text,
	has_database_privilege(current_database(), 'CREATE'), has_database_privilege(current_database(), 'TEMPORARY'),
	s.oid IS NOT NULL, coalesce(has_schema_privilege(s.oid, 'USAGE'), false), coalesce(has_schema_privilege(s.oid, 'CREATE'), false),
	b.oid IS NOT NULL, coalesce(has_schema_privilege(b.oid, 'USAGE'), false),
	(SELECT count(*)::int FROM pg_catalog.pg_class c WHERE c.relnamespace = b.oid AND c.relkind = 'r'),
	ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = b.oid AND c.relkind = 'r'
		AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
		ORDER BY 1)
FROM (SELECT 1) AS one
LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = $1
LEFT JOIN pg_catalog.pg_namespace b ON b.nspname = $2`

func readServerState(ctx context.Context, conn *pgx.Conn, schema string) (serverState, error) {
	var s serverState
	err := conn.QueryRow(ctx, serverSQL, schema, bookkeeping).Scan(&s.version, &s.encoding, &s.standby, &s.readOnly, &s.role, &s.database,
		&s.createDatabase, &s.temporary, &s.schema, &s.schemaUse, &s.schemaCreate, &s.book, &s.bookUse, &s.bookTables, &s.bookDenied)
	return s, err
}

// report collects findings.
type report struct {
	goal
	found []connectors.Finding
}

// add notes a finding about the stream; one about the server has no stream, so that it is
// told once.
func (r *report) add(severity connectors.Severity, code messages.Code, ofStream bool, remedy, format string, args ...any) {
	f := connectors.Finding{Severity: severity, Code: code, Message: fmt.Sprintf(format, args...), Remedy: remedy, Where: messages.Place{Stage: connectors.StageDestination}}
	if ofStream {
		f.Where.Stream = r.stream.Stream
	}
	r.found = append(r.found, f)
}

// check looks for everything that would make the load fail, without changing anything.
func (g goal) check(ctx context.Context, conn *pgx.Conn) ([]connectors.Finding, error) {
	r := &report{goal: g}
	s, err := readServerState(ctx, conn, g.cfg.Schema)
	if err != nil {
		return nil, g.classify(ctx, err)
	}
	if r.server(s); s.version < serverMin {
		return r.found, nil // its catalogue has another form
	}
	p, err := g.fitter(ctx, conn)
	if err != nil {
		return nil, g.classify(ctx, err)
	}
	for _, problem := range p.problems {
		if f, ok := finding(problem); ok {
			r.found = append(r.found, f)
		}
	}
	r.found = append(r.found, p.out.warnings...)
	r.schemas(s, p)
	if p.table != nil {
		if err := r.table(ctx, conn, s, p); err != nil {
			return nil, g.classify(ctx, err)
		}
	}
	return r.found, r.types(ctx, conn, s, p)
}

// server reports what is wrong with the server whatever is loaded.
func (r *report) server(s serverState) {
	const bad = connectors.SeverityError
	if s.version < serverMin {
		r.add(bad, messages.CodeNotAvailable, false, "Upgrade the server.", "the server is PostgreSQL %d, and %d is the oldest that is written to", s.version, serverMin)
	}
	switch s.encoding {
	case "UTF8":
	case "SQL_ASCII":
		r.add(bad, messages.CodeDest, false, "CREATE DATABASE "+query.Ident(s.database+"_utf8")+" ENCODING 'UTF8' TEMPLATE template0;",
			"the database has the encoding SQL_ASCII: nobody could tell afterwards what its texts mean")
	default:
		r.add(connectors.SeverityWarning, messages.CodeDest, false, "Load into a database with ENCODING 'UTF8'.",
			"the database has the encoding %s: texts with characters that it lacks are refused", s.encoding)
	}
	switch {
	case s.standby:
		r.add(bad, messages.CodeDestDenied, false, "Name the primary server in `host`.", "the server is a hot standby and takes no writes")
	case s.readOnly:
		r.add(bad, messages.CodeDestDenied, false, fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET default_transaction_read_only = off;", query.Ident(s.role), query.Ident(s.database)),
			"transactions of role %s are read-only by default", s.role)
	}
}

// schemas reports rights that are missing on the database and on schemas.
func (r *report) schemas(s serverState, p *fitter) {
	const bad, denied = connectors.SeverityError, messages.CodeDestDenied
	role := query.Ident(s.role)
	if (!s.book || !s.schema) && !s.createDatabase {
		missing := bookkeeping
		if s.book {
			missing = r.cfg.Schema
		} else if !s.schema {
			missing = bookkeeping + " and " + r.cfg.Schema
		}
		r.add(bad, denied, false, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s;", query.Ident(s.database), role),
			"role %s may not create schemas in database %s, and %s must be created", s.role, s.database, missing)
	}
	if s.book && (!s.bookUse || len(s.bookDenied) > 0) {
		r.add(bad, denied, false, fmt.Sprintf("GRANT USAGE ON SCHEMA %[1]s TO %[2]s; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %[1]s TO %[2]s;", bookkeeping, role),
			"role %s lacks rights on the bookkeeping in schema %s", s.role, bookkeeping)
	}
	creates := p.table == nil || slices.ContainsFunc(p.out.statements, func(st statement) bool { return strings.HasPrefix(st.SQL, "CREATE ") })
	if s.schema && !s.schemaUse || s.schema && creates && !s.schemaCreate {
		rights := "USAGE"
		if creates {
			rights = "USAGE, CREATE"
		}
		r.add(bad, denied, false, fmt.Sprintf("GRANT %s ON SCHEMA %s TO %s;", rights, query.Ident(r.cfg.Schema), role),
			"role %s lacks %s on schema %s", s.role, rights, r.cfg.Schema)
	}
	if r.mode == connectors.ModeUpsert && !s.temporary {
		r.add(bad, denied, false, fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s;", query.Ident(s.database), role),
			"role %s may not create temporary tables, in which an upsert collects its rows", s.role)
	}
}

// rights are those that a load needs on its target.
func (r *report) rights(method Swap) []string {
	switch {
	case r.mode == connectors.ModeAppend:
		return []string{"INSERT"}
	case r.mode == connectors.ModeUpsert:
		return []string{"SELECT", "INSERT", "UPDATE"}
	case method == SwapRename:
		return []string{"SELECT", "DELETE"} // the latter for the lock
	default:
		return []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
	}
}

// table reports rights that are missing on a target that exists, and what hides its rows.
func (r *report) table(ctx context.Context, conn *pgx.Conn, s serverState, p *fitter) error {
	var missing []string
	var owns, super bool
	if err := conn.QueryRow(ctx, rightsSQL, p.table.oid, r.rights(p.method), p.written()).Scan(&missing, &owns, &super); err != nil {
		return err
	}
	name, role := p.table.qname(), query.Ident(s.role)
	if len(missing) > 0 {
		rights := strings.Join(missing, ", ")
		r.add(connectors.SeverityError, messages.CodeDestDenied, true, fmt.Sprintf("GRANT %s ON TABLE %s TO %s;", rights, name.sql(), role),
			"role %s lacks %s on table %s", s.role, rights, name)
	}
	alters := p.method == SwapRename
	for _, st := range p.out.statements {
		alters = alters || strings.HasPrefix(st.SQL, "ALTER TABLE "+name.sql()+" ")
	}
	if alters && !owns {
		r.add(connectors.SeverityError, messages.CodeDestDenied, true, ownership(super, "TABLE "+name.sql(), p.table.owner, s.role),
			"table %s must be altered, and only its owner %s may do that", name, p.table.owner)
	}
	if p.table.rowSecurity && r.mode != connectors.ModeReplace {
		r.add(connectors.SeverityError, messages.CodeDestDenied, true, fmt.Sprintf("ALTER ROLE %s BYPASSRLS;", role),
			"row level security of table %s applies to role %s, and COPY cannot write to it", name, s.role)
	}
	return nil
}

// rightsSQL finds the rights that are missing on a table: they may be granted on the
// columns $3 alone. A column cannot be deleted from.
const rightsSQL = `
SELECT ARRAY(SELECT w FROM unnest($2::text[]) WITH ORDINALITY AS x(w, n)
		WHERE NOT has_table_privilege(c.oid, w) AND NOT (w <> 'DELETE' AND cardinality($3::text[]) > 0 AND NOT EXISTS (
			SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($3)
				AND CASE w WHEN 'DELETE' THEN true ELSE NOT has_column_privilege(c.oid, a.attnum, w) END)) ORDER BY n),
	pg_has_role(c.relowner, 'USAGE'), (SELECT o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = c.relowner)
FROM pg_catalog.pg_class c WHERE c.oid = $1`

// written names the columns of a target that exists which rows are written to; none for a
// replace, which needs rights on the whole table.
func (p *fitter) written() []string {
	out := []string{}
	for _, s := range p.slots {
		if p.mode != connectors.ModeReplace && s.has != nil && !s.has.generated {
			out = append(out, s.name)
		}
	}
	return out
}

// ownership is the remedy for what only an owner may do. Nobody becomes a superuser for
// that.
func ownership(super bool, what, owner, role string) string {
	if super {
		return fmt.Sprintf("ALTER %s OWNER TO %s;", what, query.Ident(role))
	}
	return fmt.Sprintf("GRANT %s TO %s;", query.Ident(owner), query.Ident(role))
}

// types reports types that get new labels and belong to somebody else.
func (r *report) types(ctx context.Context, conn *pgx.Conn, s serverState, p *fitter) error {
	if p.types == nil {
		return nil
	}
	names := slices.SortedFunc(maps.Keys(p.types.widened), func(a, b qname) int { return strings.Compare(a.sql(), b.sql()) })
	for _, name := range names {
		var owner string
		var owns, super bool
		if err := conn.QueryRow(ctx, `SELECT o.rolname::text, pg_has_role(o.oid, 'USAGE'), o.rolsuper FROM pg_catalog.pg_type t JOIN pg_catalog.pg_roles o ON o.oid = t.typowner
			JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1 AND t.typname = $2`, name.schema, name.name).Scan(&owner, &owns, &super); err != nil {
			return r.classify(ctx, err)
		}
		if !owns {
			r.add(connectors.SeverityError, messages.CodeDestDenied, true, ownership(super, "TYPE "+name.sql(), owner, s.role),
				"the enum %s needs new labels, and only its owner %s may add them", name, owner)
		}
	}
	return nil
}
