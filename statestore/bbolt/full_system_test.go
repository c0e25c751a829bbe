//go:build system

package bbolt_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/statestore"
)

// A real file system without space; needs root.
func TestSystemASmallFileSystemFillsAndRecovers(t *testing.T) {
	mount := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", mount, "tmpfs", 0, "size=2m"), "mounting needs root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mount, 0)) })
	ballast := filepath.Join(mount, "ballast")
	require.NoError(t, os.WriteFile(ballast, bytes.Repeat([]byte{1}, 1<<20), 0o600))

	path := filepath.Join(mount, "state.db")
	s := open(t, path)
	e, err := s.Acquire(t.Context(), "a", statestore.Claim{})
	require.NoError(t, err)
	last := 0
	for err == nil && last < 5000 {
		if err = s.Save(t.Context(), "a", e, bigCommit(last+1)); err == nil {
			last++
		}
	}
	require.ErrorIs(t, err, statestore.ErrFull)
	for range 10 {
		err := s.Save(t.Context(), "a", e, bigCommit(last+1))
		if errors.Is(err, statestore.ErrFull) {
			continue
		}
		require.NoError(t, err) // pages of the failed ones were free
		last++
	}
	st, err := s.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, st.Receipts, last)

	require.NoError(t, os.Remove(ballast))
	for range 20 {
		require.NoError(t, s.Save(t.Context(), "a", e, bigCommit(last+1)))
		last++
	}
	require.NoError(t, s.Close())
	again := open(t, path)
	st, err = again.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, st.Receipts, last)
	require.NoError(t, again.Close())
}
