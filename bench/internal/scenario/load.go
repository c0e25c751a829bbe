package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the scenarios of a folder, sorted by name. Shapes are in shapes/*.sql of
// the same folder, or of those behind it.
func Load(dir fs.FS, behind ...fs.FS) ([]*Scenario, error) {
	shapes := map[string]string{}
	for _, from := range slices.Backward(append([]fs.FS{dir}, behind...)) {
		if err := loadShapes(from, shapes); err != nil {
			return nil, err
		}
	}
	files, err := fs.Glob(dir, "*.yaml")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("no scenario (*.yaml) is there")
	}
	var out []*Scenario
	names := map[string]string{}
	for _, name := range files {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		s, err := Parse(name, text, shapes)
		if err != nil {
			return nil, err
		}
		if other, ok := names[s.Name]; ok {
			return nil, fmt.Errorf("%s: name %s is that of %s too", name, s.Name, other)
		}
		names[s.Name] = name
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Scenario) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func loadShapes(dir fs.FS, into map[string]string) error {
	files, err := fs.Glob(dir, "shapes/*.sql")
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return err
		}
		into[strings.TrimSuffix(path.Base(name), ".sql")] = strings.TrimSpace(string(text))
	}
	return nil
}

// Parse decodes one scenario and completes it. file is for messages.
func Parse(file string, text []byte, shapes map[string]string) (*Scenario, error) {
	s := &Scenario{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: found a second document, expected one scenario per file", file)
	}
	if err := s.complete(shapes); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// defaultRounds are those that count.
const defaultRounds = 5

func (s *Scenario) complete(shapes map[string]string) error {
	if s.Kind == "" {
		s.Kind = Copy
	}
	if s.Rounds == 0 {
		s.Rounds = defaultRounds
	}
	if s.Kind == Go {
		return nil
	}
	for _, e := range []*Endpoint{&s.From, &s.To} {
		if *e == "" {
			*e = Postgres
		}
	}
	if s.Mode == "" {
		s.Mode = Append
	}
	if s.Tasks == 0 {
		s.Tasks = 1
	}
	w := &s.Workload
	if w.Shape != "" {
		if w.SQL != "" || len(w.Statements) > 0 {
			return errors.New("workload has a shape and also sql or statements: name one")
		}
		query, ok := shapes[w.Shape]
		if !ok {
			return fmt.Errorf("found shape %q, expected one of %s", w.Shape, strings.Join(slices.Sorted(maps.Keys(shapes)), ", "))
		}
		w.SQL = query
		if w.Table == "" {
			w.Table = w.Shape
		}
	}
	if w.Table == "" {
		w.Table = "rows"
	}
	for i := range s.Contestants {
		c := &s.Contestants[i]
		if c.Name == "" {
			c.Name = strings.TrimSpace(c.Peer + " " + c.Method)
		}
	}
	return nil
}

var nameRE = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func (s *Scenario) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !nameRE.MatchString(s.Name) {
		fault("found name %q, expected lower-case words joined by hyphens", s.Name)
	}
	if s.Title == "" {
		fault("title is missing")
	}
	if len(s.Suites) == 0 {
		fault("suites is missing: nothing would run it")
	}
	for _, suite := range slices.Sorted(maps.Keys(s.Suites)) {
		if !slices.Contains(Suites, suite) {
			fault("found suite %q, expected %s", suite, strings.Join(Suites, ", "))
		}
		if size := s.Suites[suite]; size.Rows < 0 || size.Rounds < 0 || size.Tables < 0 {
			fault("suite %s: found a negative size", suite)
		}
	}
	if s.Rounds < 0 {
		fault("found rounds %d, expected 1 or more", s.Rounds)
	}
	switch s.Kind {
	case Copy:
		s.checkCopy(fault)
	case Go:
		if s.Go == nil || s.Go.Package == "" || s.Go.Bench == "" || s.Go.Metric == "" {
			fault("kind go needs go: {package, bench, metric}")
		}
		if len(s.Contestants) > 0 {
			fault("kind go has no contestants: its benchmarks are")
		}
		s.checkTargets(fault)
	default:
		fault("found kind %q, expected %s or %s", s.Kind, Copy, Go)
	}
	return errors.Join(faults...)
}

// Suites are those that there are.
var Suites = []string{"quick", "full", "lab"}

func (s *Scenario) checkCopy(fault func(string, ...any)) {
	endpoints := []Endpoint{Postgres, Parquet, CSV, DuckDB}
	for what, e := range map[string]Endpoint{"from": s.From, "to": s.To} {
		if !slices.Contains(endpoints, e) {
			fault("found %s %q, expected one of %v", what, e, endpoints)
		}
	}
	if modes := []Mode{Append, Replace, Upsert, Incremental}; !slices.Contains(modes, s.Mode) {
		fault("found mode %q, expected one of %v", s.Mode, modes)
	}
	if (s.Mode == Upsert || s.Mode == Replace) && len(s.Key) == 0 {
		fault("mode %s needs a key", s.Mode)
	}
	if (s.Mode == Incremental) != (s.Cursor != "") || (s.Mode == Incremental) != (s.First != nil) {
		fault("mode incremental needs a cursor and first, and no other mode takes them")
	}
	if s.First != nil && (s.First.Share <= 0 || s.First.Share > 1) {
		fault("found share %v in first, expected one of the rows, such as 0.1", s.First.Share)
	}
	if s.Rows < 1 && (s.Series == nil || len(s.Series.Rows) == 0) {
		fault("found rows %d, expected 1 or more", s.Rows)
	}
	w := s.Workload
	if (w.SQL == "") == (len(w.Statements) == 0) {
		fault("workload needs one of shape, sql, statements")
	}
	if w.SQL != "" && !strings.Contains(w.SQL, "{rows}") {
		fault("the query of the workload does not use {rows}")
	}
	if w.Tables < 0 || s.Tasks < 1 {
		fault("found tables %d, tasks %d, expected no negative number and a task", w.Tables, s.Tasks)
	}
	if s.KillAt < 0 || s.KillAt >= 1 {
		fault("found kill_at %v, expected a share of the run, such as 0.5", s.KillAt)
	}
	if s.Go != nil {
		fault("go is for kind go")
	}
	if s.Series != nil {
		if (len(s.Series.Rows) == 0) == (len(s.Series.Tables) == 0) {
			fault("series needs one of rows, tables")
		}
		for _, n := range s.Series.Points() {
			if n < 1 {
				fault("found %d in series, expected 1 or more", n)
			}
		}
	}
	s.checkContestants(fault)
	s.checkTargets(fault)
}

func (s *Scenario) checkContestants(fault func(string, ...any)) {
	if len(s.Contestants) == 0 {
		fault("contestants is missing")
	}
	seen := map[string]bool{}
	for i, c := range s.Contestants {
		switch {
		case c.Name == "":
			fault("contestant %d has no name", i+1)
		case seen[c.Name]:
			fault("contestant %q is there twice", c.Name)
		case c.Peer != "" && len(c.Command) > 0:
			fault("contestant %q has a peer and a command: name one", c.Name)
		case !c.Ours() && len(c.Document) > 0:
			fault("contestant %q is not ours and has a document", c.Name)
		case c.Peer == "" && c.Method != "":
			fault("contestant %q has a method and no peer", c.Name)
		case c.Ours() && c.Limit:
			fault("contestant %q is ours, and a limit is not", c.Name)
		}
		seen[c.Name] = true
	}
}

func (s *Scenario) checkTargets(fault func(string, ...any)) {
	has := func(name string) bool {
		return slices.ContainsFunc(s.Contestants, func(c Contestant) bool { return c.Name == name })
	}
	for _, t := range s.Targets {
		if t.ID == "" {
			fault("a target has no id")
		}
		if !slices.Contains(measures, t.Measure) {
			fault("target %s: found measure %q, expected one of %v", t.ID, t.Measure, measures)
		}
		if (t.Most == nil) == (t.Least == nil) {
			fault("target %s needs one of most, least", t.ID)
		}
		for _, name := range []string{t.Of, t.Over} {
			if s.Kind == Copy && name != "" && !has(name) {
				fault("target %s: no contestant is called %q", t.ID, name)
			}
		}
		ofGo := t.Measure == Metric || t.Measure == MetricRatio
		if ofGo != (s.Kind == Go) || ofGo && t.Of == "" {
			fault("target %s: measure %s with of is for kind go, and kind go takes no other", t.ID, Metric)
		}
		if t.Over != "" && t.Measure != WallRatio && t.Measure != MetricRatio || t.Over == "" && t.Measure == MetricRatio {
			fault("target %s: over is for %s and %s, which needs it", t.ID, WallRatio, MetricRatio)
		}
		if t.Measure == Slope && s.Series == nil {
			fault("target %s: a slope needs a series", t.ID)
		}
	}
}
