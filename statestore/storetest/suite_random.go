package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

func testConcurrentAcquire(t *testing.T, p *place) {
	const owners, times = 8, 10
	got := make([][]messages.Epoch, owners)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			for range times {
				e, err := p.store.Acquire(t.Context(), "a", statestore.Claim{})
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				got[i] = append(got[i], e)
			}
		})
	}
	wg.Wait()
	all := slices.Concat(got...)
	for _, one := range got {
		require.True(t, slices.IsSorted(one), "epochs of one owner only grow")
	}
	slices.Sort(all)
	for i, e := range all {
		require.EqualValues(t, i+1, e)
	}
	require.Len(t, all, owners*times)
}

func testConcurrentFencing(t *testing.T, p *place) {
	const owners, lives = 4, 8
	var (
		known  atomic.Uint64 // highest epoch whose Acquire has returned
		commit atomic.Uint64
		late   atomic.Int64 // saves after a younger owner was known
		wg     sync.WaitGroup
	)
	life := func() error {
		e, err := p.store.Acquire(t.Context(), "a", statestore.Claim{})
		if err != nil {
			return err
		}
		for {
			old := known.Load()
			if old >= uint64(e) || known.CompareAndSwap(old, uint64(e)) {
				break
			}
		}
		for range 10 {
			before := known.Load()
			r := receipt("orders", "orders/0", 1, commit.Add(1))
			r.Token.Epoch = e
			if err := p.store.Save(t.Context(), "a", e, receipts(r)); err != nil {
				return err
			}
			if before > uint64(e) {
				late.Add(1)
			}
		}
		return nil
	}
	for range owners {
		wg.Go(func() {
			for range lives {
				if err := life(); err != nil && statestore.CodeOf(err) != messages.CodeFenced {
					t.Errorf("an owner: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, late.Load(), "a save succeeded although a younger owner was known")
	require.EqualValues(t, owners*lives, p.load("a").Epoch)
}

func testConcurrentSaves(t *testing.T, p *place) {
	const tasks, commits = 8, 25
	e := p.acquire("a")
	var wg sync.WaitGroup
	for task := range tasks {
		wg.Go(func() {
			part := fmt.Sprintf("orders/%d", task)
			for c := range uint64(commits) {
				if err := p.store.Save(t.Context(), "a", e, receipts(receipt("orders", part, 1, c+1))); err != nil {
					t.Errorf("save: %v", err)
					return
				}
				st, err := p.store.Load(t.Context(), "a")
				if err != nil {
					t.Errorf("load: %v", err)
					return
				}
				i := slices.IndexFunc(st.Receipts, func(r messages.Receipt) bool { return string(r.Part) == part })
				if i < 0 || st.Receipts[i].Version.Commit != c+1 {
					t.Errorf("commit %d of %s is not what was saved", c+1, part)
				}
			}
		})
	}
	wg.Wait()
	p.reopen()
	st := p.load("a")
	require.Len(t, st.Receipts, tasks)
	for _, r := range st.Receipts {
		require.EqualValues(t, commits, r.Version.Commit)
	}
}

// testModel does the same random things to the store and to Memory, and compares
// everything that can be seen.
func testModel(t *testing.T, p *place) { walkAll(t, p, nil) }

// walkAll walks with many seeds. clock, if there is one, is that of the store.
func walkAll(t *testing.T, p *place, clock *clock) {
	first, seeds := uint64(1), uint64(25)
	if s := os.Getenv("RB_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		first, seeds = n, 1
	}
	for seed := first; seed < first+seeds; seed++ {
		w := &walk{
			place: p, clock: clock, model: NewMemory(""), random: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // reproducible on purpose
			names: []messages.PipelineID{
				messages.PipelineID(fmt.Sprintf("first-%d", seed)), messages.PipelineID(fmt.Sprintf("second-%d", seed)),
			},
		}
		if clock != nil {
			w.model.Now = clock.now
		}
		for step := range 40 {
			what := w.step()
			if t.Failed() {
				t.Fatalf("seed %d, step %d (%s): store and model differ; RB_SEED=%d runs it alone", seed, step, what, seed)
			}
		}
	}
}

// walk is one random test.
type walk struct {
	*place
	clock  *clock // of the store and the model; nil: each has its own
	model  *Memory
	random *rand.Rand
	names  []messages.PipelineID
}

func (w *walk) step() (what string) {
	id := w.names[w.random.IntN(len(w.names))]
	if w.clock != nil {
		w.clock.at = w.clock.at.Add(time.Duration(w.random.IntN(50)-10) * time.Minute)
	}
	switch n := w.random.IntN(20); {
	case n == 0:
		w.reopen()
		what = "open again"
	case n <= 3:
		what = w.acquire(id)
	default:
		st, err := w.model.Load(w.Context(), id)
		require.NoError(w, err)
		e := st.Epoch
		if w.random.IntN(8) == 0 {
			e += messages.Epoch(w.random.Uint64N(3)) - 1
		}
		u := w.update(e)
		what = fmt.Sprintf("save %+v at epoch %d of %s", u, e, id)
		w.same(what, nil, nil, w.model.Save(w.Context(), id, e, u), w.store.Save(w.Context(), id, e, u))
	}
	for _, id := range w.names {
		w.look(what, id)
	}
	return what
}

func (w *walk) acquire(id messages.PipelineID) (what string) {
	c := statestore.Claim{Floor: messages.Epoch(w.random.Uint64N(4)) * messages.Epoch(w.random.Uint64N(10))}
	if w.random.IntN(2) == 0 {
		st, err := w.model.Load(w.Context(), id)
		require.NoError(w, err)
		c.Mine = st.Epoch + messages.Epoch(w.random.Uint64N(3)) - min(st.Epoch, 1)
	}
	what = fmt.Sprintf("acquire %s by %+v", id, c)
	got, err := w.store.Acquire(w.Context(), id, c)
	want, wantErr := w.model.Acquire(w.Context(), id, c)
	w.same(what, want, got, wantErr, err)
	return what
}

// look compares what can be seen of a pipeline.
func (w *walk) look(what string, id messages.PipelineID) {
	w.Helper()
	want, wantErr := w.model.Load(w.Context(), id)
	got, err := w.store.Load(w.Context(), id)
	w.same(what, want, got, wantErr, err)
	runs, wantErr := w.model.Runs(w.Context(), id, 5)
	gotRuns, err := w.store.Runs(w.Context(), id, 5)
	if len(runs)+len(gotRuns) > 0 {
		w.same(what, runs, gotRuns, wantErr, err)
	}
	for _, load := range walkLoads {
		for n := range walkParts {
			part := messages.PartID(fmt.Sprintf("%s/%d", load, n))
			kept, wantErr := w.model.History(w.Context(), id, part)
			gotKept, err := w.store.History(w.Context(), id, part)
			w.same(fmt.Sprintf("%s: history of %s", what, part), w.visible(kept), w.visible(gotKept), wantErr, err)
		}
	}
}

// visible is what two stores must agree about: all, if they have one clock; else the last
// checkpoint of each epoch, since an hour may end between the two.
func (w *walk) visible(kept []statestore.Kept) (all []statestore.Kept) {
	seen := map[string]bool{}
	for _, k := range kept {
		if w.clock == nil {
			k.Saved = time.Time{}
			slot := fmt.Sprint(k.Receipt.LoadID(), k.Receipt.Token.Epoch)
			if seen[slot] {
				continue
			}
			seen[slot] = true
		}
		all = append(all, k)
	}
	return all
}

func (w *walk) same(what string, want, got any, wantErr, err error) {
	w.Helper()
	if (wantErr == nil) != (err == nil) || wantErr != nil && statestore.CodeOf(wantErr) != statestore.CodeOf(err) {
		w.Errorf("%s: the error is %v, should be %v", what, err, wantErr)
	}
	if wantErr == nil && fmt.Sprintf("%+v", want) != fmt.Sprintf("%+v", got) {
		w.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// What a walk is about.
var walkLoads = []string{"orders", "customers", "slot:x"}

const walkParts = 3 // of each load

func (w *walk) update(e messages.Epoch) (u statestore.Update) {
	load := func() string { return walkLoads[w.random.IntN(len(walkLoads))] }
	for range w.random.IntN(4) {
		name := load()
		part := fmt.Sprintf("%s/%d", name, w.random.IntN(walkParts))
		if w.random.IntN(10) == 0 {
			part = fmt.Sprintf("shared/%d", w.random.IntN(2)) // one part in two loads
		}
		r := receipt(name, part, 1+w.random.Uint64N(3), w.random.Uint64N(4))
		r.Token.Epoch = messages.Epoch(1 + w.random.Uint64N(3))
		r.Final = w.random.IntN(4) == 0
		all := cursors()
		r.Position.At = all[w.random.IntN(len(all)-3)] // without the largest
		u.Receipts = append(u.Receipts, r)
	}
	if w.random.IntN(4) == 0 {
		u.Finished = append(u.Finished, messages.LoadID{Name: load(), Number: 1 + w.random.Uint64N(3)})
	}
	if w.random.IntN(12) == 0 {
		u.Forget = append(u.Forget, load())
	}
	for range w.random.IntN(6) / 3 {
		name, number := load(), 1+w.random.Uint64N(3)
		o := reset(name, number)
		if w.random.IntN(2) == 0 {
			o = rewind(name, fmt.Sprintf("%s/%d", name, w.random.IntN(walkParts)), number, w.random.Uint64N(4))
		}
		u.Orders = append(u.Orders, o)
	}
	if w.random.IntN(8) == 0 {
		u.Revoke = append(u.Revoke, load())
	}
	if w.random.IntN(4) == 0 {
		u.Run = &statestore.Run{ID: fmt.Sprintf("01J%d", w.random.IntN(6)), Epoch: e, Started: day(1), State: messages.RunRunning}
		if w.random.IntN(2) == 0 {
			u.Run.Ended, u.Run.State = day(2), messages.RunDrained
		}
	}
	if w.random.IntN(20) == 0 {
		u.Finished = append(u.Finished, messages.LoadID{Name: load()}) // invalid
	}
	return u
}
