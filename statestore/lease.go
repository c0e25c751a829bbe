package statestore

import (
	"context"
	"time"

	"rapidbyte.io/node/messages"
)

// Claim asks for the ownership of a pipeline.
type Claim struct {
	// Floor is the highest epoch that somebody else, a destination, has met; 0: none.
	Floor messages.Epoch
	// Mine is the epoch under which the caller owned the pipeline until now; 0: it did
	// not. If the store has a higher one, somebody has taken over meanwhile, and may have
	// finished what the caller would do a second time: the claim is ErrFenced.
	Mine messages.Epoch
}

// Leaser is a Store whose ownership runs out unless it is renewed, which it does by
// itself from Acquire on; a younger epoch of the same owner takes the lease over. Found
// by assertion. A store without it, like one that its process locks as a whole, is held
// for as long as the process lives.
type Leaser interface {
	// Hold returns nil while p is certainly owned under e: until the time to live after
	// the last successful renewal was sent, on a clock that nobody sets. Afterwards it returns
	// ErrFenced, for ever. It does no I/O and may be called from anywhere, also before
	// each commit.
	Hold(p messages.PipelineID, e messages.Epoch) error
	// Lost returns a channel that is closed when the lease of p under e is lost or has
	// run out. Release closes none.
	Lost(p messages.PipelineID, e messages.Epoch) <-chan struct{}
	// Release gives the lease back, so that the next owner need not wait. The caller does
	// nothing under e after it. Idempotent; of a lease that is lost it does nothing. The
	// epoch stays used.
	Release(ctx context.Context, p messages.PipelineID, e messages.Epoch) error
	// Patience is how long Acquire may wait until the lease of an owner that has gone
	// silent has run out.
	Patience() time.Duration
}
