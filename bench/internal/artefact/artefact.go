// Package artefact keeps what was measured: a file of JSON lines per scenario, which
// says where, what, each run, and what failed.
package artefact

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rapidbyte.io/node/bench/internal/scenario"
)

// Session is where and with what something was measured.
type Session struct {
	ID         string            `json:"id"`
	Started    time.Time         `json:"started"`
	Suite      string            `json:"suite,omitempty"`
	Scale      float64           `json:"scale"`
	Machine    Machine           `json:"machine"`
	GOMAXPROCS int               `json:"gomaxprocs"` // as this process has it, and its children inherit it
	Go         string            `json:"go"`
	Programs   map[string]string `json:"programs"` // ours: version by name
	Server     Server            `json:"server"`
	Peers      map[string]string `json:"peers"`            // version by name
	Absent     []string          `json:"absent,omitempty"` // peers that were asked for
	Competing  float64           `json:"competing_limit_s"`
	Profiled   bool              `json:"profiled,omitempty"` // ours wrote profiles, which takes time
}

// Machine is where it ran.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	RAMGB  float64 `json:"ram_gb"`
	OS     string  `json:"os"`
	Kernel string  `json:"kernel"`
}

// Server is the PostgreSQL that everybody used.
type Server struct {
	Version   string   `json:"version"`
	Own       bool     `json:"own"`                // started by the harness; otherwise its CPU is unknown
	Transport string   `json:"transport"`          // how clients reach it
	Settings  []string `json:"settings,omitempty"` // besides the defaults
}

// Run is one contestant in one round that counts.
type Run struct {
	Contestant string             `json:"contestant"`
	Point      int64              `json:"point,omitempty"` // of a series
	Round      int                `json:"round"`
	Rows       int64              `json:"rows,omitempty"`
	Tables     int                `json:"tables,omitempty"`
	Wall       float64            `json:"wall_s,omitempty"`
	User       float64            `json:"client_user_s"`
	System     float64            `json:"client_system_s"`
	Server     *float64           `json:"server_cpu_s,omitempty"`    // unknown of a server that is not ours
	Competing  *float64           `json:"competing_cpu_s,omitempty"` // likewise
	PeakMB     float64            `json:"client_peak_mb"`
	AnonMB     float64            `json:"client_peak_anon_mb,omitempty"` // without pages of files, such as the program's
	Conns      int                `json:"connections,omitempty"`         // most at a time, where they were counted
	Killed     float64            `json:"killed_after_s,omitempty"`
	Disturbed  bool               `json:"disturbed,omitempty"` // counted although something else took CPU
	Digest     string             `json:"digest,omitempty"`    // rows and hash that were found; empty: a limit, which writes none
	Metrics    map[string]float64 `json:"metrics,omitempty"`   // of a Go benchmark
	Chosen     []string           `json:"chosen,omitempty"`    // by our program: the lane, what it tuned
}

// CPU is what the client took.
func (r Run) CPU() float64 { return r.User + r.System }

// Failure is a contestant that did not do its work.
type Failure struct {
	Contestant string `json:"contestant"`
	Point      int64  `json:"point,omitempty"`
	Round      int    `json:"round"`
	Why        string `json:"why"`
	Unfit      bool   `json:"unfit,omitempty"` // it does not do this kind of work; nobody's fault
}

// Result is a scenario with all that was measured.
type Result struct {
	Session   Session
	Scenario  *scenario.Scenario
	Runs      []Run
	Failures  []Failure
	Discarded int  // rounds that something else disturbed
	Complete  bool // all rounds were run
}

// Failed reports whether somebody did not do what was asked for.
func (r *Result) Failed() bool {
	return slices.ContainsFunc(r.Failures, func(f Failure) bool { return !f.Unfit })
}

