package run

import (
	"context"
	"fmt"
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/statestore"
)

// The jobs of the worker goroutine, in the order of a run.
const (
	jobOpen   = "open destination"
	jobScan   = "scan source"
	jobBegin  = "begin loads"
	jobFinish = "finish load"
	jobClose  = "close"
)

// openJob fences older owners and reads the receipts.
func (a *Actor) openJob() job {
	req := connectors.SessionRequest{
		Pipeline: a.cfg.Spec.Pipeline, Epoch: a.cfg.Epoch, Run: a.cfg.Run.ID, Store: a.cfg.Store.Identity(), Adopt: a.cfg.Spec.Adopt,
	}
	dest, held := a.cfg.Spec.Destination, a.held
	return job{name: jobOpen, run: func(ctx runContext) (func(actor.Context), error) {
		session, err := dest.Open(ctx, req)
		if err != nil {
			return nil, err
		}
		held.session = session
		if err := failpoint.Hit(failpoint.EpochInstalled); err != nil {
			return nil, err
		}
		return func(c actor.Context) {
			a.session = session
			a.onSession(c, session.Recovered())
		}, nil
	}}
}

// onSession lets the machine compare store and destination, and records the run.
func (a *Actor) onSession(c actor.Context, known connectors.Recovered) {
	if a.draining || a.stopping {
		return
	}
	a.adopt(known)
	spec, startOver := a.cfg.Spec.begun(known, a.cfg.Run.ID).ordered(a.cfg.State.Orders, known)
	a.cfg.Spec = spec
	a.tellOrders(startOver, known)
	forget, standing := a.forget(startOver), startOver
	if a.forgetful() {
		standing = nil // it never tells that the load has been begun: once is enough
	}
	ev := checkpoint.Recovered{Durable: known.Receipts}
	for _, l := range known.Loads {
		ev.Begun = append(ev.Begun, l.ID)
		if l.Finished {
			ev.Finished = append(ev.Finished, l.ID)
		}
	}
	for _, r := range a.cfg.State.Receipts {
		if !slices.Contains(forget, r.Load) {
			ev.Stored = append(ev.Stored, r)
		}
	}
	for _, id := range a.cfg.State.Finished {
		if !slices.Contains(forget, id.Name) {
			ev.StoredFinished = append(ev.StoredFinished, id)
		}
	}
	a.known, a.broken = named(known), a.cfg.Spec.incomplete(known, forget)
	c.Send(a.checkpoint, checkpoint.OpenRun{Run: a.cfg.Run, Forget: forget, Orders: standing, Recovered: ev})
}

// adopt goes on with the newest run that unfinished loads of our streams name, when the
// state store has none to go on with: it was lost, or a run over other streams has ended
// the record. Else what that run has finished would be loaded again. An incremental
// stream cannot be, and who starts over begins a run of his own.
func (a *Actor) adopt(known connectors.Recovered) {
	if a.cfg.State.Run.ID != "" {
		return
	}
	newest := ""
	for _, l := range known.Loads {
		st, ok := a.cfg.Spec.stream(messages.StreamID(l.ID.Name))
		if st.Fresh {
			return
		}
		if ok && !l.Finished && st.Sync != connectors.SyncIncremental {
			newest = max(newest, l.Run) // run IDs sort by time
		}
	}
	if newest != "" {
		a.cfg.Run.ID, a.progress.cfg.Run.ID = newest, newest
	}
}

// forgetful reports whether the destination keeps nothing.
func (a *Actor) forgetful() bool {
	f, ok := a.cfg.Spec.Destination.(connectors.Forgetful)
	return ok && f.Forgets()
}

// forget names the loads whose state is dropped: the operator starts them over, or
// the destination keeps nothing to compare it with.
func (a *Actor) forget(startOver []statestore.Order) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if a.forgetful() {
		for _, r := range a.cfg.State.Receipts {
			add(r.Load)
		}
		for _, id := range a.cfg.State.Finished {
			add(id.Name)
		}
	}
	for _, s := range a.cfg.Spec.Streams {
		if s.Fresh {
			add(string(s.Stream))
		}
	}
	for _, o := range startOver {
		add(o.Load.Name)
	}
	return names
}

// onMarked: the run's record is in the store, or the store does not work. Store and
// destination agree: the source is scanned.
func (a *Actor) onMarked(c actor.Context, m checkpoint.RunMarked) {
	switch {
	case m.Conclude:
		c.Send(c.Parent(), Concluded{Err: m.Err})
	case m.Err != nil:
		f := checkpoint.StoreFailure(a.cfg.Spec.Pipeline, m.Err)
		if a.failure == nil {
			a.again = Retryable(f)
		}
		a.fail(c, f)
	case a.broken != nil:
		a.marked = true
		a.fail(c, a.refusal(*a.broken, nil))
	default:
		a.marked = true
		if !a.stopping && !a.draining {
			a.enqueue(a.scanJob(a.known))
		}
	}
}

