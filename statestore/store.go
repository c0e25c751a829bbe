package statestore

import (
	"context"
	"time"

	"rapidbyte.io/node/messages"
)

// Store keeps the state of any number of pipelines. Its methods may be called
// concurrently. Whatever returns nil is durable: it survives loss of power.
type Store interface {
	// Identity names this store for ever. Destinations record it, so that two stores
	// cannot run one pipeline by accident.
	Identity() string

	// Acquire makes the caller the owner of the pipeline: its epoch is one above the
	// highest of what the store has handed out, c.Floor and c.Mine, and is durable before
	// Acquire returns. Older owners are refused from then on. The error is ErrFenced if the
	// store has an epoch above c.Mine, checked in the transaction that hands out the
	// epoch; ErrHeld, with the holder's name and until when, while another owner's lease
	// has not run out.
	Acquire(ctx context.Context, p messages.PipelineID, c Claim) (messages.Epoch, error)

	// Load returns what is stored for a pipeline; the zero State if nothing.
	Load(ctx context.Context, p messages.PipelineID) (State, error)

	// Save applies u in one transaction, if e is still the pipeline's epoch. It never
	// lowers a version: a receipt that is not above the stored one of its part
	// changes nothing. A receipt of load n removes the receipts of smaller loads of
	// its name, and one of a load smaller than what the name has reached changes
	// nothing. A run that ended stays ended; the newest RunsKept are kept. Saving the
	// same update again changes nothing. An update that fails Check is ErrInvalid.
	Save(ctx context.Context, p messages.PipelineID, e messages.Epoch, u Update) error

	// History lists the kept checkpoints of a part, newest first: the last receipt of each
	// epoch and each hour, at most HistoryKept, the receipt that Load returns among them.
	// Forget drops those of its loads, and the first receipt of a load those of smaller
	// loads of its name.
	History(ctx context.Context, p messages.PipelineID, part messages.PartID) ([]Kept, error)

	// Pipelines lists the pipelines the store knows, sorted.
	Pipelines(ctx context.Context) ([]messages.PipelineID, error)

	// Runs lists the runs of a pipeline, newest first (by epoch, then by ID), at most
	// limit; times are in UTC.
	Runs(ctx context.Context, p messages.PipelineID, limit int) ([]Run, error)

	// Close releases the store. Idempotent.
	Close() error
}

// State is everything stored for one pipeline.
type State struct {
	Epoch    messages.Epoch
	Receipts []messages.Receipt // K, sorted by part
	Finished []messages.LoadID  // sorted by name
	Run      Run                // the newest run if it is unfinished; zero when it has ended
	Orders   []Order            // sorted by load name, then part; without those that are void
}

// Update is one change. Forget is applied first, then the receipts in order, Revoke, and
// Orders.
type Update struct {
	Receipts []messages.Receipt
	Finished []messages.LoadID
	Forget   []string // loads, by name, whose receipts, marks, history and orders are dropped: the operator starts over
	Run      *Run     // started or ended; nil leaves it
	Revoke   []string // loads, by name, whose orders are dropped
	Orders   []Order  // each replaces the one of the same load name and part
}

// Run is one execution of a pipeline. An unfinished run is continued under its ID.
type Run struct {
	ID      string            `json:"id"` // ULID
	Epoch   messages.Epoch    `json:"epoch"`
	Started time.Time         `json:"started"`
	Ended   time.Time         `json:"ended,omitzero"` // zero: unfinished
	State   messages.RunState `json:"state"`
	Code    messages.Code     `json:"code,omitempty"` // of the failure
	Why     string            `json:"why,omitempty"`
}
