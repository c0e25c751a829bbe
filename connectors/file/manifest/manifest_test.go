package manifest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

func schema(names ...string) *arrow.Schema {
	var fields []arrow.Field
	for _, n := range names {
		fields = append(fields, arrow.Field{Name: n, Type: arrow.PrimitiveTypes.Int64})
	}
	return arrow.NewSchema(fields, nil)
}

func load(number uint64, mode connectors.WriteMode, parts int) connectors.Load {
	l := connectors.Load{
		ID: messages.LoadID{Name: "s", Number: number}, Mode: mode,
		Streams: []connectors.StreamPlan{{Stream: "s", Schema: schema("a"), Target: "s"}},
	}
	for i := range parts {
		l.Parts = append(l.Parts, connectors.Part{ID: messages.PartID(strconv.Itoa(i)), Load: l.ID, Streams: []messages.StreamID{"s"}})
	}
	return l
}

// owner is one process that believes in an epoch; its view of the manifest may be old.
type owner struct {
	epoch   messages.Epoch
	attempt messages.Attempt
	view    *Manifest
	writers map[messages.PartID]messages.Receipt
}

// world is the folder: a compare-and-swap register of manifests, and the model of
// what must be visible.
type world struct {
	t       *testing.T
	seed    uint64
	disk    *Manifest
	highest messages.Epoch
	rows    map[string]int // files committed, by name: each must be listed once
	load    connectors.Load
}

// publish is the link: it succeeds only on top of the newest manifest.
func (w *world) publish(o *owner, next *Manifest) bool {
	if next == o.view {
		return true
	}
	if next.Number != w.disk.Number+1 {
		o.view = w.disk
		return false
	}
	require.GreaterOrEqual(w.t, next.Epoch, w.disk.Epoch, "seed %d: I4, an epoch fell", w.seed)
	b, err := Encode(next)
	require.NoError(w.t, err)
	w.disk, err = Decode(b, next.Number, next.Pipeline)
	require.NoError(w.t, err)
	o.view = w.disk
	return true
}

// TestOwnersSimulation lets owners of all epochs, paused at will, do their steps in any
// order. RB_SEED=n replays one, RB_SEEDS=n runs more.
func TestOwnersSimulation(t *testing.T) {
	seeds, from := uint64(2000), uint64(0)
	if n, err := strconv.ParseUint(os.Getenv("RB_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("RB_SEED"), 10, 64); err == nil {
		seeds, from = 1, n
	}
	finished, fencedCommits := 0, 0
	for seed := from; seed < from+seeds; seed++ {
		done, fenced := simulate(t, seed)
		finished += done
		fencedCommits += fenced
	}
	if seeds > 100 {
		require.Positive(t, finished, "some loads must finish")
		require.Positive(t, fencedCommits, "some writers must be fenced")
	}
}

func simulate(t *testing.T, seed uint64) (finished, fenced int) {
	r := rand.New(rand.NewPCG(seed, 1))
	mode := []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace}[r.IntN(2)]
	w := &world{t: t, seed: seed, disk: Empty("p"), rows: make(map[string]int), load: load(1, mode, 1+r.IntN(3))}
	var owners []*owner
	for range 120 {
		if len(owners) == 0 || r.IntN(12) == 0 {
			w.highest++
			owners = append(owners, &owner{epoch: w.highest, view: w.disk, writers: make(map[messages.PartID]messages.Receipt)})
		}
		o := owners[r.IntN(len(owners))]
		if r.IntN(3) > 0 {
			o.view = w.disk // it looks before it acts; else it was paused since
		}
		f := w.step(r, o)
		if f {
			fenced++
		}
		w.check()
	}
	if w.disk.Loads["s"].Finished {
		finished++
	}
	return finished, fenced
}

// step makes one owner do something; it reports whether it was fenced.
func (w *world) step(r *rand.Rand, o *owner) bool {
	part := w.load.Parts[r.IntN(len(w.load.Parts))]
	var next *Manifest
	var err error
	switch r.IntN(6) {
	case 0:
		next, err = o.view.TakeOver(connectors.SessionRequest{Epoch: o.epoch, Join: true, Store: "store"})
	case 1:
		next, _, err = o.view.Begin(o.epoch, w.load)
	case 2:
		o.attempt++
		var receipt messages.Receipt
		next, receipt, err = o.view.OpenWriter(o.epoch, part, messages.Token{Epoch: o.epoch, Attempt: o.attempt})
		if err == nil && w.publish(o, next) {
			o.writers[part.ID] = receipt
			return false
		}
	case 3, 4:
		return w.commit(r, o, part)
	case 5:
		next, _, err = o.view.Finish(o.epoch, w.load.ID)
	}
	if err == nil {
		w.publish(o, next)
	}
	return connectors.KindOf(err) == connectors.KindFenced
}

func (w *world) commit(r *rand.Rand, o *owner, part connectors.Part) bool {
	from, ok := o.writers[part.ID]
	if !ok {
		return false
	}
	to := from
	to.Version.Commit++
	to.Final = r.IntN(4) == 0
	name := fmt.Sprintf("%s-%d", part.ID, to.Version.Commit)
	next, err := o.view.Commit(o.epoch, Commit{From: from, Next: to, Files: []Placed{{Target: "s", File: File{Name: name, Rows: 1, Part: part.ID}}}})
	if err != nil {
		delete(o.writers, part.ID)
		return connectors.KindOf(err) == connectors.KindFenced
	}
	if w.publish(o, next) {
		w.rows[name]++
		o.writers[part.ID] = to
	}
	return false
}

