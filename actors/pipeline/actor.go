package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
	"rapidbyte.io/node/statestore"
)

// Config is fixed at construction.
type Config struct {
	Spec    run.Spec
	Store   statestore.Store
	NewID   func() string // of a run: a ULID
	Jitter  func() float64
	Observe func(messages.Event)
	Done    func(messages.RunResult) // called once, from the actor
}

const (
	raisesMax      = 3                // epochs drawn because a destination had met a higher one
	acquireTimeout = 30 * time.Second // of drawing an epoch and loading the state, beside the wait for a lease
)

// Actor owns a pipeline.
type Actor struct {
	cfg      Config
	state    state
	worker   *flow.Worker // draws the epoch and loads the state; gives the lease back
	drawn    *acquired    // the worker's, and ours when it has been joined
	epoch    messages.Epoch
	lease    *lease            // nil: the store has none, or it is given back
	lost     *messages.Failure // the lease was lost: nothing more is started
	attempt  messages.Attempt  // the last one given out under epoch
	record   statestore.Run
	run      *actor.PID
	goes     int // run actors started
	raises   int
	retry    run.Retry
	drain    *messages.Drain
	timer    *time.Timer
	result   messages.RunResult
	streams  map[messages.StreamID]messages.StreamResult // over all goes
	order    []messages.StreamID
	started  time.Time
	answered bool // the run actor has answered Conclude
	reported bool
	stopping bool                // at once: nothing new starts
	bug      error               // of this actor: a panic
	then     func(actor.Context) // after the run actor has terminated
}

type state uint8

const (
	stateAcquiring state = iota
	stateRunning
	stateBackoff
	stateConcluding
	stateReleasing
	stateDone
)

// New returns the props of a pipeline actor.
func New(cfg Config) *actor.Props {
	return flow.Props(func() actor.Actor {
		return &Actor{
			cfg: cfg, streams: map[messages.StreamID]messages.StreamResult{},
			retry: run.Retry{Max: cfg.Spec.Resources.Retries}, drawn: &acquired{},
		}
	}, actor.WithSupervisor(supervise{}))
}

// Receive dispatches; every decision is in a named handler.
func (a *Actor) Receive(c actor.Context) {
	defer a.noteBug()
	switch m := c.Message().(type) {
	case *actor.Started:
		a.started = time.Now()
		a.acquire(c, 0)
	case acquired:
		a.onAcquired(c, m)
	case run.Ended:
		a.onEnded(c, m)
	case run.Concluded:
		a.onConcluded(c, m)
	case startAgain:
		a.onStartAgain(c)
	case leaseLost:
		a.onLeaseLost(c, m)
	case released:
		a.onReleased(c, m)
	case messages.Drain:
		a.onDrain(c, m)
	case *actor.Terminated:
		a.onTerminated(c, m.Who)
	case *actor.Stopping, *actor.Restarting:
		a.onStopping()
	case *actor.Stopped:
		a.onStopped()
	}
}

// noteBug keeps the cause of a panic for the report; the supervisor then stops us.
func (a *Actor) noteBug() {
	if r := recover(); r != nil {
		a.bug = flow.PanicError(r)
		panic(a.bug)
	}
}

// Messages to self.
type (
	acquired struct {
		epoch messages.Epoch
		state statestore.State
		err   error
	}
	startAgain struct{}
)

// supervise stops a run actor that panicked; its tasks have stopped with it.
type supervise struct{}

// HandleFailure implements actor.SupervisorStrategy.
func (supervise) HandleFailure(_ *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	if c, ok := sup.(actor.Context); ok { // it runs on the parent's own turn
		if a, ok := c.Actor().(*Actor); ok {
			a.onRunFailed(reason)
		}
	}
	sup.StopChildren(child)
}

