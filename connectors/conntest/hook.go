package conntest

import (
	"context"
	"sync"
	"time"

	"rapidbyte.io/node/messages"
)

// Call describes one call of a method of an in-memory connector to a Hook. What
// does not apply is zero.
type Call struct {
	N       int // of this method, from 1, over all its callers
	Load    messages.LoadID
	Part    messages.PartID
	Token   messages.Token
	Data    messages.Data // borrowed
	Barrier messages.Barrier
}

// Hook stands before (or, where its field says so, behind) what a method does. It
// runs without a lock on the goroutine of the caller, and its error becomes that
// of the method.
type Hook func(ctx context.Context, c Call) error

// do calls h if there is one.
func (h Hook) do(ctx context.Context, c Call) error {
	if h == nil {
		return nil
	}
	return h(ctx, c)
}

// Nth lets h see the n-th call only.
func Nth(n int, h Hook) Hook {
	return func(ctx context.Context, c Call) error {
		if c.N != n {
			return nil
		}
		return h(ctx, c)
	}
}

// Fail returns err.
func Fail(err error) Hook {
	return func(context.Context, Call) error { return err }
}

// FailNth fails the n-th call with err.
func FailNth(n int, err error) Hook { return Nth(n, Fail(err)) }

// Hang waits until ctx ends and returns its cause.
func Hang() Hook {
	return func(ctx context.Context, _ Call) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

// Delay waits for d, or until ctx ends.
func Delay(d time.Duration) Hook {
	return func(ctx context.Context, _ Call) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Gate freezes its callers, as if their process stood still: not even the end of
// their context wakes them.
type Gate struct {
	arrived, open         chan struct{}
	onceArrived, onceOpen sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), open: make(chan struct{})}
}

// Hook waits until the gate opens.
func (g *Gate) Hook() Hook {
	return func(context.Context, Call) error {
		g.onceArrived.Do(func() { close(g.arrived) })
		<-g.open
		return nil
	}
}

// Arrived is closed when the first caller stands before the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets everybody pass, for ever. Idempotent.
func (g *Gate) Open() { g.onceOpen.Do(func() { close(g.open) }) }

// counter numbers calls by method.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

// next returns the number of this call of op, from 1.
func (c *counter) next(op string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[op]++
	return c.n[op]
}
