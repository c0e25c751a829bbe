package run

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

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

// crew plays the actors of a board: attempts that read, commit, fail, and take
// their time to terminate.
type crew struct {
	rng     *rand.Rand
	b       *board
	slots   int
	live    map[messages.PartID]*worker
	late    []func() // notes that may still arrive
	wakes   []wakeTask
	at      map[messages.PartID]int // committed position; partEnd is final
	gaveUp  map[messages.PartID]bool
	tokens  map[messages.Token]bool
	seen    map[string]int
	calm    bool
	spawned int
	err     error
}

type worker struct {
	token    messages.Token
	opened   bool
	draining bool
	stopping bool
	ended    bool
	failed   bool
	seq      messages.Seq
}

const partEnd = 5

func newCrew(seed uint64, seen map[string]int) *crew {
	rng := rand.New(rand.NewPCG(seed, 7))
	c := &crew{
		rng: rng, slots: 1 + rng.IntN(3), live: map[messages.PartID]*worker{}, at: map[messages.PartID]int{},
		gaveUp: map[messages.PartID]bool{}, tokens: map[messages.Token]bool{}, seen: seen,
	}
	c.b = newBoard(3, 0, c.slots, 3, rng.Float64)
	for l := range 1 + rng.IntN(3) {
		for p := range 1 + rng.IntN(3) {
			part := connectors.Part{
				ID:   messages.PartID(fmt.Sprintf("l%d/%d", l, p)),
				Load: messages.LoadID{Name: fmt.Sprintf("l%d", l), Number: 1},
			}
			if p > 0 && rng.IntN(4) == 0 {
				part.After = []messages.PartID{messages.PartID(fmt.Sprintf("l%d/0", l))}
			}
			c.b.add(part, false)
		}
	}
	c.do(c.b.start())
	return c
}

func (c *crew) do(effects []any) {
	for _, eff := range effects {
		switch eff := eff.(type) {
		case spawnTask:
			c.onSpawn(eff)
		case stopTask:
			if w := c.live[eff.part]; w == nil || w.token != eff.token {
				c.err = fmt.Errorf("stopped %s %v, which does not live", eff.part, eff.token)
			} else {
				w.stopping = true
			}
		case drainTask:
			if w := c.live[eff.part]; w != nil && w.token == eff.token {
				w.draining = true
			}
		case wakeTask:
			c.wakes = append(c.wakes, eff)
		case taskGaveUp:
			c.gaveUp[eff.part] = true
			c.seen["part gave up"]++
		case retrying:
			c.seen["retried"]++
		}
	}
}

func (c *crew) onSpawn(s spawnTask) {
	switch {
	case c.live[s.part.ID] != nil:
		c.err = fmt.Errorf("two attempts of %s at once", s.part.ID)
	case c.tokens[s.token]:
		c.err = fmt.Errorf("token %v was given twice", s.token)
	case c.at[s.part.ID] == partEnd && c.b.find(s.part.ID).final:
		c.err = fmt.Errorf("%s was replayed after its final receipt was persisted", s.part.ID)
	case len(c.live) >= c.slots:
		c.err = fmt.Errorf("more than %d tasks", c.slots)
	case c.gaveUp[s.part.ID]:
		c.err = fmt.Errorf("%s was started after it gave up", s.part.ID)
	}
	for _, id := range s.part.After {
		if c.at[id] != partEnd {
			c.err = fmt.Errorf("%s started before %s was final", s.part.ID, id)
		}
	}
	c.tokens[s.token] = true
	c.spawned++
	c.live[s.part.ID] = &worker{token: s.token}
}

// note delivers fn now, later, twice or never; never only for what is asked again.
func (c *crew) note(lossy bool, fn func()) {
	if lossy && !c.calm && c.rng.IntN(5) == 0 {
		return
	}
	c.late = append(c.late, fn)
	if c.rng.IntN(4) == 0 {
		c.late = append(c.late, fn)
	}
}

// work lets one attempt do one thing.
func (c *crew) work(p messages.PartID, w *worker) {
	t := c.b.find(p)
	switch {
	case w.stopping:
		delete(c.live, p)
		c.do(c.b.onGone(p, w.token))
	case w.failed || w.ended:
	case !w.opened:
		w.opened = true
		m := messages.Opened{Token: w.token, Receipt: messages.Receipt{Part: p, Final: c.at[p] == partEnd}}
		resume, effects := c.b.onOpened(m)
		c.do(effects)
		if m.Receipt.Final { // how an unknown commit ended
			w.ended = true
			c.seen["opened on a final receipt"]++
			c.note(false, func() { c.do(c.b.onFinal(p, c.b.find(p).part.Load)) })
		} else if !resume {
			w.ended = true
		}
	case !c.calm && c.rng.IntN(6) == 0:
		w.failed = true
		kind := connectors.KindTransient
		if c.rng.IntN(5) == 0 {
			kind = connectors.KindData
		}
		if c.rng.IntN(3) == 0 && c.at[p] < partEnd {
			c.at[p]++ // committed, and the reply was lost
			c.seen["unknown commit"]++
		}
		m := messages.StageFailed{Part: p, Token: w.token, Failure: messages.Failure{Kind: string(kind)}}
		c.do(c.b.onFailed(m))
		c.note(true, func() { c.do(c.b.onFailed(m)) }) // another stage of the same attempt
	default:
		c.commit(t, w)
	}
}

