package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/codec"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// buildMergeKey gives the staging table an index over the key by which versions are
// compared. It also refuses a version that holds a key twice: of two such rows one would
// be lost.
func (s *swapper) buildMergeKey(ctx context.Context) error {
	key := s.mergeKey(s.target)
	if key == nil {
		return nil
	}
	return s.exec(ctx, fmt.Sprintf("CREATE UNIQUE INDEX %s ON %s (%s)", query.Ident(s.stage.name+"_k"), s.stage.qname().sql(), idents(key)))
}

// merge changes the target into the new version row by row: every snapshot sees one whole
// version, and whatever depends on the table goes on.
func (s *swapper) merge(ctx context.Context) error {
	if err := s.lock(ctx, "SHARE ROW EXCLUSIVE"); err != nil {
		return err
	}
	if err := s.addColumns(ctx); err != nil {
		return err
	}
	l, err := s.layout(ctx, s.conn, "")
	if err != nil {
		return err
	}
	m, err := s.merging(l)
	if err != nil {
		return err
	}
	if err := s.exec(ctx, "SET CONSTRAINTS ALL DEFERRED"); err != nil {
		return err
	}
	if mutant.On(mutant.TruncateInsert) {
		if err := s.exec(ctx, "TRUNCATE "+m.target); err != nil {
			return err
		}
	}
	if err := s.exec(ctx, m.statement()); err != nil {
		return err
	}
	if err := s.exec(ctx, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
		return err
	}
	if s.target.triggers {
		if err := s.count(ctx); err != nil {
			return err
		}
	}
	return s.exec(ctx, "DROP TABLE "+s.stage.qname().sql())
}

// addColumns adds what only the staging table has: it was made to be renamed.
func (s *swapper) addColumns(ctx context.Context) error {
	slots, bad := s.slots(s.stage)
	if len(bad) > 0 {
		return bad[0]
	}
	var adds []string
	for _, x := range slots {
		if _, ok := s.target.column(x.name); !ok && x.has != nil {
			adds = append(adds, "ADD COLUMN "+query.Ident(x.name)+" "+x.has.Type.SQL)
		}
	}
	if len(adds) == 0 {
		return nil
	}
	return s.exec(ctx, "ALTER TABLE "+s.target.qname().sql()+" "+strings.Join(adds, ", "))
}

// count finds rows that a trigger did not let through.
func (s *swapper) count(ctx context.Context) error {
	var has, want int64
	if err := s.tx.QueryRow(ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM %s), (SELECT count(*) FROM %s)", s.from(), s.stage.qname().sql())).Scan(&has, &want); err != nil {
		return err
	}
	if has == want {
		return nil
	}
	return s.fail(connectors.KindData, messages.CodeRowsSwallowed, "", fmt.Errorf("the new version has %d rows, and the table has %d behind its triggers", want, has))
}

// from is the target without tables that inherit from it; partitions belong to it.
func (s *swapper) from() string {
	if s.target.kind == kindPartitioned {
		return s.target.qname().sql()
	}
	return "ONLY " + s.target.qname().sql()
}

// merging is the statement that makes the versions equal.
type merging struct {
	target, from, stage string
	key                 []string // nil: every row is deleted and inserted
	columns             []string // that the load wrote
	set                 []string // of columns: that an update may set
	compare             []string // of columns: in which a changed row differs
	foreign             []string // of key: types of extensions, whose operators have no name under every search_path
	rewrite             bool     // a changed row is deleted and inserted
}

