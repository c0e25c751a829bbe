package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Leases makes a Memory one whose pipelines are leased: a fake of a store that several
// processes share. No lease runs out by itself; a test decides when.
type Leases struct {
	memory *Memory

	mu   sync.Mutex // guards what follows, also of the owners
	held map[messages.PipelineID]*lease
}

type lease struct {
	owner *Owner
	epoch messages.Epoch
	lost  chan struct{} // closed when it is lost
}

// NewLeases leases the pipelines of m.
func NewLeases(m *Memory) *Leases {
	return &Leases{memory: m, held: map[messages.PipelineID]*lease{}}
}

// Owner is the store as one process sees it.
type Owner struct {
	*Memory
	// HoldFn, when set, decides what Hold answers. Set it before the first call.
	HoldFn func() error
	// ReleaseFn, when set, is called before a lease is given back; its error fails that.
	ReleaseFn func(ctx context.Context) error

	// PatienceIs is what Patience answers.
	PatienceIs time.Duration

	name     string
	leases   *Leases
	releases int
}

var _ statestore.Leaser = (*Owner)(nil)

// Owner returns the store for a process of that name.
func (l *Leases) Owner(name string) *Owner {
	return &Owner{Memory: l.memory, name: name, leases: l}
}

// Expire ends the lease of a pipeline, as when it was not renewed in time.
func (l *Leases) Expire(p messages.PipelineID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[p]; h != nil {
		close(h.lost)
		delete(l.held, p)
	}
}

// Holder names the owner of a pipeline; empty: nobody has a lease.
func (l *Leases) Holder(p messages.PipelineID) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[p]; h != nil {
		return h.owner.name
	}
	return ""
}

// Acquire implements statestore.Store.
func (o *Owner) Acquire(ctx context.Context, p messages.PipelineID, c statestore.Claim) (messages.Epoch, error) {
	o.leases.mu.Lock()
	h := o.leases.held[p]
	o.leases.mu.Unlock()
	if h != nil && h.owner != o {
		err := fmt.Errorf("%w: %s has a lease", statestore.ErrHeld, h.owner.name)
		return 0, statestore.Wrap(statestore.Error{Op: "acquire epoch", Path: where, Pipeline: p, Err: err})
	}
	e, err := o.Memory.Acquire(ctx, p, c)
	if err != nil {
		return 0, err
	}
	o.leases.mu.Lock()
	defer o.leases.mu.Unlock()
	o.leases.held[p] = &lease{owner: o, epoch: e, lost: make(chan struct{})}
	return e, nil
}

// Hold implements statestore.Leaser.
func (o *Owner) Hold(p messages.PipelineID, e messages.Epoch) error {
	if o.HoldFn != nil {
		return o.HoldFn()
	}
	o.leases.mu.Lock()
	defer o.leases.mu.Unlock()
	if o.mine(p, e) == nil {
		err := fmt.Errorf("%w: the lease under epoch %d has run out", statestore.ErrFenced, e)
		return statestore.Wrap(statestore.Error{Op: "hold lease", Path: where, Pipeline: p, Err: err})
	}
	return nil
}

// mine returns our lease of p under e, nil if it is not ours any more.
func (o *Owner) mine(p messages.PipelineID, e messages.Epoch) *lease {
	if h := o.leases.held[p]; h != nil && h.owner == o && h.epoch == e {
		return h
	}
	return nil
}

// Lost implements statestore.Leaser.
func (o *Owner) Lost(p messages.PipelineID, e messages.Epoch) <-chan struct{} {
	o.leases.mu.Lock()
	defer o.leases.mu.Unlock()
	if h := o.mine(p, e); h != nil {
		return h.lost
	}
	lost := make(chan struct{})
	close(lost)
	return lost
}

// Release implements statestore.Leaser.
func (o *Owner) Release(ctx context.Context, p messages.PipelineID, e messages.Epoch) error {
	if o.ReleaseFn != nil {
		if err := o.ReleaseFn(ctx); err != nil {
			return err
		}
	}
	o.leases.mu.Lock()
	defer o.leases.mu.Unlock()
	o.releases++
	if o.mine(p, e) != nil {
		delete(o.leases.held, p)
	}
	return nil
}

// Releases returns how often Release was called.
func (o *Owner) Releases() int {
	o.leases.mu.Lock()
	defer o.leases.mu.Unlock()
	return o.releases
}

// Patience implements statestore.Leaser.
func (o *Owner) Patience() time.Duration { return o.PatienceIs }
