package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// dependant is what a new table under the old name would not take over.
type dependant struct {
	what string // one of the kinds below
	name string // for a message: "view public.v"
}

// The kinds of dependants that matter beyond that they are there.
const (
	dependsRule     = "rule"     // of the table itself: it rewrites what is written
	dependsIncoming = "incoming" // a foreign key of another table
	dependsCascade  = "cascade"  // likewise, and rows of that table go or change with the ones here
	dependsReplica  = "replica"  // a publication that cannot say which row was deleted
	dependsOther    = "other"
)

// dependants are why a table cannot be replaced by renaming.
type dependants []dependant

func (d dependants) of(kinds ...string) []string {
	var out []string
	for _, x := range d {
		for _, k := range kinds {
			if x.what == k {
				out = append(out, x.name)
			}
		}
	}
	return out
}

func (d dependants) String() string {
	const shown = 8
	names := make([]string, 0, shown)
	for i, x := range d {
		if i == shown {
			names = append(names, fmt.Sprintf("and %d more", len(d)-shown))
			break
		}
		names = append(names, x.name)
	}
	return strings.Join(names, ", ")
}

// dependantsSQL finds what is bound to a table's OID or row type, or belongs to it in a way
// that a new table cannot have. What it does not know is a dependant too: only what
// carry takes over is left out. $2 stands for publications by schema.
const dependantsSQL = `
WITH t AS MATERIALIZED (
	SELECT c.oid, c.relnamespace, c.relowner, c.relkind, c.relpersistence, c.reloftype, c.relrowsecurity, c.reltype, y.typarray,
		c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS blind
	FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_type y ON y.oid = c.reltype WHERE c.oid = $1),
d AS MATERIALIZED (
	SELECT d.classid, d.objid, d.objsubid, d.deptype FROM pg_catalog.pg_depend d, t
	WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = t.oid
	UNION
	SELECT d.classid, d.objid, d.objsubid, d.deptype FROM pg_catalog.pg_depend d, t
	WHERE d.refclassid = 'pg_catalog.pg_type'::regclass AND t.reltype <> 0 AND d.refobjid IN (t.reltype, t.typarray)),
r(what, name) AS (
	SELECT CASE WHEN v.oid = t.oid THEN 'rule' ELSE 'other' END,
		CASE WHEN v.relkind = 'v' THEN 'view ' WHEN v.relkind = 'm' THEN 'materialized view ' ELSE format('rule %I on ', w.rulename) END || format('%I.%I', n.nspname, v.relname)
	FROM t, d JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid
	JOIN pg_catalog.pg_class v ON v.oid = w.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
	UNION
	SELECT CASE WHEN k.conrelid = t.oid THEN 'other' WHEN k.confdeltype IN ('c', 'n', 'd') THEN 'cascade' ELSE 'incoming' END,
		format('foreign key %I of %I.%I', k.conname, n.nspname, c.relname)
	FROM t, pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE k.contype = 'f' AND (k.conrelid = t.oid OR k.confrelid = t.oid)
	UNION
	SELECT 'other', format('trigger %I', g.tgname) FROM t, pg_catalog.pg_trigger g WHERE g.tgrelid = t.oid AND NOT g.tgisinternal
	UNION
	SELECT 'other', format('policy %I', p.polname) FROM t, pg_catalog.pg_policy p WHERE p.polrelid = t.oid
	UNION
	SELECT 'other', 'row level security' FROM t WHERE t.relrowsecurity
	UNION
	SELECT CASE WHEN t.blind AND (p.pubdelete OR p.pubupdate) THEN 'replica' ELSE 'other' END, format('publication %I', p.pubname) FROM t, pg_catalog.pg_publication p
	WHERE p.puballtables AND t.relpersistence = 'p' OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel x WHERE x.prpubid = p.oid AND x.prrelid = t.oid)%s
	UNION
	SELECT 'other', 'a subscription' FROM t WHERE EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = t.oid)
	UNION
	SELECT 'other', CASE WHEN i.inhrelid = t.oid THEN format('parent %s', i.inhparent::regclass) ELSE format('child %s', i.inhrelid::regclass) END
	FROM t, pg_catalog.pg_inherits i WHERE i.inhrelid = t.oid OR i.inhparent = t.oid
	UNION
	SELECT 'other', 'its partitions' FROM t WHERE t.relkind = 'p'
	UNION
	SELECT 'other', 'that it is unlogged' FROM t WHERE t.relpersistence <> 'p'
	UNION
	SELECT 'other', 'its row type' FROM t WHERE t.reloftype <> 0
	UNION
	SELECT 'other', format('security label of %I', l.provider) FROM t, pg_catalog.pg_seclabel l WHERE l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = t.oid
	UNION
	SELECT 'other', pg_describe_object(d.refclassid, d.refobjid, 0) FROM t, pg_catalog.pg_depend d
	WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'x')
	UNION
	SELECT 'other', format('owner %I', pg_get_userbyid(t.relowner)) FROM t
	WHERE t.relowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
		AND NOT (pg_has_role(t.relowner, 'USAGE') AND (has_schema_privilege(t.relowner, t.relnamespace, 'CREATE') OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)))
	UNION
	SELECT 'other', pg_describe_object(d.classid, d.objid, d.objsubid) FROM t, d
	LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid
	LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid
	LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
	WHERE d.classid <> ALL (ARRAY['pg_rewrite', 'pg_trigger', 'pg_policy', 'pg_publication_rel', 'pg_statistic_ext']::regclass[])
		AND NOT coalesce(c.relkind IN ('i', 'I', 't') OR c.relkind = 'S' AND d.deptype IN ('a', 'i')
			OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = t.oid), false)
		AND NOT coalesce(k.conrelid = t.oid OR k.contype = 'f', false)
		AND NOT coalesce(a.adrelid = t.oid, false)
		AND NOT (d.classid = 'pg_catalog.pg_type'::regclass AND d.deptype = 'i'))
SELECT what, name FROM r ORDER BY what, name`

