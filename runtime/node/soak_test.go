package node_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

func soakSeeds(n uint64) []uint64 {
	if s, err := strconv.ParseUint(os.Getenv("RB_SEED"), 10, 64); err == nil {
		return []uint64{s}
	}
	if m, err := strconv.ParseUint(os.Getenv("RB_SEEDS"), 10, 64); err == nil {
		n = m
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i) + 1
	}
	return out
}

// gremlin plants faults at random until it is calm.
type gremlin struct {
	mu     sync.Mutex
	rng    *rand.Rand
	calm   bool
	panics bool // connectors panic too; a batch that one was holding then is left to the garbage collector
	seen   map[string]int
}

func (g *gremlin) roll(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.calm && g.rng.IntN(n) == 0
}

func (g *gremlin) note(what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[what]++
}

// hook fails, panics, delays or hangs one call in n.
func (g *gremlin) hook(name string, n int) conntest.Hook {
	return func(ctx context.Context, c conntest.Call) error {
		fails, panics, waits, hangs := g.roll(n), g.panics && g.roll(2*n), g.roll(n), g.roll(3*n)
		switch {
		case fails:
			g.note(name + " failed")
			return transient(name)
		case panics:
			g.note(name + " panicked")
			panic(name)
		case waits:
			return conntest.Delay(time.Second)(ctx, c)
		case hangs:
			g.note(name + " hung")
			return conntest.Hang()(ctx, c)
		}
		return nil
	}
}

func (g *gremlin) haunt(w *world) {
	w.src.ScanFn, w.src.OpenFn, w.src.ReadFn = g.hook("scan", 12), g.hook("open reader", 12), g.hook("read", 40)
	w.dst.OpenFn, w.dst.BeginFn, w.dst.OpenWriterFn = g.hook("open", 12), g.hook("begin", 12), g.hook("open writer", 12)
	w.dst.WriteFn, w.dst.CommitFn, w.dst.CommittedFn = g.hook("write", 40), g.hook("commit", 20), g.hook("reply of commit", 20)
	w.dst.FinishFn, w.dst.FinishedFn = g.hook("finish", 8), g.hook("reply of finish", 8)
	w.store.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
		if g.roll(8) {
			done := g.roll(2)
			g.note(fmt.Sprintf("save failed, done %t", done))
			return storetest.Fate{Err: errors.New("disk hiccup"), Done: done}
		}
		return storetest.Fate{}
	}
}

// requireStoreBehind asserts I1: the state store is never ahead of the destination.
func (w *world) requireStoreBehind(t *testing.T, seed uint64) {
	t.Helper()
	durable := w.dst.Receipts("p")
	for _, k := range w.state(t).Receipts {
		require.LessOrEqual(t, k.Version.Compare(durable[k.Part].Version), 0, "seed %d: I1: %s", seed, k.Part)
	}
}

// TestSimulationSoak restarts a pipeline under random faults, drains, stops at once
// and lost state stores until it completes, and compares every row.
func TestSimulationSoak(t *testing.T) {
	seen := map[string]int{}
	all := soakSeeds(300)
	for _, seed := range all {
		synctest.Test(t, func(t *testing.T) { soak(t, seed, seen) })
	}
	if len(all) < 50 {
		return
	}
	for _, rare := range []string{
		"commit failed", "reply of commit failed", "write panicked", "write hung", "reply of finish failed", "save failed, done true",
		"stopped at once", "drained", "state store lost", "completed with retries",
	} {
		require.Positive(t, seen[rare], "never reached: %s", rare)
		t.Logf("%6d  %s", seen[rare], rare)
	}
}

