// Package scenario reads what is measured: one YAML file per piece of work, decoded
// strictly, beside the SQL of the rows that it moves.
//
// Texts may name {rows}, the number of rows; {sql}, the query of the shape; {table},
// the qualified table of the source; {schema}, its schema. Texts of a document or a
// command also {source} and {target}, URLs; {target_schema}; {dir}, a folder of the
// contestant's own; {in}, the folder or file that it reads.
package scenario

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Schema is where the tables are, in the source and in each target.
const Schema = "bench"

// Scenario is a piece of work and those who do it.
type Scenario struct {
	Name        string          `json:"name"                yaml:"name"`
	Title       string          `json:"title"               yaml:"title"`
	About       string          `json:"about,omitempty"     yaml:"about"`
	Suites      map[string]Size `json:"suites"              yaml:"suites"`
	Kind        Kind            `json:"kind"                yaml:"kind"`
	Rows        int64           `json:"rows,omitempty"      yaml:"rows"` // of each table
	Rounds      int             `json:"rounds"              yaml:"rounds"`
	From        Endpoint        `json:"from,omitempty"      yaml:"from"`
	To          Endpoint        `json:"to,omitempty"        yaml:"to"`
	Mode        Mode            `json:"mode,omitempty"      yaml:"mode"`
	Key         []string        `json:"key,omitempty"       yaml:"key"`    // primary key of the tables
	Cursor      string          `json:"cursor,omitempty"    yaml:"cursor"` // of an incremental one
	Tasks       int             `json:"tasks,omitempty"     yaml:"tasks"`
	Settings    []string        `json:"settings,omitempty"  yaml:"settings"` // of the server, besides the usual ones
	Workload    Workload        `json:"workload,omitzero"   yaml:"workload"`
	First       *First          `json:"first,omitempty"     yaml:"first"`
	KillAt      float64         `json:"kill_at,omitempty"   yaml:"kill_at"` // share of the wall time of a whole run
	Series      *Series         `json:"series,omitempty"    yaml:"series"`
	Go          *GoBench        `json:"go,omitempty"        yaml:"go"`
	Document    map[string]any  `json:"document,omitempty"  yaml:"document"` // for each contestant of ours
	Contestants []Contestant    `json:"contestants"         yaml:"contestants"`
	Targets     []Target        `json:"targets,omitempty"   yaml:"targets"`
}

// Size is what a suite makes of a scenario; 0 is what the scenario says.
type Size struct {
	Rows   int64 `json:"rows,omitempty"   yaml:"rows"`
	Tables int   `json:"tables,omitempty" yaml:"tables"`
	Rounds int   `json:"rounds,omitempty" yaml:"rounds"`
}

// Kind is how a scenario is measured.
type Kind string

// Copy moves rows; Go runs benchmarks of a Go package.
const (
	Copy Kind = "copy"
	Go   Kind = "go"
)

// Endpoint is where rows come from or go to.
type Endpoint string

// The endpoints.
const (
	Postgres Endpoint = "postgres"
	Parquet  Endpoint = "parquet"
	CSV      Endpoint = "csv"
	DuckDB   Endpoint = "duckdb"
)

// Mode is what the rows do to their target.
type Mode string

// The modes. Incremental appends what is behind the cursor.
const (
	Append      Mode = "append"
	Replace     Mode = "replace"
	Upsert      Mode = "upsert"
	Incremental Mode = "incremental"
)

// Workload is the tables that are moved.
type Workload struct {
	Shape      string   `json:"shape,omitempty"      yaml:"shape"`      // name of a query in shapes/
	SQL        string   `json:"sql,omitempty"        yaml:"sql"`        // the query itself, instead
	Statements []string `json:"statements,omitempty" yaml:"statements"` // or what makes {table}
	Table      string   `json:"table,omitempty"      yaml:"table"`
	Tables     int      `json:"tables,omitempty"     yaml:"tables"` // so many of them
	Base       string   `json:"base,omitempty"       yaml:"base"`   // query for what the target has before
	Fresh      bool     `json:"fresh,omitempty"      yaml:"fresh"`  // the target has no table before
	Target     []string `json:"target,omitempty"     yaml:"target"` // statements in the target, once
	Expected   string   `json:"expected,omitempty"   yaml:"expected"`
}

