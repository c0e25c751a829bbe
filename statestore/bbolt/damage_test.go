package bbolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

// sample is a store before and after its last transaction, and what it holds.
type sample struct {
	identity             string
	idFile               []byte
	older, newer         []byte
	olderHeld, newerHeld string
}

func makeSample(t *testing.T) sample {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	for i, id := range []messages.PipelineID{"first", "second", "third"} {
		e, err := s.Acquire(t.Context(), id, statestore.Claim{})
		require.NoError(t, err)
		var u statestore.Update
		for part := range 130 / (i*40 + 1) { // branches, leaves, and a bucket inside a leaf
			u.Receipts = append(u.Receipts, messages.Receipt{
				Part: messages.PartID(fmt.Sprintf("orders/%05d", part)), Load: "orders", Version: messages.Version{Load: 1, Commit: 1},
			})
		}
		u.Finished = []messages.LoadID{{Name: "orders", Number: 1}}
		u.Run = &statestore.Run{ID: "01J", Epoch: e, State: messages.RunRunning}
		u.Orders = []statestore.Order{{Load: u.Finished[0]}}
		require.NoError(t, s.Save(t.Context(), id, e, u))
	}
	last := statestore.Update{Receipts: []messages.Receipt{
		{Part: "orders/00100", Load: "orders", Version: messages.Version{Load: 1, Commit: 2}},
		{Part: "orders/00120", Load: "orders", Version: messages.Version{Load: 1, Commit: 2}},
	}}
	var b sample
	var err error
	b.identity, b.olderHeld = s.Identity(), held(t, s)
	b.older, err = os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), "first", 1, last))
	b.newerHeld = held(t, s)
	b.newer, err = os.ReadFile(path)
	require.NoError(t, err)
	b.idFile, err = os.ReadFile(path + ".id")
	require.NoError(t, err)
	require.NotEqual(t, b.olderHeld, b.newerHeld)
	return b
}

// held is everything that can be seen of a store.
func held(t *testing.T, s statestore.Store) string {
	t.Helper()
	var b strings.Builder
	for _, id := range []messages.PipelineID{"first", "second", "third"} {
		st, err := s.Load(t.Context(), id)
		require.NoError(t, err)
		runs, err := s.Runs(t.Context(), id, 1000)
		require.NoError(t, err)
		kept, err := s.History(t.Context(), id, "orders/00100")
		require.NoError(t, err)
		fmt.Fprintf(&b, "%+v %+v %+v\n", st, runs, kept)
	}
	return b.String()
}

// mustNotLie opens a store with the given database: it is refused as damaged, or
// holds exactly what was there after or before the last transaction.
func (b sample) mustNotLie(t *testing.T, folder string, database []byte, what string) (refused bool) {
	t.Helper()
	path := filepath.Join(folder, "state.db")
	require.NoError(t, os.WriteFile(path, database, 0o600))
	require.NoError(t, os.WriteFile(path+".id", b.idFile, 0o600))
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path})
	if err != nil {
		require.ErrorIs(t, err, statestore.ErrDamaged, what)
		require.Equal(t, messages.CodeStateDamaged, statestore.CodeOf(err))
		return true
	}
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, b.identity, s.Identity(), what)
	if got := held(t, s); got != b.newerHeld && got != b.olderHeld {
		t.Fatalf("%s: the store opens and holds something else:\n%s", what, got)
	}
	return false
}

func TestATruncatedStoreIsRefused(t *testing.T) {
	b, folder := makeSample(t), t.TempDir()
	random := rand.New(rand.NewPCG(4, 4)) //nolint:gosec // reproducible on purpose
	page := os.Getpagesize()
	lengths := []int{0, 1, 15, 16, 20, 79, 80, 100, 1024, len(b.newer) / 2}
	for n := 0; n < len(b.newer); n += page {
		lengths = append(lengths, n, n+1, max(0, n-1))
	}
	for range 100 {
		lengths = append(lengths, random.IntN(len(b.newer)))
	}
	used := usedBytes(t, b.newer)
	for i := 0; i < len(lengths); i += stride {
		n := lengths[i]
		refused := b.mustNotLie(t, folder, b.newer[:n], fmt.Sprintf("cut to %d bytes", n))
		require.Equal(t, n < used, refused, "cut to %d bytes, %d are used", n, used)
	}
}

