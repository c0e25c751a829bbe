package arena

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/proc"
	"rapidbyte.io/node/bench/internal/scenario"
)

// entrant is a contestant that takes part.
type entrant struct {
	scenario.Contestant
	tool   peer.Tool // of a peer
	db     string    // its target
	failed bool
	whole  float64 // wall time of a whole run, where runs are killed
}

// contest is a scenario, or one point of its series.
type contest struct {
	*Arena
	server   *server
	s        *scenario.Scenario
	point    int64
	result   *artefact.Result
	entrants []*entrant

	columns  []column
	expected string // digest
	dir      string
	in       string // what is read, when it is no database
}

// entrants resolves contestants. Absent peers are listed, those that do not do such
// work are noted.
func (a *Arena) entrants(s *scenario.Scenario, r *artefact.Result) ([]*entrant, error) {
	var out []*entrant
	for _, c := range s.Contestants {
		e := &entrant{Contestant: c, db: targetDB + strconv.Itoa(len(out))}
		if c.Peer != "" {
			if a.options.Peers != nil && !slices.Contains(a.options.Peers, c.Peer) {
				continue
			}
			tool, found, err := a.tool(c.Peer)
			if err != nil {
				return nil, fmt.Errorf("contestant %s: %w", c.Name, err)
			}
			if !found {
				if !slices.Contains(r.Session.Absent, c.Peer) {
					r.Session.Absent = append(r.Session.Absent, c.Peer)
				}
				continue
			}
			e.tool = tool
			r.Session.Peers[c.Peer] = tool.Version
		}
		out = append(out, e)
		if !c.Ours() {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(a.options.Programs)) {
			if name == "" {
				continue
			}
			again := &entrant{Contestant: c, db: targetDB + strconv.Itoa(len(out))}
			again.Name, again.Program = c.Name+" "+name, name
			out = append(out, again)
		}
	}
	return out, nil
}

func (c *contest) run(ctx context.Context) error {
	c.dir = filepath.Join(c.Arena.dir, c.s.Name)
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return fmt.Errorf("%s: %w", c.s.Name, err)
	}
	plan := schedule{
		rounds: c.s.Rounds, retries: c.options.Retries, limit: c.options.Competing, log: c.options.Log,
		round: func(number, attempt int, stop func(artefact.Run) bool) ([]artefact.Run, error) {
			return c.round(ctx, number, attempt, stop)
		},
	}
	kept, discarded, err := plan.run()
	c.result.Runs = append(c.result.Runs, kept...)
	c.result.Discarded += discarded
	drops := []string{drop(sourceDB), drop(templateDB), drop(verifyDB)}
	for _, e := range c.entrants {
		drops = append(drops, drop(e.db))
	}
	if err != nil {
		return err
	}
	return errors.Join(c.server.exec(ctx, adminDB, drops...), os.RemoveAll(c.dir))
}

// round runs every contestant once. Odd rounds go the other way round: what drifts
// with time must not favour one.
func (c *contest) round(ctx context.Context, number, attempt int, stop func(artefact.Run) bool) ([]artefact.Run, error) {
	if err := proc.AwaitQuiet(c.options.Quiet); err != nil {
		return nil, err
	}
	order := slices.Clone(c.entrants)
	if number%2 == 1 {
		slices.Reverse(order)
	}
	var runs []artefact.Run
	for _, e := range order {
		if e.failed {
			continue
		}
		run, err := c.turn(ctx, e, number, attempt)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			e.failed = true
			f := artefact.Failure{Contestant: e.Name, Point: c.point, Round: number, Why: err.Error(), Unfit: errors.Is(err, peer.ErrUnfit)}
			c.result.Failures = append(c.result.Failures, f)
			fmt.Fprintf(c.options.Log, "  round %d: %s failed: %v\n", number, e.Name, err)
			continue
		}
		runs = append(runs, run)
		fmt.Fprintf(c.options.Log, "  round %d: %s %.3f s, CPU %.2f s, peak %.0f MB\n", number, e.Name, run.Wall, run.CPU(), run.PeakMB)
		if stop(run) {
			break
		}
	}
	if len(runs) == 0 {
		return nil, fmt.Errorf("%s: nobody is left", c.s.Name)
	}
	slices.SortStableFunc(runs, func(a, b artefact.Run) int { return c.place(a) - c.place(b) })
	return runs, nil
}

