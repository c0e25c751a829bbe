package run

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/destination"
	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/actors/transform"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// budget is one stream's share of the memory cap.
type budget struct {
	window flow.Window
	limits connectors.Limits
}

// Jitter is the jitter of production.
func Jitter() float64 { return rand.Float64() } //nolint:gosec // not a secret

// do carries out what the board wants.
func (a *Actor) do(c actor.Context, effects []any) {
	for _, eff := range effects {
		switch eff := eff.(type) {
		case spawnTask:
			a.spawn(c, eff)
		case stopTask:
			a.stop(c, eff)
		case drainTask:
			if t := a.attempts[eff.part]; t != nil && t.token == eff.token {
				c.Send(t.pids[0], messages.Drain{Reason: "the run is stopping"})
			}
		case wakeTask:
			root, self := c.ActorSystem().Root, c.Self()
			time.AfterFunc(eff.delay, func() { root.Send(self, wake{part: eff.part, token: eff.token}) })
		case retrying:
			a.progress.retried(eff.part)
			f := eff.failure
			a.observe(messages.Event{Kind: messages.EventTaskRetry, Stream: a.progress.streamOf(eff.part), Part: eff.part, Failure: &f, Delay: eff.delay})
		case taskGaveUp:
			a.onGaveUp(eff)
		}
	}
}

func (a *Actor) onGaveUp(g taskGaveUp) {
	f := g.failure
	f.Where.Stream = cmp.Or(f.Where.Stream, messages.StreamID(g.load))
	f = a.refusal(f, nil)
	if a.failure == nil {
		a.failure = &f
	}
	for _, l := range a.loads {
		if l.load.ID.Name == g.load && l.failure == nil {
			l.failure, l.state = &f, loadFailed
			a.observe(messages.Event{Kind: messages.EventStreamFailed, Stream: l.stream, Part: g.part, Failure: &f})
		}
	}
}

// spawn starts an attempt: destination first, since its OpenWriter decides where
// the source resumes.
func (a *Actor) spawn(c actor.Context, eff spawnTask) {
	l := a.load(eff.part.Load)
	stream := eff.part.Streams[0]
	inputs, share := l.inputs[stream], a.budget[stream]
	task := flow.Task{Pipeline: a.cfg.Spec.Pipeline, Part: eff.part, Token: eff.token}
	reg := flow.NewRegister()
	t := &attempt{part: eff.part, token: eff.token, release: reg.ReleaseAll}
	a.attempts[eff.part.ID] = t

	add := func(stage string, props *actor.Props) {
		pid, err := c.SpawnNamed(props, fmt.Sprintf("task-%d-%s", eff.token.Attempt, stage))
		if err != nil {
			panic(err) // the name is taken: attempts are never numbered twice
		}
		t.pids = append(t.pids, pid)
		t.alive++
	}
	add(connectors.StageSource, source.New(source.Config{
		Task: task, Source: a.cfg.Spec.Source, Limits: share.limits, Mem: a.cfg.Spec.mem(),
		Interval: a.cfg.Spec.Resources.Interval, Register: reg,
	}))
	hop := 0
	for _, tr := range a.cfg.Spec.Transforms {
		if !tr.appliesTo(stream) {
			continue
		}
		add(fmt.Sprintf("%s-%d", connectors.StageTransform, hop+1), transform.New(transform.Config{
			Task: task, Hop: hop, Transform: tr.Transform, Window: share.window, Register: reg,
			Request: connectors.StageRequest{
				Part: eff.part, Streams: inputs[hop : hop+1], Limits: share.limits, Mem: a.cfg.Spec.mem(),
			},
		}))
		hop++
	}
	add(connectors.StageDestination, destination.New(destination.Config{
		Task: task, Hop: hop, Session: a.session, Hold: a.cfg.Hold, Window: share.window, Register: reg,
	}))
	for i, pid := range t.pids {
		w := flow.Wire{Owner: c.Self(), Checkpoint: a.checkpoint}
		if i > 0 {
			w.Up = t.pids[i-1]
		}
		if i < len(t.pids)-1 {
			w.Down = t.pids[i+1]
		}
		c.Send(pid, w)
	}
	a.progress.started(eff.part.ID, eff.token)
	a.observe(messages.Event{Kind: messages.EventTaskStarted, Stream: a.progress.streamOf(eff.part.ID), Part: eff.part.ID, Token: eff.token})
}

// stop ends an attempt's actors, the source first; gone follows when the last one
// has terminated.
func (a *Actor) stop(c actor.Context, eff stopTask) {
	t := a.attempts[eff.part]
	if t == nil || t.token != eff.token {
		return
	}
	for _, pid := range t.pids {
		c.Stop(pid)
	}
	if mutant.On(mutant.OverlappingAttempts) {
		delete(a.attempts, eff.part)
		a.do(c, a.board.onGone(eff.part, eff.token))
	}
}

// onOpened: the part is fenced; the checkpoint actor hears of it before any ack of
// the attempt can exist, and the source resumes from the receipt.
func (a *Actor) onOpened(c actor.Context, m messages.Opened) {
	t := a.attempts[m.Receipt.Part]
	if t == nil || t.token != m.Token {
		return
	}
	a.progress.opened(m)
	c.Send(a.checkpoint, checkpoint.TaskStarted{Opened: m, Source: t.pids[0], Destination: t.pids[len(t.pids)-1]})
	resume, effects := a.board.onOpened(m)
	if resume {
		c.Send(t.pids[0], messages.Resume{Part: m.Receipt.Part, Token: m.Token, From: a.resumeAt(m.Receipt), Raw: m.Raw})
	}
	a.do(c, effects)
}

func (a *Actor) onPersisted(c actor.Context, m checkpoint.Persisted) {
	a.progress.persisted(m.Receipt)
	a.do(c, a.board.onPersisted(m.CheckpointCommitted))
}

// attemptOf returns the attempt that an actor belongs to.
func (a *Actor) attemptOf(pid *actor.PID) *attempt {
	for _, t := range a.attempts {
		for _, p := range t.pids {
			if p.Equal(pid) {
				return t
			}
		}
	}
	return nil
}

func (a *Actor) onTerminated(c actor.Context, who *actor.PID) {
	if who.Equal(a.checkpoint) {
		c.Send(c.Self(), bereft{}) // behind what it has said before
		return
	}
	t := a.attemptOf(who)
	if t == nil {
		return
	}
	t.alive--
	if t.alive > 0 {
		return
	}
	t.release() // every worker has been joined: nobody else will
	delete(a.attempts, t.part.ID)
	a.observe(messages.Event{Kind: messages.EventTaskEnded, Stream: a.progress.streamOf(t.part.ID), Part: t.part.ID, Token: t.token})
	a.do(c, a.board.onGone(t.part.ID, t.token))
	a.settle()
}

// onTick asks every stage what it does, reports progress and ends what stalls.
func (a *Actor) onTick(c actor.Context) {
	if a.phase >= phaseClosing {
		return
	}
	a.timer.Reset(tickEvery)
	for _, t := range a.attempts {
		for _, pid := range t.pids {
			c.Send(pid, messages.Inspect{Part: t.part.ID, Token: t.token})
		}
	}
	for _, m := range a.progress.stalled(a.cfg.Spec.Resources.Stall) {
		a.onStageFailed(c, m)
	}
	a.progress.report()
}
