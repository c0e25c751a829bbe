package statestore

import (
	"cmp"
	"fmt"
	"time"

	"rapidbyte.io/node/messages"
)

// Order is what an operator wants the next run to do. It names what it was given for, so
// that it is void by itself once it has been done: nobody has to take it back, and a
// crash between the doing and the taking back does nothing twice.
type Order struct {
	Load  messages.LoadID   // the load it was given for; void once the name has reached a higher number
	Part  messages.PartID   // of a rewind; empty: start the load over
	From  messages.Version  // of a rewind: the receipt's version it was given for; void once the stored receipt is above it
	To    messages.Position // of a rewind: where to read on instead
	Given time.Time         // UTC
}

// Void reports whether o has been done, or overtaken. reached is the highest number of
// its load name, begun or finished; stored the version of the stored receipt of its part,
// zero for none.
func (o Order) Void(reached uint64, stored messages.Version) bool {
	return reached > o.Load.Number || o.Part != "" && stored.Compare(o.From) > 0
}

// Compare orders orders by load name, then by part. There is one of each.
func (o Order) Compare(p Order) int {
	return cmp.Or(cmp.Compare(o.Load.Name, p.Load.Name), cmp.Compare(o.Part, p.Part))
}

func (o Order) check() error {
	errs := []error{checkLoad(o.Load), checkTime("an order", o.Given)}
	if o.Part != "" {
		errs = append(errs, CheckName("task", string(o.Part)))
		if o.From.Load != o.Load.Number {
			errs = append(errs, fmt.Errorf("%w: an order for load %d names version %v", ErrInvalid, o.Load.Number, o.From))
		}
	}
	return cmp.Or(errs...)
}