// usedBytes returns how much of a database its newest transaction uses; bbolt
// makes a file longer than it needs.
func usedBytes(t *testing.T, database []byte) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	require.NoError(t, os.WriteFile(path, database, 0o600))
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var size int64
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	}))
	return int(size)
}

func TestAFlippedByteIsRefusedOrHarmless(t *testing.T) {
	b, folder := makeSample(t), t.TempDir()
	random := rand.New(rand.NewPCG(5, 5)) //nolint:gosec // reproducible on purpose
	page := os.Getpagesize()
	var offsets []int
	for n := range 96 { // all of both metas, and the head of every page
		offsets = append(offsets, n, page+n)
	}
	for n := 2 * page; n < len(b.newer); n += page {
		for range 4 {
			offsets = append(offsets, n+random.IntN(48))
		}
	}
	for range envInt(t, "RB_FLIPS", 500) {
		offsets = append(offsets, random.IntN(len(b.newer)))
	}
	refused := 0
	for i := 0; i < len(offsets); i += stride {
		n := offsets[i]
		database := bytes.Clone(b.newer)
		database[n] ^= byte(1 + random.IntN(255))
		if b.mustNotLie(t, folder, database, fmt.Sprintf("byte %d is %#x instead of %#x", n, database[n], b.newer[n])) {
			refused++
		}
	}
	require.Greater(t, refused, len(offsets)/stride/4)
}

func TestADamagedPageIsRefusedOrHarmless(t *testing.T) {
	b, folder := makeSample(t), t.TempDir()
	random := rand.New(rand.NewPCG(6, 6)) //nolint:gosec // reproducible on purpose
	page := os.Getpagesize()
	at := func(database []byte, n int) []byte { return database[n*page : (n+1)*page] }
	noise := make([]byte, page)
	for n := 0; n < len(b.newer)/page; n += stride {
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		for what, content := range map[string][]byte{
			"noise":            noise,
			"zeros":            make([]byte, page),
			"another page":     at(b.newer, random.IntN(len(b.newer)/page)),
			"its older self":   at(b.older, min(n, len(b.older)/page-1)), // a lost write
			"half of it older": append(bytes.Clone(at(b.older, min(n, len(b.older)/page-1))[:page/2]), at(b.newer, n)[page/2:]...),
		} {
			database := bytes.Clone(b.newer)
			copy(at(database, n), content)
			b.mustNotLie(t, folder, database, fmt.Sprintf("page %d is %s", n, what))
		}
	}
}

// Followed, such a reference leads out of the file or round in a circle.
func TestAWrongPageNumberIsRefused(t *testing.T) {
	b, folder := makeSample(t), t.TempDir()
	page, order := os.Getpagesize(), binary.NativeEndian
	branches := 0
	for at := 2 * page; at < usedBytes(t, b.newer); at += page {
		if order.Uint16(b.newer[at+8:]) != 1 { // a branch
			continue
		}
		branches++
		for n := range min(3, int(order.Uint16(b.newer[at+10:]))) {
			field := at + 16 + 16*n + 8
			was := order.Uint64(b.newer[field:])
			for _, id := range []uint64{0, 1, uint64(at / page), was + 1, uint64(len(b.newer) / page), 1 << 40, 1 << 62, math.MaxUint64} { //nolint:gosec // small
				database := bytes.Clone(b.newer)
				order.PutUint64(database[field:], id)
				refused := b.mustNotLie(t, folder, database, fmt.Sprintf("page %d instead of %d", id, was))
				// A branch that no transaction uses any more may say what it wants.
				if !refused {
					require.False(t, isUsed(t, b.newer, at/page), "page %d instead of %d", id, was)
				}
			}
		}
	}
	require.GreaterOrEqual(t, branches, 1)
}

