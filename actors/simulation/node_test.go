package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	root "rapidbyte.io/node/actors/node"
	"rapidbyte.io/node/actors/pipeline"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// node is a simulated process: its actors, and what they hold in memory.
type node struct {
	w        *world
	id       int
	name     string
	pid      *actor.PID
	file     *file // its state store
	foreign  bool  // the destination belongs to another store
	ahead    bool  // its state store is, of the destination
	panics   bool  // an actor of it has panicked, as simulated
	adopt    bool
	jitter   *rand.Rand
	frozen   bool
	dead     bool
	calm     bool // its run was started when the faults had stopped
	drains   bool // a drain was asked for
	scans    []int
	saw      map[messages.StreamID]int64 // rows of a stream, by the newest scan
	starts   int                         // of the pipeline
	released int                         // of these, over
	busy     bool                        // a run was started, and something of it is there
	result   *messages.RunResult
	drawn    messages.Epoch // the newest epoch
	drawnAt  int            // of all draws

	mu      sync.Mutex // guards what follows
	readers map[messages.PartID]int
	writers map[messages.PartID]int
	batches map[messages.Token]int
	live    int64 // bytes in flight
}

func (n *node) epoch() messages.Epoch { return n.drawn }

// boot starts a process.
func (w *world) boot() *node {
	w.booted++
	n := &node{
		w: w, id: w.booted, name: fmt.Sprintf("node%d", w.booted), file: w.file, calm: w.calm,
		jitter: rand.New(rand.NewPCG(w.seed, uint64(w.booted))),
		saw:    map[messages.StreamID]int64{}, readers: map[messages.PartID]int{}, writers: map[messages.PartID]int{}, batches: map[messages.Token]int{},
	}
	n.adopt = w.house.store != "" && w.house.store != w.file.identity && !w.s.chance(w.knobs.forgetful)
	pid, err := w.sys.Root.SpawnNamed(w.s.inhabit(n, root.New(), n.name), n.name)
	if err != nil {
		panic(err)
	}
	n.pid = pid
	w.nodes = append(w.nodes, n)
	n.run()
	return n
}

// run starts the pipeline.
func (n *node) run() {
	n.starts++
	n.busy, n.result, n.calm = true, nil, n.w.calm
	n.w.s.mark(n.name, fmt.Sprintf("starts the pipeline, state store %s, adopt %t", n.file.identity, n.adopt))
	spec := run.Spec{
		Pipeline: "p", Source: source{n.w.origin, n}, Destination: destination{n}, Resources: n.w.resources, Adopt: n.adopt,
	}
	for _, st := range n.w.origin.streams {
		spec.Streams = append(spec.Streams, st.spec())
	}
	for i, holds := range n.w.steps {
		name := fmt.Sprintf("step%d", i)
		spec.Transforms = append(spec.Transforms, run.Transform{Transform: step{n: n, name: name, holds: holds}, Name: name})
	}
	ids := 0
	n.w.sys.Root.Send(n.pid, root.StartPipeline{
		Config: pipeline.Config{
			Spec: spec, Store: store{n, n.file},
			NewID:   func() string { ids++; return fmt.Sprintf("run-%03d-%d-%d", n.id, n.starts, ids) },
			Jitter:  n.jitter.Float64,
			Observe: n.observe,
			Done:    func(r messages.RunResult) { n.result = &r; n.w.checkResult(n, r) },
		},
		Ticket: uint64(n.starts), //nolint:gosec // a count
		Gone:   func() { n.busy = false },
	})
}

// release ends what a run that has reported leaves, once.
func (n *node) release() {
	if n.released < n.starts {
		n.released = n.starts
		n.w.sys.Root.Send(n.pid, root.StopPipeline{Pipeline: "p", Ticket: uint64(n.starts)}) //nolint:gosec // a count
	}
}

func (n *node) observe(e messages.Event) {
	if e.Kind == messages.EventTaskRetry && e.Failure.Code == messages.CodePanic {
		n.w.note("panic retried")
		if !strings.Contains(e.Failure.Why, "panic: simulated") && !n.dead {
			n.w.fail("an actor has panicked: %s", e.Failure.Why)
		}
	}
}

