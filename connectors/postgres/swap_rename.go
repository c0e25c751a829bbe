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
	"rapidbyte.io/node/runtime/mutant"
)

// piece is an index or a constraint of the target, which the staging table gets too. The
// names of indexes are taken until the old table is gone.
type piece struct {
	name       string // at the target
	constraint string // p, u, x, c; empty for an index alone
	space      string // tablespace of the index; empty: the default
	unique     bool
	method     string   // access method of the index
	body       string   // of the index: what follows the table's name in its definition
	definition string   // of the constraint
	deferring  string   // of the constraint: when it is checked
	after      []string // statements that need the final names
}

// indexed reports whether the piece is built as an index of its own first.
func (p piece) indexed() bool {
	return p.constraint == "" || p.method == "btree" && (p.constraint == "p" || p.constraint == "u")
}

const piecesSQL = `
SELECT x.name, x.contype, x.space, x.indisunique, x.amname,
	CASE WHEN starts_with(x.def, x.long) THEN substr(x.def, length(x.long) + 1) WHEN starts_with(x.def, x.short) THEN substr(x.def, length(x.short) + 1) ELSE '' END,
	x.condef, x.deferring, x.after
FROM (
	SELECT NOT i.indisprimary AS secondary, x.oid, x.relname::text AS name, coalesce(k.contype::text, '') AS contype, coalesce(s.spcname::text, '') AS space, i.indisunique,
		m.amname::text, pg_get_indexdef(x.oid) AS def,
		format('CREATE %sINDEX %I ON %I.%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, x.relname, n.nspname, t.relname) AS long,
		format('CREATE %sINDEX %I ON %I ', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, x.relname, t.relname) AS short,
		coalesce(pg_get_constraintdef(k.oid), '') AS condef,
		CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END AS deferring,
		array_remove(ARRAY[
			CASE WHEN obj_description(x.oid, 'pg_class') IS NOT NULL THEN format('COMMENT ON INDEX %I.%I IS %L', n.nspname, x.relname, obj_description(x.oid, 'pg_class')) END,
			CASE WHEN obj_description(k.oid, 'pg_constraint') IS NOT NULL
				THEN format('COMMENT ON CONSTRAINT %I ON %I.%I IS %L', k.conname, n.nspname, t.relname, obj_description(k.oid, 'pg_constraint')) END,
			CASE WHEN i.indisclustered THEN format('ALTER TABLE %I.%I CLUSTER ON %I', n.nspname, t.relname, x.relname) END,
			CASE WHEN i.indisreplident THEN format('ALTER TABLE %I.%I REPLICA IDENTITY USING INDEX %I', n.nspname, t.relname, x.relname) END], NULL)
			|| ARRAY(SELECT format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s', n.nspname, x.relname, a.attnum, a.attstattarget)
				FROM pg_catalog.pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0 AND i.indkey[a.attnum - 1] = 0) AS after
	FROM pg_catalog.pg_index i
	JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
	JOIN pg_catalog.pg_am m ON m.oid = x.relam
	JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
	LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = x.reltablespace
	LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
	WHERE i.indrelid = $1 AND i.indisvalid
	UNION ALL
	SELECT true, k.oid, k.conname::text, 'c', '', false, '', '', '', '', pg_get_constraintdef(k.oid), '',
		array_remove(ARRAY[CASE WHEN obj_description(k.oid, 'pg_constraint') IS NOT NULL
			THEN format('COMMENT ON CONSTRAINT %I ON %I.%I IS %L', k.conname, n.nspname, t.relname, obj_description(k.oid, 'pg_constraint')) END], NULL)
	FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class t ON t.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
	WHERE k.conrelid = $1 AND k.contype = 'c') AS x
ORDER BY x.contype = 'c', x.secondary, x.oid`

func (s *swapper) readPieces(ctx context.Context) ([]piece, error) {
	rows, err := s.tx.Query(ctx, piecesSQL, s.target.oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (piece, error) {
		var p piece
		err := row.Scan(&p.name, &p.constraint, &p.space, &p.unique, &p.method, &p.body, &p.definition, &p.deferring, &p.after)
		if err == nil && p.indexed() && p.body == "" {
			err = fmt.Errorf("the definition of index %s has a form that is not known", p.name)
		}
		return p, err
	})
}

// temp names the n-th piece while the old table has its name.
func (s *swapper) temp(n int) string { return fmt.Sprintf("%s_i%d", s.stage.name, n) }

