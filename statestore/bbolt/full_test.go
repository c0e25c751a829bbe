package bbolt_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

// onDevice lets the store's descriptor point to a device until the returned
// function is called.
func onDevice(t *testing.T, s *bbolt.Store, device string) (heal func()) {
	t.Helper()
	saved, err := unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	d, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Dup3(d, s.FD(), unix.O_CLOEXEC))
	require.NoError(t, unix.Close(d))
	return func() {
		require.NoError(t, unix.Dup3(saved, s.FD(), unix.O_CLOEXEC))
		require.NoError(t, unix.Close(saved))
	}
}

func small(commit uint64) statestore.Update {
	return statestore.Update{Receipts: []messages.Receipt{{Part: "p", Load: "l", Version: messages.Version{Load: 1, Commit: commit}}}}
}

func stored(t *testing.T, s statestore.Store) uint64 {
	t.Helper()
	st, err := s.Load(t.Context(), "a")
	require.NoError(t, err)
	return st.Receipts[0].Version.Commit
}

func TestAFullDiskIsNamedAndChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	e, err := s.Acquire(t.Context(), "a", statestore.Claim{})
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(3, 3)) //nolint:gosec // reproducible on purpose
	commit := uint64(0)
	for range 20 {
		for range 1 + random.IntN(5) {
			commit++
			require.NoError(t, s.Save(t.Context(), "a", e, small(commit)))
		}
		heal := onDevice(t, s, "/dev/full")
		for range 1 + random.IntN(3) {
			err := s.Save(t.Context(), "a", e, small(commit+1))
			require.ErrorIs(t, err, statestore.ErrFull)
			require.Equal(t, messages.CodeStateFull, statestore.CodeOf(err))
			require.Equal(t, commit, stored(t, s))
			_, err = s.Acquire(t.Context(), "a", statestore.Claim{})
			require.ErrorIs(t, err, statestore.ErrFull)
			require.NoError(t, s.Save(t.Context(), "a", e, small(commit)), "what is stored already needs no space")
		}
		heal()
	}
	require.NoError(t, s.Save(t.Context(), "a", e, small(commit+1)))
	require.NoError(t, s.Close())
	require.Equal(t, commit+1, stored(t, open(t, path)), "and the file is sound")
}

func TestAFailedSyncEndsTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	e, err := s.Acquire(t.Context(), "a", statestore.Claim{})
	require.NoError(t, err)
	for commit := range uint64(10) {
		require.NoError(t, s.Save(t.Context(), "a", e, small(commit)))
	}
	heal := onDevice(t, s, "/dev/null") // takes every write, refuses to sync
	err = s.Save(t.Context(), "a", e, small(10))
	require.ErrorIs(t, err, statestore.ErrBroken)
	require.NotErrorIs(t, err, statestore.ErrFull)
	require.Equal(t, messages.CodeState, statestore.CodeOf(err))
	heal()

	cause := err.Error()
	for range 2 { // also when the disk has recovered
		err := s.Save(t.Context(), "a", e, small(11))
		require.ErrorIs(t, err, statestore.ErrBroken)
		require.Equal(t, cause, err.Error(), "the first cause stays")
		_, err = s.Load(t.Context(), "a")
		require.ErrorIs(t, err, statestore.ErrBroken)
		_, err = s.Acquire(t.Context(), "a", statestore.Claim{})
		require.ErrorIs(t, err, statestore.ErrBroken)
		_, err = s.Runs(t.Context(), "a", 1)
		require.ErrorIs(t, err, statestore.ErrBroken)
	}
	require.NoError(t, s.Close())
	require.EqualValues(t, 9, stored(t, open(t, path)), "a new process knows what is on the disk")
}

func TestAFileThatMayNotGrowIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	c := start(t, "limit", path)
	var first, second, done int
	_, err := fmt.Sscan(c.line(t, "full"), &first)
	require.NoError(t, err)
	_, err = fmt.Sscan(c.line(t, "full"), &second)
	require.NoError(t, err)
	_, err = fmt.Sscan(c.line(t, "done"), &done)
	require.NoError(t, err)
	require.Positive(t, first)
	require.Greater(t, second, first, "more space, more commits")
	require.False(t, c.lines.Scan())
	require.NoError(t, c.Wait())
	c.done = true

	st, err := open(t, path).Load(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, st.Receipts, done)
}