func (c *contest) place(r artefact.Run) int {
	return slices.IndexFunc(c.entrants, func(e *entrant) bool { return e.Name == r.Contestant })
}

// killTries is how often a run is killed earlier because it ended before.
const killTries = 3

// turn is one contestant in one round: its target as it was, the work, the verification.
func (c *contest) turn(ctx context.Context, e *entrant, number, attempt int) (artefact.Run, error) {
	killed := 0.0
	if c.s.KillAt > 0 && number > 0 {
		killed = e.whole * c.s.KillAt
	}
	for try := 0; ; try++ {
		run, err := c.work(ctx, e, number, attempt, killed)
		if errors.Is(err, errEarly) && try < killTries {
			killed *= 0.7
			continue
		}
		if err != nil {
			return run, err
		}
		if c.s.KillAt > 0 && number == 0 {
			e.whole = run.Wall
		}
		return run, nil
	}
}

// errEarly is a run that ended before it was killed.
var errEarly = errors.New("it ended before it was killed")

func (c *contest) work(ctx context.Context, e *entrant, number, attempt int, kill float64) (artefact.Run, error) {
	run := artefact.Run{Contestant: e.Name, Point: c.point, Round: number, Rows: c.s.Moved(), Tables: c.s.Workload.Tables, Killed: kill}
	dir := filepath.Join(c.dir, fmt.Sprintf("%s-%d", e.db, attempt))
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return run, err
	}
	if err := c.reset(ctx, e); err != nil {
		return run, err
	}
	line, err := c.line(e, dir, number)
	if err != nil {
		return run, err
	}
	for name, text := range line.Files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return run, err
		}
	}
	chain := proc.Chain{Commands: line.Commands, Env: line.Env, Dir: dir, Stdout: line.Stdout}
	if c.s.First != nil {
		if err := c.first(ctx, chain); err != nil {
			return run, err
		}
	}
	if err := c.checkpoint(ctx); err != nil {
		return run, err
	}
	if kill > 0 {
		early := chain
		early.KillAfter = time.Duration(kill * float64(time.Second))
		if _, err := early.Run(ctx, c.server.pid); err == nil {
			return run, errEarly
		} else if !errors.Is(err, proc.ErrKilled) {
			return run, err
		}
	}
	if err := c.measured(ctx, &run, chain, line, e); err != nil {
		return run, err
	}
	if e.Ours() {
		if run.Chosen, err = chosen(dir); err != nil {
			return run, err
		}
	}
	if !line.Limit {
		run.Digest, err = c.verify(ctx, e, dir)
	}
	return run, errors.Join(err, os.RemoveAll(dir))
}

// measured is the run that counts.
func (c *contest) measured(ctx context.Context, run *artefact.Run, chain proc.Chain, line peer.Line, e *entrant) error {
	watch := &watcher{}
	defer watch.close(ctx)
	if c.s.Workload.Tables > 1 {
		if err := watch.open(ctx, c.server, adminDB); err != nil {
			return err
		}
		chain.Look = func() { watch.connections(ctx) }
	}
	if line.Forever {
		if err := watch.open(ctx, c.server, e.db); err != nil {
			return err
		}
		chain.Until = func() bool { return watch.rows(ctx, c.tables()) >= c.s.Total() }
	}
	u, err := chain.Run(ctx, c.server.pid)
	if err != nil {
		return err
	}
	run.Wall, run.User, run.System, run.PeakMB, run.AnonMB, run.Conns = u.Wall, u.User, u.System, u.PeakMB, u.AnonMB, watch.most
	if c.server.own {
		run.Server, run.Competing = &u.Server, &u.Competing
	}
	return watch.err
}

