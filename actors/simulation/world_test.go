package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/run"
	stages "rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// world is everything of one seed.
type world struct {
	seed  uint64
	s     *scheduler
	sys   *actor.ActorSystem
	knobs knobs

	origin *origin
	house  *warehouse
	file   *file // the state store that the next process is given
	files  int

	resources run.Resources
	steps     []bool // the transforms; true: it keeps a batch back

	nodes     []*node // that are not dead, oldest first
	booted    int
	calm      bool // the faults have stopped
	done      bool // a run was completed since
	reset     bool // the operator has to act: the state store is ahead
	forgot    bool // a state store was lost or restored
	proofs    map[proof]messages.Receipt
	completed map[string]bool // runs that said so
	drained   map[messages.PartID]bool

	oldFile  *file // backups
	oldHouse *warehouse

	mu   sync.Mutex // guards what follows
	err  error
	seen map[string]int
}

// knobs are the probabilities of one seed; most seeds have few faults at all.
type knobs struct {
	faults, replies, stores, panics, slow, hang, lazy float64 // of a call or turn
	crash, freeze, thaw, takeOver, drain              float64 // of a step
	snapshots, changes, landing                       float64
	restoreStore, loseStore, restoreHouse             float64 // of a start
	forgetful                                         float64
	steps                                             int // until the faults stop
}

func newWorld(seed uint64, sys *actor.ActorSystem) *world {
	s := newScheduler(seed)
	w := &world{
		seed: seed, s: s, sys: sys, proofs: map[proof]messages.Receipt{}, completed: map[string]bool{},
		drained: map[messages.PartID]bool{}, seen: map[string]int{},
	}
	some := func(share, most float64) float64 {
		if s.rng.Float64() >= share {
			return 0
		}
		return most * s.rng.Float64()
	}
	w.knobs = knobs{
		faults: some(0.5, 0.08), replies: some(0.5, 0.1), stores: some(0.3, 0.15), panics: some(0.3, 0.01), slow: some(0.3, 0.1), hang: some(0.1, 0.01), lazy: some(0.5, 0.5),
		crash: some(0.5, 0.02), freeze: some(0.4, 0.01), thaw: 0.01 + some(1, 0.03), takeOver: some(0.3, 0.006), drain: some(0.3, 0.01),
		snapshots: some(0.3, 0.01), changes: some(0.6, 0.02), landing: some(0.7, 0.1),
		restoreStore: some(0.3, 0.3), loseStore: some(0.2, 0.3), restoreHouse: some(0.15, 0.2), forgetful: 0.2,
		steps: 100 + s.rng.IntN(700),
	}
	w.origin = &origin{w: w, gone: map[int]bool{}}
	for i := range 1 + s.rng.IntN(3) {
		w.origin.streams = append(w.origin.streams, newStream(s.rng, i))
	}
	for range s.rng.IntN(3) {
		w.steps = append(w.steps, s.rng.IntN(2) == 0)
	}
	hops := 1 + len(w.steps)
	tasks := 1 + s.rng.IntN(3)
	w.resources = run.Resources{
		MemoryBytes: int64(tasks) * int64(6*hops+1) * 64 << 10, BatchesMax: 1 + s.rng.IntN(4), Tasks: tasks, Retries: s.rng.IntN(8),
		Interval: stages.Interval{Rows: int64(1 + s.rng.IntN(8))}, Stall: 20 * time.Second,
	}
	w.house = newWarehouse(w)
	w.file = w.newFile()
	w.oldFile, w.oldHouse = w.file.backup(), w.house.backup()
	return w
}

