package statestore

import (
	"errors"
	"fmt"

	"rapidbyte.io/node/messages"
)

var (
	// ErrFenced means that the pipeline has a higher epoch. Stop at once and change nothing.
	ErrFenced = errors.New("a newer owner has the pipeline")
	// ErrHeld means that another process has the store. Wait, or stop that process.
	ErrHeld = errors.New("held by another process")
	// ErrDamaged means that the store cannot be trusted. Rebuild it from the
	// destinations, on the operator's word only.
	ErrDamaged = errors.New("damaged")
	// ErrForeign means that this is no store of ours, or one of another format
	// version.
	ErrForeign = errors.New("not a state store of this version")
	// ErrFull means that no space is left. The transaction did not happen.
	ErrFull = errors.New("no space left")
	// ErrBroken means that the disk failed while state was being made durable, and
	// nobody can know what is on it before it is read afresh: after a failed fsync
	// the kernel may have dropped what it could not write. The store returns this for
	// ever; end the process, a new one recovers.
	ErrBroken = errors.New("the disk failed; only a restart can tell what is stored")
	// ErrInvalid means that the caller asks for what cannot be stored: its bug.
	ErrInvalid = errors.New("invalid update")
)

// Error says what was attempted, on what.
type Error struct {
	Op       string // verb: "save checkpoint"
	Path     string // file or database, without secrets
	Pipeline messages.PipelineID
	Part     messages.PartID
	Err      error
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Op
	if e.Pipeline != "" {
		s += fmt.Sprintf(" of pipeline %s", e.Pipeline)
	}
	if e.Part != "" {
		s += fmt.Sprintf(", task %s", e.Part)
	}
	if e.Path != "" {
		s += " in " + e.Path
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf names err for the user.
func CodeOf(err error) messages.Code {
	switch {
	case errors.Is(err, ErrFenced):
		return messages.CodeFenced
	case errors.Is(err, ErrHeld):
		return messages.CodeStateHeld
	case errors.Is(err, ErrDamaged):
		return messages.CodeStateDamaged
	case errors.Is(err, ErrForeign):
		return messages.CodeStateForeign
	case errors.Is(err, ErrFull):
		return messages.CodeStateFull
	case errors.Is(err, ErrInvalid):
		return messages.CodeInternal
	}
	return messages.CodeState
}
