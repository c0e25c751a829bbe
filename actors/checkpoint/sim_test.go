package checkpoint

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// seeds returns the seeds to simulate: RB_SEED replays one, RB_SEEDS runs more.
func seeds(n uint64) []uint64 {
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

const (
	pipeline = messages.PipelineID("p")
	rowsMax  = 12 // per part
)

var partIDs = []messages.PartID{"orders/0", "orders/1", "users/0"}

func loadOf(p messages.PartID) messages.LoadID {
	return messages.LoadID{Name: string(p[:len(p)-2]), Number: 1}
}

// flaw breaks one rule of the protocol around the machine.
type flaw string

const (
	none              flaw = ""
	persistBeforeAck  flaw = "persist before ack"
	noEpochCheck      flaw = "destination does not check the epoch"
	noAttemptCheck    flaw = "destination does not check the attempt"
	otherPartsCovered flaw = "an ack of one part confirms another"
	receiptForgotten  flaw = "take-over resumes from the state store"
	finishEarly       flaw = "a load is finished when one part is final"
)

// destination holds rows and receipts; every change is one transaction.
type destination struct {
	epoch    messages.Epoch
	receipts map[messages.PartID]messages.Receipt
	rows     map[messages.PartID][]int64
	finished map[messages.LoadID]bool
	flaw     flaw
}

var errFenced = errors.New("fenced")

// commit appends rows upto position if the writer still owns the part.
func (d *destination) commit(p messages.PartID, t messages.Token, from, upto int64, n uint64) (messages.Receipt, error) {
	r := d.receipts[p]
	if d.flaw != noEpochCheck && t.Epoch != d.epoch || d.flaw != noAttemptCheck && d.flaw != noEpochCheck && (t != r.Token || n != r.Version.Commit) {
		return r, errFenced
	}
	for id := from + 1; id <= upto; id++ {
		d.rows[p] = append(d.rows[p], id)
	}
	r.Version.Commit++
	r.Token, r.Position = t, messages.Position{At: messages.Int64Cursor(upto)}
	r.Final = upto == rowsMax
	d.receipts[p] = r
	return r, nil
}

// store is the state store.
type store struct {
	epoch    messages.Epoch
	receipts map[messages.PartID]messages.Receipt
	finished map[messages.LoadID]bool
}

// task is a running attempt of a part.
type task struct {
	part      messages.PartID
	token     messages.Token
	seq       messages.Seq
	read      int64            // rows emitted
	committed messages.Receipt // last receipt the writer knows
}

// node is one owner: a machine, its tasks, and notes on their way to it.
type node struct {
	epoch   messages.Epoch
	machine *Machine
	tasks   map[messages.PartID]*task
	old     []*task // attempts that were given up but whose worker still runs
	attempt messages.Attempt
	notes   []Event
	dead    bool
}

type world struct {
	rng       *rand.Rand
	dest      *destination
	store     *store
	nodes     []*node                   // the last one owns the lease; older ones are zombies
	confirmed map[messages.PartID]int64 // F
	persisted map[messages.PartID]int64 // the highest K there ever was
	flaw      flaw
	seen      map[string]int // rare states reached
}

func newWorld(seed uint64, m flaw) *world {
	w := &world{
		rng:       rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // a simulation
		dest:      &destination{receipts: map[messages.PartID]messages.Receipt{}, rows: map[messages.PartID][]int64{}, finished: map[messages.LoadID]bool{}, flaw: m},
		store:     &store{receipts: map[messages.PartID]messages.Receipt{}, finished: map[messages.LoadID]bool{}},
		confirmed: map[messages.PartID]int64{}, persisted: map[messages.PartID]int64{}, flaw: m, seen: map[string]int{},
	}
	w.takeOver()
	return w
}

func pos(r messages.Receipt) int64 { n, _ := r.Position.At.Int64(); return n }

// takeOver starts a new owner: lease, fence, recovery, begin, one task per part.
func (w *world) takeOver() {
	w.store.epoch = max(w.store.epoch, w.dest.epoch) + 1
	n := &node{epoch: w.store.epoch, tasks: map[messages.PartID]*task{}, machine: NewMachine(pipeline, w.store.epoch)}
	w.dest.epoch = n.epoch
	ev := Recovered{}
	for _, p := range partIDs {
		if r, ok := w.store.receipts[p]; ok {
			ev.Stored = append(ev.Stored, r)
		}
		if r, ok := w.dest.receipts[p]; ok {
			if k, stored := w.store.receipts[p]; !stored || k.Version.Compare(r.Version) < 0 {
				w.seen["state repaired from a receipt"]++
			}
			ev.Durable = append(ev.Durable, r)
		}
		if w.store.finished[loadOf(p)] {
			ev.StoredFinished = append(ev.StoredFinished, loadOf(p))
		}
		if w.dest.finished[loadOf(p)] {
			ev.Finished = append(ev.Finished, loadOf(p))
		}
	}
	w.nodes = append(w.nodes, n)
	w.apply(n, ev)
	for _, p := range partIDs {
		if _, ok := w.dest.receipts[p]; !ok {
			w.dest.receipts[p] = messages.Receipt{Part: p, Load: loadOf(p).Name, Version: messages.Version{Load: 1}}
		}
	}
	w.apply(n, Began{Load: loadOf(partIDs[0]), Parts: partIDs[:2]})
	w.apply(n, Began{Load: loadOf(partIDs[2]), Parts: partIDs[2:]})
	for _, p := range partIDs {
		w.start(n, p)
	}
}

// start opens a writer for p: it fences other writers and returns the receipt.
func (w *world) start(n *node, p messages.PartID) {
	if n.epoch != w.dest.epoch {
		n.dead = true
		return
	}
	n.attempt++
	r := w.dest.receipts[p]
	r.Token = messages.Token{Epoch: n.epoch, Attempt: n.attempt}
	w.dest.receipts[p] = r
	from := r
	if w.flaw == receiptForgotten {
		if k, ok := w.store.receipts[p]; ok {
			from.Position = k.Position
		} else {
			from.Position = messages.Position{}
		}
	}
	if t := n.tasks[p]; t != nil {
		n.old = append(n.old, t)
	}
	n.tasks[p] = &task{part: p, token: r.Token, read: pos(from), committed: from}
	w.apply(n, Started{Token: r.Token, Receipt: r})
}

// apply steps the machine and carries out what it wants, losing some of it.
func (w *world) apply(n *node, ev Event) {
	for _, eff := range n.machine.Step(ev) {
		switch eff := eff.(type) {
		case Save:
			w.save(n, eff)
		case Tell:
			w.confirmed[eff.Part] = max(w.confirmed[eff.Part], mustInt(eff.Position))
		case FinishLoad:
			if n.epoch == w.dest.epoch {
				w.finish(n, eff.Load)
			}
		case Ask:
			if t := n.tasks[eff.Part]; t != nil && t.token == eff.Token && t.seq > 0 {
				n.notes = append(n.notes, Acked{messages.DestinationAck{Pipeline: pipeline, Seq: t.seq, Receipt: t.committed}})
			}
		case Stop:
			n.dead = true
			if !errors.Is(eff.Err, ErrFenced) && w.flaw == none {
				panic(fmt.Sprintf("stopped without cause: %v", eff.Err))
			}
		case Reject:
			w.seen["stale note rejected"]++
		case PartDone, Done:
		}
	}
}

func mustInt(p messages.Position) int64 { n, _ := p.At.Int64(); return n }

func (w *world) finish(n *node, l messages.LoadID) {
	w.dest.finished[l] = true
	if w.rng.IntN(4) > 0 {
		n.notes = append(n.notes, Finished{l})
	}
}

// save is the state transaction: it may fail before, or lose its reply after.
func (w *world) save(n *node, s Save) {
	if n.epoch != w.store.epoch {
		n.notes = append(n.notes, SaveFailed{ID: s.ID, Fenced: true})
		w.seen["fenced zombie refused by the store"]++
		return
	}
	switch w.rng.IntN(10) {
	case 0:
		n.notes = append(n.notes, SaveFailed{ID: s.ID})
		return
	case 1: // done, reply lost
		n.notes = append(n.notes, SaveFailed{ID: s.ID})
		w.seen["save done but reported failed"]++
	default:
		n.notes = append(n.notes, Saved{s.ID})
	}
	for _, r := range s.Receipts {
		if w.flaw == otherPartsCovered {
			for _, p := range partIDs {
				if t := n.tasks[p]; t != nil && t.read > pos(w.store.receipts[p]) {
					o := w.dest.receipts[p]
					o.Position = messages.Position{At: messages.Int64Cursor(t.read)}
					w.store.receipts[p] = o
				}
			}
		}
		if k := w.store.receipts[r.Part]; k.Version.Compare(r.Version) < 0 {
			w.store.receipts[r.Part] = r
			w.persisted[r.Part] = max(w.persisted[r.Part], pos(r))
		}
	}
	for _, l := range s.Finished {
		w.store.finished[l] = true
	}
}

// work lets one task of n read, and now and then commit.
func (w *world) work(n *node) {
	t := n.tasks[partIDs[w.rng.IntN(len(partIDs))]]
	if len(n.old) > 0 && w.rng.IntN(6) == 0 {
		t = n.old[w.rng.IntN(len(n.old))]
	}
	p := t.part
	if t.committed.Final {
		return
	}
	t.read = min(t.read+int64(w.rng.IntN(4)), rowsMax)
	if w.flaw == persistBeforeAck && n.epoch == w.store.epoch {
		r := w.dest.receipts[p]
		r.Position = messages.Position{At: messages.Int64Cursor(t.read)}
		w.store.receipts[p] = r
	}
	if w.rng.IntN(3) > 0 && t.read < rowsMax || t.read == pos(t.committed) {
		return
	}
	outcome := w.rng.IntN(12)
	current := n.tasks[p] == t
	if outcome == 0 && current { // the connection breaks before COMMIT arrived
		w.start(n, p)
		return
	}
	r, err := w.dest.commit(p, t.token, pos(t.committed), t.read, t.committed.Version.Commit)
	if err != nil {
		w.seen["fenced writer refused by the destination"]++
		n.dead = n.dead || current
		return
	}
	if outcome == 1 && current { // the reply is lost: the next attempt reads the receipt
		w.seen["unknown commit resolved as committed"]++
		w.start(n, p)
		return
	}
	t.seq++
	t.committed = r
	ack := Acked{messages.DestinationAck{Pipeline: pipeline, Seq: t.seq, Receipt: r}}
	for range w.rng.IntN(3) { // lost, once, twice
		n.notes = append(n.notes, ack)
	}
	if w.flaw == finishEarly && r.Final {
		w.dest.finished[loadOf(p)] = true
	}
}

// step does one random thing; calm means that faults have stopped.
func (w *world) step(calm bool) {
	owner := w.nodes[len(w.nodes)-1]
	n := owner
	if !calm {
		n = w.nodes[w.rng.IntN(len(w.nodes))]
		switch w.rng.IntN(60) {
		case 0:
			owner.dead = true // kill -9
		case 1:
			w.takeOver() // the old owner lives on as a zombie
		case 2:
			w.store.receipts, w.store.finished, w.store.epoch = map[messages.PartID]messages.Receipt{}, map[messages.LoadID]bool{}, 0
			owner.dead = true
			w.seen["state store lost"]++
		}
	}
	if w.nodes[len(w.nodes)-1].dead {
		w.takeOver()
	}
	if n.dead {
		return
	}
	switch k := w.rng.IntN(10); {
	case k < 5:
		w.work(n)
	case k < 9 && len(n.notes) > 0:
		i := w.rng.IntN(len(n.notes))
		ev := n.notes[i]
		n.notes = append(n.notes[:i:i], n.notes[i+1:]...)
		w.apply(n, ev)
	default:
		w.apply(n, Tick{})
	}
}

// check returns the first invariant that does not hold.
func (w *world) check() error {
	for _, p := range partIDs {
		d, k := w.dest.receipts[p], w.store.receipts[p]
		if k.Version.Compare(d.Version) > 0 || pos(k) > pos(d) {
			return fmt.Errorf("I1: %s: stored %d, durable %d", p, pos(k), pos(d))
		}
		if f := w.confirmed[p]; f > w.persisted[p] || f > pos(d) {
			return fmt.Errorf("I3: %s: confirmed %d, persisted %d, durable %d", p, f, w.persisted[p], pos(d))
		}
		if got := w.dest.rows[p]; int64(len(got)) != pos(d) {
			return fmt.Errorf("I2: %s: %d rows, receipt says %d", p, len(got), pos(d))
		}
		for i, id := range w.dest.rows[p] {
			if id != int64(i)+1 {
				return fmt.Errorf("I2: %s: row %d is %d", p, i+1, id)
			}
		}
		if w.dest.finished[loadOf(p)] && !d.Final {
			return fmt.Errorf("I5: load of %s finished too early", p)
		}
	}
	return nil
}

func (w *world) complete() bool {
	for _, p := range partIDs {
		if !w.store.receipts[p].Final || !w.store.finished[loadOf(p)] {
			return false
		}
	}
	return true
}

// run simulates one seed: 300 steps with faults, then calm until complete.
func run(seed uint64, m flaw, seen map[string]int) error {
	w := newWorld(seed, m)
	for i := range 5_000 {
		w.step(i >= 300)
		if err := w.check(); err != nil {
			return err
		}
		if i >= 300 && w.complete() {
			for k, v := range w.seen {
				seen[k] += v
			}
			return nil
		}
	}
	return errors.New("I10: not complete after the faults stopped")
}

func TestSimulation(t *testing.T) {
	seen := map[string]int{}
	all := seeds(5_000)
	for _, seed := range all {
		require.NoError(t, run(seed, none, seen), "seed %d", seed)
	}
	if len(all) < 1_000 {
		return // a replay reaches few rare states
	}
	for _, rare := range []string{
		"unknown commit resolved as committed", "fenced writer refused by the destination", "fenced zombie refused by the store",
		"state repaired from a receipt", "save done but reported failed", "stale note rejected", "state store lost",
	} {
		require.Positive(t, seen[rare], "never reached: %s", rare)
		t.Logf("%8d  %s", seen[rare], rare)
	}
}

func TestMutantsAreCaught(t *testing.T) {
	for _, m := range []flaw{persistBeforeAck, noEpochCheck, noAttemptCheck, otherPartsCovered, receiptForgotten, finishEarly} {
		t.Run(string(m), func(t *testing.T) {
			for seed := range uint64(2_000) {
				if err := run(seed+1, m, map[string]int{}); err != nil {
					t.Logf("caught at seed %d: %v", seed+1, err)
					return
				}
			}
			t.Fatal("survived")
		})
	}
}
