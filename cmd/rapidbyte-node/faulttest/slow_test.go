package faulttest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// A way of latency, of few bytes per second or of tiny packets slows a run down, and
// nothing else.
func TestPGSlowWays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		from, to pgtest.Shape
		rows     int
		least    time.Duration // that it must take, if the shape has effect
	}{
		{"1 ms", pgtest.Shape{Delay: time.Millisecond / 2}, pgtest.Shape{Delay: time.Millisecond / 2}, 3000, 0},
		{"50 ms", pgtest.Shape{Delay: 25 * time.Millisecond}, pgtest.Shape{Delay: 25 * time.Millisecond}, 3000, time.Second},
		{"500 ms to the source", pgtest.Shape{Delay: 250 * time.Millisecond}, pgtest.Shape{}, 500, 5 * time.Second},
		{"500 ms to the destination", pgtest.Shape{}, pgtest.Shape{Delay: 250 * time.Millisecond}, 500, 5 * time.Second},
		{"packets of a byte", pgtest.Shape{Slice: 1}, pgtest.Shape{Slice: 1}, 300, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fill("orders", c.rows)
			r.from.Shape(c.from)
			r.to.Shape(c.to)
			e := ends{mode: "append", tables: []string{"orders"}}
			s := r.run(r.document(e))
			require.Empty(t, s.causes(), "slow is not broken")
			require.GreaterOrEqual(t, s.Elapsed, c.least)
			t.Logf("%s: %v", c.name, s.Elapsed)
			r.completed(s, e, 1)
		})
	}
}

// While a destination takes 64 KiB/s, no more than the budget is allocated for batches,
// whatever the source could give (I6).
func TestPGFewBytesPerSecondStayInsideTheBudget(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fill("orders", 40_000) // 5 MB
			r.to.Shape(pgtest.Shape{Rate: 64 << 10})
			e := ends{mode: mode, tables: []string{"orders"}, resources: ", max_memory: 1mb"}
			mem := &counting{Allocator: memory.DefaultAllocator}
			reached, release := r.frozen(r.to, 2, rowsTo)
			s := r.runWith(r.document(e), mem, func() {
				reached()
				release()
				r.to.Shape(pgtest.Shape{}) // it has been slow long enough
			})
			require.Empty(t, s.causes())
			t.Logf("peak %d KiB in %v", mem.peak.Load()>>10, s.Elapsed)
			require.Positive(t, mem.peak.Load())
			require.Less(t, mem.peak.Load(), int64(1<<20))
			require.Zero(t, mem.now.Load(), "what was allocated is freed")
			r.completed(s, e, 1)
		})
	}
}

// counting knows how much is allocated, and the most that was.
type counting struct {
	memory.Allocator
	now, peak atomic.Int64
}

func (c *counting) add(n int) {
	now := c.now.Add(int64(n))
	for peak := c.peak.Load(); now > peak && !c.peak.CompareAndSwap(peak, now); peak = c.peak.Load() {
	}
}

// Allocate implements memory.Allocator.
func (c *counting) Allocate(size int) []byte {
	c.add(size)
	return c.Allocator.Allocate(size)
}

// Reallocate implements memory.Allocator.
func (c *counting) Reallocate(size int, b []byte) []byte {
	c.add(size - len(b))
	return c.Allocator.Reallocate(size, b)
}

// Free implements memory.Allocator.
func (c *counting) Free(b []byte) {
	c.add(-len(b))
	c.Allocator.Free(b)
}
