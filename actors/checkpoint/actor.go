package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
	"rapidbyte.io/node/statestore"
)

// Config is fixed at construction.
type Config struct {
	Pipeline messages.PipelineID
	Epoch    messages.Epoch
	Store    Store
}

// Store is what the actor needs of a state store.
type Store interface {
	Save(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) error
}

const (
	tickEvery   = 5 * time.Second
	retryAfter  = time.Second      // of a failed save
	savesMax    = 5                // failed saves in a row
	saveTimeout = 30 * time.Second // of one save; a disk slower than that is an error
)

// What the owner tells the actor.
type (
	// TaskStarted says that OpenWriter returned, and who the task is.
	TaskStarted struct {
		messages.Opened
		Source      *actor.PID
		Destination *actor.PID
	}
	// OpenRun comes first: it writes the record of the run, drops what the operator wants
	// forgotten, and only then lets the machine compare and repair, so that nothing it
	// saves is dropped again.
	OpenRun struct {
		Run       statestore.Run
		Forget    []string
		Orders    []statestore.Order // that stand although their loads are forgotten: they are being followed
		Recovered Recovered
	}
	// ConcludeRun writes the record of a run that is over.
	ConcludeRun struct{ Run statestore.Run }
)

// What the actor tells its owner.
type (
	// Persisted says that a receipt of a running task is in the state store.
	Persisted struct {
		messages.CheckpointCommitted
		Receipt messages.Receipt
	}
	// RunMarked answers OpenRun, when state store and destination agree too, and
	// ConcludeRun. If the machine halts over what was recovered, Halted comes before the
	// answer to OpenRun.
	RunMarked struct {
		Conclude bool
		Err      error
	}
	// SaveTrouble says that a save failed and will be tried again.
	SaveTrouble struct{ Failure messages.Failure }
	// Halted says that nothing will be persisted any more. Ahead says where the state store
	// is ahead of the destination, if that is why.
	Halted struct {
		Failure messages.Failure
		Ahead   []Ahead
	}
)

// Actor is the shell around Machine.
type Actor struct {
	cfg     Config
	machine *Machine
	owner   *actor.PID
	tasks   map[messages.PartID]TaskStarted
	jobs    chan job // capacity 4: one save, and the marks of one run
	worker  *flow.Worker
	timer   *time.Timer
	failed  int  // saves in a row
	marked  bool // the record of the run is there, and OpenRun is not yet answered
}

// New returns the props of a checkpoint actor. Its owner is its parent.
func New(cfg Config) *actor.Props {
	return flow.Props(func() actor.Actor {
		return &Actor{
			cfg: cfg, machine: NewMachine(cfg.Pipeline, cfg.Epoch),
			tasks: map[messages.PartID]TaskStarted{}, jobs: make(chan job, 4),
		}
	})
}

// Receive dispatches; every decision is in the machine.
func (a *Actor) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		a.onStarted(c)
	case Event: // from the owner: Began, Finished
		a.step(c, m)
	case messages.DestinationAck:
		if failpoint.Hit(failpoint.AckReceived) != nil {
			return // an ack that was lost: the next tick asks for it
		}
		a.step(c, Acked{m})
	case TaskStarted:
		a.tasks[m.Receipt.Part] = m
		a.step(c, Started{Token: m.Token, Receipt: m.Receipt})
	case OpenRun:
		a.jobs <- job{mark: true, update: statestore.Update{Run: &m.Run, Forget: m.Forget, Orders: m.Orders}}
		a.step(c, m.Recovered)
	case ConcludeRun:
		a.jobs <- job{mark: true, conclude: true, update: statestore.Update{Run: &m.Run}}
	case jobDone:
		a.onJobDone(c, m)
	case markAgain:
		a.jobs <- m.job
	case tick:
		a.onTick(c)
	case *actor.Stopping, *actor.Restarting:
		a.timer.Stop()
		a.worker.Stop()
	}
}

// tick is the timer's message.
type tick struct{}

