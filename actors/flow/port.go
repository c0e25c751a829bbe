package flow

import (
	"context"
	"errors"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/runtime/mutant"
)

// Task names one attempt of a part.
type Task struct {
	Pipeline messages.PipelineID
	Part     connectors.Part
	Token    messages.Token
}

// Owns reports whether a message with this part and token belongs to the task.
func (t Task) Owns(p messages.PartID, k messages.Token) bool { return p == t.Part.ID && k == t.Token }

// Place returns where a stage of the task is, for errors.
func (t Task) Place(stage string) messages.Place {
	at := messages.Place{Pipeline: t.Pipeline, Part: t.Part.ID, Stage: stage}
	if len(t.Part.Streams) == 1 {
		at.Stream = t.Part.Streams[0]
	}
	return at
}

// Failed returns the message by which a stage gives up.
func (t Task) Failed(stage string, err error) messages.StageFailed {
	m := messages.StageFailed{
		Part: t.Part.ID, Token: t.Token, Stage: stage,
		Failure: connectors.FailureOf(err, t.Place(stage)),
	}
	if e, ok := errors.AsType[*connectors.Error](err); ok {
		m.RetryAfter = int64(e.RetryAfter)
	}
	return m
}

// Offer is what a Port sends to its own actor: an item that waits for credit.
type Offer struct {
	Item  messages.Item
	Bytes int64 // 0: needs no credit
	Rows  int64
	reply chan struct{}
}

// IgnoreDeadLetterLogging keeps rows out of logs.
func (Offer) IgnoreDeadLetterLogging() {}

// Port is the way out of a stage's worker goroutine, which alone uses it.
type Port struct {
	task     Task
	hop      int
	register *Register
	send     func(any) // to the worker's own actor; never blocks
	seq      messages.Seq
	reply    chan struct{} // capacity 1: one offer is outstanding
	err      error         // latched
}

// NewPort returns the port of the stage whose output is the given hop.
func NewPort(t Task, hop int, r *Register, send func(any)) *Port {
	return &Port{task: t, hop: hop, register: r, send: send, reply: make(chan struct{}, 1)}
}

// Seq returns the number of the last item pushed.
func (p *Port) Seq() messages.Seq { return p.seq }

// Push stamps item, moves it and returns when it has been sent on. It blocks for
// credit; ctx ends the wait, and then nothing more can be pushed.
func (p *Port) Push(ctx context.Context, item messages.Item) error {
	if p.err != nil {
		Release(item)
		return p.err
	}
	p.seq++
	stamp := messages.Stamp{Part: p.task.Part.ID, Token: p.task.Token, Seq: p.seq}
	o := Offer{reply: p.reply}
	switch m := item.(type) {
	case messages.Batch:
		m.Stamp = stamp
		o.Item, o.Bytes, o.Rows = m, max(1, m.Rows.Bytes()), m.Rows.Len()
		p.register.Put(p.hop, p.seq, m.Rows)
	case messages.Rejected:
		m.Stamp = stamp
		o.Item, o.Bytes, o.Rows = m, max(1, m.Rows.Bytes()), m.Rows.Len()
		p.register.Put(p.hop, p.seq, m.Rows)
	case messages.SchemaChange:
		m.Stamp = stamp
		o.Item = m
	case messages.Truncate:
		m.Stamp = stamp
		o.Item = m
	case messages.Barrier:
		m.Stamp = stamp
		o.Item = m
	}
	p.send(o)
	select {
	case <-p.reply:
		p.err = failpoint.Hit(failpoint.BatchSent)
		return p.err
	case <-ctx.Done():
		p.err = context.Cause(ctx)
		return p.err
	}
}

// Gate is the actor's side of its worker's port: it holds the credit.
type Gate struct {
	balance Balance
	down    *actor.PID
	waiting *Offer // at most one
	Rows    int64  // sent
	Bytes   int64
	Batches int64
}

// Wire sets the next stage.
func (g *Gate) Wire(down *actor.PID) { g.down = down }

// Blocked reports whether an item waits for credit.
func (g *Gate) Blocked() bool { return g.waiting != nil }

// OnOffer sends the item on, or keeps it until there is credit.
func (g *Gate) OnOffer(c actor.Context, o Offer) {
	if g.waiting != nil {
		panic("flow: two offers at once")
	}
	g.waiting = &o
	g.flush(c)
}

// OnDemand adds credit.
func (g *Gate) OnDemand(c actor.Context, d messages.Demand) {
	g.balance.Grant(d.Batches, d.Bytes)
	g.flush(c)
}

func (g *Gate) flush(c actor.Context) {
	o := g.waiting
	if o == nil || o.Bytes > 0 && !g.balance.Open() && !mutant.On(mutant.NoCredit) {
		return
	}
	if o.Bytes > 0 {
		if !mutant.On(mutant.NoCredit) {
			g.balance.Spend(o.Bytes)
		}
		g.Rows += o.Rows
		g.Bytes += o.Bytes
		g.Batches++
	}
	g.waiting = nil
	c.Send(g.down, o.Item)
	o.reply <- struct{}{}
}

// RowsOf returns the rows that item carries, nil for most.
func RowsOf(item messages.Item) messages.Rows {
	switch m := item.(type) {
	case messages.Batch:
		return m.Rows
	case messages.Rejected:
		return m.Rows
	case messages.SchemaChange, messages.Truncate, messages.Barrier:
	}
	return nil
}

// Release gives up an item that is in no register.
func Release(item messages.Item) {
	if rows := RowsOf(item); rows != nil {
		rows.Release()
	}
}

// StampOf returns the stamp of an item.
func StampOf(item messages.Item) messages.Stamp {
	switch m := item.(type) {
	case messages.Batch:
		return m.Stamp
	case messages.Rejected:
		return m.Stamp
	case messages.SchemaChange:
		return m.Stamp
	case messages.Truncate:
		return m.Stamp
	case messages.Barrier:
		return m.Stamp
	}
	return messages.Stamp{}
}

// Enqueue appends item. Barriers need no credit, so a source that emits nothing else,
// or a transform that filters everything out, could fill the queue of a slow stage: a
// periodic barrier with no data behind it is merged into the one that follows. An ack
// of the later one confirms both.
func Enqueue(queue []messages.Item, item messages.Item) []messages.Item {
	if b, ok := item.(messages.Barrier); ok && len(queue) > 0 {
		if before, ok := queue[len(queue)-1].(messages.Barrier); ok && before.Kind == messages.BarrierPeriodic {
			b.Rows += before.Rows
			queue[len(queue)-1] = b
			return queue
		}
	}
	return append(queue, item)
}