func (s *swapper) merging(l *layout) (merging, error) {
	m := merging{target: s.target.qname().sql(), from: s.from(), stage: s.stage.qname().sql(), key: s.mergeKey(s.target)}
	for _, k := range m.key {
		if a, _ := s.target.column(k); foreignType(a.Type) {
			m.foreign = append(m.foreign, k)
		}
	}
	for _, c := range l.columns {
		if _, ok := s.stage.column(c.name); !ok {
			continue
		}
		a, _ := s.target.column(c.name)
		m.columns = append(m.columns, c.name)
		if c.meta == "" { // a row that has not changed keeps the run that wrote it
			m.compare = append(m.compare, c.name)
		}
		if a.identity == 'a' {
			m.rewrite = m.rewrite || !slices.Contains(m.key, c.name)
			continue
		}
		m.set = append(m.set, c.name)
	}
	fixed := m.rewrite || len(m.set) == 0 // an update cannot do it
	// An update in place checks other unique indexes row by row: two rows that exchange
	// values would collide. What refers to a row must not see it go, though.
	m.rewrite = fixed || len(s.target.unique) > 1 && !s.target.triggers && len(s.depends.of(dependsIncoming, dependsCascade)) == 0
	if names := s.depends.of(dependsCascade); fixed && len(names) > 0 {
		return m, s.fail(connectors.KindConfig, messages.CodeDocConflict, "",
			fmt.Errorf("changed rows must be deleted and inserted because of an identity column, and %s would follow", strings.Join(names, ", ")))
	}
	return m, nil
}

// statement is one, so that foreign keys are checked only when all rows are in place. The
// counts make its parts run one behind the other.
func (m merging) statement() string {
	names := idents(m.columns)
	insert := fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s", m.target, names, each("s", m.columns), m.stage)
	if m.key == nil {
		return fmt.Sprintf("WITH gone AS (DELETE FROM %s RETURNING 1) %s WHERE (SELECT count(*) FROM gone) >= 0", m.from, insert)
	}
	on := make([]string, len(m.key))
	for i, k := range m.key {
		on[i] = "s." + query.Ident(k) + " = t." + query.Ident(k)
		if slices.Contains(m.foreign, k) { // rows are equal by the operators that belong to the types
			on[i] = "ROW(s." + query.Ident(k) + ")::record = ROW(t." + query.Ident(k) + ")::record"
		}
	}
	match := strings.Join(on, " AND ")
	if m.rewrite {
		match += fmt.Sprintf(" AND ROW(%s)::record *= ROW(%s)::record", each("t", m.compare), each("s", m.compare))
		return fmt.Sprintf(`WITH gone AS (DELETE FROM %s AS t WHERE NOT EXISTS (SELECT FROM %s AS s WHERE %s) RETURNING 1)
%s WHERE NOT EXISTS (SELECT FROM %s AS t WHERE %s) AND (SELECT count(*) FROM gone) >= 0`, m.from, m.stage, match, insert, m.from, match)
	}
	sets := make([]string, len(m.set))
	for i, c := range m.set {
		sets[i] = query.Ident(c) + " = s." + query.Ident(c)
	}
	return fmt.Sprintf(`WITH gone AS (DELETE FROM %[1]s AS t WHERE NOT EXISTS (SELECT FROM %[2]s AS s WHERE %[3]s) RETURNING 1),
changed AS (UPDATE %[1]s AS t SET %[4]s FROM %[2]s AS s WHERE %[3]s AND ROW(%[5]s)::record *<> ROW(%[6]s)::record AND (SELECT count(*) FROM gone) >= 0 RETURNING 1)
%[7]s WHERE NOT EXISTS (SELECT FROM %[1]s AS t WHERE %[3]s) AND (SELECT count(*) FROM changed) >= 0`,
		m.from, m.stage, match, strings.Join(sets, ", "), each("t", m.compare), each("s", m.compare), insert)
}

// foreignType reports whether values of t are compared by operators outside pg_catalog.
func foreignType(t *codec.Type) bool {
	for t != nil && t.Kind == codec.KindDomain {
		t = t.Base
	}
	return t != nil && t.Kind == codec.KindBase && t.Schema != catalogSchema
}

func each(of string, names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = of + "." + query.Ident(n)
	}
	return strings.Join(out, ", ")
}