// isUsed reports whether the newest transaction of a database uses a page.
func isUsed(t *testing.T, database []byte, id int) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	require.NoError(t, os.WriteFile(path, database, 0o600))
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	used := false
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		info, err := tx.Page(id)
		used = err == nil && info != nil && info.Type != "free"
		return err
	}))
	return used
}

// A page of yesterday in today's tree passes every structural check and every
// checksum of a value; only the digest knows.
func TestAValueOfYesterdayIsNoticed(t *testing.T) {
	b, folder := makeSample(t), t.TempDir()
	path := filepath.Join(folder, "state.db")
	require.NoError(t, os.WriteFile(path, b.newer, 0o600))
	old := filepath.Join(folder, "old.db")
	require.NoError(t, os.WriteFile(old, b.older, 0o600))
	receiptOf := func(tx *bolt.Tx) *bolt.Bucket {
		return tx.Bucket([]byte("pipelines")).Bucket([]byte("first")).Bucket([]byte("receipts"))
	}
	var yesterday []byte
	edit(t, old, func(tx *bolt.Tx) error {
		yesterday = bytes.Clone(receiptOf(tx).Get([]byte("orders/00100")))
		return nil
	})
	for what, change := range map[string]func(tx *bolt.Tx) error{
		"an old value": func(tx *bolt.Tx) error { return receiptOf(tx).Put([]byte("orders/00100"), yesterday) },
		"a lost value": func(tx *bolt.Tx) error { return receiptOf(tx).Delete([]byte("orders/00101")) },
		"a moved value": func(tx *bolt.Tx) error {
			return receiptOf(tx).Put([]byte("orders/00102"), receiptOf(tx).Get([]byte("orders/00103")))
		},
		"a lost order":    func(tx *bolt.Tx) error { return lose(tx, "orders") },
		"a lost history":  func(tx *bolt.Tx) error { return lose(tx, "history") },
		"a lost pipeline": func(tx *bolt.Tx) error { return tx.Bucket([]byte("pipelines")).DeleteBucket([]byte("second")) },
		"a lost digest":   func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("digest")) },
		"a strange key":   func(tx *bolt.Tx) error { return tx.Bucket([]byte("pipelines")).Put([]byte("x"), []byte("y")) },
		"a lost identity": func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("identity")) },
	} {
		require.NoError(t, os.WriteFile(path, b.newer, 0o600))
		edit(t, path, change)
		database, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, b.mustNotLie(t, folder, database, what), what)
	}
}

// lose removes the first value of a kind.
func lose(tx *bolt.Tx, kind string) error {
	b := tx.Bucket([]byte("pipelines")).Bucket([]byte("first")).Bucket([]byte(kind))
	key, _ := b.Cursor().First()
	return b.Delete(key)
}

func edit(t *testing.T, path string, change func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(change))
	require.NoError(t, db.Close())
}

func TestRebuildSetsADamagedStoreAside(t *testing.T) {
	b, folder := makeSample(t), t.TempDir()
	path := filepath.Join(folder, "state.db")
	for n, database := range [][]byte{{}, b.newer[:8192], bytes.Repeat([]byte("garbage "), 10000)} {
		require.True(t, b.mustNotLie(t, folder, database, "damaged"))
		s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path, Rebuild: true})
		require.NoError(t, err)
		require.Equal(t, b.identity, s.Identity(), "destinations know the store by it")
		st, err := s.Load(t.Context(), "first")
		require.NoError(t, err)
		require.Zero(t, st)
		require.Equal(t, fmt.Sprintf("%s.damaged-%d", path, n+1), s.Aside())
		aside, err := os.ReadFile(s.Aside())
		require.NoError(t, err)
		require.True(t, bytes.Equal(database, aside), "it is kept as it was")
		e, err := s.Acquire(t.Context(), "first", statestore.Claim{Floor: 7})
		require.NoError(t, err)
		require.EqualValues(t, 8, e)
		require.NoError(t, s.Close())

		s, err = bbolt.Open(t.Context(), bbolt.Config{Path: path, Rebuild: true})
		require.NoError(t, err)
		require.Empty(t, s.Aside(), "a sound store is left alone")
		st, err = s.Load(t.Context(), "first")
		require.NoError(t, err)
		require.EqualValues(t, 8, st.Epoch)
		require.NoError(t, s.Close())
	}
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, openError(t, bbolt.Config{Path: path}), statestore.ErrDamaged)
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path, Rebuild: true})
	require.NoError(t, err)
	require.Equal(t, b.identity, s.Identity())
	require.Empty(t, s.Aside())
	require.NoError(t, s.Close())
}

