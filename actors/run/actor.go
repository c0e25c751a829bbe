package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// Actor runs one execution of a pipeline.
type Actor struct {
	cfg   Config
	phase phase

	worker *flow.Worker
	jobs   chan job
	queue  []job              // not yet given to the worker; bounded by the loads to finish
	busy   bool               // the worker has a job
	cancel context.CancelFunc // of every job but close

	session    connectors.Session
	held       *held                // the worker's, and ours when it has been joined
	known      connectors.Recovered // what session found
	broken     *messages.Failure    // why that cannot be relied on
	checkpoint *actor.PID
	marked     bool // the run's record is in the state store
	bereft     bool // the checkpoint actor has terminated
	concluding bool // Conclude waits for its answer
	loads      []*loadRun
	board      *board
	attempts   map[messages.PartID]*attempt
	budget     map[messages.StreamID]budget
	progress   *progress
	timer      *time.Timer
	limit      *time.Timer // of a drain

	failure   *messages.Failure // the first cause, of a load or of the run
	stopping  bool              // fail was called: the whole run ends
	again     bool
	met       messages.Epoch // by Open
	more      bool
	draining  bool
	overdue   bool // the drain does not wait for a load to finish: its deadline has passed, or nothing had begun
	warnings  []string
	decisions []messages.Decision
}

type phase uint8

const (
	phaseOpening phase = iota
	phaseRunning       // tasks may live
	phaseClosing
	phaseEnded
)

// loadRun is one load of the plan.
type loadRun struct {
	planned
	state     loadState
	finishing bool // Session.Finish is queued or running
	retry     Retry
	failure   *messages.Failure
}

type loadState uint8

const (
	loadOpen loadState = iota
	loadDone           // finished, and the mark is persisted
	loadFailed
)

type runContext = context.Context

const tickEvery = 500 * time.Millisecond

// New returns the props of a run actor.
func New(cfg Config) *actor.Props {
	return flow.Props(func() actor.Actor {
		return &Actor{cfg: cfg, attempts: map[messages.PartID]*attempt{}, jobs: make(chan job, 1), held: &held{}, progress: newProgress(cfg)}
	}, actor.WithSupervisor(supervise{}))
}

// supervise tells the actor and stops a child that panicked; a data stage is never
// restarted in place: the message it was handling is lost. It runs on the actor's own turn,
// before it can hear that the child, or the last one of an attempt, has terminated: a
// message would come behind that, when nobody knows any more whose child it was.
type supervise struct{}

// HandleFailure implements actor.SupervisorStrategy.
func (supervise) HandleFailure(_ *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	if c, ok := sup.(actor.Context); ok {
		if a, ok := c.Actor().(*Actor); ok {
			a.onChildFailed(c, child, reason)
		}
	}
	sup.StopChildren(child)
}

// Receive dispatches; every decision is in a named handler.
func (a *Actor) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		a.onStarted(c)
	case messages.ToRun:
		a.onMessage(c, m)
	case jobDone:
		a.onJobDone(c, m)
	case checkpoint.Persisted:
		a.onPersisted(c, m)
	case checkpoint.PartDone:
		a.progress.final(m.Part, m.Load)
		a.do(c, a.board.onFinal(m.Part, m.Load))
		a.settle()
	case checkpoint.FinishLoad:
		a.onFinishLoad(m.Load)
	case checkpoint.Done:
		a.onLoadDone(m.Load)
	case checkpoint.Reject: // a stale ack changed nothing
	case checkpoint.SaveTrouble:
		a.warn("the state store could not save, trying again: " + m.Failure.Why)
	case checkpoint.Halted:
		a.fail(c, a.refusal(m.Failure, m.Ahead))
	case checkpoint.RunMarked:
		a.onMarked(c, m)
	case wake:
		a.do(c, a.board.onWake(m.part, m.token))
		a.settle()
	case bereft:
		a.onBereft(c)
	case tick:
		a.onTick(c)
	case deadline:
		a.onDeadline(c)
	case Abort:
		a.fail(c, m.Failure)
	case Conclude:
		a.onConclude(c, m)
	case *actor.Terminated:
		a.onTerminated(c, m.Who)
	case *actor.Stopping, *actor.Restarting:
		a.onStopping()
	case *actor.Stopped:
		a.onStopped()
	}
}

