package killtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// campaign is one pipeline in one folder.
type campaign struct {
	t        *testing.T
	scenario scenario
	random   *rand.Rand
	binary   string
	dir      string
	to       destination
	oracles  map[string]*oracle
	ends     *ends                                 // of a campaign between databases; nil otherwise
	versions *versions                             // of its targets
	store    func(context.Context) (stored, error) // reads the state store; nil: it is a file
	stop     func()                                // ends the readers of a replace there; nil: there are none

	generation int
	seed       uint64 // of the generator
	coming     int64  // rows of this generation
	judged     found  // what was there when a run was last judged complete
	sights     sights

	storeSeen bool
	epoch     messages.Epoch // the highest seen, of the store
	events    int            // of the longest run
	complete  string         // ID of the newest run that is known to be complete
}

// sights counts what was met.
type sights struct {
	processes, kills int
	rows             int64 // that complete generations have moved
	midRun           int   // killed between run_started and run_ended
	moving           int   // killed while a task ran
	storeBehind      int   // the destination had a commit that the store did not know
	unrecorded       int   // a load was finished at the destination alone
	unswapped        int   // all of a replace was staged, nothing of it visible
	swapped          int   // a replace was visible before its run was complete
	whenDone         int   // killed when the run was recorded as complete
	reads, changes   int   // by readers of a replace, and how often one saw the next version

	lost, doubled, changed int64 // rows, by the check that failed
}

func (s *sights) add(o sights) {
	s.processes += o.processes
	s.kills += o.kills
	s.midRun += o.midRun
	s.moving += o.moving
	s.storeBehind += o.storeBehind
	s.unrecorded += o.unrecorded
	s.unswapped += o.unswapped
	s.swapped += o.swapped
	s.whenDone += o.whenDone
	s.reads += o.reads
	s.changes += o.changes
	s.rows += o.rows
	s.lost += o.lost
	s.doubled += o.doubled
	s.changed += o.changed
}

func newCampaign(t *testing.T, seed uint64) *campaign {
	t.Helper()
	binary, err := program()
	require.NoError(t, err)
	s := scenarios[seed%uint64(len(scenarios))]
	return newCampaignIn(t, s, seed, binary, keptFolder(t, replay("Kill", seed), seed, s))
}

func replay(run string, seed uint64) string {
	return fmt.Sprintf("RB_SEED=%d go test -run %s ./cmd/rapidbyte-node/killtest", seed, run)
}

// keptFolder makes a folder that stays there when the test fails.
func keptFolder(t *testing.T, again string, seed uint64, s scenario) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rapidbyte-kill-") //nolint:usetesting // it may stay
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d (%s): everything is kept in %s; again: %s", seed, s.name, dir, again)
			return
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

func newCampaignIn(t *testing.T, s scenario, seed uint64, binary, dir string) *campaign {
	t.Helper()
	c := &campaign{
		t: t, scenario: s, random: rand.New(rand.NewPCG(seed, 1)), binary: binary, dir: dir, oracles: map[string]*oracle{}, //nolint:gosec // reproducible on purpose
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "log"), 0o755))
	c.to = newFileDestination(filepath.Join(dir, "out"))
	if s.to == "duckdb" {
		c.to = duckDestination{filepath.Join(dir, "out.duckdb")}
	}
	for _, st := range s.streams {
		c.oracles[st.name] = &oracle{mode: st.mode}
	}
	return c
}

// run kills n processes, in as many generations as it takes.
func (c *campaign) run(n int) {
	c.t.Helper()
	if c.scenario.versions() {
		c.provide()
		c.torment(0)
	}
	if c.ends != nil && c.scenario.versions() {
		c.watch()
	}
	for c.sights.kills < n {
		c.provide()
		more := 8 + c.random.IntN(9) // or fewer, if the run comes to its end first
		c.torment(min(n, c.sights.kills+more))
	}
	if c.stop != nil {
		c.stop()
	}
}

// provide makes the source rows of the next generation and its document.
func (c *campaign) provide() {
	c.t.Helper()
	c.generation++
	c.coming = 0
	c.seed = c.random.Uint64N(1<<32) + 1
	for _, st := range c.scenario.streams {
		var rows []row
		switch {
		case c.scenario.made:
			var err error
			rows, err = generated(c.t.Context(), st.name, c.seed, c.scenario.rows)
			require.NoError(c.t, err)
		case c.scenario.server:
			rows = c.table(st)
		default:
			rows = c.files(st)
		}
		rows = st.transformed(rows)
		c.oracles[st.name].grow(rows)
		c.coming += int64(len(rows))
	}
	document := c.scenario.document(c.seed)
	if c.scenario.server {
		document = c.ends.document(c.scenario)
		require.NoError(c.t, c.versions.announce(c.t.Context(), c.ends, c.scenario))
	}
	require.NoError(c.t, os.WriteFile(filepath.Join(c.dir, "p.yaml"), []byte(document), 0o600))
}

