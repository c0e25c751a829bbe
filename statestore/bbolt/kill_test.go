package bbolt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// RB_KILLS sets how often a process is killed.
const kills = 25

func TestNothingThatWasSavedIsLostWhenTheProcessIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // reproducible on purpose
	var epoch messages.Epoch
	var saved messages.Version
	for round := range envInt(t, "RB_KILLS", kills) {
		c := start(t, "save", path)
		timer := time.AfterFunc(time.Duration(5+random.IntN(60))*time.Millisecond, func() { _ = c.Process.Kill() })
		for c.lines.Scan() {
			var e messages.Epoch
			if n, _ := fmt.Sscanf(c.lines.Text(), "epoch %d", &e); n == 1 {
				require.Greater(t, e, epoch, "an epoch was handed out twice")
				epoch = e
				continue
			}
			n, err := fmt.Sscanf(c.lines.Text(), "saved %d %d", &saved.Load, &saved.Commit)
			require.Equal(t, 2, n, "round %d: %q: %v", round, c.lines.Text(), err)
		}
		timer.Stop()
		c.kill()

		s := open(t, path)
		st, err := s.Load(t.Context(), "a")
		require.NoError(t, err)
		require.GreaterOrEqual(t, st.Epoch, epoch)
		if saved.Load > 0 {
			require.Len(t, st.Receipts, 10, "round %d", round)
		}
		for _, r := range st.Receipts {
			require.GreaterOrEqual(t, r.Version.Compare(saved), 0, "round %d: %v was saved, %v is there", round, saved, r.Version)
			require.Equal(t, st.Receipts[0].Version, r.Version, "round %d: a step was torn", round)
		}
		require.NoError(t, s.Close())
	}
	require.Positive(t, saved.Commit, "no child ever saved")
}

func TestAStoreWhoseCreationIsKilledIsNotDamaged(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2)) //nolint:gosec // reproducible on purpose
	for range envInt(t, "RB_KILLS", kills) {
		path := filepath.Join(t.TempDir(), "state.db")
		c := start(t, "hold", path)
		time.Sleep(time.Duration(random.IntN(12000)) * time.Microsecond)
		c.kill()
		require.NoError(t, open(t, path).Close())
	}
}

// Each step of a creation, as a crash leaves it.
func TestAStoreWhoseCreationWasCutOffIsNotDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, os.WriteFile(path+".new", []byte("half a data"), 0o600))
	id := open(t, path).Identity()
	require.NoFileExists(t, path+".new")

	path2 := filepath.Join(t.TempDir(), "state.db") // the database has its name, the identity file not yet
	copyFile(t, path, path2)
	require.NoError(t, os.WriteFile(path2+".id.new", []byte(`{"format`), 0o600))
	require.Equal(t, id, open(t, path2).Identity())
	text, err := os.ReadFile(path2 + ".id")
	require.NoError(t, err)
	require.Contains(t, string(text), id)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, b, 0o600))
}
