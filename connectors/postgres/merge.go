package postgres

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

const mergeVersion = 15 // of the first server with MERGE

// take brings the staged rows into the table: one statement for the whole commit. Only
// if it fails, and bad rows are to be set aside, are ranges of them taken one by one.
func (k *sink) take(ctx context.Context) error {
	if k.staged >= analyzeRows {
		if _, err := k.w.conn.Exec(ctx, "ANALYZE "+k.into()); err != nil {
			return err
		}
	}
	if !k.lenient() {
		return k.takeRange(ctx, "", k.staged)
	}
	return k.takeHalves(ctx, 0, k.staged)
}

// analyzeRows is how many staged rows are worth statistics: without them the planner
// takes a temporary table to be small.
const analyzeRows = 5000

// takeHalves takes rows [from, to) of the temporary table, leaving bad ones out.
func (k *sink) takeHalves(ctx context.Context, from, to int64) error {
	where, err := k.rangeOf(ctx, from, to)
	if err != nil {
		return err
	}
	err = k.w.savepoint(ctx, func() error { return k.takeRange(ctx, where, to-from) })
	switch {
	case err == nil || connectors.KindOf(err) != connectors.KindData:
		return err
	case to-from == 1:
		dead, readErr := k.deadStaged(ctx, where, from, err)
		if readErr != nil {
			return readErr
		}
		return k.w.reject(ctx, dead)
	}
	middle := from + (to-from)/2
	if err := k.takeHalves(ctx, from, middle); err != nil {
		return err
	}
	return k.takeHalves(ctx, middle, to)
}

// rangeOf is the condition for rows [from, to) of the temporary table, in the order in
// which they were staged.
func (k *sink) rangeOf(ctx context.Context, from, to int64) (string, error) {
	if from == 0 && to == k.staged {
		return "", nil
	}
	if err := k.number(ctx); err != nil {
		return "", err
	}
	at := func(staged int64) int64 {
		r := k.runs[k.runOf(staged)]
		return r.number + staged - r.staged
	}
	return fmt.Sprintf(" WHERE n >= %d AND n <= %d", at(from), at(to-1)), nil
}

// number reads the number of the first row of each run: those of the others follow it.
// There are gaps between runs, of rows that were taken back.
func (k *sink) number(ctx context.Context) error {
	if k.runs[0].number > 0 {
		return nil
	}
	places := make([]string, len(k.runs))
	for i, r := range k.runs {
		places[i] = strconv.FormatInt(r.staged, 10)
	}
	results, err := k.w.conn.Exec(ctx, fmt.Sprintf("SELECT n FROM (SELECT n, row_number() OVER (ORDER BY n) - 1 AS place FROM %s) AS s WHERE place = ANY ('{%s}') ORDER BY n",
		k.into(), strings.Join(places, ",")))
	if err != nil {
		return err
	}
	if len(results[0].Rows) != len(k.runs) {
		return fmt.Errorf("the temporary table has %d of %d runs", len(results[0].Rows), len(k.runs))
	}
	for i, row := range results[0].Rows {
		if k.runs[i].number, err = strconv.ParseInt(string(row[0]), 10, 64); err != nil {
			return err
		}
	}
	return nil
}

// runOf finds the run of a staged row.
func (k *sink) runOf(staged int64) int {
	return sort.Search(len(k.runs), func(i int) bool { return k.runs[i].staged > staged }) - 1
}

// takeRange runs the statement for the rows of a condition.
func (k *sink) takeRange(ctx context.Context, where string, rows int64) error {
	m := merge{lay: k.lay, from: k.into(), where: where, wire: k.casts(), server: serverMajor(k.w.conn.Parameter("server_version"))}
	if k.g.mode != connectors.ModeUpsert {
		results, err := k.w.conn.Exec(ctx, m.insert())
		if err != nil {
			return k.rowError(err)
		}
		return k.landed(rows, affected(results[0].Tag))
	}
	return k.takeNewest(ctx, m)
}

// takeNewest runs an upsert, and looks for rows that a trigger did not let through.
func (k *sink) takeNewest(ctx context.Context, m merge) error {
	pending := int64(-1)
	if k.lay.rowTriggers {
		n, err := k.count(ctx, m.pending())
		if err != nil {
			return err
		}
		pending = n
	}
	done, err := k.upsert(ctx, m)
	if err != nil || done >= pending {
		return err
	}
	return k.place(destError("write to "+k.g.stream.Target, connectors.KindConfig, messages.CodeRowsSwallowed,
		fmt.Errorf("%d rows of %s were to be written, %d were", pending, k.lay.table, done)))
}

