package postgres

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

func TestRecyclerGivesMemoryOut(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	r := &recycler{mem: mem}
	a, b := r.Allocate(1000), r.Allocate(4000)
	r.Free(a[:10])
	r.Free(b[:0])
	small := r.Allocate(100)
	require.Len(t, small, 100)
	require.NotSame(t, &a[0], &small[0], "a block that is much larger stays")
	require.Len(t, r.free, 2)
	c := r.Allocate(900)
	require.Same(t, &a[0], &c[0])
	require.Len(t, c, 900)
	c = r.Reallocate(1000, c)
	require.Same(t, &a[0], &c[0], "it was that large")
	c[0] = 7
	c = r.Reallocate(3000, c)
	require.Same(t, &b[0], &c[0])
	require.EqualValues(t, 7, c[0])
	require.Len(t, c, 3000)
	require.Equal(t, 1000, r.held)
	r.Free(nil)
	r.close()
	require.Equal(t, 4000+100, mem.CurrentAlloc(), "what is under way")
	r.Free(c)
	r.Free(small)
}

func TestRecyclerKeepsOnlySoMuch(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	r := &recycler{mem: mem}
	large := r.Allocate(recycledMax + 1)
	r.Free(large)
	require.Zero(t, mem.CurrentAlloc())
	blocks := make([][]byte, 40)
	for i := range blocks {
		blocks[i] = r.Allocate(1 << 20)
	}
	for _, b := range blocks {
		r.Free(b)
	}
	require.Equal(t, recycledMax, mem.CurrentAlloc())
	r.close()
}

// TestRecyclerIsShared allocates in one goroutine and frees in another, as a reader and
// a writer do.
func TestRecyclerIsShared(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	r := &recycler{mem: mem}
	moved := make(chan []byte, 4) // closed behind the last
	var wait sync.WaitGroup
	wait.Go(func() {
		for b := range moved {
			for _, v := range b {
				if v != byte(len(b)) {
					t.Errorf("a block of %d bytes holds %d", len(b), v)
					break
				}
			}
			r.Free(b)
		}
	})
	sizes := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		b := r.Allocate(1 + sizes.IntN(3000))
		if sizes.IntN(4) == 0 {
			b = r.Reallocate(len(b)+sizes.IntN(500), b)
		}
		for i := range b {
			b[i] = byte(len(b))
		}
		moved <- b
	}
	r.close()
	close(moved)
	wait.Wait()
}
