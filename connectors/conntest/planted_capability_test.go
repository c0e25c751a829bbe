package conntest

import (
	"context"
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// hasty tears down whatever is alive, and executes a plan that it should list.
type hasty struct{ *MemoryDestination }

func (h hasty) Teardown(_ context.Context, p messages.PipelineID, _ bool) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.owners, p)
	return []string{"everything"}, nil
}

func (h hasty) Changes(ctx context.Context, loads []connectors.Load) ([]string, error) {
	s, err := h.Open(ctx, connectors.SessionRequest{Pipeline: pipeline, Epoch: 1, Join: true, Store: store})
	if err != nil {
		return nil, err
	}
	return []string{"create table"}, s.Begin(ctx, loads[0])
}

// boastful remembers and says that it forgets.
type boastful struct{ *MemoryDestination }

func (boastful) Forgets() bool { return true }

// absentMinded says that it remembers and reads everything again.
type absentMinded struct{ *MemorySource }

func (absentMinded) Remembers() bool { return true }

func TestSuiteCatchesCapabilitiesThatDoNotHold(t *testing.T) {
	spoiled := destinations(func(d *MemoryDestination) connectors.Destination { return hasty{d} })
	wantCaught(t, DestinationChecks(), spoiled, "teardown_forgets_the_pipeline", "open session was torn down")
	wantCaught(t, DestinationChecks(), spoiled, "changes_are_only_listed", "loads after listing changes")
	wantCaught(t, DestinationChecks(), destinations(func(d *MemoryDestination) connectors.Destination {
		return boastful{d}
	}), "capabilities_are_declared", "Forgets")
	silent := destinations(func(d *MemoryDestination) connectors.Destination { return d })
	silent.Forgets = true
	wantCaught(t, DestinationChecks(), silent, "capabilities_are_declared", "Forgets")
	wantCaught(t, SourceChecks(), sources(SourceFactory{}, func(s *MemorySource) connectors.Source {
		return absentMinded{s}
	}), "capabilities_are_declared", "Remembers")
}