// First is what happens before the run that is measured: statements in the source, a
// run of the contestant, statements in the source.
type First struct {
	Before []string `json:"before" yaml:"before"`
	After  []string `json:"after"  yaml:"after"`
	Share  float64  `json:"share"  yaml:"share"` // of the rows, which are left for the run that is measured
}

// Series measures the same work at several sizes.
type Series struct {
	Rows   []int64 `json:"rows,omitempty"   yaml:"rows"`
	Tables []int64 `json:"tables,omitempty" yaml:"tables"`
}

// Points are the sizes, and By what grows.
func (s *Series) Points() []int64 {
	if len(s.Tables) > 0 {
		return s.Tables
	}
	return s.Rows
}

// By is what grows: rows or tables.
func (s *Series) By() string {
	if len(s.Tables) > 0 {
		return "tables"
	}
	return "rows"
}

// GoBench is a package with benchmarks.
type GoBench struct {
	Package string `json:"package"        yaml:"package"`
	Bench   string `json:"bench"          yaml:"bench"`
	Time    string `json:"time,omitempty" yaml:"time"`
	Scaled  int    `json:"steps,omitempty" yaml:"steps"` // benchtime in steps, which --scale makes fewer
	Metric  string `json:"metric"         yaml:"metric"` // the unit that counts; NAME-UNIT is a contestant NAME of its own
}

// Contestant does the work in one way: ours, a peer by name, or a command.
type Contestant struct {
	Name     string         `json:"name"               yaml:"name"`
	Peer     string         `json:"peer,omitempty"     yaml:"peer"`
	Method   string         `json:"method,omitempty"   yaml:"method"`  // of the peer, where it has several
	Command  []string       `json:"command,omitempty"  yaml:"command"` // a peer without an adapter
	Limit    bool           `json:"limit,omitempty"    yaml:"limit"`   // less than the whole work: not verified, no peer
	Document map[string]any `json:"document,omitempty" yaml:"document"`
	Env      []string       `json:"env,omitempty"      yaml:"env"`
	Program  string         `json:"program,omitempty"  yaml:"-"` // name of another build of ours
}

// Ours reports whether the contestant is rapidbyte-node.
func (c Contestant) Ours() bool { return c.Peer == "" && len(c.Command) == 0 }

// Measure is what a target is about.
type Measure string

// The measures. A ratio is one of wall times, taken within a round.
const (
	WallRatio   Measure = "wall_ratio"
	Wall        Measure = "wall_s"
	WallTable   Measure = "wall_ms_per_table"
	CPURow      Measure = "cpu_ns_per_row"
	PeakMB      Measure = "peak_mb"
	RowsSecond  Measure = "rows_per_s"
	Connections Measure = "connections"
	Slope       Measure = "slope"
	Metric      Measure = "metric"       // of a Go benchmark
	MetricRatio Measure = "metric_ratio" // over that of another one, within a round
)

var measures = []Measure{WallRatio, Wall, WallTable, CPURow, PeakMB, RowsSecond, Connections, Slope, Metric, MetricRatio}

// Target is a limit that the median must keep.
type Target struct {
	ID      string   `json:"id"            yaml:"id"` // such as P1
	Of      string   `json:"of,omitempty"  yaml:"of"` // contestant; empty: the first of ours
	Measure Measure  `json:"measure"       yaml:"measure"`
	Over    string   `json:"over,omitempty" yaml:"over"` // of a ratio: contestant; empty: the best peer of the round
	Most    *float64 `json:"most,omitempty" yaml:"most"`
	Least   *float64 `json:"least,omitempty" yaml:"least"`
}