// line is how a contestant is called.
func (c *contest) line(e *entrant, dir string, number int) (peer.Line, error) {
	w := peer.Work{
		From: c.s.From, To: c.s.To, Mode: c.s.Mode, Source: c.server.url(sourceDB), Target: c.server.url(e.db), Schema: scenario.Schema, Tables: c.s.Tables(),
		Columns: names(c.columns), Key: c.s.Key, Cursor: c.s.Cursor, Fresh: c.s.Workload.Fresh, Dir: dir, Out: filepath.Join(dir, "out", "rows.csv"), Rows: c.s.Total(),
		Tasks: c.s.Tasks, Method: e.Method,
	}
	if err := os.MkdirAll(filepath.Dir(w.Out), 0o755); err != nil {
		return peer.Line{}, err
	}
	switch {
	case e.Peer != "":
		l, err := e.tool.Line(w)
		if err == nil && l.Limit && !e.Limit {
			err = fmt.Errorf("method %s does less than the work: the contestant is a limit", e.Method)
		}
		l.Env = append(l.Env, e.Env...)
		return l, err
	case len(e.Command) > 0:
		l := peer.Line{Commands: [][]string{nil}, Env: e.Env, Limit: e.Limit}
		for _, word := range e.Command {
			l.Commands[0] = append(l.Commands[0], scenario.Fill(c.s.Expand(word, c.s.Tables()[0]), c.values(e, dir)))
		}
		return l, nil
	}
	return c.ours(e, dir, number)
}

// values are what a document or a command may name.
func (c *contest) values(e *entrant, dir string) map[string]string {
	return map[string]string{"source": c.server.url(sourceDB), "target": c.server.url(e.db), "target_schema": scenario.Schema, "dir": dir, "in": c.in}
}

// first lets the contestant run once on an earlier state of the source.
func (c *contest) first(ctx context.Context, chain proc.Chain) error {
	if err := c.server.exec(ctx, sourceDB, c.expand(c.s.First.Before)...); err != nil {
		return err
	}
	if _, err := chain.Run(ctx, c.server.pid); err != nil {
		return fmt.Errorf("the run before the one that counts: %w", err)
	}
	return c.server.exec(ctx, sourceDB, c.expand(c.s.First.After)...)
}

func (c *contest) expand(statements []string) []string {
	out := make([]string, len(statements))
	for i, text := range statements {
		out[i] = c.s.Expand(text, c.s.Tables()[0])
	}
	return out
}

func names(columns []column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.name
	}
	return out
}

// verify compares what a contestant has written with what is expected.
func (c *contest) verify(ctx context.Context, e *entrant, dir string) (string, error) {
	db := e.db
	if c.s.To != scenario.Postgres {
		if err := c.load(ctx, dir); err != nil {
			return "", fmt.Errorf("what it wrote cannot be read: %w", err)
		}
		db = verifyDB
	}
	got, err := c.server.digestOf(ctx, db, c.columns, c.tables()...)
	if err != nil {
		return "", fmt.Errorf("what it wrote cannot be compared: %w", err)
	}
	if got != c.expected {
		gotRows, gotHash, _ := strings.Cut(got, " ")
		rows, hash, _ := strings.Cut(c.expected, " ")
		return "", fmt.Errorf("it left %s rows with hash %s, expected %s with %s", gotRows, gotHash, rows, hash)
	}
	return got, nil
}

// tables are queries for the rows of each table.
func (c *contest) tables() []string {
	var out []string
	for _, t := range c.s.Tables() {
		out = append(out, "SELECT * FROM "+scenario.Schema+"."+peer.Ident(t))
	}
	return out
}