// check: what is listed is exactly what was committed, each commit once (I2); of a
// replace all or nothing (I5).
func (w *world) check() {
	listed := make(map[string]int)
	for _, f := range w.disk.Targets["s"].Files {
		listed[f.Name]++
	}
	staged := make(map[string]int)
	for _, f := range w.disk.Loads["s"].Staged["s"] {
		staged[f.Name]++
	}
	for name, n := range w.rows {
		require.Equal(w.t, 1, n, "seed %d: %s was committed twice", w.seed, name)
	}
	switch {
	case w.load.Mode == connectors.ModeReplace && !w.disk.Loads["s"].Finished:
		require.Empty(w.t, listed, "seed %d: half a replace is visible", w.seed)
		require.Equal(w.t, w.rows, staged, "seed %d", w.seed)
	default:
		require.Empty(w.t, staged)
		require.Equal(w.t, w.rows, listed, "seed %d", w.seed)
	}
	for id, r := range w.disk.Receipts {
		n := uint64(0)
		for name := range w.rows {
			if name[:len(id)+1] == string(id)+"-" {
				n++
			}
		}
		require.Equal(w.t, n, r.Version.Commit, "seed %d: the receipt of %s counts its commits", w.seed, id)
	}
}

func TestForeignStoreNeedsAdoption(t *testing.T) {
	m, err := Empty("p").TakeOver(connectors.SessionRequest{Epoch: 1, Store: "mine"})
	require.NoError(t, err)
	_, err = m.TakeOver(connectors.SessionRequest{Epoch: 2, Store: "theirs"})
	var e *connectors.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, messages.CodeDestForeign, e.Code)
	n, err := m.TakeOver(connectors.SessionRequest{Epoch: 2, Store: "theirs", Adopt: true})
	require.NoError(t, err)
	require.Equal(t, "theirs", n.Store)
	require.Equal(t, "mine", m.Store, "a state is never changed")
}

func TestEqualEpochMustJoin(t *testing.T) {
	m, err := Empty("p").TakeOver(connectors.SessionRequest{Epoch: 3, Store: "mine"})
	require.NoError(t, err)
	_, err = m.TakeOver(connectors.SessionRequest{Epoch: 3, Store: "mine"})
	require.Equal(t, connectors.KindFenced, connectors.KindOf(err))
	n, err := m.TakeOver(connectors.SessionRequest{Epoch: 3, Store: "mine", Join: true})
	require.NoError(t, err)
	require.Same(t, m, n, "joining changes nothing")
}

func TestNewLoadForgetsTheOldOne(t *testing.T) {
	m, err := Empty("p").TakeOver(connectors.SessionRequest{Epoch: 1, Store: "mine"})
	require.NoError(t, err)
	m, _, err = m.Begin(1, load(1, connectors.ModeReplace, 3))
	require.NoError(t, err)
	first := m
	p := load(1, connectors.ModeReplace, 3).Parts[2]
	m, r, err := m.OpenWriter(1, p, messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(t, err)
	to := r
	to.Version.Commit, to.Final = 1, true
	m, err = m.Commit(1, Commit{From: r, Next: to, Files: []Placed{{Target: "s", File: File{Name: "x"}}}})
	require.NoError(t, err)
	_, _, err = m.Finish(1, messages.LoadID{Name: "s", Number: 1})
	require.ErrorContains(t, err, "is not complete")
	m, dropped, err := m.Begin(1, load(2, connectors.ModeReplace, 1))
	require.NoError(t, err)
	require.Equal(t, []Placed{{Target: "s", File: File{Name: "x"}}}, dropped)
	require.Len(t, m.Recovered().Parts, 1)
	require.Len(t, m.Recovered().Receipts, 1)
	require.Len(t, first.Recovered().Parts, 3, "a state is never changed")
	_, err = m.Commit(1, Commit{From: to, Next: to})
	require.Equal(t, connectors.KindFenced, connectors.KindOf(err), "a writer of the old load is fenced")
	_, _, err = m.Begin(1, load(1, connectors.ModeReplace, 1))
	require.ErrorContains(t, err, "older than load 2")
}

func TestOlderManifestThanOurOwnIsDamage(t *testing.T) {
	m, err := Empty("p").TakeOver(connectors.SessionRequest{Epoch: 1, Store: "mine"})
	require.NoError(t, err)
	_, _, err = m.Begin(2, load(1, connectors.ModeAppend, 1))
	var e *connectors.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, messages.CodeDestDamaged, e.Code)
}

func TestNamesSortByNumber(t *testing.T) {
	for _, n := range []uint64{0, 1, 99, 1 << 63} {
		got, ok := ParseName(Name(n))
		require.True(t, ok)
		require.Equal(t, n, got)
	}
	require.Less(t, Name(99), Name(100))
	for _, bad := range []string{"", "m-1.json", "m-0000000000000000000x.json", "x-00000000000000000001.json", "m-00000000000000000001.tmp"} {
		_, ok := ParseName(bad)
		require.False(t, ok, bad)
	}
}

func FuzzDecode(f *testing.F) {
	m, err := Empty("p").TakeOver(connectors.SessionRequest{Epoch: 1, Store: "mine"})
	require.NoError(f, err)
	b, err := Encode(m)
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Decode(b, 1, "p")
		if err == nil {
			require.EqualValues(t, 1, got.Number)
		}
	})
}