// job is one transaction.
type job struct {
	id       uint64 // of a Save
	mark     bool   // a record of a run
	conclude bool   // of ConcludeRun
	failed   int    // times, of a record
	update   statestore.Update
}

type jobDone struct {
	job job
	err error
}

func (a *Actor) onStarted(c actor.Context) {
	a.owner = c.Parent()
	root, self := c.ActorSystem().Root, c.Self()
	a.timer = time.AfterFunc(tickEvery, func() { root.Send(self, tick{}) })
	cfg, jobs := a.cfg, a.jobs
	a.worker = flow.Go(
		func(ctx context.Context) { save(ctx, cfg, jobs, func(d jobDone) { root.Send(self, d) }) },
		func(err error) { root.Send(self, jobDone{err: err}) },
	)
}

func (a *Actor) onTick(c actor.Context) {
	a.timer.Reset(tickEvery)
	if a.machine.Running() {
		a.step(c, Tick{})
	}
}

func (a *Actor) onJobDone(c actor.Context, d jobDone) {
	if mutant.On(mutant.NoStoreEpoch) && errors.Is(d.err, statestore.ErrFenced) {
		d.err = nil
	}
	switch {
	case d.job.mark && !d.job.conclude && d.err == nil:
		a.marked = true
		a.answer(c)
		return
	case d.job.mark:
		if !a.remark(c, d) {
			c.Send(a.owner, RunMarked{Conclude: d.job.conclude, Err: d.err})
		}
		return
	case d.err == nil:
		a.failed = 0
		a.step(c, Saved{ID: d.job.id})
		a.answer(c)
		return
	}
	a.failed++
	fenced := errors.Is(d.err, statestore.ErrFenced)
	a.step(c, SaveFailed{ID: d.job.id, Fenced: fenced})
	f := StoreFailure(a.cfg.Pipeline, d.err)
	if fenced {
		return // the machine has stopped and says so
	}
	if a.failed >= savesMax || !Retryable(d.err) {
		c.Send(a.owner, Halted{Failure: f})
		return
	}
	c.Send(a.owner, SaveTrouble{Failure: f})
	a.timer.Reset(retryAfter)
}

// answer answers OpenRun when the record of the run is there and what was to be repaired
// is repaired: a run that finds all its work done would say so over a state that is not.
func (a *Actor) answer(c actor.Context) {
	if a.marked && a.machine.Agrees() {
		a.marked = false
		c.Send(a.owner, RunMarked{})
	}
}

// markAgain is a record that is to be written another time.
type markAgain struct{ job job }

// remark tries again to record that a run is complete: its rows are all there, and
// who runs it the next time would get nothing.
func (a *Actor) remark(c actor.Context, d jobDone) bool {
	d.job.failed++
	complete := d.job.conclude && d.job.update.Run.State == messages.RunCompleted
	if d.err == nil || !complete || d.job.failed >= savesMax || !Retryable(d.err) {
		return false
	}
	root, self := c.ActorSystem().Root, c.Self()
	time.AfterFunc(retryAfter, func() { root.Send(self, markAgain{d.job}) })
	return true
}