func (a *Actor) onMessage(c actor.Context, m messages.ToRun) {
	switch m := m.(type) {
	case messages.Opened:
		a.onOpened(c, m)
	case messages.Explained:
		a.progress.explained(m)
	case messages.TaskEnded:
		a.do(c, a.board.onEnded(m))
	case messages.StageFailed:
		a.onStageFailed(c, m)
	case messages.StageStatus:
		a.progress.status(m)
	case messages.Drain:
		a.onDrain(c, m)
	}
}

func (a *Actor) onStarted(c actor.Context) {
	a.board = newBoard(a.cfg.Epoch, a.cfg.Attempt, a.cfg.Spec.Resources.tasks(1+len(a.cfg.Spec.Transforms)), a.cfg.Spec.Resources.Retries, a.cfg.Jitter)
	pid, err := c.SpawnNamed(checkpoint.New(checkpoint.Config{
		Pipeline: a.cfg.Spec.Pipeline, Epoch: a.cfg.Epoch, Store: a.cfg.Store,
	}), "checkpoint")
	if err != nil {
		panic(err)
	}
	a.checkpoint = pid
	root, self := c.ActorSystem().Root, c.Self()
	a.timer = time.AfterFunc(tickEvery, func() { root.Send(self, tick{}) })
	jobs := a.jobs
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	limit := a.cfg.Spec.Resources.Stall
	a.worker = flow.Go(
		func(closing context.Context) { work(ctx, closing, limit, jobs, func(d jobDone) { root.Send(self, d) }) },
		func(err error) { root.Send(self, jobDone{err: err}) },
	)
	a.enqueue(a.openJob())
}

// work runs jobs one after the other, none longer than limit; ctx ends all of them
// but the last, close.
func work(ctx, closing context.Context, limit time.Duration, jobs <-chan job, report func(jobDone)) {
	for {
		select {
		case <-closing.Done():
			return
		case j := <-jobs:
			one, within := ctx, limit
			if j.name == jobClose {
				one, within = closing, closeTimeout
			}
			report(do(one, within, j))
		}
	}
}

// do runs one job. Past its limit the error names what was waited for.
func do(ctx context.Context, limit time.Duration, j job) jobDone {
	d := jobDone{name: j.name}
	if limit > 0 {
		stalled := &connectors.Error{
			Op: "wait for " + j.name, Kind: connectors.KindTransient, Commit: connectors.CommitUnknown, Code: messages.CodeStalled,
			Err: fmt.Errorf("%s has not returned for %s", j.name, limit),
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, stalled)
		defer cancel()
	}
	d.err = flow.Protect(func() (err error) { d.then, err = j.run(ctx); return err })
	if d.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		d.err = context.Cause(ctx) // whatever the connector made of it
	}
	return d
}

func (a *Actor) enqueue(j job) {
	a.queue = append(a.queue, j)
	a.feed()
}

func (a *Actor) feed() {
	if a.busy || len(a.queue) == 0 {
		return
	}
	a.busy = true
	a.gather()
	next := a.queue[0]
	if next.finish != nil {
		next = a.finishJob(next.finish)
	}
	a.jobs <- next
	a.queue = a.queue[1:]
}

func (a *Actor) onJobDone(c actor.Context, d jobDone) {
	a.busy = false
	switch {
	case d.err == nil:
		if d.then != nil {
			d.then(c)
		}
	case d.name == jobClose: // every receipt is durable already: the run's outcome stands
		a.warn("giving back the source and the destination failed: " + d.err.Error())
		a.end(c)
	case a.phase == phaseOpening && !a.draining:
		a.onOpeningFailed(c, d)
	}
	a.feed()
	a.settle()
}

// onOpeningFailed ends the run before any task lived; another go may help.
func (a *Actor) onOpeningFailed(c actor.Context, d jobDone) {
	if e, ok := errors.AsType[*connectors.FencedError](d.err); ok && d.name == jobOpen {
		a.met = e.Registered.Epoch
	}
	stage := connectors.StageDestination
	if d.name == jobScan {
		stage = connectors.StageSource
	}
	f := connectors.FailureOf(d.err, messages.Place{Pipeline: a.cfg.Spec.Pipeline, Stage: stage})
	if a.failure == nil {
		a.again = Retryable(f)
	}
	a.fail(c, a.refusal(f, nil))
}

