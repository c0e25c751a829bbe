package sqltransform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2/mapping"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// plan is what the query does to one schema.
type plan struct {
	out      *arrow.Schema
	reads    []int // columns of the input that the query touches, at least one
	findings []connectors.Finding
}

// planTime bounds the planning of a query: constants are computed then.
const planTime = 30 * time.Second

var errPlanTime = errors.New("planning the query takes longer than 30 seconds")

// plan runs the checks over an empty relation. It only reads t.
func (t *Transform) plan(stream messages.StreamID, in *arrow.Schema) (*plan, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), planTime, errPlanTime)
	defer cancel()
	if in == nil || in.NumFields() == 0 {
		return nil, t.schemaError(stream, messages.CodeSchemaEmpty, "", errors.New("the stream has no columns"))
	}
	if err := t.checkNames(stream, in); err != nil {
		return nil, err
	}
	s, err := t.dbs.session(ctx, true)
	if err != nil {
		return nil, t.engineError(stream, err)
	}
	defer s.close(ctx)
	a := &analysis{t: t, stream: stream, in: in, session: s}
	p, err := a.run(ctx)
	t.noteInternal(err)
	return p, err
}

// checkNames refuses names that DuckDB cannot tell apart; it would rename them.
func (t *Transform) checkNames(stream messages.StreamID, in *arrow.Schema) error {
	seen := map[string]string{}
	for _, f := range in.Fields() {
		key := strings.ToLower(f.Name)
		if f.Name == "" {
			return t.schemaError(stream, messages.CodeSchemaName, "", errors.New("a column has no name"))
		}
		if strings.ContainsRune(f.Name, 0) {
			return t.schemaError(stream, messages.CodeSchemaName, f.Name, errors.New("the name of a column contains a NUL character"))
		}
		if other, ok := seen[key]; ok {
			return t.schemaError(stream, messages.CodeSchemaName, f.Name,
				fmt.Errorf("columns %q and %q are the same name in SQL, which ignores case", other, f.Name))
		}
		seen[key] = f.Name
	}
	return nil
}

// analysis is one run of the checks.
type analysis struct {
	t       *Transform
	stream  messages.StreamID
	in      *arrow.Schema
	session *session
}

func (a *analysis) run(ctx context.Context) (*plan, error) {
	if _, err := a.session.offer(ctx, a.stream, standIns(a.in)); err != nil {
		return nil, a.t.engineError(a.stream, err)
	}
	tree, err := a.parse(ctx)
	if err != nil {
		return nil, err
	}
	stmt, err := a.session.conn.Prepare(ctx, a.t.cfg.Query)
	if err != nil {
		return nil, a.bindError(err, tree)
	}
	defer stmt.Close()
	if stmt.Params() > 0 {
		return nil, a.queryError(errors.New("the query has parameters, and nothing can be bound to them"))
	}
	findings, err := a.checkFunctions(ctx, tree)
	if err != nil {
		return nil, err
	}
	touched, err := a.checkOperators(ctx, tree)
	if err != nil {
		return nil, err
	}
	for _, i := range touched {
		if why := duckarrow.Refuses(a.in.Field(i).Type); why != "" {
			return nil, a.t.schemaError(a.stream, messages.CodeSchemaType, a.in.Field(i).Name,
				fmt.Errorf("column %s of type %s: %s", a.in.Field(i).Name, a.in.Field(i).Type, why))
		}
	}
	out, err := a.output(ctx, stmt, tree)
	if err != nil {
		return nil, err
	}
	return &plan{out: out, reads: a.readable(touched), findings: findings}, nil
}

// standIns returns schema with text in place of each column that DuckDB cannot
// read, so that a query that does not touch it can be planned.
func standIns(schema *arrow.Schema) *arrow.Schema {
	fields := schema.Fields()
	for i, f := range fields {
		fields[i] = arrow.Field{Name: f.Name, Type: f.Type, Nullable: true}
		if duckarrow.Refuses(f.Type) != "" {
			fields[i].Type = arrow.BinaryTypes.String
		}
	}
	return arrow.NewSchema(fields, nil)
}

