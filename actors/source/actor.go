package source

import (
	"context"
	"errors"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// Interval says how far apart barriers are wanted; zero fields are off.
type Interval struct {
	Bytes int64
	Rows  int64
	Every time.Duration
}

// Config is fixed at construction.
type Config struct {
	Task     flow.Task
	Source   connectors.Source
	Limits   connectors.Limits
	Mem      memory.Allocator
	Interval Interval
	Register *flow.Register // of the attempt; this stage fills hop 0
}

// Actor is the first stage of a task.
type Actor struct {
	cfg      Config
	state    state
	gate     flow.Gate
	owner    *actor.PID
	worker   *flow.Worker
	draining chan struct{} // closed by Drain
	drained  bool          // draining is closed
	confirm  connectors.Confirmer
}

type state uint8

const (
	stateWaiting state = iota // for Wire and Resume
	stateReading
	stateEnded // the last barrier went out
	stateFailed
)

func (s state) String() string {
	return [...]string{"waiting to start", "reading", "ended", "failed"}[s]
}

// New returns the props of a source actor.
func New(cfg Config) *actor.Props {
	return flow.Props(func() actor.Actor { return &Actor{cfg: cfg, draining: make(chan struct{})} })
}

// Receive dispatches; every decision is in a named handler.
func (a *Actor) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case flow.Wire:
		a.gate.Wire(m.Down)
		a.owner = m.Owner
	case messages.ToSource:
		a.onMessage(c, m)
	case flow.Offer:
		a.gate.OnOffer(c, m)
	case opened:
		a.confirm, _ = m.reader.(connectors.Confirmer)
	case readDone:
		a.onReadDone(c, m)
	case *actor.Stopping, *actor.Restarting:
		a.worker.Stop()
	}
}

func (a *Actor) onMessage(c actor.Context, m messages.ToSource) {
	switch m := m.(type) {
	case messages.Resume:
		a.onResume(c, m)
	case messages.Demand:
		if a.cfg.Task.Owns(m.Part, m.Token) {
			a.gate.OnDemand(c, m)
		}
	case messages.Drain:
		a.onDrain()
	case messages.CheckpointCommitted:
		if a.confirm != nil && a.cfg.Task.Owns(m.Part, m.Token) {
			a.confirm.Confirm(m.Position) // I3: it is in the receipt and in the state store
		}
	case messages.Inspect:
		c.Send(a.owner, a.status())
	}
}

// opened hands the reader's optional side to the actor.
type opened struct{ reader connectors.Reader }

// readDone is the goroutine's report; it emits nothing after it.
type readDone struct{ err error }

func (a *Actor) onResume(c actor.Context, m messages.Resume) {
	if a.state != stateWaiting || !a.cfg.Task.Owns(m.Part, m.Token) {
		return
	}
	a.state = stateReading
	root, self := c.ActorSystem().Root, c.Self()
	send := func(m any) { root.Send(self, m) }
	e := newEmitter(a.cfg, flow.NewPort(a.cfg.Task, 0, a.cfg.Register, send), a.draining)
	cfg := a.cfg
	cfg.Task.Part.Raw = m.Raw
	a.worker = flow.Go(
		func(ctx context.Context) { read(ctx, cfg, m.From, e, send) },
		func(err error) { send(readDone{err: err}) },
	)
}

func (a *Actor) onDrain() {
	if !a.drained {
		a.drained = true
		close(a.draining)
	}
}

func (a *Actor) onReadDone(c actor.Context, m readDone) {
	a.state = stateEnded
	if m.err != nil {
		a.state = stateFailed
	}
	c.Send(a.owner, a.status())
	if m.err == nil {
		return
	}
	c.Send(a.owner, a.cfg.Task.Failed(connectors.StageSource, m.err))
}

func (a *Actor) status() messages.StageStatus {
	doing := a.state.String()
	if a.gate.Blocked() {
		doing = "waiting for credit"
	}
	return messages.StageStatus{
		Part: a.cfg.Task.Part.ID, Token: a.cfg.Task.Token, Stage: connectors.StageSource,
		Doing: doing, Rows: a.gate.Rows, Bytes: a.gate.Bytes,
	}
}

// read runs the reader to its end and keeps it open, for confirmations, until ctx
// ends.
func read(ctx context.Context, cfg Config, from messages.Position, e *emitter, send func(any)) {
	var r connectors.Reader
	err := failpoint.Hit(failpoint.ResumeRead)
	if err == nil {
		r, err = cfg.Source.Open(ctx, connectors.ReadRequest{
			Part: cfg.Task.Part, Token: cfg.Task.Token, From: from, Limits: cfg.Limits, Mem: cfg.Mem,
		})
	}
	if err != nil {
		if ctx.Err() == nil {
			send(readDone{err: err})
		}
		return
	}
	send(opened{reader: r})
	err = flow.Protect(func() error {
		if err := failpoint.Hit(failpoint.SourceRead); err != nil {
			return err
		}
		return r.Read(ctx, e)
	})
	switch {
	case errors.Is(err, connectors.ErrDraining) && e.ended:
		err = nil
	case err == nil && !e.ended:
		err = &connectors.Error{
			Op: "read part", Kind: connectors.KindInternal, Commit: connectors.CommitNone,
			Err: errors.New("the reader returned without a final barrier"),
		}
	}
	if e.err != nil && err != nil && !errors.Is(e.err, connectors.ErrDraining) {
		err = e.err // the first cause, whatever the reader made of it
	}
	if ctx.Err() == nil {
		send(readDone{err: err}) // else the attempt was ended, and whoever did it knows why
	}
	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = r.Close(closing) // nothing depends on it: what counts is committed
}

// closeTimeout bounds giving up what a reader holds.
const closeTimeout = 5 * time.Second
