package transform

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
)

// Config is fixed at construction.
type Config struct {
	Task      flow.Task
	Hop       int // of its input; the output is Hop+1
	Transform connectors.Transform
	Request   connectors.StageRequest
	Window    flow.Window // of its input
	Register  *flow.Register
}

// Actor is a middle stage of a task.
type Actor struct {
	cfg     Config
	state   state
	up      *actor.PID
	owner   *actor.PID
	gate    flow.Gate
	grants  flow.Grants
	next    messages.Seq    // expected from upstream
	queue   []messages.Item // accepted, not yet given to the worker; at most twice the window, see flow.Enqueue
	jobs    chan messages.Item
	worker  *flow.Worker
	current messages.Seq // the worker's
}

type state uint8

const (
	stateIdle state = iota
	stateBusy
	stateFailed
)

// New returns the props of a transform actor.
func New(cfg Config) *actor.Props {
	return flow.Props(func() actor.Actor {
		return &Actor{cfg: cfg, grants: flow.NewGrants(cfg.Window), jobs: make(chan messages.Item, 1)}
	})
}

// Receive dispatches; every decision is in a named handler.
func (a *Actor) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case flow.Wire:
		a.onWire(c, m)
	case messages.ToTransform:
		a.onMessage(c, m)
	case flow.Offer:
		a.gate.OnOffer(c, m)
	case jobDone:
		a.onJobDone(c, m)
	case *actor.Stopping, *actor.Restarting:
		a.worker.Stop()
	}
}

func (a *Actor) onMessage(c actor.Context, m messages.ToTransform) {
	switch m := m.(type) {
	case messages.Batch:
		a.onItem(m)
	case messages.SchemaChange:
		a.onItem(m)
	case messages.Truncate:
		a.onItem(m)
	case messages.Rejected:
		a.onItem(m)
	case messages.Barrier:
		a.onItem(m)
	case messages.Demand:
		if a.cfg.Task.Owns(m.Part, m.Token) {
			a.gate.OnDemand(c, m)
		}
	case messages.Inspect:
		c.Send(a.owner, a.status())
	}
}

// jobDone is the worker's report on one item.
type jobDone struct {
	bytes int64 // of the batch, 0 for other items
	err   error
}

func (a *Actor) onWire(c actor.Context, w flow.Wire) {
	a.up, a.owner = w.Up, w.Owner
	a.gate.Wire(w.Down)
	root, self := c.ActorSystem().Root, c.Self()
	send := func(m any) { root.Send(self, m) }
	k := &work{cfg: a.cfg, jobs: a.jobs, report: func(d jobDone) { send(d) }}
	k.port = flow.NewPort(a.cfg.Task, a.cfg.Hop+1, a.cfg.Register, send)
	a.worker = flow.Go(k.run, func(err error) { send(jobDone{err: err}) })
	a.grant(c, a.grants.First())
}

func (a *Actor) grant(c actor.Context, w flow.Window) {
	c.Send(a.up, messages.Demand{Part: a.cfg.Task.Part.ID, Token: a.cfg.Task.Token, Batches: w.Batches, Bytes: w.Bytes})
}

func (a *Actor) onItem(item messages.Item) {
	s := flow.StampOf(item)
	if !a.cfg.Task.Owns(s.Part, s.Token) || a.state == stateFailed {
		return // the register still holds what it carries
	}
	a.next++
	if s.Seq != a.next {
		panic(fmt.Sprintf("transform: item %d after %d", s.Seq, a.next-1))
	}
	a.queue = flow.Enqueue(a.queue, item)
	a.step()
}

func (a *Actor) onJobDone(c actor.Context, d jobDone) {
	if d.err != nil {
		a.state = stateFailed
		a.queue = nil
		c.Send(a.owner, a.cfg.Task.Failed(connectors.StageTransform, d.err))
		return
	}
	a.state = stateIdle
	if d.bytes > 0 {
		if w, ok := a.grants.Consumed(d.bytes); ok {
			a.grant(c, w)
		}
	}
	a.step()
}

