package pipeline

import (
	"cmp"
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// releaseTimeout bounds giving a lease back; one that cannot be runs out by itself.
const releaseTimeout = 5 * time.Second

// lease is what we hold under an epoch of a store whose ownership runs out.
type lease struct {
	store statestore.Leaser
	epoch messages.Epoch
	watch *flow.Worker // waits for its loss; nil: nothing does
}

// leaseLost says that the lease of an epoch is lost or has run out.
type leaseLost struct{ epoch messages.Epoch }

// own is called with each epoch that the store has handed out to us. The lease of the
// one before has become that of the new one.
func (a *Actor) own(c actor.Context, e messages.Epoch) {
	a.epoch = e
	store, ok := a.cfg.Store.(statestore.Leaser)
	if !ok {
		return
	}
	if a.lease != nil {
		a.lease.watch.Stop()
	}
	a.lease = &lease{store: store, epoch: e}
	lost := store.Lost(a.cfg.Spec.Pipeline, e)
	root, self := c.ActorSystem().Root, c.Self()
	a.lease.watch = flow.Go(func(ctx context.Context) {
		select {
		case <-lost:
			root.Send(self, leaseLost{e})
		case <-ctx.Done():
		}
	}, func(error) {}) // it cannot panic
}

// hold returns the question that is asked before anything is made visible: is the lease
// still ours?
func (a *Actor) hold() func() error {
	if a.lease == nil {
		return func() error { return nil }
	}
	store, p, e := a.lease.store, a.cfg.Spec.Pipeline, a.lease.epoch
	return func() error { return store.Hold(p, e) }
}

// onLeaseLost ends the run: somebody else may own the pipeline from now on. What is over
// already stays as it is, and what waits for another go does not get one.
func (a *Actor) onLeaseLost(c actor.Context, m leaseLost) {
	if m.epoch != a.epoch {
		return // of an epoch that we have handed in for a younger one
	}
	f := checkpoint.StoreFailure(a.cfg.Spec.Pipeline, cmp.Or(a.hold()(), statestore.ErrFenced))
	a.lost = &f
	switch a.state {
	case stateRunning:
		if a.run != nil {
			c.Send(a.run, run.Abort{Failure: f})
		}
	case stateBackoff:
		a.timer.Stop()
		a.finish(c, messages.RunFailed, &f)
	case stateAcquiring: // the store answers whether the pipeline is ours
	case stateConcluding, stateReleasing, stateDone:
	}
}

// released says that the lease is back, or why not.
type released struct{ err error }

// release gives the lease back, then reports. The run actor and all below it have
// terminated: nothing of the run can commit any more.
func (a *Actor) release(c actor.Context) {
	a.state = stateReleasing
	if a.lease == nil {
		a.report(c)
		return
	}
	root, self := c.ActorSystem().Root, c.Self()
	giveBack := a.giveBack()
	a.worker = flow.Go(
		func(ctx context.Context) { root.Send(self, released{giveBack(ctx)}) },
		func(err error) { root.Send(self, released{err}) },
	)
}

// giveBack returns the call that gives the lease back.
func (a *Actor) giveBack() func(context.Context) error {
	l, p := a.lease, a.cfg.Spec.Pipeline
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		return l.store.Release(ctx, p, l.epoch)
	}
}

func (a *Actor) onReleased(c actor.Context, m released) {
	if a.state != stateReleasing {
		return
	}
	a.worker.Stop()
	a.onGivenBack(m.err)
	a.report(c)
}

// onGivenBack forgets the lease. The next owner has to wait if it could not be given back.
func (a *Actor) onGivenBack(err error) {
	a.lease.watch.Stop()
	a.lease = nil
	if err != nil {
		a.result.Warnings = append(a.result.Warnings, "the lease could not be given back, the next owner may have to wait until it has run out: "+err.Error())
	}
}

// releaseStopped gives the lease back when the actor was stopped at once and has no turn
// left in which to wait. What was drawn by a worker that nobody heard of any more is
// given back, too.
func (a *Actor) releaseStopped() {
	if e := a.drawn.epoch; e > a.epoch {
		a.epoch = e
		if store, ok := a.cfg.Store.(statestore.Leaser); ok {
			a.lease = &lease{store: store, epoch: e}
		}
	}
	if a.lease == nil {
		return
	}
	a.onGivenBack(flow.Protect(func() error { return a.giveBack()(context.Background()) }))
}