// buildPieces gives the staging table the indexes and constraints of the target.
func (s *swapper) buildPieces(ctx context.Context) error {
	var err error
	if s.pieces, err = s.readPieces(ctx); err != nil {
		return err
	}
	table, space := s.stage.qname().sql(), ""
	for n, p := range s.pieces {
		temp := query.Ident(s.temp(n))
		if p.space != space {
			if _, err := s.tx.Exec(ctx, "SELECT set_config('default_tablespace', $1, true)", p.space); err != nil {
				return err
			}
			space = p.space
		}
		var sql []string
		if p.indexed() {
			unique := ""
			if p.unique {
				unique = "UNIQUE "
			}
			sql = append(sql, "CREATE "+unique+"INDEX "+temp+" ON "+table+" "+p.body)
		}
		switch p.constraint {
		case "":
		case "c":
			sql = append(sql, "ALTER TABLE "+table+" ADD CONSTRAINT "+query.Ident(p.name)+" "+p.definition)
		case "p", "u":
			if p.indexed() {
				kind := map[string]string{"p": "PRIMARY KEY", "u": "UNIQUE"}[p.constraint]
				sql = append(sql, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s USING INDEX %s%s", table, temp, kind, temp, p.deferring))
				break
			}
			fallthrough
		default:
			sql = append(sql, "ALTER TABLE "+table+" ADD CONSTRAINT "+temp+" "+p.definition)
		}
		for _, x := range sql {
			if err := s.exec(ctx, x); err != nil {
				return err
			}
		}
	}
	return nil
}

// rename puts the staging table in the place of the target, with everything that the
// target has.
func (s *swapper) rename(ctx context.Context) error {
	if err := s.lock(ctx, "ACCESS EXCLUSIVE"); err != nil {
		return err
	}
	changed, err := s.recheck(ctx)
	if err != nil {
		return err
	}
	if changed {
		if err := s.buildMergeKey(ctx); err != nil {
			return err
		}
		return s.merge(ctx)
	}
	before, after, err := s.carry(ctx)
	if err != nil {
		return err
	}
	target, stage := s.target.qname().sql(), s.stage.qname().sql()
	statements := slices.Concat(before, []string{"DROP TABLE " + target, "ALTER TABLE " + stage + " RENAME TO " + query.Ident(s.target.name)})
	if mutant.On(mutant.SwapTwice) {
		statements = slices.Insert(statements, len(before)+1, "COMMIT", "BEGIN")
	}
	for n, p := range s.pieces {
		if p.constraint != "c" {
			statements = append(statements, "ALTER INDEX "+query.Qualified(s.cfg.Schema, s.temp(n))+" RENAME TO "+query.Ident(p.name))
		}
	}
	for _, p := range s.pieces {
		statements = append(statements, p.after...)
	}
	for _, x := range append(statements, after...) {
		if err := s.exec(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// recheck decides again, now that nobody else can change the target: a view may have
// come while indexes were built.
func (s *swapper) recheck(ctx context.Context) (merge bool, err error) {
	old, pieces := s.target.oid, s.pieces
	if err := s.read(ctx, s.stage.name); err != nil {
		return false, err
	}
	if s.target == nil || s.stage == nil || s.target.oid != old {
		return false, s.moved(errors.New("another table took its name meanwhile"))
	}
	if err := s.decide(ctx); err != nil {
		return false, err
	}
	if s.method != SwapRename {
		return true, nil
	}
	now, err := s.readPieces(ctx)
	if err != nil {
		return false, err
	}
	same := slices.EqualFunc(pieces, now, func(a, b piece) bool {
		return a.name == b.name && a.constraint == b.constraint && a.body == b.body && a.definition == b.definition && a.unique == b.unique
	})
	if !same {
		return false, s.moved(errors.New("its indexes or constraints changed meanwhile"))
	}
	s.pieces = now
	return false, nil
}

// moved says that another try, from the beginning of the swap, will do.
func (s *swapper) moved(err error) error {
	return s.fail(connectors.KindTransient, messages.CodeDest, "", err)
}

// carrySQL spells what else the new table takes over, in order: $1 and $2 are the old
// and the new table, $3 is the new one as a statement spells it.
const carrySQL = `
WITH o AS (SELECT * FROM pg_catalog.pg_class WHERE oid = $1), n AS (SELECT * FROM pg_catalog.pg_class WHERE oid = $2),
seq AS (
	SELECT d.deptype, d.objid AS oid, d.refobjid AS owner, a.attname, format('%I.%I', sn.nspname, c.relname) AS spelled, c.relname, c.relacl, c.relowner, s.seqincrement, sn.nspname
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
	JOIN pg_catalog.pg_namespace sn ON sn.oid = c.relnamespace
	JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
	JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
	WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid IN ($1, $2) AND d.deptype IN ('a', 'i')),
idn AS (
	SELECT a.attname, a.spelled AS was, b.spelled AS cur, a.relname, a.relacl, a.relowner, a.oid,
		CASE WHEN a.seqincrement > 0 THEN 'max' ELSE 'min' END AS far, CASE WHEN a.seqincrement > 0 THEN '>=' ELSE '<=' END AS past
	FROM seq a JOIN seq b ON b.attname = a.attname AND b.owner = $2 AND b.deptype = 'i' WHERE a.owner = $1 AND a.deptype = 'i'),
acl AS (
	SELECT g.grantee, g.privilege_type, g.is_grantable, ''::text AS col, 0 AS phase, $3::text AS spelled
	FROM o, n, aclexplode(coalesce(o.relacl, acldefault('r', o.relowner))) AS g WHERE o.relacl IS NOT NULL OR n.relacl IS NOT NULL
	UNION ALL
	SELECT g.grantee, g.privilege_type, g.is_grantable, format(' (%I)', a.attname), 0, $3
	FROM pg_catalog.pg_attribute a, aclexplode(a.attacl) AS g WHERE a.attrelid = $1 AND NOT a.attisdropped AND a.attacl IS NOT NULL
	UNION ALL
	SELECT g.grantee, g.privilege_type, g.is_grantable, '', 1, i.cur FROM idn i, aclexplode(i.relacl) AS g WHERE i.relacl IS NOT NULL)
SELECT x.late, x.sql FROM (
	SELECT 10 AS at, '' AS by, false AS late, format('ALTER TABLE %s OWNER TO %I', $3, pg_get_userbyid(o.relowner)) AS sql FROM o, n WHERE o.relowner <> n.relowner
	UNION ALL
	SELECT DISTINCT 20, '', false, format('REVOKE ALL ON TABLE %s FROM %s CASCADE', $3, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
	FROM o, n, LATERAL (SELECT grantee FROM aclexplode(n.relacl) UNION SELECT o.relowner) AS g WHERE o.relacl IS NOT NULL OR n.relacl IS NOT NULL
	UNION ALL
	SELECT 30, a.spelled, false, format('GRANT %s ON %s %s TO %s%s', string_agg(a.privilege_type || a.col, ', '), CASE WHEN a.phase = 1 THEN 'SEQUENCE' ELSE 'TABLE' END, a.spelled,
		CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM acl a GROUP BY a.spelled, a.phase, a.grantee, a.is_grantable
	UNION ALL
	SELECT 40, '', false, format('COMMENT ON TABLE %s IS %L', $3, obj_description($1, 'pg_class')) WHERE obj_description($1, 'pg_class') IS NOT NULL
	UNION ALL
	SELECT 50, a.attname, false, format('ALTER TABLE %s ALTER COLUMN %I SET (%s)', $3, a.attname,
		(SELECT string_agg(format('%I = %L', split_part(x, '=', 1), substr(x, strpos(x, '=') + 1)), ', ') FROM unnest(a.attoptions) AS x))
	FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attoptions IS NOT NULL
	UNION ALL
	SELECT 51, a.attname, false, format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', $3, a.attname, a.attstattarget)
	FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0
	UNION ALL
	SELECT 60, s.spelled, false, format('ALTER SEQUENCE %s OWNED BY %s.%I', s.spelled, $3, s.attname) FROM seq s WHERE s.owner = $1 AND s.deptype = 'a'
	UNION ALL
	SELECT 70, i.cur, false, format('SELECT setval(%L, last_value, is_called) FROM %s', i.cur, i.was) FROM idn i
	UNION ALL
	SELECT 71, i.cur, false, format('SELECT setval(%L, %s(%I)) FROM %s HAVING %s(%I) %s (SELECT last_value FROM %s)',
		i.cur, i.far, i.attname, $3, i.far, i.attname, i.past, i.was) FROM idn i
	UNION ALL
	SELECT 80, '', false, format('ALTER TABLE %s REPLICA IDENTITY %s', $3, CASE o.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END) FROM o WHERE o.relreplident IN ('f', 'n')
	UNION ALL
	SELECT 90, i.cur, true, format('ALTER SEQUENCE %s RENAME TO %I', i.cur, i.relname) FROM idn i WHERE i.cur <> i.was
	UNION ALL
	SELECT 91, i.cur, true, format('COMMENT ON SEQUENCE %s IS %L', i.was, obj_description(i.oid, 'pg_class')) FROM idn i WHERE obj_description(i.oid, 'pg_class') IS NOT NULL
	UNION ALL
	SELECT 95, e.stxname, true, pg_get_statisticsobjdef(e.oid) FROM pg_catalog.pg_statistic_ext e WHERE e.stxrelid = $1
) AS x ORDER BY x.at, x.by`

// carry returns the statements that give the staging table what the target has, before
// and after it takes its name.
func (s *swapper) carry(ctx context.Context) (before, after []string, err error) {
	rows, err := s.tx.Query(ctx, carrySQL, s.target.oid, s.stage.oid, s.stage.qname().sql())
	if err != nil {
		return nil, nil, err
	}
	var late bool
	var sql string
	_, err = pgx.ForEachRow(rows, []any{&late, &sql}, func() error {
		if late {
			after = append(after, strings.TrimSpace(sql))
		} else {
			before = append(before, sql)
		}
		return nil
	})
	return before, after, err
}