// readDependants finds what stands in the way of a new table under the old name.
func readDependants(ctx context.Context, conn *pgx.Conn, t *relation) (dependants, error) {
	bySchema := ""
	if serverVersion(conn) >= 15 {
		bySchema = " OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace x WHERE x.pnpubid = p.oid AND x.pnnspid = t.relnamespace)"
	}
	rows, err := conn.Query(ctx, strings.Replace(dependantsSQL, "%s\n", bySchema+"\n", 1), t.oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (dependant, error) {
		var d dependant
		err := row.Scan(&d.what, &d.name)
		return d, err
	})
}

// swapMethod decides how a replace of t becomes visible, or why it cannot.
func (g goal) swapMethod(role string, t *relation, d dependants) (Swap, *connectors.Error) {
	if len(d) == 0 && g.cfg.Swap != SwapMVCC {
		return SwapRename, nil
	}
	refuse := func(next, format string, args ...any) (Swap, *connectors.Error) {
		e := g.fail(connectors.KindConfig, messages.CodeDocConflict, "", fmt.Errorf(format, args...))
		e.Next = next
		return "", e
	}
	if g.cfg.Swap == SwapRename {
		return refuse("Set `swap: auto` or `swap: mvcc`, or drop them and create them again behind the run.",
			"`swap: rename` makes a new table, which would lose %s", d)
	}
	if names := d.of(dependsRule); len(names) > 0 {
		return refuse("Drop the rule for the load, or load into another table.", "%s rewrites what is written", strings.Join(names, ", "))
	}
	if names := d.of(dependsIncoming, dependsCascade); len(names) > 0 && g.mergeKey(t) == nil {
		return refuse(fmt.Sprintf("Give the table %s a primary key, or drop the foreign keys for the load.", t.qname()),
			"without a key all rows are deleted and inserted again, and %s refers to them", strings.Join(names, ", "))
	}
	if names := d.of(dependsReplica); len(names) > 0 {
		return refuse("ALTER TABLE "+t.qname().sql()+" REPLICA IDENTITY FULL;", "rows of a table without a key cannot be deleted while %s publishes it", strings.Join(names, ", "))
	}
	if t.rowSecurity {
		return refuse("ALTER ROLE "+query.Ident(role)+" BYPASSRLS;", "row level security hides rows of the table, which would stay")
	}
	return SwapMVCC, nil
}

// warnings tells what an in-place swap does beyond the table.
func (d dependants) warnings(g goal, m Swap) []connectors.Finding {
	names := d.of(dependsCascade)
	if m != SwapMVCC || len(names) == 0 {
		return nil
	}
	return []connectors.Finding{{
		Severity: connectors.SeverityWarning, Code: messages.CodeDocConflict, Where: messages.Place{Stage: connectors.StageDestination, Stream: g.stream.Stream},
		Message: fmt.Sprintf("rows that are gone from the source are deleted from %s, and %s deletes or changes the rows that refer to them", g.target(), strings.Join(names, ", ")),
	}}
}

// mergeKey returns the columns by which rows of the old and the new version are the same
// row; nil when there are none.
func (g goal) mergeKey(t *relation) []string {
	written := make(map[string]bool)
	for _, f := range g.stream.Schema.Fields() {
		written[f.Name] = true
	}
	usable := func(key []string) bool {
		for _, k := range key {
			if a, ok := t.column(k); !ok || !a.NotNull || a.generated || !written[k] {
				return false
			}
		}
		return len(key) > 0
	}
	if usable(g.stream.Key) && t.keyed(g.stream.Key) {
		return g.stream.Key
	}
	if usable(t.key) {
		return t.key
	}
	return nil
}