// Ours is the name of the first contestant of ours, or empty.
func (s *Scenario) Ours() string {
	for _, c := range s.Contestants {
		if c.Ours() {
			return c.Name
		}
	}
	return ""
}

// At returns the scenario at a point of its series, whose value is at.
func (s *Scenario) At(at int64) *Scenario {
	out := *s
	if s.Series.By() == "tables" {
		out.Workload.Tables = int(at)
	} else {
		out.Rows = at
	}
	out.Series = nil
	return &out
}

// Sized returns the scenario as a suite has it, and smaller or larger by scale.
// A fixed number of rows that only start-up is about stays: ten rows are ten rows.
func (s *Scenario) Sized(suite string, scale float64) *Scenario {
	out := *s
	size := s.Suites[suite]
	if size.Rows > 0 {
		out.Rows = size.Rows
	}
	if size.Tables > 0 {
		out.Workload.Tables = size.Tables
	}
	if size.Rounds > 0 {
		out.Rounds = size.Rounds
	}
	if scale == 1 {
		return &out
	}
	scaled := func(n int64) int64 { return max(min(n, 10), int64(math.Round(float64(n)*scale))) }
	if out.Series != nil {
		series := Series{}
		for _, n := range s.Series.Rows {
			series.Rows = append(series.Rows, scaled(n))
		}
		for _, n := range s.Series.Tables {
			series.Tables = append(series.Tables, max(1, int64(math.Round(float64(n)*scale))))
		}
		series.Rows, series.Tables = slices.Compact(series.Rows), slices.Compact(series.Tables)
		out.Series = &series
		return &out
	}
	if out.Workload.Tables > 1 {
		out.Workload.Tables = int(scaled(int64(out.Workload.Tables)))
	} else {
		out.Rows = scaled(out.Rows)
	}
	if out.Go != nil && out.Go.Scaled > 0 {
		g := *out.Go
		g.Scaled = int(max(1, math.Round(float64(g.Scaled)*scale)))
		out.Go = &g
	}
	return &out
}

// Total is the number of rows that there are.
func (s *Scenario) Total() int64 { return s.Rows * int64(max(1, s.Workload.Tables)) }

// Moved is the number of rows that the run that is measured moves.
func (s *Scenario) Moved() int64 {
	if s.First == nil {
		return s.Total()
	}
	return max(1, int64(math.Round(float64(s.Total())*s.First.Share)))
}

// Tables are the names of the tables, without the schema.
func (s *Scenario) Tables() []string {
	if s.Workload.Tables == 0 {
		return []string{s.Workload.Table}
	}
	out := make([]string, s.Workload.Tables)
	for i := range out {
		out[i] = fmt.Sprintf("t%04d", i)
	}
	return out
}

// Expand replaces the names of the scenario in a text of SQL.
func (s *Scenario) Expand(text, table string) string {
	return Fill(text, map[string]string{
		"sql": "(" + s.Query() + ")", "rows": strconv.FormatInt(s.Rows, 10), "table": Schema + "." + table, "schema": Schema,
	})
}

// Query is the query of the rows.
func (s *Scenario) Query() string {
	return Fill(s.Workload.SQL, map[string]string{"rows": strconv.FormatInt(s.Rows, 10)})
}

// Fill replaces {name} by its value; what has none stays as it is.
func Fill(text string, values map[string]string) string {
	pairs := make([]string, 0, 2*len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		pairs = append(pairs, "{"+name+"}", values[name])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// FillAll does so in every text of a document.
func FillAll(value any, values map[string]string) any {
	switch v := value.(type) {
	case string:
		return Fill(v, values)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = FillAll(v[i], values)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = FillAll(x, values)
		}
		return out
	}
	return value
}

// Merge lays a fragment of a document over another: maps are merged, anything else
// replaces what is there.
func Merge(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range over {
		a, isMap := out[k].(map[string]any)
		b, alsoMap := v.(map[string]any)
		if isMap && alsoMap {
			v = Merge(a, b)
		}
		out[k] = v
	}
	return out
}
