package flow

import (
	"sync"

	"rapidbyte.io/node/messages"
)

// Register knows every batch of one attempt that is between two workers. It is
// safe for concurrent use.
type Register struct {
	mu   sync.Mutex
	live map[place]messages.Rows
}

// place is a hop and the number an item has on it.
type place struct {
	hop int
	seq messages.Seq
}

// NewRegister returns an empty register.
func NewRegister() *Register { return &Register{live: map[place]messages.Rows{}} }

// Put enters the sender's reference.
func (r *Register) Put(hop int, seq messages.Seq, rows messages.Rows) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[place{hop, seq}] = rows
}

// Take moves the reference to the caller; false when it is gone already.
func (r *Register) Take(hop int, seq messages.Seq) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.live[place{hop, seq}]
	delete(r.live, place{hop, seq})
	return ok
}

// Len returns the number of batches on their way.
func (r *Register) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.live)
}

// ReleaseAll gives up everything. Call it when no worker of the attempt runs.
func (r *Register) ReleaseAll() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, rows := range r.live {
		rows.Release()
		delete(r.live, p)
		n++
	}
	return n
}
