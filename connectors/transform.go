package connectors

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/messages"
)

// Transform is one step between source and destination.
type Transform interface {
	// Schema returns what comes out for in, or an error of KindSchema. Pure; called
	// by check, plan and at every schema change.
	Schema(s messages.StreamID, in *arrow.Schema) (*arrow.Schema, error)

	// Open starts the transform for one part. Its state lives for one attempt and
	// covers at most the rows since the last barrier.
	Open(ctx context.Context, r StageRequest) (Stage, error)
}

// StageRequest starts one stage of a task.
type StageRequest struct {
	Part    Part
	Streams []StreamPlan // what comes in: the source's schema, or the transform's before
	Limits  Limits       // of the batches that come out
	Mem     memory.Allocator
}

// Stage transforms the items of one part. One goroutine calls it, in order.
type Stage interface {
	// Apply moves d and pushes zero or more items: changed rows, Rejected rows, a new
	// SchemaChange. A kind it does not care about it passes on.
	Apply(ctx context.Context, d messages.Data, out Outlet) error

	// Flush pushes what the stage still holds. The engine calls it at each barrier and
	// forwards the barrier itself after Flush returns, so none can be lost.
	Flush(ctx context.Context, out Outlet) error

	// Close frees everything. Idempotent.
	Close(ctx context.Context) error
}

// Outlet takes the output of a stage. It blocks for credit and moves d.
type Outlet func(ctx context.Context, d messages.Data) error

// Advisor is implemented by a Transform that has more to say about a stream than
// whether it fits: check shows it.
type Advisor interface {
	// Findings returns warnings and notes about what the transform does to in. Pure.
	Findings(s messages.StreamID, in *arrow.Schema) ([]Finding, error)
}