// scanJob takes the snapshot and plans.
func (a *Actor) scanJob(known connectors.Recovered) job {
	spec, id, held := a.cfg.Spec, a.cfg.Run.ID, a.held
	req := connectors.ScanRequest{
		Pipeline: spec.Pipeline, Epoch: a.cfg.Epoch, Streams: spec.Specs(), Previous: known, Splits: spec.Resources.Tasks,
	}
	return job{name: jobScan, run: func(ctx runContext) (func(actor.Context), error) {
		scan, err := spec.Source.Scan(ctx, req)
		if err != nil {
			return nil, err
		}
		held.scan = scan
		p := scan.Plan()
		loads, warnings, err := spec.plan(p, known, id)
		if err != nil {
			return nil, err
		}
		return func(actor.Context) {
			a.more = p.More
			for _, w := range p.Warnings {
				a.warn(w.Message)
			}
			for _, w := range warnings {
				a.warn(w)
			}
			a.onPlanned(known, loads, p.Room)
		}, nil
	}}
}

func (a *Actor) onPlanned(known connectors.Recovered, loads []planned, room int) {
	if a.draining || a.stopping {
		return
	}
	a.tune(loads, room)
	a.budget = map[messages.StreamID]budget{}
	for _, l := range loads {
		a.loads = append(a.loads, &loadRun{planned: l, retry: Retry{Max: a.cfg.Spec.Resources.Retries}})
		for s, inputs := range l.inputs {
			w, limits := a.cfg.Spec.Resources.budget(len(inputs))
			a.budget[s] = budget{window: w, limits: limits}
		}
		a.progress.plan(l, known)
	}
	a.enqueue(a.beginJob(known))
}

// beginJob makes targets, staging and receipts exist.
func (a *Actor) beginJob(known connectors.Recovered) job {
	session, loads := a.session, a.loads
	return job{name: jobBegin, run: func(ctx runContext) (func(actor.Context), error) {
		if err := beginAll(ctx, session, loads); err != nil {
			return nil, err
		}
		return func(c actor.Context) { a.onBegun(c, known) }, nil
	}}
}

func beginAll(ctx context.Context, session connectors.Session, loads []*loadRun) error {
	if b, ok := session.(connectors.Beginner); ok && len(loads) > 1 {
		all := make([]connectors.Load, len(loads))
		for i, l := range loads {
			all[i] = l.load
		}
		if err := b.BeginAll(ctx, all); err != nil {
			return connectors.FailureOf(err, messages.Place{Stage: connectors.StageDestination})
		}
		return nil
	}
	for _, l := range loads {
		if err := session.Begin(ctx, l.load); err != nil {
			return atStream(err, messages.StreamID(l.load.ID.Name))
		}
	}
	return nil
}

func atStream(err error, s messages.StreamID) error {
	return connectors.FailureOf(err, messages.Place{Stream: s, Stage: connectors.StageDestination})
}

func (a *Actor) onBegun(c actor.Context, known connectors.Recovered) {
	a.phase = phaseRunning
	for _, l := range a.loads {
		ids := make([]messages.PartID, 0, len(l.load.Parts))
		for _, p := range l.load.Parts {
			ids = append(ids, p.ID)
			a.board.add(p, isFinal(known, p))
		}
		c.Send(a.checkpoint, checkpoint.Began{Load: l.load.ID, Parts: ids})
	}
	if a.draining {
		a.do(c, a.board.drain())
		return
	}
	a.do(c, a.board.start())
}

// isFinal reports whether the destination has the part's final receipt.
func isFinal(known connectors.Recovered, p connectors.Part) bool {
	return slices.ContainsFunc(known.Receipts, func(r messages.Receipt) bool {
		return r.Part == p.ID && r.LoadID() == p.Load && r.Final
	})
}

// onFinishLoad: every part is final and persisted.
func (a *Actor) onFinishLoad(id messages.LoadID) {
	l := a.load(id)
	if l == nil || l.finishing || l.state != loadOpen || a.phase != phaseRunning || a.stopping {
		return
	}
	l.finishing = true
	a.enqueue(job{name: jobFinish, finish: []*loadRun{l}})
}

// finishMost is how many loads are finished in one step.
const finishMost = 64

// gather makes one job of all that is to be finished by now, where the session can: they wait
// for the same disk. A load that replaces another is finished by itself: it takes locks, and
// may take long.
func (a *Actor) gather() {
	if _, ok := a.session.(connectors.Finisher); !ok || !marks(a.queue[0]) {
		return
	}
	var rest []job
	first := a.queue[0]
	for _, j := range a.queue[1:] {
		if marks(first) && marks(j) && len(first.finish) < finishMost {
			first.finish = append(first.finish, j.finish...)
		} else {
			rest = append(rest, j)
		}
	}
	a.queue = append([]job{first}, rest...)
}