func soak(t *testing.T, seed uint64, seen map[string]int) {
	g := &gremlin{rng: rand.New(rand.NewPCG(seed, 3)), seen: seen, panics: seed%4 == 0}
	mode := []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert}[seed%3]
	w := newWorld(mode, conntest.Numbers("orders", 300), conntest.Numbers("users", 120))
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	w.spec.Mem, w.spec.Adopt = mem, true
	w.spec.Resources.Stall = time.Minute
	if seed%2 == 0 {
		w.spec.Transforms = []run.Transform{{Transform: passAll{}, Name: "pass"}}
	}
	g.haunt(w)
	for i := 0; ; i++ {
		require.Less(t, i, 60, "seed %d: I10: not complete after the faults stopped", seed)
		g.calm = i > 40
		r := g.goOnce(t, w, seed)
		w.requireStoreBehind(t, seed)
		if !g.panics {
			require.Zero(t, mem.CurrentAlloc(), "seed %d: batches leaked", seed)
		}
		if r.State == messages.RunCompleted {
			for _, s := range r.Streams {
				if s.Retries > 0 {
					g.note("completed with retries")
				}
			}
			break
		}
		if r.Failure != nil {
			require.Contains(t, []messages.Code{messages.CodeDest, messages.CodeSource, messages.CodeState, messages.CodePanic, messages.CodeStalled},
				r.Failure.Code, "seed %d: %v", seed, r.Failure)
		}
		// A store that is lost behind the last load, before the run's end is recorded,
		// takes with it that the run was over: then the next one is a new run.
		if g.roll(8) && !w.finished() {
			g.note("state store lost")
			w.observe(messages.Event{Kind: "state_lost", Time: time.Now()})
			w.store = storetest.NewMemory("store-1")
			g.haunt(w)
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, w.story())
		}
	}()
	w.requireSame(t)
	require.True(t, w.finished(), "seed %d", seed)
	require.True(t, slices.IsSortedFunc(w.events, func(a, b messages.Event) int { return a.Time.Compare(b.Time) }))
}

// goOnce runs once, with a drain or a stop at once now and then.
func (g *gremlin) goOnce(t *testing.T, w *world, seed uint64) messages.RunResult {
	t.Helper()
	defer time.AfterFunc(6*time.Hour, func() {
		panic(fmt.Sprintf("seed %d: I10: the run does not end\n%s", seed, w.story()))
	}).Stop()
	n := node.Start(node.Options{Observe: w.observe})
	defer time.Sleep(2 * time.Second) // the actor library's dead-letter throttle keeps a goroutine for a second
	defer n.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop, drain := g.roll(3), g.roll(3)
	switch {
	case stop:
		defer time.AfterFunc(time.Duration(g.rng.IntN(4000))*time.Millisecond, func() { g.note("stopped at once"); cancel() }).Stop()
	case drain:
		defer time.AfterFunc(time.Duration(g.rng.IntN(4000))*time.Millisecond, func() { g.note("drained"); n.Drain("soak") }).Stop()
	}
	return n.Run(ctx, w.spec, w.store)
}

// passAll is a transform that changes nothing and holds one batch back until the
// next item or barrier.
type passAll struct{ dropAll }

type holder struct {
	dropAll
	held messages.Data
}

func (passAll) Open(context.Context, connectors.StageRequest) (connectors.Stage, error) {
	return &holder{}, nil
}

func (h *holder) Apply(ctx context.Context, d messages.Data, out connectors.Outlet) error {
	err := h.Flush(ctx, out)
	h.held = d
	return err
}

func (h *holder) Flush(ctx context.Context, out connectors.Outlet) error {
	d := h.held
	h.held = nil
	if d == nil {
		return nil
	}
	return out(ctx, d)
}

func (h *holder) Close(context.Context) error {
	if b, ok := h.held.(messages.Batch); ok {
		b.Rows.Release()
	}
	h.held = nil
	return nil
}

// finished reports whether the destination has finished both loads.
func (w *world) finished() bool {
	for _, s := range w.spec.Streams {
		if !w.dst.Finished("p", messages.LoadID{Name: string(s.Stream), Number: w.number(s.Stream)}) {
			return false
		}
	}
	return true
}

// number returns the current load of a stream.
func (w *world) number(s messages.StreamID) (n uint64) {
	for _, r := range w.dst.Receipts("p") {
		if r.Load == string(s) {
			n = r.Version.Load
		}
	}
	return n
}

// story tells what happened, event by event.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		if e.Kind != messages.EventProgress {
			fmt.Fprintf(&b, "%s %s %s %s %v %s %v\n", e.Run, e.Kind, e.Stream, e.Part, e.Token, e.State, e.Failure)
		}
	}
	return b.String()
}