// files writes the files of one stream. Those of a replace are other rows in files
// of the same names, those of other modes are new files beside the old ones. An
// upsert has each key several times, in one file of a generation only.
func (c *campaign) files(st stream) (out []row) {
	c.t.Helper()
	dir := filepath.Join(c.dir, "in", st.name)
	require.NoError(c.t, os.MkdirAll(dir, 0o755))
	for f := range st.files {
		first := int64(c.generation*1_000_000 + f*100_000)
		name := fmt.Sprintf("%02d-%02d.%s", c.generation, f, st.format)
		if st.mode == replaces {
			name = fmt.Sprintf("%02d.%s", f, st.format)
		}
		rows := make([]row, st.rows)
		for i := range rows {
			id := first + int64(i)
			if st.mode == upserts {
				id = int64(f*100_000 + c.random.IntN(st.rows/3))
			}
			rows[i] = someRow(c.random, id)
			if st.mode == appends && i > 0 && c.random.IntN(100) == 0 {
				rows[i] = rows[i-1] // the source may have a row twice
			}
		}
		require.NoError(c.t, writeRows(filepath.Join(dir, name), rows))
		out = append(out, rows...)
	}
	return out
}

// plan draws the next kill. again counts crashes in recovery that are to follow.
func (c *campaign) plan(again *int) *kill {
	var p kill
	switch {
	case c.scenario.server:
		p = someKillBetweenServers(c.random, c.events)
	case *again > 0:
		p = recovering(c.random)
		*again--
	default:
		p = someKill(c.random)
		if c.random.IntN(4) == 0 {
			*again = 1 + c.random.IntN(2)
		}
	}
	return &p
}

// torment kills runs until n were killed in all, then lets one complete.
func (c *campaign) torment(n int) {
	c.t.Helper()
	again := 0 // crashes in recovery that follow
	for {
		var plan *kill
		if c.sights.kills < n {
			plan = c.plan(&again)
		}
		a := c.start(plan)
		if !a.killed {
			c.events = max(c.events, a.events)
			c.completed()
			c.requireTidy()
			break
		}
		c.sights.kills++
		if a.midRun {
			c.sights.midRun++
		}
		if a.moving {
			c.sights.moving++
			if c.scenario.server && c.random.IntN(3) == 0 {
				require.NoError(c.t, c.ends.haunt(c.t.Context(), a.epoch, c.scenario))
				continue // the next run meets at once what this one has left at the server
			}
		}
		if c.inspect(*plan) { // it was killed when all was done and recorded
			c.completed()
			break
		}
	}
	if c.scenario.again() {
		a := c.start(nil)
		c.completed()
		c.requireTidy()
		if c.scenario.still() {
			require.Zero(c.t, a.written, "a run after a complete one writes nothing")
			if !c.scenario.server { // a database tells its end again
				require.Zero(c.t, a.commits, "a run after a complete one commits nothing")
			}
		}
	}
	c.settle()
}

// settle remembers that the generation is complete.
func (c *campaign) settle() {
	c.t.Helper()
	k, err := c.state()
	require.NoError(c.t, err)
	require.Equal(c.t, messages.RunCompleted, k.last.State)
	c.complete = k.last.ID
	d := c.judged // nothing has run since
	c.require(behind(k, d), "process %d completed the run", c.sights.processes)
	for name, o := range c.oracles {
		load := d.loads[name].number
		o.settle(load, applied(d, name, load))
	}
	c.sights.rows += c.coming
}

// start runs one process. One that ends by itself must have succeeded.
func (c *campaign) start(plan *kill) attempt {
	c.t.Helper()
	c.sights.processes++
	var seen func(messages.Event) error
	if c.ends != nil {
		seen = c.ends.takenOver(c.t.Context())
	}
	a, err := execute(c.binary, c.dir, c.sights.processes, plan, seen)
	require.NoError(c.t, err)
	if !a.killed && a.code != 0 {
		text, _ := os.ReadFile(a.log) // as much as there is
		require.Zero(c.t, a.code, "process %d failed: %s", c.sights.processes, text)
	}
	return a
}

