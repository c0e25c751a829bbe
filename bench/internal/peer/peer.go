// Package peer knows other tools: where they are, which version they have, and how they
// are asked for the work that we do, in the fastest way that they document. It installs
// nothing.
package peer

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rapidbyte.io/node/bench/internal/scenario"
)

// Work is what a contestant is asked to do.
type Work struct {
	From, To       scenario.Endpoint
	Mode           scenario.Mode
	Source, Target string // URLs of databases
	Schema         string // of the tables, in both
	Tables         []string
	Columns        []string // of the first table
	Key            []string
	Cursor         string
	Fresh          bool   // the target has no tables
	Dir            string // a folder of the contestant's own
	Out            string // the file to write, when the target is one
	Rows           int64
	Tasks          int
	Method         string
}

// Line is how a tool is called.
type Line struct {
	Commands [][]string // each reads what the one before writes
	Files    map[string]string
	Env      []string
	Stdout   string // file for what the last one writes
	// Forever says that the tool does not end: it is done when the target has the rows.
	Forever bool
	// Limit says that it does less than the work: nothing is there to verify.
	Limit bool
}

// Tool is a tool of this machine.
type Tool struct {
	Name, Path, Version string
}

// ErrUnfit is wrapped by the errors for work that a tool does not do.
var ErrUnfit = errors.New("does not do this work")

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnfit, fmt.Sprintf(format, args...))
}

// adapter is what is known about a tool.
type adapter struct {
	programs []string // names of the program, the first found counts
	version  []string // arguments that make it say its version
	line     func(path string, w Work) (Line, error)
}

var adapters = map[string]adapter{
	"psql":             {[]string{"psql"}, []string{"--version"}, psql},
	"pgcopydb":         {[]string{"pgcopydb"}, []string{"--version"}, pgcopydb},
	"pgloader":         {[]string{"pgloader"}, []string{"--version"}, pgloader},
	"sling":            {[]string{"sling"}, []string{"--version"}, sling},
	"ingestr":          {[]string{"ingestr"}, []string{"--version"}, ingestr},
	"redpanda-connect": {[]string{"redpanda-connect", "rpk-connect", "benthos"}, []string{"--version"}, redpanda},
	"conduit":          {[]string{"conduit"}, []string{"version"}, conduit},
}

// Names are the tools that have an adapter.
func Names() []string {
	return []string{"psql", "pgcopydb", "pgloader", "sling", "ingestr", "redpanda-connect", "conduit"}
}

// Find looks for a tool in PATH, psql also where pg_config says. It returns
// exec.ErrNotFound when it is absent.
func Find(name string) (Tool, error) {
	a, ok := adapters[name]
	if !ok {
		return Tool{}, fmt.Errorf("found peer %q, expected one of %s", name, strings.Join(Names(), ", "))
	}
	for _, program := range a.programs {
		path, err := exec.LookPath(program)
		if err != nil && name == "psql" {
			path, err = besidePgConfig(program)
		}
		if err != nil {
			continue
		}
		out, err := exec.Command(path, a.version...).CombinedOutput()
		if err != nil {
			return Tool{}, fmt.Errorf("%s %s: %w\n%s", path, strings.Join(a.version, " "), err, out)
		}
		return Tool{Name: name, Path: path, Version: versionIn(string(out))}, nil
	}
	return Tool{}, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func besidePgConfig(program string) (string, error) {
	out, err := exec.Command("pg_config", "--bindir").Output()
	if err != nil {
		return "", err
	}
	return exec.LookPath(filepath.Join(strings.TrimSpace(string(out)), program))
}

var versionRE = regexp.MustCompile(`v?[0-9]+\.[0-9]+[0-9A-Za-z.~+-]*`)

// versionIn finds what looks like a version; a line with a time of day may be before it.
func versionIn(text string) string {
	for l := range strings.Lines(text) {
		if i := strings.Index(l, "version"); i >= 0 {
			if v := versionRE.FindString(l[i:]); v != "" {
				return v
			}
		}
	}
	if v := versionRE.FindString(text); v != "" {
		return v
	}
	return strings.TrimSpace(text)
}

// Line returns how the tool is called for some work.
func (t Tool) Line(w Work) (Line, error) {
	l, err := adapters[t.Name].line(t.Path, w)
	if err != nil {
		return Line{}, fmt.Errorf("%s: %w", t.Name, err)
	}
	return l, nil
}

// Fit is the error of work that a tool does not do, wherever the tool is.
func Fit(name string, w Work) error {
	_, err := adapters[name].line(name, w)
	return err
}

// onlyPostgres is for tools whose adapter knows copies between databases only.
func onlyPostgres(w Work, modes ...scenario.Mode) error {
	if w.From != scenario.Postgres || w.To != scenario.Postgres {
		return unfit("%s to %s", w.From, w.To)
	}
	if !slices.Contains(modes, w.Mode) {
		return unfit("mode %s", w.Mode)
	}
	if w.Method != "" {
		return unfit("method %s", w.Method)
	}
	return nil
}

func oneTable(w Work) error {
	if len(w.Tables) != 1 {
		return unfit("%d tables in one run", len(w.Tables))
	}
	return nil
}

// Ident quotes a name of SQL.
func Ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Idents quotes names and joins them, each behind a prefix.
func Idents(prefix string, names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + Ident(n)
	}
	return strings.Join(out, ", ")
}