func (a *Actor) step() {
	if a.state != stateIdle || len(a.queue) == 0 {
		return
	}
	item := a.queue[0]
	a.queue = a.queue[1:]
	a.state, a.current = stateBusy, flow.StampOf(item).Seq
	a.jobs <- item
}

func (a *Actor) status() messages.StageStatus {
	doing := "waiting for data"
	switch {
	case a.gate.Blocked():
		doing = "waiting for credit"
	case a.state == stateFailed:
		doing = "failed"
	case a.state == stateBusy:
		doing = fmt.Sprintf("transforming item %d", a.current)
	}
	return messages.StageStatus{
		Part: a.cfg.Task.Part.ID, Token: a.cfg.Task.Token, Stage: connectors.StageTransform,
		Doing: doing, Rows: a.gate.Rows, Bytes: a.gate.Bytes,
	}
}

// work is the worker goroutine's side: it alone touches the stage.
type work struct {
	cfg    Config
	port   *flow.Port
	jobs   <-chan messages.Item
	report func(jobDone)
	stage  connectors.Stage
}

func (k *work) run(ctx context.Context) {
	stage, err := k.cfg.Transform.Open(ctx, k.cfg.Request)
	if err != nil {
		if ctx.Err() == nil {
			k.report(jobDone{err: err})
		}
		return
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = stage.Close(closing) // holds at most rows that will be read again
	}()
	k.stage = stage
	for {
		select {
		case <-ctx.Done():
			return
		case item := <-k.jobs:
			d := jobDone{}
			if rows := flow.RowsOf(item); rows != nil {
				d.bytes = max(1, rows.Bytes())
			}
			d.err = flow.Protect(func() error { return k.do(ctx, item) })
			if d.err != nil && ctx.Err() != nil {
				return // the attempt was ended; whoever ended it knows why
			}
			k.report(d)
			if d.err != nil {
				return // latched: a stage never goes on over a hole
			}
		}
	}
}

func (k *work) do(ctx context.Context, item messages.Item) error {
	out := func(ctx context.Context, d messages.Data) error { return k.push(ctx, d) }
	switch m := item.(type) {
	case messages.Barrier:
		if err := k.stage.Flush(ctx, out); err != nil {
			return err
		}
		return k.port.Push(ctx, m)
	case messages.Batch:
		return k.apply(ctx, m, out)
	case messages.Rejected:
		return k.apply(ctx, m, out)
	case messages.SchemaChange:
		return k.stage.Apply(ctx, m, out)
	case messages.Truncate:
		return k.stage.Apply(ctx, m, out)
	}
	return nil
}

// apply takes the rows out of the register and moves them into the stage.
func (k *work) apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	if !k.cfg.Register.Take(k.cfg.Hop, flow.StampOf(d).Seq) {
		return errors.New("the attempt is over")
	}
	if err := k.stage.Apply(ctx, d, out); err != nil {
		return err
	}
	return failpoint.Hit(failpoint.TransformDone)
}

// push cuts batches to the limits; an empty one is dropped.
func (k *work) push(ctx context.Context, d messages.Data) error {
	b, ok := d.(messages.Batch)
	if !ok {
		return k.port.Push(ctx, d)
	}
	if b.Rows.Len() == 0 {
		b.Rows.Release()
		return nil
	}
	pieces, err := flow.Split(b.Rows, k.cfg.Request.Limits, 1)
	if err != nil {
		return err
	}
	for i, rows := range pieces {
		b.Rows = rows
		if err := k.port.Push(ctx, b); err != nil {
			for _, rest := range pieces[i+1:] {
				rest.Release()
			}
			return err
		}
	}
	return nil
}

// closeTimeout bounds giving up what a stage holds.
const closeTimeout = 5 * time.Second