// readable returns touched, or the first column that a feed can have: it needs
// one to know the number of rows.
func (a *analysis) readable(touched []int) []int {
	if len(touched) > 0 {
		return touched
	}
	for i, f := range a.in.Fields() {
		if duckarrow.Refuses(f.Type) == "" {
			return []int{i}
		}
	}
	return nil
}

// node is an operator of a plan, as EXPLAIN (FORMAT json) prints it.
type node struct {
	Name     string         `json:"name"`
	Children []node         `json:"children"`
	Extra    map[string]any `json:"extra_info"`
}

func (n node) walk(visit func(node)) {
	visit(n)
	for _, c := range n.Children {
		c.walk(visit)
	}
}

const scanOperator = "ARROW_SCAN"

var (
	// logicalOperators are the row-wise ones of the plan as written. A dependent
	// join is how a lateral unnest is written; it must be gone in the end.
	logicalOperators = []string{
		"PROJECTION", "FILTER", scanOperator, "UNNEST", "EMPTY_RESULT", "DUMMY_SCAN", "CTE", "CTE_SCAN", "DEPENDENT_JOIN",
	}
	physicalOperators = []string{"PROJECTION", "FILTER", scanOperator, "UNNEST", "EMPTY_RESULT"}

	operatorNames = map[string]string{
		"AGGREGATE": "an aggregate or GROUP BY", "WINDOW": "a window function", "ORDER_BY": "ORDER BY", "LIMIT": "LIMIT",
		"TOP_N": "LIMIT", "LIMIT_PERCENT": "LIMIT", "DISTINCT": "DISTINCT", "SAMPLE": "a sample", "UNION": "UNION",
		"EXCEPT": "EXCEPT", "INTERSECT": "INTERSECT", "COMPARISON_JOIN": "a join or subquery", "CROSS_PRODUCT": "a join or subquery",
		"ANY_JOIN": "a join", "ASOF_JOIN": "a join", "POSITIONAL_JOIN": "a join", "REC_CTE": "a recursive query", "CTE": "a materialized CTE",
	}
)

// checkOperators refuses a plan whose result depends on more than one row, and
// returns the columns it touches.
func (a *analysis) checkOperators(ctx context.Context, tree *syntax) ([]int, error) {
	plans, err := a.session.explain(ctx, a.t.cfg.Query)
	if err != nil {
		return nil, a.bindError(err, tree)
	}
	scans := 0
	for _, check := range []struct {
		plan    node
		allowed []string
	}{{plans.logical, logicalOperators}, {plans.physical, physicalOperators}} {
		found := ""
		n := 0
		check.plan.walk(func(op node) {
			if op.Name == scanOperator {
				n++
			}
			if found == "" && !slices.Contains(check.allowed, op.Name) {
				found = op.Name
			}
		})
		scans = max(scans, n)
		if found != "" && n > 0 {
			what, ok := operatorNames[found]
			switch {
			case !ok && strings.HasSuffix(found, "JOIN"):
				what = "a join or subquery"
			case !ok:
				what = "the operator " + found
			}
			return nil, a.queryError(fmt.Errorf("the query contains %s: the result would depend on batch borders; row-wise queries only (projection, filter, expressions, unnest)", what))
		}
	}
	switch scans {
	case 0:
		return nil, a.notRead(tree)
	case 1:
		return a.touched(plans.physical), nil
	}
	return nil, a.queryError(fmt.Errorf("the query reads %s more than once: the result would depend on batch borders; row-wise queries only", a.stream))
}

func (a *analysis) notRead(tree *syntax) error {
	if len(tree.tables) == 0 {
		return a.queryError(fmt.Errorf("the query does not read the stream %s: it reads no table", a.stream))
	}
	return a.queryError(fmt.Errorf("the query reads %s and not the stream %s that it is applied to", strings.Join(tree.tables, ", "), a.stream))
}

