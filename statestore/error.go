package statestore

import (
	"errors"
	"fmt"
	"slices"

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
	// ErrAddress means that a store cannot be looked for: the text that says where it is
	// cannot be read. Its user corrects it.
	ErrAddress = errors.New("no address of a state store")
	// ErrInvalid means that the caller asks for what cannot be stored: its bug.
	ErrInvalid = errors.New("invalid update")
)

// Error says what was attempted, on what.
type Error struct {
	Op       string // verb: "save checkpoint"
	Path     string // file or database, without secrets
	Pipeline messages.PipelineID
	Stream   string          // name of the load; empty: not about one
	Part     messages.PartID // empty: not about one
	Err      error
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Op
	if e.Pipeline != "" {
		s += fmt.Sprintf(" of pipeline %s", e.Pipeline)
	}
	if e.Stream != "" {
		s += fmt.Sprintf(", stream %s", e.Stream)
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

// About returns err with the load and the part that it concerns, for Wrap; nil for nil.
func About(load string, part messages.PartID, err error) error {
	if err == nil {
		return nil
	}
	return &aboutError{load, part, err}
}

// aboutError says what an error is about, on its way to Wrap.
type aboutError struct {
	load string
	part messages.PartID
	err  error
}

func (e *aboutError) Error() string { return e.err.Error() }
func (e *aboutError) Unwrap() error { return e.err }

// Wrap returns e, with the stream and the task that e.Err says it is about.
func Wrap(e Error) *Error {
	if about, ok := errors.AsType[*aboutError](e.Err); ok {
		e.Stream, e.Part = about.load, about.part
	}
	return &e
}

// SaveError says that u could not be saved in path. Where the cause does not say what it
// is about, it names the load that the whole of u concerns, and the part.
func SaveError(path string, p messages.PipelineID, u Update, err error) *Error {
	e := Error{Op: "save checkpoint", Path: path, Pipeline: p, Err: err}
	e.Stream, e.Part = u.about()
	return Wrap(e)
}

// about returns the load that the whole of u concerns, and the part if it is one only.
func (u Update) about() (load string, part messages.PartID) {
	loads, parts := map[string]bool{}, map[messages.PartID]bool{}
	for _, r := range u.Receipts {
		loads[r.Load], parts[r.Part] = true, true
	}
	for _, id := range u.Finished {
		loads[id.Name] = true
	}
	for _, name := range slices.Concat(u.Forget, u.Revoke) {
		loads[name] = true
	}
	for _, o := range u.Orders {
		loads[o.Load.Name], parts[o.Part] = true, true
	}
	return only(loads), only(parts)
}

func only[K ~string](set map[K]bool) K {
	var one K
	if len(set) == 1 {
		for one = range set {
		}
	}
	return one
}

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
	case errors.Is(err, ErrAddress):
		return messages.CodeDocValue
	case errors.Is(err, ErrInvalid):
		return messages.CodeInternal
	}
	return messages.CodeState
}
