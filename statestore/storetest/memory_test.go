package storetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryConforms(t *testing.T) {
	storetest.Run(t, func(*testing.T) func() (statestore.Store, error) {
		m := storetest.NewMemory("memory")
		return func() (statestore.Store, error) {
			m = m.Copy()
			return m, nil
		}
	})
}

func TestMemoryConformsAtAnyTime(t *testing.T) {
	storetest.RunClock(t, func(_ *testing.T, now func() time.Time) func() (statestore.Store, error) {
		m := storetest.NewMemory("memory")
		m.Now = now
		return func() (statestore.Store, error) {
			m = m.Copy()
			return m, nil
		}
	})
}

func save(m *storetest.Memory, commit uint64) error {
	return m.Save(context.Background(), "a", 1, statestore.Update{Receipts: []messages.Receipt{
		{Part: "p", Load: "l", Version: messages.Version{Load: 1, Commit: commit}},
	}})
}

func commitOf(t *testing.T, m *storetest.Memory) uint64 {
	t.Helper()
	st, err := m.Load(t.Context(), "a")
	require.NoError(t, err)
	if len(st.Receipts) == 0 {
		return 0
	}
	return st.Receipts[0].Version.Commit
}

func TestMemoryDoesWhatItsFateSays(t *testing.T) {
	boom := errors.New("boom")
	var fate storetest.Fate
	m := storetest.NewMemory("memory")
	m.SaveFn = func(context.Context, messages.PipelineID, messages.Epoch, statestore.Update) storetest.Fate {
		return fate
	}
	_, err := m.Acquire(t.Context(), "a", statestore.Claim{})
	require.NoError(t, err)

	fate = storetest.Fate{Err: boom}
	require.ErrorIs(t, save(m, 1), boom)
	require.EqualValues(t, 0, commitOf(t, m), "refused")
	fate = storetest.Fate{Err: boom, Done: true}
	require.ErrorIs(t, save(m, 2), boom)
	require.EqualValues(t, 2, commitOf(t, m), "done but reported as failed")
	fate = storetest.Fate{}
	require.NoError(t, save(m, 3))
	require.EqualValues(t, 3, commitOf(t, m))

	m.AcquireFn = func(context.Context, messages.PipelineID, statestore.Claim) storetest.Fate {
		return storetest.Fate{Err: boom, Done: true}
	}
	_, err = m.Acquire(t.Context(), "a", statestore.Claim{})
	require.ErrorIs(t, err, boom)
	require.ErrorIs(t, save(m, 4), statestore.ErrFenced, "the epoch was raised although nobody was told")

	m.LoadFn = func(context.Context, messages.PipelineID) error { return boom }
	_, err = m.Load(t.Context(), "a")
	require.ErrorIs(t, err, boom)
}

func TestMemoryCopyIsIndependent(t *testing.T) {
	m := storetest.NewMemory("memory")
	_, err := m.Acquire(t.Context(), "a", statestore.Claim{})
	require.NoError(t, err)
	require.NoError(t, save(m, 1))
	backup := m.Copy()
	require.NoError(t, save(m, 2))
	require.EqualValues(t, 1, commitOf(t, backup))
	require.EqualValues(t, 2, commitOf(t, m))
	require.Equal(t, m.Identity(), backup.Identity())
}
