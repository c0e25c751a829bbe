package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/oklog/ulid/v2"

	"rapidbyte.io/node/actors/flow"
	nodeactor "rapidbyte.io/node/actors/node"
	"rapidbyte.io/node/actors/pipeline"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// DrainWithin bounds a drain: tasks that have not reached a committed position by
// then are cancelled, and go on from their last one at the next start. Together with
// closing it stays below the ten seconds that process managers allow.
const DrainWithin = 7 * time.Second

// Options configure a node.
type Options struct {
	Logger *slog.Logger // of the actor library; nil discards
	// Observe receives the events of every run, in order per run. It is called from
	// actors: it must not block for long, and may be called concurrently.
	Observe func(messages.Event)
}

// Node is one process's actor tree.
type Node struct {
	opts    Options
	sys     *actor.ActorSystem
	root    *actor.PID
	tickets atomic.Uint64
}

// Start spawns the tree.
func Start(o Options) *Node {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	sys := actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return o.Logger }),
		// The throttle of the dead-letter log keeps a goroutine for this long, which outlives the run.
		actor.WithDeadLetterThrottleInterval(100*time.Millisecond),
	)
	return &Node{opts: o, sys: sys, root: sys.Root.Spawn(nodeactor.New())}
}

// Run runs a pipeline to its end and returns how it went, when nothing of it is left. When ctx ends the pipeline
// is stopped at once, which is safe: everything committed has a receipt. To stop at
// the next committed position, Drain.
func (n *Node) Run(ctx context.Context, spec run.Spec, store statestore.Store) messages.RunResult {
	done, gone := make(chan messages.RunResult, 1), make(chan struct{})
	ticket := n.tickets.Add(1)
	n.sys.Root.Send(n.root, nodeactor.StartPipeline{
		Config: pipeline.Config{
			Spec: spec, Store: store, NewID: func() string { return ulid.Make().String() },
			Jitter: run.Jitter, Observe: n.observe, Done: func(r messages.RunResult) { done <- r },
		},
		Ticket: ticket, Gone: func() { close(gone) },
	})
	var r messages.RunResult
	select {
	case r = <-done:
		n.stop(spec.Pipeline, ticket)
	case <-ctx.Done():
		n.stop(spec.Pipeline, ticket)
		r = <-done
	}
	<-gone
	return r
}

func (n *Node) stop(p messages.PipelineID, ticket uint64) {
	n.sys.Root.Send(n.root, nodeactor.StopPipeline{Pipeline: p, Ticket: ticket})
}

// observe shields the actors from their observer: what it does to itself is no failure
// of a run.
func (n *Node) observe(e messages.Event) {
	if n.opts.Observe == nil {
		return
	}
	if err := flow.Protect(func() error { n.opts.Observe(e); return nil }); err != nil {
		n.opts.Logger.Error("observe event", slog.Any("error", err))
	}
}

// Drain asks every pipeline to stop at the next committed position, and every one
// started later to stop at once.
func (n *Node) Drain(reason string) {
	n.sys.Root.Send(n.root, messages.Drain{Reason: reason, Deadline: time.Now().Add(DrainWithin)})
}

// Stop ends everything at once and waits for it. No worker goroutine is left.
func (n *Node) Stop() {
	_ = n.sys.Root.StopFuture(n.root).Wait() // the future has no other failure than its timeout
	n.sys.Shutdown()
}