// Retryable reports whether the same call may succeed later.
func Retryable(err error) bool {
	for _, final := range []error{statestore.ErrFenced, statestore.ErrDamaged, statestore.ErrForeign, statestore.ErrHeld, statestore.ErrBroken, statestore.ErrInvalid, statestore.ErrAddress} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// StoreFailure describes an error of the state store to the user.
func StoreFailure(p messages.PipelineID, err error) messages.Failure {
	kind := connectors.KindConfig
	switch {
	case errors.Is(err, statestore.ErrFenced):
		kind = connectors.KindFenced
	case Retryable(err):
		kind = connectors.KindTransient
	}
	f := messages.Failure{
		Code: statestore.CodeOf(err), Kind: string(kind), What: "the state store failed",
		Where: messages.Place{Pipeline: p, Stage: connectors.StageCheckpoint}, Why: err.Error(),
	}
	if info, ok := f.Code.Info(); ok {
		f.What, f.Next = info.Title, info.Next
	}
	return f
}

// step feeds the machine and carries out what it wants, in order.
func (a *Actor) step(c actor.Context, ev Event) {
	for _, eff := range a.machine.Step(ev) {
		switch eff := eff.(type) {
		case Save:
			a.jobs <- job{id: eff.ID, update: statestore.Update{Receipts: eff.Receipts, Finished: eff.Finished}}
		case Tell:
			a.tell(c, eff)
		case Ask:
			if t, ok := a.tasks[eff.Part]; ok && t.Token == eff.Token {
				c.Send(t.Destination, messages.AckWanted{Part: eff.Part, Token: eff.Token})
			}
		case PartDone, FinishLoad, Done, Reject:
			c.Send(a.owner, eff)
		case Stop:
			c.Send(a.owner, Halted{Failure: a.stopped(eff), Ahead: eff.Ahead})
		}
	}
}

func (a *Actor) tell(c actor.Context, eff Tell) {
	c.Send(a.owner, Persisted{CheckpointCommitted: eff.CheckpointCommitted, Receipt: eff.Receipt})
	if t, ok := a.tasks[eff.Part]; ok && t.Token == eff.Token {
		c.Send(t.Source, eff.CheckpointCommitted)
		c.Send(t.Destination, eff.CheckpointCommitted)
	}
}

// stopped explains to the user why the machine stopped.
func (a *Actor) stopped(s Stop) messages.Failure {
	if errors.Is(s.Err, ErrFenced) {
		return StoreFailure(a.cfg.Pipeline, fmt.Errorf("%w: epoch %d is not the owner any more", statestore.ErrFenced, a.cfg.Epoch))
	}
	info, _ := messages.CodeStateAhead.Info()
	first := s.Ahead[0]
	why := first.String()
	if n := len(s.Ahead) - 1; n > 0 {
		why += fmt.Sprintf("; and so it is with %d more", n)
	}
	return messages.Failure{
		Code: messages.CodeStateAhead, Kind: string(connectors.KindConfig), What: "the destination lost data that was confirmed",
		Where: messages.Place{
			Pipeline: a.cfg.Pipeline, Stream: messages.StreamID(first.Stored.Load), Part: first.Stored.Part, Stage: connectors.StageCheckpoint,
		},
		Why: why, Next: info.Next,
	}
}

// String names both positions.
func (a Ahead) String() string {
	k := a.Stored
	switch {
	case k.Part == "" && a.Begun:
		return fmt.Sprintf("the state store calls load %d of %s finished; the destination does not", k.Version.Load, k.Load)
	case k.Part == "":
		return fmt.Sprintf("the state store calls load %d of %s finished; the destination does not know it", k.Version.Load, k.Load)
	case a.Durable.Part != "":
		return fmt.Sprintf("the state store has task %s at %s; the destination has it at %s", k.Part, k.Reached(), a.Durable.Reached())
	case a.Begun:
		return fmt.Sprintf("the state store has task %s at %s; the destination has no receipt of it", k.Part, k.Reached())
	}
	return fmt.Sprintf("the state store has task %s at %s; the destination does not know the load", k.Part, k.Reached())
}

// save runs the transactions, one after the other.
func save(ctx context.Context, cfg Config, jobs <-chan job, report func(jobDone)) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-jobs:
			if ctx.Err() != nil {
				return // which of both cases is chosen must not be left to chance
			}
			// A transaction that has begun ends in its own time: the actor that stops waits.
			one, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
			err := flow.Protect(func() error { return saveOne(one, cfg, j) })
			cancel()
			report(jobDone{job: j, err: err})
		}
	}
}

func saveOne(ctx context.Context, cfg Config, j job) error {
	complete := j.conclude && j.update.Run.State == messages.RunCompleted
	if complete {
		if err := failpoint.Hit(failpoint.FinishBefore); err != nil {
			return err
		}
	}
	if err := cfg.Store.Save(ctx, cfg.Pipeline, cfg.Epoch, j.update); err != nil || !complete {
		return err
	}
	return failpoint.Hit(failpoint.FinishAfter)
}
