package bbolt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

func TestAHeldStoreNamesItsHolderInTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	c := start(t, "hold", path)
	c.line(t, "holding")
	pid, program := "process "+strconv.Itoa(c.Process.Pid), filepath.Base(os.Args[0])

	begin := time.Now()
	err := openError(t, bbolt.Config{Path: path})
	took := time.Since(begin)
	require.ErrorIs(t, err, statestore.ErrHeld)
	require.Equal(t, messages.CodeStateHeld, statestore.CodeOf(err))
	require.ErrorContains(t, err, pid+" ("+program+"), since 20")
	require.ErrorContains(t, err, path)
	require.GreaterOrEqual(t, took, bbolt.DefaultTimeout-100*time.Millisecond)
	require.Less(t, took, bbolt.DefaultTimeout+500*time.Millisecond)

	require.NoError(t, os.Truncate(path+".lock", 0)) // the holder could not write it: full disk
	err = openError(t, bbolt.Config{Path: path, Timeout: 50 * time.Millisecond})
	require.ErrorContains(t, err, pid+" ("+program[:min(15, len(program))]+")", "the kernel knows the process too")

	c.kill()
	begin = time.Now()
	require.NoError(t, open(t, path).Close(), "a killed process holds nothing")
	require.Less(t, time.Since(begin), time.Second)
}

func TestAHeldStoreIsOpenedAsSoonAsItIsFree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	c := start(t, "hold", path)
	c.line(t, "holding")
	time.AfterFunc(300*time.Millisecond, func() { _ = c.stdin.Close() })
	begin := time.Now()
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.Less(t, time.Since(begin), 1500*time.Millisecond)
}

func TestAStoreHeldByAnotherProgramNamesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, open(t, path).Close())
	c := start(t, "hold-raw", path)
	c.line(t, "holding")
	err := openError(t, bbolt.Config{Path: path, Timeout: 50 * time.Millisecond})
	require.ErrorIs(t, err, statestore.ErrHeld)
	require.ErrorContains(t, err, "process "+strconv.Itoa(c.Process.Pid))
}

func TestOneProcessCannotOpenAStoreTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	err := openError(t, bbolt.Config{Path: path, Timeout: 50 * time.Millisecond})
	require.ErrorIs(t, err, statestore.ErrHeld)
	require.ErrorContains(t, err, "process "+strconv.Itoa(os.Getpid()))
	require.ErrorContains(t, err, "which is this process")
}

func TestTheWaitForAHeldStoreEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	why := errors.New("the user pressed a key")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	begin := time.Now()
	_, err := bbolt.Open(ctx, bbolt.Config{Path: path, Timeout: time.Minute})
	require.ErrorIs(t, err, why)
	require.Less(t, time.Since(begin), 5*time.Second)
	_, err = bbolt.Open(ctx, bbolt.Config{Path: path})
	require.ErrorIs(t, err, why)
}