func TestAFileCutOffWhileItIsOpenEndsTheStoreNotTheProcess(t *testing.T) {
	b := makeSample(t)
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, os.WriteFile(path, b.newer, 0o600))
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, int64(2*os.Getpagesize())))
	_, err = s.Load(t.Context(), "first")
	require.ErrorIs(t, err, statestore.ErrDamaged)
	require.True(t, s.Stuck())
	err = s.Save(t.Context(), "first", 1, small(9))
	require.ErrorIs(t, err, statestore.ErrDamaged)
	done := make(chan error, 1)
	go func() { done <- s.Close() }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for ever")
	}
	require.ErrorIs(t, openError(t, bbolt.Config{Path: path}), statestore.ErrDamaged)

	path = filepath.Join(t.TempDir(), "state.db") // the same during a write
	require.NoError(t, os.WriteFile(path, b.newer, 0o600))
	s, err = bbolt.Open(t.Context(), bbolt.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, int64(2*os.Getpagesize())))
	err = s.Save(t.Context(), "first", 1, small(9))
	require.ErrorIs(t, err, statestore.ErrDamaged)
	require.NoError(t, s.Close())
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state.db")
	s, err := bbolt.Open(f.Context(), bbolt.Config{Path: path})
	require.NoError(f, err)
	e, err := s.Acquire(f.Context(), "a", statestore.Claim{})
	require.NoError(f, err)
	for n := range 6 {
		require.NoError(f, s.Save(f.Context(), "a", e, bigCommit(n)))
	}
	require.NoError(f, s.Close())
	sound, err := os.ReadFile(path)
	require.NoError(f, err)
	page := uint32(os.Getpagesize()) //nolint:gosec // small
	f.Add(uint32(0), uint32(0), uint64(0), uint32(0), uint64(0))
	f.Add(2*page, page, uint64(1)<<63, uint32(16), uint64(7))
	f.Add(uint32(0), 2*page+10, uint64(0xFFFF), 3*page+10, uint64(0x100))
	folder := f.TempDir()
	// The input says what to do to a sound database: cut it, change two places.
	f.Fuzz(func(t *testing.T, cut, at uint32, flip uint64, at2 uint32, flip2 uint64) {
		database := bytes.Clone(sound[:len(sound)-int(cut)%len(sound)])
		for i := range 8 {
			if n := int(at) + i; n < len(database) {
				database[n] ^= byte(flip >> (8 * i))
			}
			if n := int(at2) + i; n < len(database) {
				database[n] ^= byte(flip2 >> (8 * i))
			}
		}
		path := filepath.Join(folder, "state.db")
		require.NoError(t, os.WriteFile(path, database, 0o600))
		s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path})
		if err != nil {
			ok := errors.Is(err, statestore.ErrDamaged) || errors.Is(err, statestore.ErrForeign)
			require.True(t, ok, "%v", err)
			return
		}
		_, err = s.Load(t.Context(), "a")
		require.NoError(t, err, "what opens can be read")
		_, err = s.Acquire(t.Context(), "a", statestore.Claim{})
		require.NoError(t, err, "and written")
		require.NoError(t, s.Close())
		require.NoError(t, os.Remove(path+".id"))
	})
}