// upsert returns how many rows it wrote. MERGE fails when somebody else inserts a key at
// the same time; the other statement does not.
func (k *sink) upsert(ctx context.Context, m merge) (int64, error) {
	run := func(sql string) (int64, error) {
		results, err := k.w.conn.Exec(ctx, sql)
		if err != nil {
			return 0, k.rowError(err)
		}
		return affected(results[0].Tag), nil
	}
	if !m.mergeable() {
		return run(m.insertOrUpdate())
	}
	var done int64
	err := k.w.savepoint(ctx, func() (err error) {
		done, err = run(m.merge())
		return err
	})
	if stateOf(err) == uniqueViolation {
		return run(m.insertOrUpdate())
	}
	return done, err
}

// count runs a query for one number.
func (k *sink) count(ctx context.Context, sql string) (int64, error) {
	results, err := k.w.conn.Exec(ctx, sql)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
}

// casts returns what each staged column is cast to, "" for nothing.
func (k *sink) casts() []string {
	out := make([]string, len(k.lay.columns))
	for i, cast := range k.enc.Casts() {
		if cast {
			out[i] = k.lay.columns[i].typ.SQL
		}
	}
	return out
}

// merge writes the statements that take staged rows on. Pure.
type merge struct {
	lay    *layout
	from   string   // the temporary table; its columns are n, c0, c1 ..
	where  string   // which of its rows
	wire   []string // per column: the type it is cast to, or ""
	server int      // major version
}

func (m merge) target() string { return query.Qualified(m.lay.schema, m.lay.table) }

// value is staged column i in the type of the table.
func (m merge) value(i int) string {
	name := fmt.Sprintf("c%d", i)
	if m.wire[i] == "" {
		return name
	}
	return name + "::" + m.wire[i]
}

// names are the table's columns, prefixed.
func (m merge) names(prefix string) []string {
	out := make([]string, len(m.lay.columns))
	for i, c := range m.lay.columns {
		out[i] = prefix + query.Ident(c.name)
	}
	return out
}

func (m merge) values() string {
	out := make([]string, len(m.lay.columns))
	for i := range out {
		out[i] = m.value(i)
	}
	return strings.Join(out, ", ")
}

// insert appends the staged rows in their order.
func (m merge) insert() string {
	return fmt.Sprintf("INSERT INTO %s (%s)%s SELECT %s FROM %s%s ORDER BY n",
		m.target(), strings.Join(m.names(""), ", "), m.overriding(), m.values(), m.from, m.where)
}

func (m merge) overriding() string {
	if m.lay.generatedAlways {
		return " OVERRIDING SYSTEM VALUE"
	}
	return ""
}

// newest selects the last staged row of each key, under the table's column names: no
// statement may touch a row twice, and the order of rows decides.
func (m merge) newest() string {
	values := make([]string, len(m.lay.columns))
	for i, c := range m.lay.columns {
		values[i] = m.value(i) + " AS " + query.Ident(c.name)
	}
	key := make([]string, len(m.lay.key))
	for i, name := range m.lay.key {
		key[i] = m.value(m.index(name))
	}
	by := strings.Join(key, ", ")
	return fmt.Sprintf("SELECT DISTINCT ON (%s) %s FROM %s%s ORDER BY %s, n DESC", by, strings.Join(values, ", "), m.from, m.where, by)
}

func (m merge) index(name string) int {
	return slices.IndexFunc(m.lay.columns, func(c layoutColumn) bool { return c.name == name })
}

// compared are the columns that are written when a row of the table changes: all but
// those of the key whose equal values are the same; and of those the ones that decide
// whether it has changed: metadata does not.
func (m merge) compared() (written, deciding []string) {
	for _, c := range m.lay.columns {
		if slices.Contains(m.lay.key, c.name) && !c.lax {
			continue
		}
		written = append(written, query.Ident(c.name))
		if c.meta == "" {
			deciding = append(deciding, query.Ident(c.name))
		}
	}
	return written, deciding
}

