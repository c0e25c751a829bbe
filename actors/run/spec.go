package run

import (
	"cmp"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Spec is a pipeline, ready to run: the document with its connectors built.
type Spec struct {
	Pipeline    messages.PipelineID
	Source      connectors.Source
	Transforms  []Transform
	Destination connectors.Destination
	Streams     []Stream
	Resources   Resources
	Mem         memory.Allocator // of batches; nil: the default one
	Adopt       bool             // the destination may belong to a state store that is lost
}

// Stream is one stream of the document.
type Stream struct {
	connectors.StreamSpec
	Target string     // name at the destination
	OnLost LostPolicy // what becomes of an append whose snapshot is gone
	Above  uint64     // with Fresh: the new load's number is above it; of an order to start over
}

// LostPolicy says what happens to an unfinished append when rows may have changed
// between its snapshot and a new one.
type LostPolicy string

// The policies.
const (
	LostContinue LostPolicy = "continue" // go on from the receipts, with a warning
	LostFail     LostPolicy = "fail"
	LostRestart  LostPolicy = "restart" // load again; refused for append by the document
)

// Transform is one step and the streams it applies to.
type Transform struct {
	connectors.Transform
	Name    string
	Streams []messages.StreamID // empty: all
}

// mem returns where batches are allocated.
func (s Spec) mem() memory.Allocator {
	if s.Mem == nil {
		return memory.DefaultAllocator
	}
	return s.Mem
}

// appliesTo reports whether the step changes the stream.
func (t Transform) appliesTo(s messages.StreamID) bool {
	return len(t.Streams) == 0 || slices.Contains(t.Streams, s)
}

// Resources bound a run. They change how fast it is, never what is written.
type Resources struct {
	MemoryBytes   int64  // hard cap on bytes in flight, over all tasks
	BatchBytesMax int64  // upper bound of one batch
	RowBytesMax   int64  // a larger row is an error that names it
	BatchesMax    int    // in flight on one hop
	BatchRows     int64  // upper bound of one batch; 0: the engine's
	Tasks         int    // at once; at least 1
	Pinned        string // the key that says how many tasks; empty: Tasks is the number of cores
	Tune          bool   // the number of tasks and the size of batches are the engine's to decide
	Retries       int    // of a part, in a row, without progress
	Interval      source.Interval
	Stall         time.Duration // without progress of a task; 0 waits for ever
	Decode        bool          // rows are decoded also where they could pass through
}

const (
	batchBytesBest = 8 << 20 // larger batches cost memory and save little of a hop (bench/README.md)
	batchBytesMin  = 64 << 10
	batchRowsBest  = 8192 // 4k-16k rows are best
)

// quarters is the memory of a task with h hops, in quarters of a window.
func quarters(h int) int64 { return int64(4*h + h + h + 1) }

// tasks returns how many tasks may run at once: fewer than asked for where not even the
// smallest windows of all of them would fit into the memory cap.
func (r Resources) tasks(hops int) int {
	return int(max(1, min(int64(r.Tasks), r.MemoryBytes/(quarters(hops)*batchBytesMin))))
}

// budget shares the memory cap among tasks and hops.
//
// Per task, with w the byte window of one hop and b = w/4 the largest batch:
//
//	  h x (w + b)   h hops in flight; bytes may be overshot by one batch
//	+ (h + 1) x b   each stage holds one batch in its worker
//	= w x (h + h/4 + (h+1)/4)
//
// and tasks x that = MemoryBytes. A row above b overshoots it, by its size.
func (r Resources) budget(hops int) (flow.Window, connectors.Limits) {
	w := max(r.MemoryBytes*4/(quarters(hops)*int64(r.tasks(hops))), 4*batchBytesMin)
	batch := min(w/4, batchBytesBest)
	if r.BatchBytesMax > 0 {
		batch = min(batch, r.BatchBytesMax)
	}
	batches := r.BatchesMax
	if batches <= 0 {
		batches = 16
	}
	limits := connectors.Limits{BatchRows: cmp.Or(r.BatchRows, batchRowsBest), BatchBytes: max(batch, 1), RowBytes: r.RowBytesMax}
	if limits.RowBytes <= 0 {
		limits.RowBytes = 16 << 20
	}
	return flow.Window{Batches: batches, Bytes: w}, limits
}
