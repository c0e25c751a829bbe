package run

import (
	"fmt"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
	"rapidbyte.io/node/statestore"
)

// This file follows what an operator has ordered. Nothing is written down about what has
// been done: an order names a version, and the destination says whether that has passed.
// A crash at any point therefore does nothing twice, and forgets nothing.

// ordered returns the spec with the streams made Fresh whose load is to be started over by
// an order, and those orders, also of streams that this run does not read. The new load
// gets a number above the order's, also at a destination that knows of none: then the
// order is void. So it is with the order to read on elsewhere in a replace: what is staged
// already stays staged, and would be in the new version twice.
func (s Spec) ordered(orders []statestore.Order, known connectors.Recovered) (Spec, []statestore.Order) {
	var followed []statestore.Order
	s.Streams = slices.Clone(s.Streams)
	for _, o := range orders {
		if o.Part != "" && !s.staged(o, known) || numberOf(known, o.Load.Name) > o.Load.Number {
			continue
		}
		followed = append(followed, o)
		for i, st := range s.Streams {
			if string(st.Stream) == o.Load.Name {
				s.Streams[i].Fresh, s.Streams[i].Above = true, o.Load.Number
			}
		}
	}
	return s, followed
}

// staged reports whether o is to be followed in a load that replaces its target.
func (s Spec) staged(o statestore.Order, known connectors.Recovered) bool {
	st, ok := s.stream(messages.StreamID(o.Load.Name))
	return ok && st.Mode == connectors.ModeReplace && slices.ContainsFunc(known.Receipts, func(r messages.Receipt) bool {
		_, found := rewindOf([]statestore.Order{o}, r)
		return found && !r.Final
	})
}

// numberOf returns the number of the load that the destination knows by a name; 0: none.
func numberOf(known connectors.Recovered, name string) uint64 {
	for _, l := range known.Loads {
		if l.ID.Name == name {
			return l.ID.Number
		}
	}
	return 0
}

// renumber gives the load and its parts a number.
func renumber(l *connectors.Load, n uint64) {
	l.ID.Number = n
	parts := make([]connectors.Part, len(l.Parts))
	for i, p := range l.Parts {
		p.Load = l.ID
		parts[i] = p
	}
	l.Parts = parts
}

// rewindOf returns the order to read on elsewhere that was given for exactly this receipt.
func rewindOf(orders []statestore.Order, r messages.Receipt) (statestore.Order, bool) {
	for _, o := range orders {
		if o.Part != "" && o.Part == r.Part && o.Load == r.LoadID() && o.From == r.Version {
			return o, true
		}
	}
	return statestore.Order{}, false
}

// tellOrders says which orders are followed before anything is read, and which cannot be.
func (a *Actor) tellOrders(startOver []statestore.Order, known connectors.Recovered) {
	for _, o := range startOver {
		if _, ok := a.cfg.Spec.stream(messages.StreamID(o.Load.Name)); !ok {
			continue // another run's to do
		}
		text := fmt.Sprintf("stream %s: started over as ordered; load %d is left behind", o.Load.Name, o.Load.Number)
		if o.Part != "" {
			text = fmt.Sprintf("stream %s: started over instead of reading on from an earlier position as ordered, which a replace cannot; load %d is left behind",
				o.Load.Name, o.Load.Number)
		}
		if !slices.Contains(a.warnings, text) {
			a.warn(text)
		}
	}
	for _, r := range known.Receipts {
		if o, ok := rewindOf(a.cfg.State.Orders, r); ok && r.Final {
			a.warn(fmt.Sprintf("stream %s: the order to read on from %s cannot be followed: task %s has read its part to the end; start the load over instead",
				o.Load.Name, o.To, o.Part))
		}
	}
}

// resumeAt returns where the source reads on behind a receipt: where it says, or where the
// operator has ordered.
func (a *Actor) resumeAt(r messages.Receipt) messages.Position {
	o, ok := rewindOf(a.cfg.State.Orders, r)
	if !ok {
		if mutant.On(mutant.ResumeFromStore) {
			return a.storedPosition(r)
		}
		return r.Position
	}
	text := fmt.Sprintf("stream %s: reading on from %s as ordered, rows behind it are read and written again (task %s was at %s)",
		o.Load.Name, o.To, o.Part, r.Reached())
	if !slices.Contains(a.warnings, text) {
		a.warn(text)
	}
	return o.To
}

// storedPosition is where the state store has the part, of a planted fault only.
func (a *Actor) storedPosition(r messages.Receipt) messages.Position {
	for _, k := range a.cfg.State.Receipts {
		if k.Part == r.Part && k.LoadID() == r.LoadID() {
			return k.Position
		}
	}
	return messages.Position{}
}
