// Package node holds the root of the actor tree: one per process. It starts a
// pipeline actor for each pipeline that this process owns, passes a drain on to all
// of them, and stops none for another's failure.
package node

import (
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/pipeline"
	"rapidbyte.io/node/messages"
)

// StartPipeline asks for a pipeline actor. Its Done is called once, in any case, and
// Gone when nothing of it is left.
type StartPipeline struct {
	Config pipeline.Config
	Ticket uint64 // names this start
	Gone   func()
}

// IgnoreDeadLetterLogging keeps configuration out of logs.
func (StartPipeline) IgnoreDeadLetterLogging() {}

// LogValue keeps configuration out of logs.
func (m StartPipeline) LogValue() slog.Value { return slog.StringValue(string(m.Config.Spec.Pipeline)) }

// StopPipeline ends what one StartPipeline has started, at once: what is committed stays.
type StopPipeline struct {
	Pipeline messages.PipelineID
	Ticket   uint64
}

// Actor is the root.
type Actor struct {
	pipelines map[messages.PipelineID]started
	count     int
	drain     *messages.Drain
}

type started struct {
	pid    *actor.PID
	ticket uint64
	gone   func()
}

// New returns the props of the node actor.
func New() *actor.Props {
	return flow.Props(func() actor.Actor {
		return &Actor{pipelines: map[messages.PipelineID]started{}}
	}, actor.WithSupervisor(supervise{}))
}

// supervise stops a pipeline actor that panicked: it reports the bug when all below it
// has stopped. Restarted in place it would run the pipeline again, and report twice.
type supervise struct{}

// HandleFailure implements actor.SupervisorStrategy.
func (supervise) HandleFailure(_ *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, _, _ any) {
	sup.StopChildren(child)
}

// Receive dispatches.
func (a *Actor) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case StartPipeline:
		a.onStart(c, m)
	case StopPipeline:
		if s, ok := a.pipelines[m.Pipeline]; ok && s.ticket == m.Ticket {
			c.Stop(s.pid)
		}
	case messages.Drain:
		a.drain = &m
		for _, s := range a.pipelines {
			c.Send(s.pid, m)
		}
	case *actor.Terminated:
		for p, s := range a.pipelines {
			if s.pid.Equal(m.Who) {
				delete(a.pipelines, p)
				s.gone()
			}
		}
	}
}

func (a *Actor) onStart(c actor.Context, m StartPipeline) {
	p := m.Config.Spec.Pipeline
	if _, running := a.pipelines[p]; running {
		defer m.Gone()
		m.Config.Done(messages.RunResult{Pipeline: p, State: messages.RunFailed, Failure: &messages.Failure{
			Code: messages.CodeUsage, Kind: "config", What: "the pipeline is running in this process already",
			Where: messages.Place{Pipeline: p},
		}})
		return
	}
	a.count++
	pid, err := c.SpawnNamed(pipeline.New(m.Config), fmt.Sprintf("pipeline-%s-%d", p, a.count))
	if err != nil {
		panic(err) // starts are never numbered twice
	}
	a.pipelines[p] = started{pid: pid, ticket: m.Ticket, gone: m.Gone}
	if a.drain != nil {
		c.Send(pid, *a.drain)
	}
}
