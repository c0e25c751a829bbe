package simulation_test

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"
)

// outcome is what became of a seed.
type outcome struct {
	err   error
	hash  uint64
	steps int
	seen  map[string]int
	story string
}

// system is an actor system that several seeds use one after the other: making one is
// slower than most seeds.
func system() *actor.ActorSystem {
	quiet := slog.New(slog.DiscardHandler)
	return actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }),
		actor.WithDeadLetterThrottleInterval(time.Nanosecond),
	)
}

// play simulates one seed, in a bubble of its own.
func play(t *testing.T, sys *actor.ActorSystem, seed uint64, show func(string)) (o outcome) {
	defer func() {
		if r := recover(); r != nil && o.err == nil { // by the bubble: goroutines that wait for ever
			o.err = fmt.Errorf("%v", r)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		w := newWorld(seed, sys)
		w.s.show = show
		o.err = w.simulate()
		if o.err == nil {
			o.err = w.err
		}
		o.hash, o.steps, o.seen = w.s.hash, w.s.steps, w.seen
		if o.err != nil {
			o.story = w.s.story()
		}
	})
	return o
}

// number reads a variable of the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

func TestSimulation(t *testing.T) {
	if seed := number(t, "RB_SEED", 0); seed > 0 {
		o := play(t, system(), seed, func(line string) { t.Log(line) })
		require.NoError(t, o.err, "seed %d", seed)
		return
	}
	most := number(t, "RB_SEEDS", seeds)
	var next, steps atomic.Uint64
	var mu sync.Mutex
	seen := map[string]int{}
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			sys := system()
			for seed := next.Add(1); seed <= most && !failed.Load(); seed = next.Add(1) {
				o := play(t, sys, seed, nil)
				if o.err != nil {
					failed.Store(true)
					t.Errorf("seed %d: %v\nreplay it with RB_SEED=%d; its last steps:\n%s", seed, o.err, seed, o.story)
				}
				steps.Add(uint64(o.steps))
				mu.Lock()
				for k, v := range o.seen {
					seen[k] += v
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d steps", steps.Load())
	if t.Failed() || most < 1_000 {
		return // a few seeds reach few rare states
	}
	for _, rare := range sometimes {
		require.Positive(t, seen[rare], "never reached: %s", rare)
		t.Logf("%8d  %s", seen[rare], rare)
	}
}

// sometimes are the rare states that a campaign must have reached.
var sometimes = []string{
	"unknown commit resolved as committed", "unknown commit resolved as not committed", "fenced zombie refused", "replayed batch skipped",
	"state repaired from a receipt", "load begun again", "swap redone after a crash behind it",
	"store restored and epoch raised above the destination's", "panic retried", "drain resumed",
}

func TestSimulationIsDeterministic(t *testing.T) {
	sys := system()
	for seed := range number(t, "RB_SEEDS", 50) {
		first := play(t, sys, seed+1, nil)
		again := play(t, sys, seed+1, nil)
		require.Equal(t, first.hash, again.hash, "seed %d", seed+1)
		require.Equal(t, first.steps, again.steps, "seed %d", seed+1)
	}
}