func (c *crew) commit(t *task, w *worker) {
	p := t.part.ID
	w.seq++
	kind := messages.BarrierPeriodic
	switch {
	case w.draining:
		kind = messages.BarrierDrain
		w.ended = true
	default:
		c.at[p]++
		if c.at[p] == partEnd {
			kind = messages.BarrierEnd
			w.ended = true
		}
	}
	if kind != messages.BarrierPeriodic {
		ended := messages.TaskEnded{Part: p, Token: w.token, Kind: kind, Seq: w.seq}
		c.note(false, func() { c.do(c.b.onEnded(ended)) })
	}
	saved := messages.CheckpointCommitted{Part: p, Token: w.token, Seq: w.seq}
	c.note(kind == messages.BarrierPeriodic, func() { c.do(c.b.onPersisted(saved)) })
	if kind == messages.BarrierEnd {
		c.note(false, func() { c.do(c.b.onFinal(p, c.b.find(p).part.Load)) })
	}
}

func (c *crew) step() {
	ids := make([]messages.PartID, 0, len(c.live))
	for _, t := range c.b.tasks {
		if c.live[t.part.ID] != nil {
			ids = append(ids, t.part.ID)
		}
	}
	switch k := c.rng.IntN(3); {
	case k == 0 && len(c.late) > 0:
		i := c.rng.IntN(len(c.late))
		fn := c.late[i]
		c.late = append(c.late[:i:i], c.late[i+1:]...)
		fn()
	case k == 1 && len(c.wakes) > 0:
		i := c.rng.IntN(len(c.wakes))
		m := c.wakes[i]
		if c.rng.IntN(4) > 0 { // else it fires a second time later
			c.wakes = append(c.wakes[:i:i], c.wakes[i+1:]...)
		}
		c.do(c.b.onWake(m.part, m.token))
	case len(ids) > 0:
		p := ids[c.rng.IntN(len(ids))]
		c.work(p, c.live[p])
	}
}

func TestSimulationBoard(t *testing.T) {
	seen := map[string]int{}
	all := seeds(5_000)
	for _, seed := range all {
		c := newCrew(seed, seen)
		drainAt, abortAt := -1, -1
		switch c.rng.IntN(4) {
		case 0:
			drainAt = c.rng.IntN(60)
		case 1:
			abortAt = c.rng.IntN(60)
		}
		for i := 0; !c.b.idle() || len(c.live) > 0; i++ {
			require.Less(t, i, 20_000, "seed %d: I10: never idle", seed)
			c.calm = i > 400
			if i == drainAt {
				c.do(c.b.drain())
				seen["drained"]++
			}
			if i == abortAt {
				c.do(c.b.abort())
				seen["aborted"]++
			}
			c.step()
			require.NoError(t, c.err, "seed %d", seed)
		}
		for _, task := range c.b.tasks {
			p := task.part.ID
			if drainAt < 0 && abortAt < 0 && !c.b.failed[task.part.Load.Name] {
				require.True(t, task.final, "seed %d: %s is not final", seed, p)
			}
			if task.final {
				require.Equal(t, partEnd, c.at[p], "seed %d: %s final without its last row", seed, p)
			}
		}
	}
	if len(all) < 1_000 {
		return
	}
	for _, rare := range []string{"retried", "part gave up", "unknown commit", "opened on a final receipt", "drained", "aborted"} {
		require.Positive(t, seen[rare], "never reached: %s", rare)
		t.Logf("%8d  %s", seen[rare], rare)
	}
}

