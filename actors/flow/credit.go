package flow

// Window bounds what may be in flight on one hop, from a worker's offer until the
// next stage has consumed it.
type Window struct {
	Batches int   // at least 1
	Bytes   int64 // at least 1; overshot by at most one batch
}

// Balance is the sender's side of a hop: what it may still send.
type Balance struct {
	batches int
	bytes   int64 // may be negative by less than one batch
}

// Open reports whether a batch may be sent now, whatever its size.
func (b *Balance) Open() bool { return b.batches > 0 && b.bytes > 0 }

// Grant adds what the receiver is ready for.
func (b *Balance) Grant(batches int, bytes int64) {
	b.batches += batches
	b.bytes += bytes
}

// Spend takes one batch of the given footprint. Only while Open.
func (b *Balance) Spend(bytes int64) {
	if !b.Open() {
		panic("flow: sent without credit")
	}
	b.batches--
	b.bytes -= bytes
}

// Grants is the receiver's side: it returns what has been consumed, coalesced to
// half a window. It cannot stall its sender: a sender without credit has the whole
// window outstanding, and half of that is enough for the next grant.
type Grants struct {
	window  Window
	batches int   // consumed, not yet granted again
	bytes   int64 // of those
}

// NewGrants returns the receiver's side of a hop. The first grant is the window.
func NewGrants(w Window) Grants {
	if w.Batches < 1 || w.Bytes < 1 {
		panic("flow: empty window")
	}
	return Grants{window: w}
}

// First returns the opening grant.
func (g *Grants) First() Window { return g.window }

// Consumed records one consumed batch and returns what to grant now, if anything.
func (g *Grants) Consumed(bytes int64) (w Window, ok bool) {
	g.batches++
	g.bytes += bytes
	if 2*g.batches < g.window.Batches && 2*g.bytes < g.window.Bytes {
		return Window{}, false
	}
	w = Window{Batches: g.batches, Bytes: g.bytes}
	g.batches, g.bytes = 0, 0
	return w, true
}