// fail ends the run; the first cause is kept.
func (a *Actor) fail(c actor.Context, f messages.Failure) {
	if a.failure == nil && a.phase < phaseClosing {
		a.failure = &f
	}
	if a.phase >= phaseClosing {
		return
	}
	a.stopping = true
	a.cancel()
	a.queue = nil
	a.do(c, a.board.abort())
	a.settle()
}

func (a *Actor) warn(text string) {
	if !slices.Contains(a.warnings, text) {
		a.warnings = append(a.warnings, text)
	}
	a.observe(messages.Event{Kind: messages.EventWarning, Message: text})
}

func (a *Actor) observe(e messages.Event) { a.progress.send(e) }

func (a *Actor) onDrain(c actor.Context, m messages.Drain) {
	if a.draining {
		return
	}
	a.draining = true
	a.observe(messages.Event{Kind: messages.EventDraining, Message: m.Reason})
	if err := failpoint.Hit(failpoint.Draining); err != nil {
		a.fail(c, connectors.FailureOf(err, messages.Place{Pipeline: a.cfg.Spec.Pipeline, Stage: connectors.StageRun}))
		return
	}
	if a.phase == phaseOpening {
		a.cancel() // nothing has moved yet, and no load is finished any more
		a.queue, a.overdue = nil, true
	}
	a.do(c, a.board.drain())
	if !m.Deadline.IsZero() {
		root, self := c.ActorSystem().Root, c.Self()
		a.limit = time.AfterFunc(time.Until(m.Deadline), func() { root.Send(self, deadline{}) })
	}
	a.settle()
}

// onDeadline ends what the drain has not: it goes on from its receipt another time.
func (a *Actor) onDeadline(c actor.Context) {
	if a.phase >= phaseClosing {
		return
	}
	a.overdue = true
	a.cancel()
	a.queue = nil
	a.do(c, a.board.abort())
	a.settle()
}

// settle closes the run when nothing can change any more.
func (a *Actor) settle() {
	if a.phase >= phaseClosing || a.busy || len(a.queue) > 0 || !a.board.idle() || len(a.attempts) > 0 {
		return
	}
	if a.phase == phaseOpening && !a.stopping && !a.draining {
		return
	}
	if !a.stopping && !a.overdue && a.awaitsFinish() {
		return // all rows are in: let the swap and the mark come through, also in a drain
	}
	a.phase = phaseClosing
	a.enqueue(a.closeJob())
}

// awaitsFinish reports whether a load is complete but not yet marked finished.
func (a *Actor) awaitsFinish() bool {
	for _, l := range a.loads {
		if l.state == loadOpen && a.progress.complete(l.load) {
			return true
		}
	}
	return false
}

// end reports to the parent.
func (a *Actor) end(c actor.Context) {
	if a.phase == phaseEnded {
		return
	}
	a.phase = phaseEnded
	a.timer.Stop()
	e := Ended{
		State: messages.RunCompleted, Failure: a.failure, Again: a.again, Registered: a.met,
		Attempt: a.board.attempt, RunID: a.cfg.Run.ID, Warnings: a.warnings, Decisions: a.decisions,
	}
	for _, l := range a.loads {
		r := a.progress.result(l)
		if r.State == messages.RunDrained && e.State == messages.RunCompleted {
			e.State = messages.RunDrained
		}
		e.Streams = append(e.Streams, r)
	}
	switch {
	case a.failure != nil:
		e.State = messages.RunFailed
	case a.draining && (e.State != messages.RunCompleted || len(a.loads) == 0 || a.more):
		e.State = messages.RunDrained
	default:
		e.State, e.Again = messages.RunCompleted, a.more
		if f := a.leftOpen(); f != nil {
			e.State, e.Failure, e.Again = messages.RunFailed, f, false
			break
		}
		for i, r := range e.Streams {
			if r.State == messages.RunDrained { // it has read all there is, and goes on with the next run
				e.Streams[i].State, e.Streams[i].Open = messages.RunCompleted, true
				a.finished(r)
			}
		}
	}
	c.Send(c.Parent(), e)
}

