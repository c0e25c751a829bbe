// Package arena is where contestants meet: a PostgreSQL server with a written
// configuration, data made by SQL, programs, and rounds in which everybody does the same
// work in turn, each into a database of its own, and is verified.
package arena

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// Settings are those of the server besides the defaults: fsync, full_page_writes and
// synchronous_commit are on. Checkpoints come between the runs.
var Settings = []string{
	"shared_buffers=2GB", "wal_level=logical", "max_wal_size=8GB", "checkpoint_timeout=1h", "autovacuum=off", "max_connections=100",
	"max_locks_per_transaction=256",
}

// Options are how everything is measured.
type Options struct {
	Server    string            // URL of a superuser on a server that is there; empty: one of our own
	Settings  []string          // of our own server; nil: Settings
	Programs  map[string]string // builds of rapidbyte-node; "" is the first, and is built when it is missing
	Peers     []string          // those that take part; nil: all that a scenario names
	Suite     string
	Scale     float64
	Competing float64 // seconds of CPU that something else may take from a run
	Retries   int     // disturbed rounds of a scenario that are run again
	Quiet     time.Duration
	Profile   string // folder for profiles of our program; empty: none
	Log       io.Writer
}

// Arena is ready to measure.
type Arena struct {
	options Options
	dir     string
	servers map[string]*server // by their settings
	tools   map[string]peer.Tool
	absent  map[string]bool
	session artefact.Session
	profile bool // the program knows --profile
}

// New builds the program unless there is one.
func New(ctx context.Context, o Options) (*Arena, error) {
	if o.Settings == nil {
		o.Settings = Settings
	}
	o.Programs = maps.Clone(o.Programs)
	if o.Programs == nil {
		o.Programs = map[string]string{}
	}
	built := o.Programs[""] == ""
	dir, err := os.MkdirTemp("", "rbbench")
	if err != nil {
		return nil, err
	}
	a := &Arena{options: o, dir: dir, servers: map[string]*server{}, tools: map[string]peer.Tool{}, absent: map[string]bool{}}
	if err := a.programs(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	now := time.Now().UTC()
	a.session = artefact.Session{
		ID: now.Format("20060102T150405Z"), Started: now.Truncate(time.Second), Suite: o.Suite, Scale: o.Scale, Machine: artefact.Here(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go: runtime.Version(), Programs: map[string]string{}, Peers: map[string]string{}, Competing: o.Competing,
		Profiled: a.profile,
	}
	for name, path := range a.options.Programs {
		out, err := exec.CommandContext(ctx, path, "version").Output()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s version: %w", path, err), a.Close())
		}
		first, _, _ := strings.Cut(string(out), "\n")
		a.session.Programs[ours(name)] = strings.Join(strings.Fields(first), " ")
	}
	if built { // from what is here
		if commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
			a.session.Programs[ours("")] += " " + strings.TrimSpace(string(commit))
		}
	}
	return a, nil
}

// ours is how a build of our program is called.
func ours(name string) string {
	if name == "" {
		return "rapidbyte-node"
	}
	return name
}

func (a *Arena) programs(ctx context.Context) error {
	if a.options.Programs[""] == "" {
		path := filepath.Join(a.dir, "rapidbyte-node")
		fmt.Fprintln(a.options.Log, "building rapidbyte-node")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "rapidbyte.io/node/cmd/rapidbyte-node")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build rapidbyte-node: %w\n%s", err, out)
		}
		a.options.Programs[""] = path
	}
	for name, path := range a.options.Programs {
		full, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		a.options.Programs[name] = full
	}
	if a.options.Profile == "" {
		return nil
	}
	help, err := exec.CommandContext(ctx, a.options.Programs[""], "run", "--help").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s run --help: %w", a.options.Programs[""], err)
	}
	if a.profile = strings.Contains(string(help), "--profile"); !a.profile {
		fmt.Fprintln(a.options.Log, "this rapidbyte-node does not know --profile: no profiles are taken")
	}
	return nil
}