func newStream(rng *rand.Rand, i int) *stream {
	st := &stream{
		id: messages.StreamID(fmt.Sprintf("s%d", i)), sizes: []int64{int64(1 + rng.IntN(24))}, continuity: connectors.ContinueExact, after: rng.IntN(4) == 0,
		sync: connectors.SyncFullRefresh, mode: connectors.ModeAppend,
	}
	switch rng.IntN(5) {
	case 0:
		st.mode = connectors.ModeReplace
	case 1:
		st.mode = connectors.ModeUpsert
	case 2:
		st.sync, st.endless = connectors.SyncIncremental, true
	case 3:
		st.sync = connectors.SyncIncremental
	case 4:
	}
	if st.sync == connectors.SyncFullRefresh && rng.IntN(2) == 0 {
		st.continuity = connectors.ContinueDrift
		if st.mode != connectors.ModeAppend && rng.IntN(2) == 0 {
			st.continuity = connectors.ContinueLost
		}
	}
	return st
}

func (w *world) newFile() *file {
	w.files++
	return newFile(w, fmt.Sprintf("store%d", w.files))
}

// remove forgets a dead node.
func (w *world) remove(n *node) {
	w.nodes = slices.DeleteFunc(w.nodes, func(o *node) bool { return o == n })
}

// delay says how long a call takes, besides its place in the order.
func (w *world) delay() time.Duration {
	switch {
	case w.calm:
		return 0
	case w.s.chance(w.knobs.slow):
		return time.Duration(w.s.rng.Int64N(int64(2 * time.Second)))
	case w.s.chance(w.knobs.hang):
		return 10 * time.Minute
	}
	return 0
}

// fateOf decides what becomes of a call.
func (w *world) fateOf(o *op) fate {
	if w.calm || len(o.fates) == 0 {
		return fateDone
	}
	f := o.fates[w.s.rng.IntN(len(o.fates))]
	p := w.knobs.faults
	switch f {
	case fateLost, fateNever, fateLate:
		p = w.knobs.replies
	case fatePanic:
		p = w.knobs.panics
	case fateDone, fateFails:
	}
	if o.store && f != fatePanic {
		p = max(p, w.knobs.stores)
	}
	if w.s.chance(p * float64(len(o.fates))) {
		return f
	}
	return fateDone
}

// storeError is what becomes of a transaction that did not happen.
func (w *world) storeError() error {
	if w.s.chance(0.2) {
		return statestore.ErrFull
	}
	return errSimulated
}

// simulate runs the world: faults throughout, then none until a run is completed.
func (w *world) simulate() error {
	defer w.end()
	for w.s.steps < w.knobs.steps && w.err == nil {
		w.disturb()
		w.operate()
		w.advance()
	}
	w.soothe()
	begun, limit := time.Now(), w.s.steps+20_000
	for !w.done && w.err == nil {
		if w.s.steps > limit || time.Since(begun) > 15*time.Minute {
			w.fail("I10: no run was completed %s and %d steps after the faults had stopped", time.Since(begun), w.s.steps-limit+20_000)
		}
		if w.operate(); !w.done {
			w.advance()
		}
	}
	return w.err
}

// end stops all that is left, and lets late timers fire.
func (w *world) end() {
	for _, n := range slices.Clone(w.nodes) {
		n.stop()
	}
	w.s.admit()
	w.s.end()
	time.Sleep(time.Second)
}

// advance lets one thing happen, or time pass.
func (w *world) advance() {
	if !w.s.step() && !w.s.wait() && !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.frozen }) {
		w.fail("I10: nothing happens any more")
	}
}

// soothe ends the faults.
func (w *world) soothe() {
	w.calm = true
	w.s.mark("world", "the faults stop")
	for _, n := range slices.Clone(w.nodes) {
		if n.frozen && w.s.chance(0.5) {
			n.stop()
		}
		n.frozen = false
	}
	for _, o := range w.s.ops {
		o.after = min(o.after, time.Since(epoch))
	}
}

// active returns the nodes that work.
func (w *world) active() []*node {
	var out []*node
	for _, n := range w.nodes {
		if !n.frozen && (n.busy || n.result == nil) {
			out = append(out, n)
		}
	}
	return out
}