func TestRetryIsCappedJitteredAndBounded(t *testing.T) {
	transient := messages.Failure{Kind: string(connectors.KindTransient)}
	r := Retry{Max: 12}
	for i := range 12 {
		d, ok := r.Failed(transient, 0, 0.999999)
		require.True(t, ok)
		require.LessOrEqual(t, d, backoffCap)
		require.LessOrEqual(t, d, backoffBase<<i)
		require.Greater(t, d, min(backoffCap, backoffBase<<i)*9/10)
	}
	_, ok := r.Failed(transient, 0, 0)
	require.False(t, ok, "no more tries in a row")
	r.Progressed()
	d, ok := r.Failed(transient, 0, 0)
	require.True(t, ok, "progress starts the count anew")
	require.Zero(t, d, "full jitter reaches zero")
	d, _ = r.Failed(transient, time.Minute, 0)
	require.Equal(t, time.Minute, d, "what the failing system asks for is kept")
	for _, k := range []connectors.Kind{
		connectors.KindInternal, connectors.KindConfig, connectors.KindData, connectors.KindSchema,
		connectors.KindFenced, connectors.KindGap, connectors.KindScanLost,
	} {
		_, ok := (&Retry{Max: 3}).Failed(messages.Failure{Kind: string(k)}, 0, 0)
		require.False(t, ok, "%s is not tried again", k)
	}
	_, ok = (&Retry{Max: 3}).Failed(messages.Failure{Kind: string(connectors.KindInternal), Code: messages.CodePanic}, 0, 0)
	require.True(t, ok, "a crashed stage starts afresh from its receipt")
}

// chained returns a board of parts that wait for each other in a row.
func chained(n int) *board {
	b := newBoard(1, 0, 2, 1, func() float64 { return 0 })
	for i := range n {
		p := connectors.Part{ID: messages.PartID(fmt.Sprintf("l%d/0", i)), Load: messages.LoadID{Name: fmt.Sprintf("l%d", i), Number: 1}}
		if i > 0 {
			p.After = []messages.PartID{messages.PartID(fmt.Sprintf("l%d/0", i-1))}
		}
		b.add(p, false)
	}
	return b
}

func failed(t spawnTask, kind connectors.Kind) messages.StageFailed {
	return messages.StageFailed{Part: t.part.ID, Token: t.token, Failure: messages.Failure{Kind: string(kind)}}
}

// The ack of the end barrier may be persisted while the attempt is in its backoff.
func TestPartThatTurnsOutFinalInItsBackoffReleasesThoseAfterIt(t *testing.T) {
	b := chained(2)
	first, _ := b.start()[0].(spawnTask)
	b.onFailed(failed(first, connectors.KindTransient))
	b.onGone(first.part.ID, first.token)
	require.Equal(t, taskBackoff, b.tasks[0].state)
	out := b.onFinal(first.part.ID, first.part.Load)
	require.Len(t, out, 1)
	second, ok := out[0].(spawnTask)
	require.True(t, ok)
	require.Equal(t, messages.PartID("l1/0"), second.part.ID)
}

// Whoever waits for one that waits in vain waits in vain too: the run comes to rest.
func TestPartsBehindAFailedOneDoNotKeepTheRun(t *testing.T) {
	b := chained(4)
	first, _ := b.start()[0].(spawnTask)
	require.False(t, b.idle())
	b.onFailed(failed(first, connectors.KindData))
	b.onGone(first.part.ID, first.token)
	require.True(t, b.idle())
}

func TestEmptyCommitIsNoProgress(t *testing.T) {
	b := newBoard(1, 0, 1, 2, func() float64 { return 0 })
	b.add(connectors.Part{ID: "p", Load: messages.LoadID{Name: "l", Number: 1}}, false)
	at := messages.Position{At: messages.Int64Cursor(7)}
	for try := range 2 {
		task, _ := b.start()[0].(spawnTask)
		b.onOpened(messages.Opened{Token: task.token, Receipt: messages.Receipt{Part: "p", Position: at}})
		b.onPersisted(messages.CheckpointCommitted{Part: "p", Token: task.token, Seq: 1, Position: at})
		b.onFailed(failed(task, connectors.KindTransient))
		require.Equal(t, try+1, b.tasks[0].retry.Tries())
		b.onGone("p", task.token)
		b.tasks[0].state = taskWaiting
	}
	task, _ := b.start()[0].(spawnTask)
	b.onOpened(messages.Opened{Token: task.token, Receipt: messages.Receipt{Part: "p", Position: at}})
	b.onPersisted(messages.CheckpointCommitted{Part: "p", Token: task.token, Seq: 1, Position: messages.Position{At: messages.Int64Cursor(8)}})
	require.Zero(t, b.tasks[0].retry.Tries())
}

func TestFinalReceiptOfTheLoadBeforeEndsNothing(t *testing.T) {
	b := newBoard(1, 0, 1, 1, func() float64 { return 0 })
	part := connectors.Part{ID: "p", Load: messages.LoadID{Name: "l", Number: 4}}
	b.add(part, false)
	before := messages.LoadID{Name: "l", Number: 3}
	require.Empty(t, b.onFinal("p", before), "repaired from its receipt, and told late")
	require.Equal(t, []any{spawnTask{part: part, token: messages.Token{Epoch: 1, Attempt: 1}}}, b.start())
	require.Empty(t, b.onFinal("p", before))
	require.Equal(t, []any{stopTask{part: "p", token: messages.Token{Epoch: 1, Attempt: 1}}}, b.onFinal("p", part.Load))
}