// touched returns the columns that the scan yields, sorted.
func (a *analysis) touched(physical node) []int {
	var names []string
	scanned := false
	physical.walk(func(n node) {
		if n.Name != scanOperator {
			return
		}
		scanned = true
		names = n.texts("Projections")
	})
	if !scanned {
		return nil
	}
	var out []int
	for _, name := range names {
		at := a.in.FieldIndices(name)
		if len(at) != 1 { // a name that EXPLAIN cannot print: take all
			out = out[:0]
			for i := range a.in.NumFields() {
				out = append(out, i)
			}
			return out
		}
		out = append(out, at[0])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// texts returns an entry that is a text or a list of texts.
func (n node) texts(key string) []string {
	switch v := n.Extra[key].(type) {
	case string:
		if v != "" {
			return []string{v}
		}
	case []any:
		var out []string
		for _, e := range v {
			s, _ := e.(string)
			out = append(out, s)
		}
		return out
	}
	return nil
}

type plans struct{ logical, physical node }

// explain returns the plan as written and the plan as run.
func (s *session) explain(ctx context.Context, query string) (plans, error) {
	rows, err := s.conn.Rows(ctx, "EXPLAIN (FORMAT json) "+query)
	if err != nil {
		return plans{}, err
	}
	var p plans
	for _, r := range rows {
		key, _ := r[0].(string)
		text, _ := r[1].(string)
		var roots []node
		if err := json.Unmarshal([]byte(text), &roots); err != nil || len(roots) != 1 {
			return plans{}, fmt.Errorf("read the plan of the query: %w", errors.Join(err, fmt.Errorf("%d roots", len(roots))))
		}
		switch key {
		case "logical_plan":
			p.logical = roots[0]
		case "physical_plan":
			p.physical = roots[0]
		}
	}
	if p.logical.Name == "" || p.physical.Name == "" {
		return plans{}, errors.New("read the plan of the query: it is incomplete")
	}
	return p, nil
}

// output returns the schema of the result.
func (a *analysis) output(ctx context.Context, stmt *duckarrow.Stmt, tree *syntax) (*arrow.Schema, error) {
	cols := stmt.Columns()
	seen := map[string]bool{}
	for _, c := range cols {
		if seen[c.Name] {
			return nil, a.t.schemaError(a.stream, messages.CodeSchemaName, c.Name,
				fmt.Errorf("the query returns two columns named %q: give one another name with AS", c.Name))
		}
		seen[c.Name] = true
		if why := c.Type.Lossy(); why != "" {
			return nil, a.t.schemaError(a.stream, messages.CodeSchemaType, c.Name,
				fmt.Errorf("the result column %q is %s: %s; cast it, for example to VARCHAR or DECIMAL(38,0)", c.Name, c.Type.Name, why))
		}
	}
	r, err := stmt.Query(ctx)
	if err != nil {
		return nil, a.bindError(err, tree)
	}
	defer r.Close()
	raw, err := r.Schema()
	if err != nil {
		return nil, a.queryError(err)
	}
	origin := tree.lineage(a.in, len(cols))
	fields := make([]arrow.Field, len(cols))
	for i := range cols {
		fields[i] = field(raw.Field(i), cols[i], origin[i], a.in)
	}
	return arrow.NewSchema(fields, nil), nil
}

// field returns one output field. A column that passes through is what it was.
func field(raw arrow.Field, col duckarrow.Column, origin int, in *arrow.Schema) arrow.Field {
	out := arrow.Field{Name: col.Name, Type: duckarrow.Canonical(raw.Type), Nullable: true}
	if col.Type.ID == mapping.TypeUUID {
		out.Metadata = arrow.NewMetadata([]string{"rapidbyte.type"}, []string{"uuid"})
	}
	if origin < 0 {
		return out
	}
	was := in.Field(origin)
	out.Nullable, out.Metadata = was.Nullable, was.Metadata
	if duckarrow.SameLayout(raw.Type, was.Type) {
		out.Type = was.Type
	}
	return out
}
