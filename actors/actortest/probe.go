package actortest

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Probe is an actor that keeps what it is told until the test takes it.
type Probe struct {
	PID *actor.PID
	sys *actor.ActorSystem
	got chan any
}

// Panicked says that a child of the probe panicked, and was stopped.
type Panicked struct{ Reason any }

// Gone says that a child of the probe has terminated.
type Gone struct{}

const heldMax = 1 << 16 // messages that a probe keeps at most

// System returns an actor system that ends with the test's bubble.
func System(t testing.TB) *actor.ActorSystem {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }))
	t.Cleanup(func() {
		sys.Shutdown()
		time.Sleep(2 * time.Second) // the library's dead-letter throttle keeps a goroutine for a second
	})
	return sys
}

// Spawn starts a probe, which ends with the test.
func Spawn(t testing.TB, sys *actor.ActorSystem) *Probe {
	t.Helper()
	p := &Probe{sys: sys, got: make(chan any, heldMax)}
	p.PID = sys.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return p }, actor.WithSupervisor(p)))
	t.Cleanup(func() { _ = sys.Root.StopFuture(p.PID).Wait() })
	return p
}

type child struct {
	props *actor.Props
	pid   chan *actor.PID
}

// Receive implements actor.Actor.
func (p *Probe) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started, *actor.Stopping, *actor.Stopped:
	case *actor.Terminated:
		p.got <- Gone{}
	case child:
		m.pid <- c.Spawn(m.props)
	default:
		p.got <- m
	}
}

// HandleFailure implements actor.SupervisorStrategy.
func (p *Probe) HandleFailure(_ *actor.ActorSystem, sup actor.Supervisor, who *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	p.got <- Panicked{Reason: reason}
	sup.StopChildren(who)
}

// Child spawns an actor below the probe.
func (p *Probe) Child(props *actor.Props) *actor.PID {
	pid := make(chan *actor.PID, 1)
	p.sys.Root.Send(p.PID, child{props: props, pid: pid})
	return <-pid
}

// Take waits until every actor and goroutine of the bubble is idle, then returns what
// arrived since.
func (p *Probe) Take() (got []any) {
	synctest.Wait()
	for len(p.got) > 0 {
		got = append(got, <-p.got)
	}
	return got
}

// Of returns the messages of one type.
func Of[T any](all []any) (out []T) {
	for _, m := range all {
		if t, ok := m.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