// operate is the operator: he looks at results and starts what does not run.
func (w *world) operate() {
	for _, n := range slices.Clone(w.nodes) {
		if n.frozen || n.result == nil {
			continue
		}
		if n.busy {
			n.release()
			continue
		}
		w.s.mark(n.name, "run has ended: "+string(n.result.State))
		if n.result.State == messages.RunDrained {
			for _, l := range w.house.loads {
				for id := range l.parts {
					w.drained[id] = true
				}
			}
		}
		switch {
		case w.calm && n.result.State == messages.RunCompleted && n.file == w.file && w.house.store == n.file.identity:
			w.done = true
			return
		case n.drains || w.reset || len(w.active()) > 0 || w.s.chance(0.5):
			n.stop()
		default:
			n.run()
		}
	}
	if len(w.active()) > 0 {
		return
	}
	w.tamper()
	w.boot()
}

// tamper is what becomes of disks and servers while no node works.
func (w *world) tamper() {
	k := w.knobs
	if w.calm {
		k = knobs{}
	}
	switch {
	case w.s.chance(k.restoreHouse):
		w.stopAll()
		w.s.mark("world", "the destination is restored from an older backup")
		w.house = w.oldHouse.backup()
		w.forgot = true
	case w.reset, w.s.chance(k.loseStore):
		w.s.mark("world", "the state store is lost")
		w.file = w.newFile()
		w.forgot, w.reset = true, false
	case w.s.chance(k.restoreStore):
		w.stopAll()
		w.s.mark("world", "the state store is restored from an older copy")
		if w.oldFile.identity == w.file.identity {
			w.file = w.oldFile.backup()
			w.forgot = true
		}
	}
}

func (w *world) stopAll() {
	for _, n := range slices.Clone(w.nodes) {
		n.stop()
	}
}

// disturb is what happens besides.
func (w *world) disturb() {
	k := w.knobs
	if w.s.chance(0.005) {
		w.oldFile = w.file.backup()
	}
	if w.s.chance(0.005) {
		w.oldHouse = w.house.backup()
	}
	if w.s.chance(k.landing) && len(w.house.flying) > 0 {
		t := w.house.flying[0]
		w.house.flying = w.house.flying[1:]
		w.house.land(t)
	}
	if w.s.chance(k.changes) {
		w.origin.change(w.origin.streams[w.s.rng.IntN(len(w.origin.streams))])
	}
	if w.s.chance(k.snapshots) && w.origin.scans > 0 {
		w.s.mark("world", "the snapshot is lost")
		w.origin.gone[w.origin.scans] = true
	}
	for _, n := range slices.Clone(w.nodes) {
		switch {
		case w.s.chance(k.crash):
			w.s.mark(n.name, "is killed")
			n.stop()
		case n.frozen && w.s.chance(k.thaw):
			w.s.mark(n.name, "wakes up")
			n.frozen = false
		case n.frozen:
		case w.s.chance(k.freeze):
			w.freeze(n)
		case w.s.chance(k.drain) && !n.drains:
			w.s.mark(n.name, "is asked to stop")
			n.drains = true
			d := messages.Drain{Reason: "simulated"}
			if w.s.chance(0.5) {
				d.Deadline = time.Now().Add(time.Duration(w.s.rng.Int64N(int64(5 * time.Second))))
			}
			w.sys.Root.Send(n.pid, d)
		case w.s.chance(k.takeOver) && len(w.nodes) < 3:
			w.s.mark("world", "a second node takes over")
			w.boot()
		}
	}
}

// freeze stops a process for a while. What it has sent may be carried out meanwhile.
func (w *world) freeze(n *node) {
	w.s.mark(n.name, "freezes")
	n.frozen = true
	for _, o := range w.s.ops {
		if o.node == n && w.s.chance(0.3) {
			w.s.perform(o)
		}
	}
}