// require fails the test if there is an error, and remembers the damage.
func (c *campaign) require(err error, format string, args ...any) {
	c.t.Helper()
	if d := worst(err); err != nil {
		c.sights.lost, c.sights.doubled, c.sights.changed = c.sights.lost+d.lost, c.sights.doubled+d.doubled, c.sights.changed+d.changed
	}
	require.NoError(c.t, err, append([]any{format}, args...)...)
}

func (c *campaign) found() found {
	c.t.Helper()
	d, err := c.to.read(c.t.Context(), true)
	require.NoError(c.t, err, "the destination cannot be read after process %d", c.sights.processes)
	return d
}

// inspect judges what a killed process has left. It reports whether its run is
// recorded as complete.
func (c *campaign) inspect(plan kill) bool {
	c.t.Helper()
	k, err := c.state()
	require.NoError(c.t, err, "process %d, killed %v: the state store is damaged", c.sights.processes, plan)
	require.True(c.t, k.there || !c.storeSeen, "process %d, killed %v: the state store is gone", c.sights.processes, plan)
	c.storeSeen = k.there
	require.GreaterOrEqual(c.t, k.state.Epoch, c.epoch, "process %d, killed %v: the epoch fell", c.sights.processes, plan)
	c.epoch = k.state.Epoch

	d := c.found()
	errs := []error{behind(k, d)}
	for _, st := range c.scenario.streams {
		load := d.loads[st.name].number
		if err := c.oracles[st.name].during(d.rows[st.name], load, applied(d, st.name, load)); err != nil {
			errs = append(errs, fmt.Errorf("stream %s, which is to %s: %w", st.name, st.mode, err))
		}
	}
	c.require(errors.Join(errs...), "process %d, killed %v", c.sights.processes, plan)
	c.see(k, d)
	if k.last.State == messages.RunCompleted && k.last.ID != c.complete {
		c.sights.whenDone++
		return true
	}
	return false
}

func (c *campaign) state() (stored, error) {
	if c.store != nil {
		return c.store(c.t.Context())
	}
	return readState(c.t.Context(), filepath.Join(c.dir, "state", "state.db"))
}

// see counts the states that a kill should meet now and then.
func (c *campaign) see(k stored, d found) {
	for _, r := range k.state.Receipts {
		if d.receipts[r.Part].Version.Compare(r.Version) > 0 {
			c.sights.storeBehind++
			break
		}
	}
	done := map[string]uint64{}
	for _, l := range k.state.Finished {
		done[l.Name] = l.Number
	}
	for name, l := range d.loads {
		if l.finished && l.number > done[name] {
			c.sights.unrecorded++
			break
		}
	}
	swapped, unswapped := false, false
	for name, o := range c.oracles {
		if o.mode == connectors.ModeReplace {
			swapped = swapped || o.swapped
			unswapped = unswapped || d.staged(name)
		}
	}
	if swapped {
		c.sights.swapped++
	}
	if unswapped {
		c.sights.unswapped++
	}
}

// applied is how many rows the receipts of a load cover.
func applied(d found, name string, load uint64) (n int64) {
	for _, r := range d.receipts {
		if r.Load == name && r.Version.Load == load {
			n += r.Rows.Applied
		}
	}
	return n
}

// completed judges a target of which all is there.
func (c *campaign) completed() {
	c.t.Helper()
	c.require(c.judge(), "process %d completed the run", c.sights.processes)
}

func (c *campaign) judge() error {
	d, err := c.to.read(c.t.Context(), false)
	if err != nil {
		return err
	}
	c.judged = d
	errs := make([]error, 0, len(c.oracles)+1)
	for _, st := range c.scenario.streams {
		if err := c.oracles[st.name].complete(c.t.Context(), c.to.table(st, d)); err != nil {
			errs = append(errs, fmt.Errorf("stream %s, which is to %s: %w", st.name, st.mode, err))
		}
	}
	return errors.Join(append(errs, c.hidden())...)
}

// hidden finds a unique index on a target that is appended to, where rowcheck cannot.
func (c *campaign) hidden() error {
	to, ok := c.to.(interface {
		unique(context.Context) ([]string, error)
	})
	if !ok {
		return nil
	}
	if !slices.ContainsFunc(c.scenario.streams, func(st stream) bool { return st.mode == appends }) {
		return nil
	}
	unique, err := to.unique(c.t.Context())
	for _, what := range unique {
		target, _, _ := strings.Cut(what, ":")
		if o := c.oracles[target]; o != nil && o.mode == connectors.ModeAppend {
			err = errors.Join(err, errors.New("unique in a target of append: "+what))
		}
	}
	return err
}

func (c *campaign) requireTidy() {
	c.t.Helper()
	require.NoError(c.t, c.to.tidy(c.t.Context()), "after process %d", c.sights.processes)
}