// line is a line of a file.
type line struct {
	Kind     string             `json:"kind"`
	Session  *Session           `json:"session,omitempty"`
	Scenario *scenario.Scenario `json:"scenario,omitempty"`
	Run      *Run               `json:"run,omitempty"`
	Failure  *Failure           `json:"failure,omitempty"`
	Discard  int                `json:"discarded_rounds,omitempty"`
}

// Encode returns the lines of a result.
func (r *Result) Encode() ([]byte, error) {
	lines := []line{{Kind: "session", Session: &r.Session}, {Kind: "scenario", Scenario: r.Scenario}}
	for i := range r.Runs {
		lines = append(lines, line{Kind: "run", Run: &r.Runs[i]})
	}
	for i := range r.Failures {
		lines = append(lines, line{Kind: "failure", Failure: &r.Failures[i]})
	}
	if r.Complete {
		lines = append(lines, line{Kind: "end", Discard: r.Discarded})
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// Write writes a result to DIR/NAME.jsonl.
func (r *Result) Write(dir string) (string, error) {
	text, err := r.Encode()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.Scenario.Name+".jsonl")
	return path, os.WriteFile(path, text, 0o644)
}

// Decode reads the lines of a result.
func Decode(text []byte) (*Result, error) {
	r := &Result{}
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 64<<20)
	for n := 1; s.Scan(); n++ {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		var l line
		d := json.NewDecoder(bytes.NewReader(s.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := r.add(l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if r.Scenario == nil || r.Session.ID == "" {
		return nil, errors.New("found no session and scenario, expected an artefact of bench run")
	}
	return r, nil
}

func (r *Result) add(l line) error {
	switch {
	case l.Kind == "session" && l.Session != nil:
		r.Session = *l.Session
	case l.Kind == "scenario" && l.Scenario != nil:
		r.Scenario = l.Scenario
	case l.Kind == "run" && l.Run != nil:
		r.Runs = append(r.Runs, *l.Run)
	case l.Kind == "failure" && l.Failure != nil:
		r.Failures = append(r.Failures, *l.Failure)
	case l.Kind == "end":
		r.Complete, r.Discarded = true, l.Discard
	default:
		return fmt.Errorf("found kind %q without what it names", l.Kind)
	}
	return nil
}

// Read reads artefacts: files, or folders of them. Of two results of one scenario the
// younger counts. They are sorted by the name of the scenario.
func Read(paths ...string) ([]*Result, error) {
	found := map[string]*Result{}
	for _, path := range paths {
		files := []string{path}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			if files, err = fs.Glob(os.DirFS(path), "*.jsonl"); err != nil {
				return nil, err
			}
			for i := range files {
				files[i] = filepath.Join(path, files[i])
			}
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			r, err := Decode(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if old := found[r.Scenario.Name]; old == nil || !r.Session.Started.Before(old.Session.Started) {
				found[r.Scenario.Name] = r
			}
		}
	}
	out := make([]*Result, 0, len(found))
	for _, r := range found {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Result) int { return strings.Compare(a.Scenario.Name, b.Scenario.Name) })
	return out, nil
}

// Here describes this machine.
func Here() Machine {
	m := Machine{OS: osName()}
	cpu, _ := os.ReadFile("/proc/cpuinfo") // another system: unknown
	for l := range strings.Lines(string(cpu)) {
		name, value, _ := strings.Cut(l, ":")
		if strings.TrimSpace(name) == "model name" {
			m.CPU, m.Cores = strings.TrimSpace(value), m.Cores+1
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // likewise
	m.Kernel = strings.TrimSpace(string(kernel))
	memory, _ := os.ReadFile("/proc/meminfo") // likewise
	var kb float64
	if _, rest, ok := strings.Cut(string(memory), "MemTotal:"); ok {
		_, _ = fmt.Sscan(rest, &kb) // the kernel writes numbers
	}
	m.RAMGB = float64(int(kb/1024/1024*10)) / 10
	return m
}

func osName() string {
	text, _ := os.ReadFile("/etc/os-release") // another system
	for l := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return ""
}
