package crashtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// The actions of a cell.
const (
	kill9  = "kill9"
	panics = "panic"
	fails  = "error"
)

// cell is one way to fail.
type cell struct {
	mode, store string
	point       failpoint.Point
	action      string
	middle      bool              // a hit in the middle; else the first
	then        []failpoint.Point // killed again at each, while it recovers
}

func (c cell) String() string {
	hit := "first"
	if c.middle {
		hit = "middle"
	}
	parts := []string{c.mode, c.store, string(c.point), c.action, hit}
	for _, p := range c.then {
		parts = append(parts, string(p))
	}
	return strings.Join(parts, "/")
}

// figures are what cells are summed up in.
type figures struct {
	Cells   int     `json:"cells"`
	Crashes int     `json:"crashes"`
	Lost    int     `json:"lost"`
	Doubled int     `json:"doubled"`
	Seconds float64 `json:"seconds"`
}

func (f *figures) add(o figures) {
	f.Cells += o.Cells
	f.Crashes += o.Crashes
	f.Lost += o.Lost
	f.Doubled += o.Doubled
	f.Seconds += o.Seconds
}

// drainMax is how long a drained run may take.
const drainMax = 10 * time.Second

// trial is a cell under way.
type trial struct {
	*group
	cell    cell
	seen    []*witness
	epoch   messages.Epoch // the highest of the store
	number  int            // of the process
	done    bool           // a run is complete
	figures figures
}

// run fails as c says, and judges what becomes of it.
func (g *group) run(ctx context.Context, c cell) (figures, error) {
	begin := time.Now()
	t := &trial{group: g, cell: c, figures: figures{Cells: 1}}
	err := t.crash(ctx)
	for _, p := range c.then {
		if err == nil {
			err = t.again(ctx, p)
		}
	}
	if err == nil {
		err = t.recover(ctx)
	}
	t.figures.Seconds = time.Since(begin).Seconds()
	if err != nil {
		err = fmt.Errorf("process %d: %w", t.number, err)
	}
	return t.figures, err
}

// crash runs the first process. It is given an earlier hit when a run came by its point
// less often than the undisturbed one.
func (t *trial) crash(ctx context.Context) error {
	n := 1
	if t.cell.middle {
		n = max(2, t.hits[t.cell.point]/2)
	}
	o := order{}
	if t.cell.point == failpoint.Draining {
		o.drain = t.usual(failpoint.SourceBatch)
	}
	for ; ; n /= 2 {
		if err := t.reset(ctx); err != nil {
			return err
		}
		t.seen, t.epoch, t.number = t.witnesses(), t.group.epoch, 1
		o.rules = fmt.Sprintf("%s=%s@%d", t.cell.point, t.cell.action, n)
		e, err := t.execute(t.number, o)
		if err != nil {
			return err
		}
		if e.hits[t.cell.point] >= n {
			t.figures.Crashes++
			return errors.Join(t.fits(e), t.inspect(ctx, e))
		}
		if n == 1 {
			return fmt.Errorf("it was never at %s: exit code %d, %s", t.cell.point, e.code, e.output)
		}
	}
}

// fits judges how the process of a cell ended.
func (t *trial) fits(e ended) error {
	if t.cell.point == failpoint.Draining && e.took > drainMax {
		return fmt.Errorf("it took %v to drain", e.took)
	}
	if t.cell.action == kill9 {
		if !e.killed {
			return fmt.Errorf("it was not killed: exit code %d, %s", e.code, e.output)
		}
		return nil
	}
	if want := exits(t.cell); e.killed || e.code != want {
		return fmt.Errorf("exit code %d, want %d: %s", e.code, want, e.output)
	}
	return nil
}

// again kills the process that recovers.
func (t *trial) again(ctx context.Context, p failpoint.Point) error {
	if t.done {
		return fmt.Errorf("the run was complete before it could be killed at %s", p)
	}
	t.number++
	e, err := t.execute(t.number, order{rules: string(p) + "=" + kill9})
	if err != nil {
		return err
	}
	if !e.killed {
		return fmt.Errorf("it was not killed at %s: exit code %d, %s", p, e.code, e.output)
	}
	t.figures.Crashes++
	return t.inspect(ctx, e)
}

// inspect judges what a process has left.
func (t *trial) inspect(ctx context.Context, e ended) error {
	d, err := t.found(ctx)
	if err != nil {
		return err
	}
	k, err := t.stored(ctx)
	if err != nil {
		return err
	}
	errs := []error{behind(k, d), t.leases(ctx, e)}
	if k.state.Epoch < t.epoch {
		errs = append(errs, fmt.Errorf("the epoch fell from %d to %d", t.epoch, k.state.Epoch))
	}
	t.epoch = max(t.epoch, k.state.Epoch)
	for _, w := range t.seen {
		if err := w.during(d); err != nil {
			errs = append(errs, fmt.Errorf("stream %s, which is to %s: %w", w.name, w.mode, err))
		}
	}
	t.done = k.last.State == messages.RunCompleted && k.last.ID != t.last
	if !e.killed && (e.code == messages.ExitOK) != t.done {
		errs = append(errs, fmt.Errorf("exit code %d, and the last run is recorded as %q", e.code, k.last.State))
	}
	return errors.Join(errs...)
}

// leases judges the lease of a shared store: who ends in order gives it back. That of a
// process that was killed is there, and the next one on this machine takes it.
func (t *trial) leases(ctx context.Context, e ended) error {
	if t.store != "postgres" || e.killed {
		return nil
	}
	held, err := leased(ctx, t.server.URL(t.name("state")))
	if err == nil && held {
		err = fmt.Errorf("a process that ended with exit code %d has kept its lease", e.code)
	}
	return err
}

// recover completes the run, and runs once more.
func (t *trial) recover(ctx context.Context) error {
	if !t.done {
		t.number++
		e, err := t.completes(ctx, t.number, order{})
		if err == nil {
			err = t.inspect(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	if err := t.judge(ctx, t.seen, &t.figures); err != nil {
		return err
	}
	if t.mode.doubles() {
		return t.to.tidy(ctx)
	}
	t.number++
	e, err := t.completes(ctx, t.number, order{})
	if err != nil {
		return err
	}
	for _, s := range t.mode.streams {
		if n := e.written[messages.StreamID(s.name)]; t.mode.still(s) && n != 0 {
			err = errors.Join(err, fmt.Errorf("stream %s: a run after a complete one wrote %d rows", s.name, n))
		}
	}
	return errors.Join(err, t.judge(ctx, t.seen, &t.figures), t.to.tidy(ctx))
}

// judge compares targets of which all is there, and counts what is not right.
func (g *group) judge(ctx context.Context, seen []*witness, f *figures) error {
	d, err := g.found(ctx)
	if err != nil {
		return err
	}
	var errs []error
	var dead int64
	for _, w := range seen {
		diff := w.complete(d)
		f.Lost += len(diff.missing)
		f.Doubled += len(diff.extra)
		if err := diff.same(); err != nil {
			errs = append(errs, fmt.Errorf("stream %s, which is to %s: %w", w.name, w.mode, err))
		}
		dead += w.deadLetters()
	}
	if d.dead != dead {
		errs = append(errs, fmt.Errorf("%d dead letters, want %d", d.dead, dead))
	}
	return errors.Join(errs...)
}