// marks reports whether a job only marks loads as finished.
func marks(j job) bool {
	return j.finish != nil && !slices.ContainsFunc(j.finish, func(l *loadRun) bool { return l.load.Mode == connectors.ModeReplace })
}

// finishJob finishes loads.
func (a *Actor) finishJob(loads []*loadRun) job {
	session, hold := a.session, a.cfg.Hold
	return job{name: jobFinish, run: func(ctx runContext) (func(actor.Context), error) {
		errs := finishLoads(ctx, session, hold, loads)
		for i, err := range errs {
			if err != nil && ctx.Err() != nil {
				errs[i] = context.Cause(ctx)
			}
		}
		return func(c actor.Context) {
			for i, l := range loads {
				a.onFinished(c, l, errs[i])
			}
		}, nil
	}}
}

// finishLoads returns how each load ended. One that cannot be finished does not keep the
// others from it.
func finishLoads(ctx context.Context, session connectors.Session, hold func() error, loads []*loadRun) []error {
	errs := make([]error, len(loads))
	if f, ok := session.(connectors.Finisher); ok && len(loads) > 1 {
		ids := make([]messages.LoadID, len(loads))
		for i, l := range loads {
			ids[i] = l.load.ID
		}
		err := flow.Protect(func() error {
			if err := flow.Held(hold, jobFinish); err != nil {
				return err
			}
			return f.FinishAll(ctx, ids)
		})
		if err == nil {
			return errs
		}
	}
	for i, l := range loads {
		errs[i] = flow.Protect(func() error { return finishOne(ctx, session, hold, l.load) })
	}
	return errs
}

func finishOne(ctx context.Context, session connectors.Session, hold func() error, l connectors.Load) error {
	if l.Mode == connectors.ModeReplace {
		if err := failpoint.Hit(failpoint.StagingFull); err != nil {
			return err
		}
	}
	if err := flow.Held(hold, jobFinish); err != nil {
		return err
	}
	return session.Finish(ctx, l.ID)
}

func (a *Actor) onFinished(c actor.Context, l *loadRun, err error) {
	l.finishing = false
	if err == nil {
		c.Send(a.checkpoint, checkpoint.Finished{Load: l.load.ID})
		return
	}
	if a.stopping || a.overdue {
		return // cancelled; the next start finishes the load
	}
	f := connectors.FailureOf(err, messages.Place{
		Pipeline: a.cfg.Spec.Pipeline, Stream: messages.StreamID(l.load.ID.Name), Stage: connectors.StageDestination,
	})
	if k := connectors.Kind(f.Kind); k == connectors.KindFenced || k == connectors.KindInternal && f.Code != messages.CodePanic {
		a.fail(c, f)
		return
	}
	if _, again := l.retry.Failed(f, 0, 0); again {
		a.warn(fmt.Sprintf("stream %s: finishing the load failed, trying again: %s", l.load.ID.Name, f.Why))
		return // the checkpoint actor asks again at its next tick
	}
	a.giveUpLoad(c, l, f)
}

func (a *Actor) giveUpLoad(c actor.Context, l *loadRun, f messages.Failure) {
	f = a.refusal(f, nil)
	l.state, l.failure = loadFailed, &f
	if a.failure == nil {
		a.failure = &f // the run goes on with the other loads, and fails in the end
	}
	a.observe(messages.Event{Kind: messages.EventStreamFailed, Stream: l.stream, Failure: &f})
	a.do(c, a.board.failLoad(l.load.ID.Name))
}

func (a *Actor) onLoadDone(id messages.LoadID) {
	l := a.load(id)
	if l == nil || l.state != loadOpen {
		return
	}
	l.state = loadDone
	a.finished(a.progress.result(l))
	a.settle()
}

// finished says that a stream has come to its end, for this run.
func (a *Actor) finished(r messages.StreamResult) {
	a.observe(messages.Event{
		Kind: messages.EventStreamFinished, Stream: r.Stream, RowsRead: r.RowsRead, RowsWritten: r.RowsWritten, Rejected: r.RowsRejected, Bytes: r.Bytes,
	})
}

func (a *Actor) load(id messages.LoadID) *loadRun {
	i := slices.IndexFunc(a.loads, func(l *loadRun) bool { return l.load.ID == id })
	if i < 0 {
		return nil
	}
	return a.loads[i]
}

// closeJob gives everything back; the run has ended then.
func (a *Actor) closeJob() job {
	held := a.held
	return job{name: jobClose, run: func(ctx runContext) (func(actor.Context), error) {
		if err := held.close(ctx); err != nil {
			return nil, err
		}
		return a.end, nil
	}}
}
