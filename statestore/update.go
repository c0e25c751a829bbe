package statestore

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"rapidbyte.io/node/messages"
)

const (
	// RunsKept is how many runs of a pipeline a store remembers.
	RunsKept = 100
	// NameBytesMax bounds the name of a pipeline, part, load or run. A name is any
	// bytes, also such that are not UTF-8, but never empty.
	NameBytesMax = 4 << 10
)

// CheckName says why name cannot be stored as what; nil if it can.
func CheckName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name of the %s is empty", ErrInvalid, what)
	case len(name) > NameBytesMax:
		return fmt.Errorf("%w: the name of the %s has %d bytes, at most %d are possible", ErrInvalid, what, len(name), NameBytesMax)
	}
	return nil
}

// Check says why u cannot be saved for p; nil if it can. Every store calls it
// before it changes anything.
func (u Update) Check(p messages.PipelineID) error {
	errs := []error{CheckName("pipeline", string(p))}
	for _, r := range u.Receipts {
		errs = append(errs, About(r.Load, r.Part, cmp.Or(CheckName("task", string(r.Part)), checkLoad(r.LoadID()))))
	}
	for _, l := range u.Finished {
		errs = append(errs, About(l.Name, "", checkLoad(l)))
	}
	for _, name := range slices.Concat(u.Forget, u.Revoke) {
		errs = append(errs, CheckName("load", name))
	}
	for _, o := range u.Orders {
		errs = append(errs, About(o.Load.Name, o.Part, o.check()))
	}
	if u.Run != nil {
		errs = append(errs, CheckName("run", u.Run.ID), checkTime("a run", u.Run.Started), checkTime("a run", u.Run.Ended))
	}
	return cmp.Or(errs...)
}

func checkLoad(l messages.LoadID) error {
	if l.Number == 0 {
		return fmt.Errorf("%w: load %q has the number 0", ErrInvalid, l.Name)
	}
	return CheckName("load", l.Name)
}

func checkTime(of string, t time.Time) error {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("%w: %s in the year %d", ErrInvalid, of, y)
	}
	return nil
}

// Replaces reports whether r may be stored over the run of the same ID: a run
// that ended stays ended.
func (r Run) Replaces(stored Run) bool { return stored.Ended.IsZero() || !r.Ended.IsZero() }

// Compare orders runs, the newest first. The epoch comes before the ID because a
// clock that jumped back must not make a new run look old.
func (r Run) Compare(s Run) int {
	return cmp.Or(cmp.Compare(s.Epoch, r.Epoch), cmp.Compare(s.ID, r.ID))
}
