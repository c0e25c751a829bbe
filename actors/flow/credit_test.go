package flow_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/flow"
)

// seeds returns the seeds to simulate: RB_SEED replays one.
func seeds(n uint64) []uint64 {
	if s, err := strconv.ParseUint(os.Getenv("RB_SEED"), 10, 64); err == nil {
		return []uint64{s}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i) + 1
	}
	return out
}

// hop simulates one hop: grants and batches are delayed at random, in order.
type hop struct {
	rng     *rand.Rand
	window  flow.Window
	sender  flow.Balance
	grants  flow.Grants
	demands []flow.Window // on their way up
	batches []int64       // on their way down, or queued there
	sent    int
	bytes   int64 // in flight: sent and not yet consumed
	largest int64
}

func (h *hop) step(total int) error {
	switch h.rng.IntN(3) {
	case 0:
		if h.sent < total && h.sender.Open() {
			size := 1 + h.rng.Int64N(h.window.Bytes*2) // also batches above the window
			h.sender.Spend(size)
			h.batches = append(h.batches, size)
			h.sent++
			h.bytes += size
			h.largest = max(h.largest, size)
		}
	case 1:
		if len(h.batches) > 0 {
			size := h.batches[0]
			h.batches = h.batches[1:]
			h.bytes -= size
			if w, ok := h.grants.Consumed(size); ok {
				h.demands = append(h.demands, w)
			}
		}
	case 2:
		if len(h.demands) > 0 {
			h.sender.Grant(h.demands[0].Batches, h.demands[0].Bytes)
			h.demands = h.demands[1:]
		}
	}
	if len(h.batches) > h.window.Batches {
		return fmt.Errorf("I6: %d batches in flight, the window is %d", len(h.batches), h.window.Batches)
	}
	if h.bytes > h.window.Bytes+h.largest {
		return fmt.Errorf("I6: %d bytes in flight, the window is %d and the largest batch %d", h.bytes, h.window.Bytes, h.largest)
	}
	if h.sent < total && !h.sender.Open() && len(h.batches) == 0 && len(h.demands) == 0 {
		return fmt.Errorf("I10: stalled after %d batches", h.sent)
	}
	return nil
}

func TestSimulationCredits(t *testing.T) {
	coalesced := 0
	for _, seed := range seeds(2_000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := flow.Window{Batches: 1 + rng.IntN(20), Bytes: 1 + rng.Int64N(1000)}
		h := &hop{rng: rng, window: w, grants: flow.NewGrants(w)}
		h.demands = append(h.demands, h.grants.First())
		const total = 200
		for i := 0; h.sent < total || len(h.batches) > 0; i++ {
			require.NoError(t, h.step(total), "seed %d", seed)
			require.Less(t, i, 20_000, "seed %d: I10: not done", seed)
		}
		coalesced += total
	}
	require.Positive(t, coalesced)
}

func TestSendingWithoutCreditIsABug(t *testing.T) {
	var b flow.Balance
	require.Panics(t, func() { b.Spend(1) })
	b.Grant(1, 10)
	b.Spend(1_000) // one batch may overshoot the bytes
	require.False(t, b.Open())
	require.Panics(t, func() { b.Spend(1) })
}

func TestGrantsAreCoalescedToHalfAWindow(t *testing.T) {
	g := flow.NewGrants(flow.Window{Batches: 8, Bytes: 1000})
	for range 3 {
		_, ok := g.Consumed(1)
		require.False(t, ok)
	}
	w, ok := g.Consumed(1)
	require.True(t, ok)
	require.Equal(t, flow.Window{Batches: 4, Bytes: 4}, w)
	w, ok = g.Consumed(500)
	require.True(t, ok, "half the bytes are enough too")
	require.Equal(t, flow.Window{Batches: 1, Bytes: 500}, w)
}