// onConclude closes the record, under the ID that the run has gone on under. A run that
// has not come as far as its first record leaves nothing to go on with: an open record of
// it would hide the run that unfinished loads name.
func (a *Actor) onConclude(c actor.Context, m Conclude) {
	m.Run.ID = a.cfg.Run.ID
	if !a.marked && a.cfg.State.Run.ID == "" && m.Run.Ended.IsZero() {
		m.Run.Ended = time.Now().UTC()
	}
	a.concluding = true
	if a.bereft {
		a.onBereft(c)
		return
	}
	c.Send(a.checkpoint, checkpoint.ConcludeRun{Run: m.Run})
}

// onBereft: the checkpoint actor is gone, and nobody else answers the parent.
func (a *Actor) onBereft(c actor.Context) {
	a.bereft = true
	if a.concluding {
		c.Send(c.Parent(), Concluded{Err: &connectors.Error{
			Op: "record the end of the run", Kind: connectors.KindInternal, Commit: connectors.CommitUnknown, Code: messages.CodePanic,
			Err: errors.New("the checkpoint actor has panicked; the next start repairs the state"),
		}})
	}
}

// leftOpen asserts what "completed" says: every load is finished, or its stream goes
// on with the next run.
func (a *Actor) leftOpen() *messages.Failure {
	for _, l := range a.loads {
		name := l.load.ID.Name
		if l.state == loadDone || l.state == loadOpen && !a.progress.complete(l.load) && a.board.paused(name) {
			continue
		}
		f := connectors.FailureOf(fmt.Errorf("the run came to rest before load %d of %q was finished", l.load.ID.Number, name),
			messages.Place{Pipeline: a.cfg.Spec.Pipeline, Stream: l.stream, Stage: connectors.StageRun})
		return &f
	}
	return nil
}

func (a *Actor) onChildFailed(c actor.Context, who *actor.PID, reason any) {
	f := connectors.FailureOf(flow.PanicError(reason), messages.Place{Pipeline: a.cfg.Spec.Pipeline, Stage: connectors.StageRun})
	if t := a.attemptOf(who); t != nil {
		f.Where.Part = t.part.ID
		a.onStageFailed(c, messages.StageFailed{Part: t.part.ID, Token: t.token, Stage: connectors.StageRun, Failure: f})
		return
	}
	if !who.Equal(a.checkpoint) {
		return // of an attempt that is over
	}
	if a.failure == nil {
		a.again = true
	}
	a.fail(c, f)
}

// onStageFailed isolates what concerns one part and ends the run for the rest.
func (a *Actor) onStageFailed(c actor.Context, m messages.StageFailed) {
	if a.board.running(m.Part, m.Token) == nil {
		return
	}
	switch k := connectors.Kind(m.Failure.Kind); {
	case k == connectors.KindFenced, k == connectors.KindInternal && m.Failure.Code != messages.CodePanic:
		a.fail(c, m.Failure)
		return
	case k == connectors.KindScanLost:
		a.again = a.failure == nil
		a.fail(c, m.Failure)
		return
	}
	a.do(c, a.board.onFailed(m))
	a.settle()
}

// onStopping ends all that is on its way. What arrives until Stopped starts nothing.
func (a *Actor) onStopping() {
	a.stopping = true
	a.board.abort() // its effects are carried out by stopping: every child is
	a.timer.Stop()
	if a.limit != nil {
		a.limit.Stop()
	}
	a.cancel()
	a.worker.Stop()
}

// onStopped comes when every child has terminated: nothing has effects any more.
func (a *Actor) onStopped() {
	for _, t := range a.attempts {
		t.release()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = a.held.close(ctx) // stopped at once; what is committed stays
}

const closeTimeout = 5 * time.Second

// held is what must be given back. Only the worker touches it until it has been
// joined, so that nothing is forgotten whose arrival nobody has heard of any more.
type held struct {
	scan    connectors.Scan
	session connectors.Session
}

func (h *held) close(ctx context.Context) error {
	scan, session := h.scan, h.session
	h.scan, h.session = nil, nil
	var first error
	if scan != nil {
		first = scan.Close(ctx)
	}
	if session != nil {
		if err := session.Close(ctx); err != nil && first == nil {
			first = fmt.Errorf("close destination: %w", err)
		}
	}
	return first
}