// acquire draws an epoch above floor and loads what is stored under it.
func (a *Actor) acquire(c actor.Context, floor messages.Epoch) {
	a.state = stateAcquiring
	root, self := c.ActorSystem().Root, c.Self()
	store, p, mine := a.cfg.Store, a.cfg.Spec.Pipeline, a.epoch
	if mutant.On(mutant.EpochOfStore) {
		floor = 0
	}
	limit := acquireTimeout
	if l, ok := store.(statestore.Leaser); ok {
		limit += l.Patience()
	}
	m := &acquired{}
	a.drawn = m
	a.worker = flow.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		// Mine: what another owner has taken over meanwhile is not taken back. It may have
		// finished the run, which would then be done a second time.
		m.epoch, m.err = store.Acquire(ctx, p, statestore.Claim{Floor: floor, Mine: mine})
		if m.err == nil {
			m.err = failpoint.Hit(failpoint.EpochIssued)
		}
		if m.err == nil {
			m.state, m.err = store.Load(ctx, p)
		}
		root.Send(self, *m)
	}, func(err error) { root.Send(self, acquired{epoch: m.epoch, err: err}) })
}

func (a *Actor) onAcquired(c actor.Context, m acquired) {
	a.worker.Stop()
	if m.epoch > a.epoch {
		a.own(c, m.epoch)
	}
	if m.err != nil {
		f := checkpoint.StoreFailure(a.cfg.Spec.Pipeline, m.err)
		a.finish(c, messages.RunFailed, &f)
		return
	}
	a.attempt, a.lost = 0, nil
	if a.record.ID == "" && !a.fresh() {
		a.record = m.state.Run // an unfinished run is continued under its ID
	}
	if a.record.ID == "" {
		a.record = statestore.Run{ID: a.cfg.NewID(), Started: time.Now().UTC()}
	}
	a.record.Epoch, a.record.State = a.epoch, messages.RunRunning
	if a.drain != nil {
		a.finish(c, messages.RunDrained, nil)
		return
	}
	a.observe(messages.Event{Kind: messages.EventRunStarted})
	a.startRun(c, m.state)
}

// fresh reports whether the operator starts streams over: that is a run of its own.
func (a *Actor) fresh() bool {
	return slices.ContainsFunc(a.cfg.Spec.Streams, func(s run.Stream) bool { return s.Fresh })
}

func (a *Actor) startRun(c actor.Context, stored statestore.State) {
	a.state = stateRunning
	a.goes++
	pid, err := c.SpawnNamed(run.New(run.Config{
		Spec: a.cfg.Spec, Store: a.cfg.Store, State: stored, Epoch: a.epoch, Attempt: a.attempt,
		Run: a.record, Hold: a.hold(), Jitter: a.cfg.Jitter, Observe: a.cfg.Observe,
	}), fmt.Sprintf("run-%s-%d", a.record.ID, a.goes))
	if err != nil {
		panic(err) // goes are never numbered twice
	}
	a.run = pid
	if a.drain != nil {
		c.Send(pid, *a.drain)
	}
}

func (a *Actor) onEnded(c actor.Context, e run.Ended) {
	a.attempt, a.record.ID = e.Attempt, e.RunID
	a.add(e)
	switch {
	case a.lost != nil && (e.State == messages.RunFailed || e.Again):
		a.result.State, a.result.Failure = messages.RunFailed, cmp.Or(e.Failure, a.lost)
		a.stopRun(c, a.release) // the record is the next owner's to write
	case e.Registered >= a.epoch && a.raises < raisesMax && a.drain == nil:
		a.raises++ // the state store was lost or restored: rule 10
		a.stopRun(c, func(c actor.Context) { a.acquire(c, e.Registered) })
	case e.State == messages.RunCompleted && e.Again && a.drain == nil:
		a.stopRun(c, a.reload) // the source has more
	case e.State == messages.RunFailed && e.Again && a.drain == nil:
		a.again(c, e)
	default:
		if a.drain != nil && (e.Again || e.Registered >= a.epoch) {
			e.State, e.Failure = messages.RunDrained, nil // stopped before another go
		}
		a.conclude(c, e.State, e.Failure)
	}
}

