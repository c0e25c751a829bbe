package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/bench/internal/arena"
	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/report"
	"rapidbyte.io/node/bench/internal/scenario"
)

//go:embed scenarios
var embedded embed.FS

// choice says which scenarios are meant.
type choice struct {
	suite  string
	glob   string
	folder string
}

func (c *choice) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.suite, "suite", "", "scenarios of a `suite`: "+strings.Join(scenario.Suites, ", ")+"; default quick, or all of them with --scenario")
	cmd.Flags().StringVar(&c.glob, "scenario", "", "scenarios whose name matches a `glob`; several are separated by commas")
	cmd.Flags().StringVar(&c.folder, "scenarios", "", "`folder` with scenarios of your own instead")
}

// load returns the scenarios that are meant, unsized.
func (c *choice) load() ([]*scenario.Scenario, error) {
	if c.suite != "" && !slices.Contains(scenario.Suites, c.suite) {
		return nil, fmt.Errorf("found --suite %q, expected %s", c.suite, strings.Join(scenario.Suites, ", "))
	}
	builtin, err := fs.Sub(embedded, "scenarios")
	if err != nil {
		return nil, err
	}
	from, behind := builtin, []fs.FS(nil)
	if c.folder != "" {
		from, behind = os.DirFS(c.folder), []fs.FS{builtin}
	}
	all, err := scenario.Load(from, behind...)
	if err != nil {
		if c.folder != "" {
			err = fmt.Errorf("%s: %w", c.folder, err)
		}
		return nil, err
	}
	var out []*scenario.Scenario
	for _, s := range all {
		_, inSuite := s.Suites[c.suite]
		matches, err := c.matches(s.Name)
		if err != nil {
			return nil, err
		}
		if (c.suite == "" || inSuite) && matches {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no scenario is in suite %q and matches %q; bench list shows them", c.suite, c.glob)
	}
	return out, nil
}

func (c *choice) matches(name string) (bool, error) {
	if c.glob == "" {
		return true, nil
	}
	for glob := range strings.SplitSeq(c.glob, ",") {
		ok, err := path.Match(glob, name)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// runFlags are those of bench run.
type runFlags struct {
	choice
	rounds    int
	scale     float64
	peers     string
	server    string
	program   string
	with      []string
	profile   bool
	competing float64
	retries   int
	quiet     time.Duration
	out       string
}

func runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "run", Short: "Measure scenarios, and write artefacts and a report", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd) },
	}
	f.flags(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.rounds, "rounds", 0, "rounds that count, one more warms up; 0 is what the scenario says")
	flags.Float64Var(&f.scale, "scale", 1, "so many times the rows of each scenario")
	flags.StringVar(&f.peers, "peers", "all", "peers that take part: `names` separated by commas, all, or none")
	flags.StringVar(&f.server, "server", "", "`URL` of a superuser on a PostgreSQL that is there, instead of one of our own; its CPU is unknown then")
	flags.StringVar(&f.program, "program", "", "`path` of a rapidbyte-node; default: one is built")
	flags.StringArrayVar(&f.with, "with", nil, "`name=path` of another rapidbyte-node that does the same in the same rounds; may be repeated")
	flags.BoolVar(&f.profile, "profile", false, "keep CPU and heap profiles of our runs")
	flags.Float64Var(&f.competing, "competing", 0.3, "seconds of CPU that something else may take from a run")
	flags.IntVar(&f.retries, "retries", 10, "disturbed rounds of a scenario that are run again")
	flags.DurationVar(&f.quiet, "quiet", 20*time.Second, "how long to wait for a quiet machine before a round")
	flags.StringVar(&f.out, "out", "", "`folder` for artefacts; default bench/out/TIME")
	return cmd
}

func (f *runFlags) options(cmd *cobra.Command) (arena.Options, error) {
	o := arena.Options{
		Server: f.server, Suite: f.suite, Scale: f.scale, Competing: f.competing, Retries: f.retries, Quiet: f.quiet, Log: cmd.ErrOrStderr(),
		Programs: map[string]string{},
	}
	if f.scale <= 0 || f.rounds < 0 {
		return o, errors.New("--scale is above 0, --rounds is not negative")
	}
	if f.program != "" {
		o.Programs[""] = f.program
	}
	for _, w := range f.with {
		name, path, ok := strings.Cut(w, "=")
		if !ok || name == "" || path == "" {
			return o, fmt.Errorf("found --with %q, expected name=path", w)
		}
		o.Programs[name] = path
	}
	switch f.peers {
	case "all":
	case "none":
		o.Peers = []string{}
	default:
		o.Peers = strings.Split(f.peers, ",")
		for _, p := range o.Peers {
			if !slices.Contains(peer.Names(), p) {
				return o, fmt.Errorf("found peer %q, expected some of %s", p, strings.Join(peer.Names(), ","))
			}
		}
	}
	if f.profile {
		o.Profile = filepath.Join(f.out, "profiles")
		full, err := filepath.Abs(o.Profile)
		if err != nil {
			return o, err
		}
		o.Profile = full
	}
	return o, nil
}

func (f *runFlags) run(ctx context.Context, cmd *cobra.Command) (err error) {
	if f.suite == "" && f.glob == "" && f.folder == "" {
		f.suite = "quick"
	}
	if f.out == "" {
		f.out = filepath.Join("bench", "out", time.Now().UTC().Format("20060102T150405Z"))
	}
	scenarios, err := f.load()
	if err != nil {
		return err
	}
	o, err := f.options(cmd)
	if err != nil {
		return err
	}
	a, err := arena.New(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	var faults []error
	var results []*artefact.Result
	for _, s := range scenarios {
		s = s.Sized(f.suite, f.scale)
		if f.rounds > 0 {
			s.Rounds = f.rounds
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", s.Name, s.Title)
		r, err := a.Measure(ctx, s)
		if err != nil {
			faults = append(faults, err)
		} else if r.Failed() {
			faults = append(faults, fmt.Errorf("%s: somebody failed, see the report", s.Name))
		}
		if len(r.Runs) > 0 || len(r.Failures) > 0 {
			if _, err := r.Write(f.out); err != nil {
				return err
			}
			results = append(results, r)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(results) > 0 {
		if err := report.Write(f.out, results); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(f.out, "report.md"))
	}
	return errors.Join(faults...)
}

func listCommand() *cobra.Command {
	c := &choice{}
	cmd := &cobra.Command{
		Use: "list", Short: "Show the scenarios, and which peers are here", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.load()
			if err != nil {
				return err
			}
			return list(cmd.OutOrStdout(), all)
		},
	}
	c.flags(cmd)
	return cmd
}