// changed is the condition that row t differs from the row named by. The image of a row is compared,
// not its values: 1.0 and 1.00 are equal but not the same, and some types have no
// equality at all.
func (m merge) changed(by string) string {
	_, deciding := m.compared()
	if len(deciding) == 0 {
		return "false"
	}
	// The cast keeps the server from comparing the columns one by one.
	image := func(prefix string) string { return "ROW(" + prefix + strings.Join(deciding, ", "+prefix) + ")::record" }
	return image("t.") + " *<> " + image(by)
}

func (m merge) on() string {
	out := make([]string, len(m.lay.key))
	for i, name := range m.lay.key {
		k := query.Ident(name)
		out[i] = "t." + k + " = s." + k
		if foreignType(m.lay.columns[m.index(name)].typ) { // its operators may be outside the search_path
			out[i] = "ROW(t." + k + ")::record = ROW(s." + k + ")::record"
		}
	}
	return strings.Join(out, " AND ")
}

// mergeable reports whether the server has MERGE, and finds rows by an index with it: the
// operators of a foreign type have no name that is safe to use.
func (m merge) mergeable() bool {
	return m.server >= mergeVersion && !slices.ContainsFunc(m.lay.key, func(name string) bool { return foreignType(m.lay.columns[m.index(name)].typ) })
}

// merge brings the newest staged row of each key into the table; rows that are as they
// were are not written again.
func (m merge) merge() string {
	sql := fmt.Sprintf("MERGE INTO %s AS t USING (%s) AS s ON %s", m.target(), m.newest(), m.on())
	if set := m.set("s."); set != "" {
		sql += fmt.Sprintf(" WHEN MATCHED AND %s THEN UPDATE SET %s", m.changed("s."), set)
	}
	return sql + fmt.Sprintf(" WHEN NOT MATCHED THEN INSERT (%s)%s VALUES (%s)", strings.Join(m.names(""), ", "), m.overriding(), strings.Join(m.names("s."), ", "))
}

// insertOrUpdate does what merge does, on every server and whoever else writes.
func (m merge) insertOrUpdate() string {
	keys := make([]string, len(m.lay.key))
	for i, name := range m.lay.key {
		keys[i] = query.Ident(name)
	}
	sql := fmt.Sprintf("INSERT INTO %s AS t (%s)%s %s ON CONFLICT (%s) DO ",
		m.target(), strings.Join(m.names(""), ", "), m.overriding(), m.newest(), strings.Join(keys, ", "))
	if set := m.set("excluded."); set != "" {
		return sql + fmt.Sprintf("UPDATE SET %s WHERE %s", set, m.changed("excluded."))
	}
	return sql + "NOTHING"
}

// set assigns the columns that are written from the row that prefix names.
func (m merge) set(prefix string) string {
	written, _ := m.compared()
	out := make([]string, len(written))
	for i, name := range written {
		out[i] = name + " = " + prefix + name
	}
	return strings.Join(out, ", ")
}

// pending counts staged rows that are not in the table as they were staged.
func (m merge) pending() string {
	return fmt.Sprintf("SELECT count(*) FROM (%s) AS s WHERE NOT EXISTS (SELECT FROM %s AS t WHERE %s AND NOT (%s))", m.newest(), m.target(), m.on(), m.changed("s."))
}

// insertStatement is a multi-row INSERT with n rows of parameters.
func (k *sink) insertStatement(n int) string {
	var b strings.Builder
	overriding := ""
	if k.stager == "" && k.lay.generatedAlways {
		overriding = " OVERRIDING SYSTEM VALUE"
	}
	fmt.Fprintf(&b, "INSERT INTO %s (%s)%s VALUES ", k.into(), k.columns(), overriding)
	p := 0
	for row := range n {
		if row > 0 {
			b.WriteString(", ")
		}
		for i := range k.lay.columns {
			p++
			if i == 0 {
				b.WriteByte('(')
			} else {
				b.WriteString(", ")
			}
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(p))
		}
		b.WriteByte(')')
	}
	return b.String()
}

// oids are the parameter types of n rows.
func (k *sink) oids(n int) []uint32 {
	types := k.enc.Wire()
	out := make([]uint32, 0, n*len(types))
	for range n {
		for _, t := range types {
			out = append(out, t.OID)
		}
	}
	return out
}

// affected is the number of rows in a command tag: INSERT 0 5.
func affected(tag string) int64 {
	n, err := strconv.ParseInt(tag[strings.LastIndexByte(tag, ' ')+1:], 10, 64)
	if err != nil {
		return -1
	}
	return n
}
