package connectors

import (
	"errors"
	"fmt"
	"time"

	"rapidbyte.io/node/messages"
)

// Kind says what the engine does about an error.
type Kind string

// The kinds, each with its consequence.
const (
	KindInternal  Kind = "internal"  // a bug: stop the pipeline, keep the evidence
	KindTransient Kind = "transient" // retry the task with backoff, from its receipt
	KindConfig    Kind = "config"    // stop; the operator must act
	KindData      Kind = "data"      // these rows are bad: dead-letter or stop, by policy
	KindSchema    Kind = "schema"    // the shape changed: evolve or stop, by policy
	KindFenced    Kind = "fenced"    // a younger writer exists: stop at once, change nothing
	KindGap       Kind = "gap"       // the origin no longer has what follows the position: stop, name the remedy
	KindScanLost  Kind = "scan_lost" // the snapshot is gone: end the attempt, not only the task
)

// CommitState says what may be durable after a failed Commit.
type CommitState string

// The states. All but CommitNone are resolved by the next OpenWriter.
const (
	CommitUnknown CommitState = "unknown" // assume nothing
	CommitNone    CommitState = "none"    // nothing was written
)

// ErrDraining ends an Emit after the drain barrier went out. Return nil from Read.
var ErrDraining = errors.New("draining")

// FencedError says who owns what was written to. The engine stops at once. Only
// when Open returns it, and the lease is still held, does the owner of the lease
// draw a higher epoch: the state store was lost or restored.
type FencedError struct{ Registered messages.Token }

// Error implements error.
func (e *FencedError) Error() string {
	return fmt.Sprintf("fenced by epoch %d, attempt %d", e.Registered.Epoch, e.Registered.Attempt)
}

// Error is the error of a connector that knows what should happen next. Its
// texts hold no secrets. Kind decides what the engine does; Code only names the
// case for the user.
type Error struct {
	Op         string // what was attempted, as a verb: "read csv row"
	Kind       Kind
	Commit     CommitState
	Code       messages.Code  // empty: the engine derives one from Kind and stage
	Place      messages.Place // what the connector knows: file, row, field
	Next       string         // what to do; empty: the catalogue's advice
	RetryAfter time.Duration  // 0 leaves the delay to the engine
	Err        error
}

// Error implements error.
func (e *Error) Error() string {
	at := e.Place.String()
	if at != "" {
		at = " (" + at + ")"
	}
	if e.Err == nil {
		return e.Op + at
	}
	return e.Op + at + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf classifies err; what nobody classified is a bug, unless it says of itself that
// it is Transient.
func KindOf(err error) Kind {
	if _, ok := errors.AsType[*FencedError](err); ok {
		return KindFenced
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if e, ok := errors.AsType[interface {
		error
		Transient() bool
	}](err); ok && e.Transient() {
		return KindTransient
	}
	return KindInternal
}
