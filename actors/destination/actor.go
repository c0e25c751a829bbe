package destination

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// Config is fixed at construction.
type Config struct {
	Task     flow.Task
	Hop      int // of its input
	Session  connectors.Session
	Hold     func() error // says whether the pipeline is still ours; nil: for as long as we live
	Window   flow.Window
	Register *flow.Register
}

// Actor is the last stage of a task.
type Actor struct {
	cfg    Config
	state  state
	wire   flow.Wire
	grants flow.Grants
	next   messages.Seq    // expected from upstream
	queue  []messages.Item // accepted, not yet given to the worker; at most twice the window, see flow.Enqueue
	jobs   chan messages.Item
	worker *flow.Worker
	busy   messages.Item            // the worker's, for status
	acked  *messages.DestinationAck // the newest; nil before the first commit
	rows   int64                    // written in this attempt
	bytes  int64
}

type state uint8

const (
	stateOpening state = iota
	stateIdle
	stateBusy
	stateFailed
)

// New returns the props of a destination actor.
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
	case messages.ToDestination:
		a.onMessage(c, m)
	case opened:
		a.onOpened(c, m)
	case explained:
		c.Send(a.wire.Owner, messages.Explained{Part: a.cfg.Task.Part.ID, Token: a.cfg.Task.Token, Lines: m.lines})
	case jobDone:
		a.onJobDone(c, m)
	case *actor.Stopping, *actor.Restarting:
		a.worker.Stop()
	}
}

func (a *Actor) onMessage(c actor.Context, m messages.ToDestination) {
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
	case messages.AckWanted:
		if a.acked != nil && a.cfg.Task.Owns(m.Part, m.Token) {
			c.Send(a.wire.Checkpoint, *a.acked)
		}
	case messages.CheckpointCommitted: // the owner decides what follows from it
	case messages.Inspect:
		c.Send(a.wire.Owner, a.status())
	}
}

func (a *Actor) onWire(c actor.Context, w flow.Wire) {
	a.wire = w
	root, self := c.ActorSystem().Root, c.Self()
	k := &work{cfg: a.cfg, jobs: a.jobs, report: func(m any) { root.Send(self, m) }}
	if mutant.On(mutant.SaveBeforeCommit) {
		k.ack = func(ack messages.DestinationAck) { root.Send(w.Checkpoint, ack) }
	}
	a.worker = flow.Go(k.run, func(err error) { root.Send(self, jobDone{err: err}) })
}

// opened reports OpenWriter, and in which format rows are to come.
type opened struct {
	receipt  messages.Receipt
	raw, why string
}

// explained reports what a connectors.Explainer said.
type explained struct{ lines []string }

func (a *Actor) onOpened(c actor.Context, m opened) {
	a.state = stateIdle
	c.Send(a.wire.Owner, messages.Opened{Token: a.cfg.Task.Token, Receipt: m.receipt, Raw: m.raw, Why: m.why})
	a.grant(c, a.grants.First())
}

func (a *Actor) grant(c actor.Context, w flow.Window) {
	c.Send(a.wire.Up, messages.Demand{Part: a.cfg.Task.Part.ID, Token: a.cfg.Task.Token, Batches: w.Batches, Bytes: w.Bytes})
}

func (a *Actor) onItem(item messages.Item) {
	s := flow.StampOf(item)
	if !a.cfg.Task.Owns(s.Part, s.Token) || a.state == stateFailed {
		return // the register still holds what it carries
	}
	a.next++
	if s.Seq != a.next {
		panic(fmt.Sprintf("destination: item %d after %d", s.Seq, a.next-1))
	}
	a.queue = flow.Enqueue(a.queue, item)
	a.step()
}

// jobDone is the worker's report on one item.
type jobDone struct {
	item    messages.Item
	bytes   int64 // of the batch, 0 for other items
	rows    int64
	receipt messages.Receipt // of a barrier
	err     error
}

func (a *Actor) onJobDone(c actor.Context, d jobDone) {
	a.busy = nil
	if d.err != nil {
		a.state = stateFailed
		a.queue = nil
		c.Send(a.wire.Owner, a.cfg.Task.Failed(connectors.StageDestination, d.err))
		return
	}
	a.state = stateIdle
	if d.bytes > 0 {
		a.rows += d.rows
		a.bytes += d.bytes
		if w, ok := a.grants.Consumed(d.bytes); ok {
			a.grant(c, w)
		}
	}
	if b, ok := d.item.(messages.Barrier); ok {
		a.onCommitted(c, b, d.receipt)
	}
	a.step()
}

func (a *Actor) onCommitted(c actor.Context, b messages.Barrier, r messages.Receipt) {
	a.acked = &messages.DestinationAck{Pipeline: a.cfg.Task.Pipeline, Seq: b.Seq, Receipt: r}
	c.Send(a.wire.Checkpoint, *a.acked)
	if b.Kind != messages.BarrierPeriodic {
		c.Send(a.wire.Owner, messages.TaskEnded{Part: r.Part, Token: r.Token, Kind: b.Kind, Seq: b.Seq})
	}
}

func (a *Actor) step() {
	if a.state != stateIdle || len(a.queue) == 0 {
		return
	}
	a.busy = a.queue[0]
	a.queue = a.queue[1:]
	a.state = stateBusy
	a.jobs <- a.busy
}

func (a *Actor) status() messages.StageStatus {
	doing := [...]string{"opening the writer", "waiting for data", "working", "failed"}[a.state]
	switch m := a.busy.(type) {
	case messages.Barrier:
		doing = fmt.Sprintf("committing barrier %d", m.Seq)
	case messages.Batch:
		doing = fmt.Sprintf("writing batch %d", m.Seq)
	case messages.SchemaChange, messages.Truncate, messages.Rejected:
	}
	return messages.StageStatus{
		Part: a.cfg.Task.Part.ID, Token: a.cfg.Task.Token, Stage: connectors.StageDestination,
		Doing: doing, Rows: a.rows, Bytes: a.bytes,
	}
}
