package connectors

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/messages"
)

// Source reads an origin. Its methods may be called concurrently, on every node
// that has the pipeline; they share nothing but configuration.
type Source interface {
	// Check looks for what is missing before a run: rights, settings, tables. It
	// changes nothing. An error means that it could not look.
	Check(ctx context.Context, streams []StreamSpec) ([]Finding, error)

	// Discover lists the streams that the configuration and the given specs (may be
	// none) lead to, with schema, key, suggested cursors and row estimate. Changes
	// nothing.
	Discover(ctx context.Context, streams []StreamSpec) ([]Discovered, error)

	// Scan takes the snapshot (or adopts the slot) that all parts of one attempt
	// read, and splits it. Called once per attempt by the coordinator, after
	// Destination.Open. It ends the origin's sessions of older epochs. The same
	// request and the same origin give the same plan.
	Scan(ctx context.Context, r ScanRequest) (Scan, error)

	// Open prepares to read one part, on the node where its task runs. An error of
	// KindGap stops the pipeline; KindScanLost ends the attempt.
	Open(ctx context.Context, r ReadRequest) (Reader, error)
}

// ScanRequest says what to read.
type ScanRequest struct {
	Pipeline messages.PipelineID
	Epoch    messages.Epoch
	Streams  []StreamSpec
	Previous Recovered // answer each unfinished load with a Continuity; number new ones above
	Splits   int       // parts per stream that are worth having, at least 1
	Preview  bool      // create nothing at the origin: no slot, no publication
}

// Scan keeps a snapshot alive. The coordinator closes it when all tasks ended.
type Scan interface {
	Plan() Plan
	Close(ctx context.Context) error
}

// ReadRequest starts one task.
type ReadRequest struct {
	Part  Part
	Token messages.Token
	From  messages.Position // of the receipt that OpenWriter returned
	// Limits bound the batches. Mem is where batches are allocated.
	Limits Limits
	Mem    memory.Allocator
	Limit  int64 // rows, 0 unbounded; preview only
}

// Reader reads one part once.
type Reader interface {
	// Read pushes items until the part ends or out returns an error, and returns
	// that error as it is. It runs on the task's one reader goroutine. It must emit
	// a barrier of kind drain or end before it returns nil; anything else is a bug.
	Read(ctx context.Context, out Emitter) error

	// Close frees everything, also while Read runs in another goroutine (ctx of Read
	// has ended by then). Idempotent.
	Close(ctx context.Context) error
}

// Confirmer is implemented by a Reader whose origin keeps history for it.
type Confirmer interface {
	// Confirm lets the origin forget what is before p. p is in the receipt and in
	// the state store. It is called from another goroutine than Read, must not block
	// and may be dropped or delayed at will: a reader never waits for one.
	Confirm(p messages.Position)
}

// RawReader is implemented by a Source that can send rows undecoded: as messages.RawRows,
// cut at the ends of rows and within the Limits, under the same positions as Arrow rows.
type RawReader interface {
	// RawFormat names the format in which it can send the rows of l, a load that it has
	// planned. Empty: it cannot; why then says what is in the way, to stand behind
	// "because". A reader sends so when its Part.Raw names the format. It does no I/O.
	RawFormat(l Load) (format, why string)
}

// Emitter takes what a source or transform produces. Only the goroutine that was
// handed it may call it. After an error it returns that error for ever.
type Emitter interface {
	// Emit moves d downstream, blocking while there is no credit. Everything ends an
	// Emit: drain (ErrDraining), cancellation (the cause), failure downstream.
	Emit(ctx context.Context, d messages.Data) error

	// Due reports that a barrier is wanted: interval, drain, command. Cheap; ask at
	// every place where the position is exact. The next Emit after a due drain
	// barrier returns ErrDraining.
	Due() bool

	// Barrier covers everything emitted before it. p must be exact: nothing before
	// it will be emitted again, nothing after it was emitted. A log calls it only
	// between transactions. Needs no credit.
	Barrier(ctx context.Context, kind messages.BarrierKind, p messages.Position) error
}

// Rememberer is implemented by a Source that skips, in append and upsert, what
// earlier finished loads have read. Running it again then adds nothing twice; of any
// other source a completed full refresh that is run again appends a second copy.
type Rememberer interface {
	// Remembers reports whether it does.
	Remembers() bool
}
