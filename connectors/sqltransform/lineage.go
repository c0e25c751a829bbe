package sqltransform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// syntax is what is read from the query's syntax tree.
type syntax struct {
	tables    []string // as written, without CTEs
	functions []string // lower case, sorted
	root      map[string]any
}

// parse reads the syntax tree, as DuckDB serializes it. It serializes SELECT
// statements only, which is also the check that the query is one.
func (a *analysis) parse(ctx context.Context) (*syntax, error) {
	stmt, err := a.session.conn.Prepare(ctx, a.t.cfg.Query)
	if errors.Is(err, duckarrow.ErrStatements) {
		return nil, a.queryError(fmt.Errorf("want exactly one SELECT statement: %w", err))
	}
	if err == nil {
		stmt.Close()
	} else if e, ok := errors.AsType[*duckarrow.Error](err); ok && e.Class == duckarrow.ClassParser {
		return nil, a.queryError(err)
	}
	rows, err := a.session.conn.Rows(ctx, "SELECT json_serialize_sql("+duckarrow.Literal(a.t.cfg.Query)+")::VARCHAR")
	if err != nil {
		return nil, a.queryError(err)
	}
	text, _ := rows[0][0].(string)
	var doc struct {
		Error      bool   `json:"error"`
		Message    string `json:"error_message"`
		Statements []struct {
			Node map[string]any `json:"node"`
		} `json:"statements"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, a.queryError(fmt.Errorf("read the syntax tree: %w", err))
	}
	if doc.Error || len(doc.Statements) != 1 {
		return nil, a.queryError(fmt.Errorf("want exactly one SELECT statement: %s", doc.Message))
	}
	s := &syntax{root: doc.Statements[0].Node}
	s.collect(s.root, map[string]bool{})
	slices.Sort(s.tables)
	s.tables = slices.Compact(s.tables)
	slices.Sort(s.functions)
	s.functions = slices.Compact(s.functions)
	return s, nil
}

// collect walks the tree for tables and functions.
func (s *syntax) collect(v any, ctes map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if m, ok := v["cte_map"].(map[string]any); ok {
			list, _ := m["map"].([]any)
			for _, e := range list {
				entry, _ := e.(map[string]any)
				ctes[strings.ToLower(str(entry["key"]))] = true
			}
		}
		switch {
		case v["type"] == "BASE_TABLE":
			name := str(v["table_name"])
			if schema := str(v["schema_name"]); schema != "" {
				name = schema + "." + name
			} else if ctes[strings.ToLower(name)] {
				break
			}
			s.tables = append(s.tables, name)
		case v["class"] == "FUNCTION":
			s.functions = append(s.functions, strings.ToLower(str(v["function_name"])))
		}
		for _, c := range v {
			s.collect(c, ctes)
		}
	case []any:
		for _, c := range v {
			s.collect(c, ctes)
		}
	}
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

// checkFunctions refuses functions that return something else at each call and
// reports those that do so in each batch.
func (a *analysis) checkFunctions(ctx context.Context, tree *syntax) ([]connectors.Finding, error) {
	if len(tree.functions) == 0 {
		return nil, nil
	}
	unstable, err := a.t.dbs.unstableFunctions(ctx, a.session.conn)
	if err != nil {
		return nil, a.t.engineError(a.stream, err)
	}
	var out []connectors.Finding
	for _, name := range tree.functions {
		stability, ok := unstable[name]
		if !ok || name == "error" { // error() ends the query, it returns nothing
			continue
		}
		if stability == "VOLATILE" {
			return nil, a.queryError(fmt.Errorf("%s() returns something else at each call: a batch that is transformed again after a failure would differ", name))
		}
		out = append(out, connectors.Finding{
			Severity: connectors.SeverityWarning, Code: messages.CodeSchemaQuery,
			Message: name + "() is evaluated once per batch: rows that are read again after a failure carry another value",
			Where:   messages.Place{Stream: a.stream, Stage: connectors.StageTransform},
		})
	}
	return out, nil
}

// unstableFunctions returns the functions whose result is not determined by
// their arguments, with DuckDB's word for it. The list is read once.
func (d *databases) unstableFunctions(ctx context.Context, conn *duckarrow.Conn) (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unstable != nil {
		return d.unstable, nil
	}
	rows, err := conn.Rows(ctx, "SELECT DISTINCT function_name, stability FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")
	if err != nil {
		return nil, err
	}
	d.unstable = map[string]string{}
	for _, r := range rows {
		d.unstable[strings.ToLower(str(r[0]))] = str(r[1])
	}
	return d.unstable, nil
}

// lineage returns, per output column, the input column that it is, or -1. It
// knows the shape "SELECT list FROM stream [WHERE ..]" and nothing else.
func (s *syntax) lineage(in *arrow.Schema, columns int) []int {
	none := slices.Repeat([]int{-1}, columns)
	from, _ := s.root["from_table"].(map[string]any)
	if s.root["type"] != "SELECT_NODE" || from["type"] != "BASE_TABLE" || len(list(from["column_name_alias"])) > 0 {
		return none
	}
	names := []string{str(from["table_name"])}
	if alias := str(from["alias"]); alias != "" {
		names = []string{alias}
	}
	var out []int
	for _, e := range list(s.root["select_list"]) {
		expr, _ := e.(map[string]any)
		switch expr["class"] {
		case "COLUMN_REF":
			out = append(out, column(expr, names, in))
		case "STAR":
			star, ok := expand(expr, in)
			if !ok {
				return none
			}
			out = append(out, star...)
		case "FUNCTION":
			if strings.EqualFold(str(expr["function_name"]), "unnest") {
				return none // a struct becomes several columns
			}
			out = append(out, -1)
		default:
			out = append(out, -1)
		}
	}
	if len(out) != columns {
		return none
	}
	return out
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// column resolves "name" and "table.name"; a field of a struct is neither.
func column(expr map[string]any, tables []string, in *arrow.Schema) int {
	parts := list(expr["column_names"])
	if len(parts) == 2 {
		if !strings.EqualFold(str(parts[0]), tables[0]) || indexOf(in, str(parts[0])) >= 0 {
			return -1
		}
	}
	if len(parts) == 0 || len(parts) > 2 {
		return -1
	}
	return indexOf(in, str(parts[len(parts)-1]))
}

// expand resolves a plain star and one with EXCLUDE.
func expand(expr map[string]any, in *arrow.Schema) ([]int, bool) {
	if expr["columns"] == true || expr["expr"] != nil || len(list(expr["replace_list"])) > 0 ||
		len(list(expr["rename_list"])) > 0 || len(list(expr["qualified_exclude_list"])) > 0 {
		return nil, false
	}
	var out []int
	for i, f := range in.Fields() {
		excluded := slices.ContainsFunc(list(expr["exclude_list"]), func(e any) bool { return strings.EqualFold(str(e), f.Name) })
		if !excluded {
			out = append(out, i)
		}
	}
	return out, true
}

func indexOf(in *arrow.Schema, name string) int {
	return slices.IndexFunc(in.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
}