// again starts another run actor after a backoff, or gives up.
func (a *Actor) again(c actor.Context, e run.Ended) {
	if e.Failure == nil {
		a.conclude(c, e.State, nil)
		return
	}
	f := *e.Failure
	if !run.Retryable(f) {
		f.Kind = "transient" // a lost scan is taken anew
	}
	delay, ok := a.retry.Failed(f, 0, a.cfg.Jitter())
	if !ok {
		a.conclude(c, e.State, e.Failure)
		return
	}
	a.observe(messages.Event{Kind: messages.EventRunRetry, Failure: e.Failure, Delay: delay})
	a.stopRun(c, func(c actor.Context) {
		switch {
		case a.lost != nil:
			a.finish(c, messages.RunFailed, a.lost)
			return
		case a.drain != nil:
			a.finish(c, messages.RunDrained, nil)
			return
		}
		a.state = stateBackoff
		root, self := c.ActorSystem().Root, c.Self()
		a.timer = time.AfterFunc(delay, func() { root.Send(self, startAgain{}) })
	})
}

func (a *Actor) onStartAgain(c actor.Context) {
	if a.state == stateBackoff {
		a.reload(c)
	}
}

// reload reads the state anew under a fresh epoch: attempts of the old one can then
// not be mistaken for ours.
func (a *Actor) reload(c actor.Context) { a.acquire(c, a.epoch) }

// onRunFailed: the run actor itself panicked. Its children are stopped with it.
func (a *Actor) onRunFailed(reason any) {
	if a.state == stateConcluding {
		if !a.answered {
			a.unrecorded(flow.PanicError(reason))
		}
		a.then = a.release // how it went is known; the record stays open
		return
	}
	f := panicFailure(a.cfg.Spec.Pipeline, reason)
	a.then = func(c actor.Context) { a.finish(c, messages.RunFailed, &f) }
}

// conclude has the record of the run closed, then reports.
func (a *Actor) conclude(c actor.Context, s messages.RunState, f *messages.Failure) {
	a.state = stateConcluding
	a.result.State, a.result.Failure = s, f
	r := a.record
	r.State, r.Ended = s, time.Now().UTC()
	if f != nil {
		r.Code, r.Why = f.Code, f.What+": "+f.Why
	}
	if s != messages.RunCompleted {
		r.Ended = time.Time{} // unfinished: the next start continues it, and loads nothing twice
	}
	c.Send(a.run, run.Conclude{Run: r})
}

func (a *Actor) onConcluded(c actor.Context, m run.Concluded) {
	if a.state == stateConcluding && a.run != nil && !a.answered {
		a.answered = true // a run actor that is stopping says that its checkpoint actor is gone
		a.unrecorded(m.Err)
		a.stopRun(c, a.release)
	}
}

// unrecorded fails a complete run whose end is not known to be in the state store. If it is
// not, the next one goes on with it and moves nothing; if it is, the next one is a new run,
// which loads again.
func (a *Actor) unrecorded(err error) {
	if err == nil || a.result.State != messages.RunCompleted {
		return
	}
	f := checkpoint.StoreFailure(a.cfg.Spec.Pipeline, err)
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Code == messages.CodePanic {
		f = connectors.FailureOf(err, messages.Place{Pipeline: a.cfg.Spec.Pipeline, Stage: connectors.StageCheckpoint})
	}
	f.Why = "every row is there, but the end of the run could not be recorded: " + f.Why
	info, _ := f.Code.Info()
	f.Next = "See whether it is recorded as completed all the same: " + messages.Command("runs", "show", messages.Document) +
		". If so, nothing is left to do, and another run would load anew. If not: " + cmp.Or(f.Next, info.Next)
	a.result.State, a.result.Failure = messages.RunFailed, &f
}