// stop is the end of a process, by kill -9 or in order: nothing that it holds in memory
// has effects any more. Its actors are stopped all the same, whatever they say, to see
// that every goroutine ends and every batch is released.
func (n *node) stop() {
	s := n.w.s
	s.admit()
	n.dead, n.frozen = true, false
	for _, id := range n.scans {
		n.w.origin.gone[id] = true
	}
	var rest []*op
	for _, o := range s.ops {
		if o.node != n {
			rest = append(rest, o)
			continue
		}
		s.abandon(o)
		o.err, o.fate = errDead, fateDone
		close(o.done)
	}
	s.ops = rest
	s.settle()
	n.w.sys.Root.Stop(n.pid)
	for n.turn() {
	}
	s.admit()
	for _, b := range s.boxes {
		if b.node == n {
			n.w.fail("%s: the actor %s has not stopped", n.name, b.name)
		}
	}
	if n.live != 0 {
		n.w.fail("%s: %d bytes were never released", n.name, n.live)
	}
	n.w.remove(n)
}

// turn lets any actor of a dead node go on.
func (n *node) turn() bool {
	for _, b := range n.w.s.readyBoxes() {
		if b.node == n {
			n.w.s.turn(b)
			return true
		}
	}
	return false
}

// hold counts a batch as in flight (I6).
func (n *node) hold(r *rows) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live += int64(len(r.ids)) * rowBytes
	n.batches[r.attempt]++
	if most := n.w.resources.MemoryBytes; n.live > most {
		n.w.fail("I6: %d bytes are in flight, max_memory is %d", n.live, most)
	}
	hops := 1 + len(n.w.steps)
	if most := hops*n.w.resources.BatchesMax + hops + 2*len(n.w.steps); n.batches[r.attempt] > most {
		n.w.fail("I6: %d batches of %s are in flight, the windows allow %d", n.batches[r.attempt], r.part, most)
	}
}

// drop counts a batch as gone.
func (n *node) drop(r *rows) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live -= int64(len(r.ids)) * rowBytes
	n.batches[r.attempt]--
}

// enter counts the readers or writers of a part: attempts never overlap.
func (n *node) enter(of *map[messages.PartID]int, p messages.PartID, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	(*of)[p]++
	if (*of)[p] > 1 {
		n.w.fail("two %s of %s at once: the attempt before has not stopped", what, p)
	}
}

func (n *node) leave(of *map[messages.PartID]int, p messages.PartID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	(*of)[p]--
}

// drew notes an epoch.
func (n *node) drew(e, floor messages.Epoch) {
	if floor > n.drawn && n.drawn > 0 {
		n.w.note("store restored and epoch raised above the destination's")
	}
	n.w.s.draws++
	n.drawn, n.drawnAt, n.file.drawnAt = e, n.w.s.draws, n.w.s.draws
}

// opened notes what a session found that nobody had heard of.
func (n *node) opened(r connectors.Recovered) {
	for _, l := range r.Loads {
		if l.Finished && l.Mode == connectors.ModeReplace && n.file.finished[l.ID.Name] < l.ID.Number {
			n.w.note("swap redone after a crash behind it")
		}
	}
}

// resumed notes where a reader begins.
func (n *node) resumed(r connectors.ReadRequest, sp split) {
	k, known := n.file.receipts[r.Part.ID]
	at := sp.at(r.From)
	if known && k.LoadID() == r.Part.Load && at > sp.at(k.Position) {
		n.w.note("replayed batch skipped")
	}
	if n.w.drained[r.Part.ID] && at > sp.From {
		n.w.note("drain resumed")
	}
}

// confirmed checks what the origin may forget (I3).
func (n *node) confirmed(p connectors.Part, at int64) {
	if n.dead {
		return
	}
	sp := splitOf(p)
	k := n.file.receipts[p.ID]
	if k.LoadID() == p.Load && sp.at(k.Position) >= at || k.Version.Load > p.Load.Number || n.file.epoch != n.drawn {
		return
	}
	n.w.fail("I3: %s may forget up to %d, the state store has %d", p.ID, at, sp.at(k.Position))
}