// Close stops servers and removes what was written.
func (a *Arena) Close() error {
	var errs []error
	for _, s := range a.servers {
		if s.own {
			s.stop()
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		rows, err := s.query(ctx, adminDB, "SELECT datname FROM pg_database WHERE datname LIKE 'rb\\_bench\\_%'")
		errs = append(errs, err)
		for _, r := range rows {
			errs = append(errs, s.exec(ctx, adminDB, drop(r[0])))
		}
		cancel()
	}
	return errors.Join(append(errs, os.RemoveAll(a.dir))...)
}

// server returns one with the settings of a scenario.
func (a *Arena) server(ctx context.Context, extra []string) (*server, error) {
	key := strings.Join(extra, "\n")
	if a.options.Server != "" {
		key = ""
		if len(extra) > 0 {
			return nil, fmt.Errorf("the scenario needs a server with %s, which one that is there cannot be given", strings.Join(extra, ", "))
		}
	}
	if s, ok := a.servers[key]; ok {
		return s, nil
	}
	s := &server{}
	var err error
	if a.options.Server != "" {
		s.base, err = url.Parse(a.options.Server)
	} else {
		err = s.start(slices.Concat(a.options.Settings, extra))
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.query(ctx, adminDB, "SHOW server_version")
	if err != nil {
		if s.own {
			s.stop()
		}
		return nil, err
	}
	s.version = rows[0][0]
	a.servers[key] = s
	return s, nil
}

func (s *server) start(settings []string) error {
	h := &holder{}
	err := h.try(func() {
		p := pgtest.Start(h, settings...)
		s.pid, s.own, s.settings, s.stop = p.PID(), true, settings, h.close
		u, err := url.Parse(p.URL(adminDB))
		if err != nil {
			h.Errorf("%v", err)
			h.FailNow()
		}
		s.base = u
	})
	if err != nil {
		h.close()
	}
	return err
}

// describe is what an artefact says about the server.
func (s *server) describe() artefact.Server {
	out := artefact.Server{Version: s.version, Own: s.own, Settings: s.settings, Transport: "TCP, loopback"}
	if !s.own {
		out.Transport = "that of the URL, host " + s.base.Host
		if host := s.base.Query().Get("host"); host != "" {
			out.Transport = "unix socket in " + host
		}
	}
	return out
}

// tool finds a peer once.
func (a *Arena) tool(name string) (peer.Tool, bool, error) {
	if t, ok := a.tools[name]; ok {
		return t, true, nil
	}
	if a.absent[name] {
		return peer.Tool{}, false, nil
	}
	t, err := peer.Find(name)
	if errors.Is(err, exec.ErrNotFound) {
		a.absent[name] = true
		return t, false, nil
	}
	if err == nil {
		a.tools[name] = t
	}
	return t, err == nil, err
}

// Measure runs a scenario. What was measured is returned with an error, too.
func (a *Arena) Measure(ctx context.Context, s *scenario.Scenario) (*artefact.Result, error) {
	r := &artefact.Result{Session: a.session, Scenario: s}
	r.Session.Peers = map[string]string{}
	r.Session.Absent = nil
	if s.Kind == scenario.Go {
		return r, a.goBench(ctx, s, r)
	}
	srv, err := a.server(ctx, s.Settings)
	if err != nil {
		return r, err
	}
	r.Session.Server = srv.describe()
	points := []int64{0}
	if s.Series != nil {
		points = s.Series.Points()
	}
	entrants, err := a.entrants(s, r)
	if err != nil {
		return r, err
	}
	for _, p := range points {
		at := s
		if p > 0 {
			at = s.At(p)
			fmt.Fprintf(a.options.Log, "  %s = %d\n", s.Series.By(), p)
		}
		c := &contest{Arena: a, server: srv, s: at, point: p, result: r, entrants: entrants}
		if err := c.run(ctx); err != nil {
			return r, err
		}
	}
	r.Complete = true
	return r, nil
}

// holder is what pgtest takes for a test.
type holder struct {
	fault    error
	cleanups []func()
}

// failed ends what pgtest does; try recovers it.
type failed struct{}

// Helper implements pgtest.T.
func (*holder) Helper() {}

// Errorf implements pgtest.T.
func (h *holder) Errorf(format string, args ...any) {
	h.fault = errors.Join(h.fault, fmt.Errorf(format, args...))
}

// FailNow implements pgtest.T.
func (h *holder) FailNow() { panic(failed{}) }

// Cleanup implements pgtest.T.
func (h *holder) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

// try calls f and returns what it reported.
func (h *holder) try(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(failed); !ok {
				panic(r)
			}
			err = h.fault
		}
	}()
	f()
	return nil
}

func (h *holder) close() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}