// finish ends what has no run actor.
func (a *Actor) finish(c actor.Context, s messages.RunState, f *messages.Failure) {
	a.result.State, a.result.Failure = s, f
	a.release(c)
}

func (a *Actor) report(actor.Context) {
	if a.reported {
		return
	}
	a.state, a.reported = stateDone, true
	a.result.RunID, a.result.Pipeline, a.result.Epoch = a.record.ID, a.cfg.Spec.Pipeline, a.epoch
	a.result.Elapsed = time.Since(a.started)
	for _, s := range a.order {
		a.result.Streams = append(a.result.Streams, a.streams[s])
	}
	defer a.cfg.Done(a.result) // whatever becomes of the event: somebody waits for it
	a.observe(messages.Event{Kind: messages.EventRunEnded, State: a.result.State, Failure: a.result.Failure})
}

// add sums the streams over all goes of the run.
func (a *Actor) add(e run.Ended) {
	for _, w := range e.Warnings {
		if !slices.Contains(a.result.Warnings, w) {
			a.result.Warnings = append(a.result.Warnings, w)
		}
	}
	if len(e.Decisions) > 0 {
		a.result.Decisions = e.Decisions // those of the last go that planned anything
	}
	for _, s := range e.Streams {
		old, seen := a.streams[s.Stream]
		if !seen {
			a.order = append(a.order, s.Stream)
		}
		s.RowsRead += old.RowsRead
		s.RowsWritten += old.RowsWritten
		s.RowsRejected += old.RowsRejected
		s.Bytes += old.Bytes
		s.Tasks += old.Tasks
		s.Retries += old.Retries
		a.streams[s.Stream] = s
	}
}

func (a *Actor) onDrain(c actor.Context, m messages.Drain) {
	if a.drain != nil {
		return
	}
	a.drain = &m
	switch a.state {
	case stateRunning:
		if a.run != nil {
			c.Send(a.run, m)
		}
	case stateBackoff:
		a.timer.Stop()
		a.finish(c, messages.RunDrained, nil)
	case stateAcquiring, stateConcluding, stateReleasing, stateDone:
	}
}

// stopRun ends the run actor; then is called when it and all below have terminated.
func (a *Actor) stopRun(c actor.Context, then func(actor.Context)) {
	a.then = then
	c.Stop(a.run)
}

func (a *Actor) onTerminated(c actor.Context, who *actor.PID) {
	if a.run == nil || !a.run.Equal(who) {
		return
	}
	a.run = nil
	if a.stopping {
		return
	}
	if then := a.then; then != nil {
		a.then = nil
		then(c)
		return
	}
	f := panicFailure(a.cfg.Spec.Pipeline, errors.New("the run ended without a report"))
	a.finish(c, messages.RunFailed, &f)
}

func (a *Actor) onStopping() {
	a.stopping = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.worker.Stop()
	if a.lease != nil {
		a.lease.watch.Stop()
	}
}

// onStopped comes when the run has terminated too: stopped at once, which is safe,
// because what is committed has a receipt.
func (a *Actor) onStopped() {
	over := a.state == stateConcluding || a.state == stateReleasing
	switch {
	case a.bug != nil:
		f := connectors.FailureOf(a.bug, messages.Place{Pipeline: a.cfg.Spec.Pipeline, Stage: connectors.StageRun})
		a.result.State, a.result.Failure = messages.RunFailed, &f
	case !over && !a.reported:
		a.result.State = messages.RunDrained
	}
	a.releaseStopped()
	a.report(nil)
}

func panicFailure(p messages.PipelineID, reason any) messages.Failure {
	return connectors.FailureOf(flow.PanicError(reason), messages.Place{Pipeline: p, Stage: connectors.StageRun})
}

func (a *Actor) observe(e messages.Event) {
	if a.cfg.Observe == nil {
		return
	}
	e.Time, e.Pipeline, e.Run = time.Now(), a.cfg.Spec.Pipeline, a.record.ID
	a.cfg.Observe(e)
}
