package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// raisesMax bounds how often an epoch is drawn because the destination has met a higher one.
const raisesMax = 3

// takeOver makes store the owner of a pipeline at its destination too, whatever state store
// that knew, and returns what the destination holds and the epoch of the take-over.
func takeOver(ctx context.Context, p messages.PipelineID, dst connectors.Destination, store statestore.Store, floor, mine messages.Epoch) (connectors.Recovered, messages.Epoch, error) {
	for raises := 0; ; raises++ {
		e, err := store.Acquire(ctx, p, statestore.Claim{Floor: floor, Mine: mine})
		if err != nil {
			return connectors.Recovered{}, mine, checkpoint.StoreFailure(p, err)
		}
		mine = e
		s, err := dst.Open(ctx, connectors.SessionRequest{Pipeline: p, Epoch: e, Store: store.Identity(), Adopt: true})
		if f, ok := errors.AsType[*connectors.FencedError](err); ok && raises < raisesMax {
			floor = f.Registered.Epoch
			continue
		}
		if err != nil {
			return connectors.Recovered{}, e, connectors.FailureOf(err, messages.Place{Pipeline: p, Stage: connectors.StageDestination})
		}
		known := s.Recovered()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if err := s.Close(closing); err != nil {
			return known, e, connectors.FailureOf(err, messages.Place{Pipeline: p, Stage: connectors.StageDestination})
		}
		return known, e, nil
	}
}

const closeTimeout = 5 * time.Second

// Rebuilt is what a state store was made anew from.
type Rebuilt struct {
	Pipeline messages.PipelineID     `json:"pipeline"`
	Epoch    messages.Epoch          `json:"epoch"`
	Loads    []connectors.LoadStatus `json:"loads"`
	Receipts []messages.Receipt      `json:"receipts"`
	// Lowered lists what the state store had beyond the destination: it is read and
	// written again.
	Lowered []Lowered `json:"lowered,omitempty"`
	Dropped int       `json:"dropped,omitempty"` // receipts that the destination does not know
}

// Lowered is a part that goes back to what the destination has.
type Lowered struct {
	From messages.Receipt `json:"from"`
	To   messages.Receipt `json:"to"`
}

// Rebuild makes the state of the ledger's pipeline anew; see Rebuild.
func (l *Ledger) Rebuild(ctx context.Context) (Rebuilt, error) {
	spec := run.Spec{Pipeline: l.doc.Pipeline, Destination: l.dst}
	for _, name := range l.known() {
		if id := messages.StreamID(name); l.selects(id) {
			mode := l.doc.Destination.WriteMode
			if st, ok := l.doc.Stream(id); ok {
				mode = cmp.Or(st.WriteMode, mode)
			}
			target := cmp.Or(l.doc.Target(id), name)
			spec.Streams = append(spec.Streams, run.Stream{StreamSpec: connectors.StreamSpec{Stream: id, Mode: mode}, Target: target})
		}
	}
	return Rebuild(ctx, spec, l.store)
}

// Rebuild makes the state of a pipeline anew from its destination's receipts, and makes
// store its owner there. Orders and kept checkpoints are dropped. Its error is a
// messages.Failure.
func Rebuild(ctx context.Context, spec run.Spec, store statestore.Store) (r Rebuilt, err error) {
	p := spec.Pipeline
	known, epoch, err := takeOver(ctx, p, spec.Destination, store, 0, 0)
	defer func() { err = errors.Join(err, release(store, p, epoch)) }()
	if err != nil {
		return Rebuilt{}, err
	}
	if f := spec.Incomplete(known); f != nil {
		return Rebuilt{}, *f
	}
	was, err := store.Load(ctx, p)
	if err != nil {
		return Rebuilt{}, checkpoint.StoreFailure(p, err)
	}
	r = Rebuilt{Pipeline: p, Epoch: epoch, Loads: append([]connectors.LoadStatus{}, known.Loads...), Receipts: append([]messages.Receipt{}, known.Receipts...)}
	u := statestore.Update{Receipts: known.Receipts}
	for _, k := range was.Receipts {
		u.Forget = append(u.Forget, k.Load)
		i := slices.IndexFunc(known.Receipts, func(d messages.Receipt) bool { return d.Part == k.Part })
		switch {
		case i < 0:
			r.Dropped++
		case k.Version.Compare(known.Receipts[i].Version) > 0:
			r.Lowered = append(r.Lowered, Lowered{From: k, To: known.Receipts[i]})
		}
	}
	for _, id := range was.Finished {
		u.Forget = append(u.Forget, id.Name)
	}
	for _, o := range was.Orders {
		u.Forget = append(u.Forget, o.Load.Name)
	}
	for _, l := range known.Loads {
		u.Forget = append(u.Forget, l.ID.Name)
		if l.Finished {
			u.Finished = append(u.Finished, l.ID)
		}
	}
	slices.Sort(u.Forget)
	u.Forget = slices.Compact(u.Forget)
	if err := store.Save(ctx, p, epoch, u); err != nil {
		return r, checkpoint.StoreFailure(p, err)
	}
	return r, nil
}

// Line is what was found, as one sentence.
func (r Rebuilt) Line() string {
	finished := 0
	for _, l := range r.Loads {
		if l.Finished {
			finished++
		}
	}
	return fmt.Sprintf("state rebuilt from %d receipts of %d loads, %d of them finished", len(r.Receipts), len(r.Loads), finished)
}
