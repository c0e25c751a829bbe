package postgres

import (
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/memory"
)

// recycledMax is the memory that a reader keeps for batches to come. More than a few
// batches never wait: those that are under way come back one by one.
const recycledMax = 16 << 20

// recycler is an allocator that gives the memory of released batches to new ones: a
// copy moves gigabytes through buffers of the same few sizes, and fresh memory has to
// be cleared, faulted in and collected. Batches may outlive it.
type recycler struct {
	mem memory.Allocator // where memory comes from and goes to

	mu     sync.Mutex
	free   [][]byte // as allocated, smallest first
	held   int      // bytes of free
	closed bool     // nothing is kept any more
}

// Allocate implements memory.Allocator. The memory holds what it held before.
func (r *recycler) Allocate(size int) []byte {
	if b := r.take(size); b != nil {
		return b[:size]
	}
	b := r.mem.Allocate(size)
	return b[:size:size] // the capacity says what was allocated
}

// take returns the smallest block that holds size bytes and is not much larger.
func (r *recycler) take(size int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.free, size, func(b []byte, size int) int { return cap(b) - size })
	if i == len(r.free) || size == 0 || cap(r.free[i]) > 2*size {
		return nil
	}
	b := r.free[i]
	r.free = slices.Delete(r.free, i, i+1)
	r.held -= cap(b)
	return b
}

// Reallocate implements memory.Allocator.
func (r *recycler) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	out := r.Allocate(size)
	copy(out, b)
	r.Free(b)
	return out
}

// Free implements memory.Allocator.
func (r *recycler) Free(b []byte) {
	if cap(b) == 0 {
		return
	}
	b = b[:cap(b)]
	r.mu.Lock()
	keep := !r.closed && r.held+cap(b) <= recycledMax
	if keep {
		i, _ := slices.BinarySearchFunc(r.free, cap(b), func(b []byte, size int) int { return cap(b) - size })
		r.free = slices.Insert(r.free, i, b)
		r.held += cap(b)
	}
	r.mu.Unlock()
	if !keep {
		r.mem.Free(b)
	}
}

// close gives back what is kept, and from now on everything at once.
func (r *recycler) close() {
	r.mu.Lock()
	free := r.free
	r.free, r.held, r.closed = nil, 0, true
	r.mu.Unlock()
	for _, b := range free {
		r.mem.Free(b)
	}
}
