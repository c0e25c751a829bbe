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

// StartPipeline asks for a pipeline actor. Its Done is called once, in any case.
type StartPipeline struct{ Config pipeline.Config }

// IgnoreDeadLetterLogging keeps configuration out of logs.
func (StartPipeline) IgnoreDeadLetterLogging() {}

// LogValue keeps configuration out of logs.
func (m StartPipeline) LogValue() slog.Value { return slog.StringValue(string(m.Config.Spec.Pipeline)) }

// StopPipeline ends a pipeline at once: what is committed stays.
type StopPipeline struct{ Pipeline messages.PipelineID }

// Actor is the root.
type Actor struct {
	pipelines map[messages.PipelineID]*actor.PID
	started   int
	drain     *messages.Drain
}

// New returns the props of the node actor.
func New() *actor.Props {
	return flow.Props(func() actor.Actor { return &Actor{pipelines: map[messages.PipelineID]*actor.PID{}} })
}

// Receive dispatches.
func (a *Actor) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case StartPipeline:
		a.onStart(c, m)
	case StopPipeline:
		if pid := a.pipelines[m.Pipeline]; pid != nil {
			c.Stop(pid)
		}
	case messages.Drain:
		a.drain = &m
		for _, pid := range a.pipelines {
			c.Send(pid, m)
		}
	case *actor.Terminated:
		for p, pid := range a.pipelines {
			if pid.Equal(m.Who) {
				delete(a.pipelines, p)
			}
		}
	}
}

func (a *Actor) onStart(c actor.Context, m StartPipeline) {
	p := m.Config.Spec.Pipeline
	if a.pipelines[p] != nil {
		m.Config.Done(messages.RunResult{Pipeline: p, State: messages.RunFailed, Failure: &messages.Failure{
			Code: messages.CodeUsage, Kind: "config", What: "the pipeline is running in this process already",
			Where: messages.Place{Pipeline: p},
		}})
		return
	}
	a.started++
	pid, err := c.SpawnNamed(pipeline.New(m.Config), fmt.Sprintf("pipeline-%s-%d", p, a.started))
	if err != nil {
		panic(err) // starts are never numbered twice
	}
	a.pipelines[p] = pid
	if a.drain != nil {
		c.Send(pid, *a.drain)
	}
}
