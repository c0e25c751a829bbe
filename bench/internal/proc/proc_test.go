package proc

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done"

func TestChainsMeasureAllOfTheirPrograms(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen") // the program goes on when it has been looked at
	look := func() { require.NoError(t, os.WriteFile(seen, nil, 0o600)) }
	u, err := Chain{Commands: [][]string{{"sh", "-c", "while [ ! -e " + seen + " ]; do :; done; " + busy}, {"grep", "-q", "done"}}, Look: look}.Run(t.Context(), 0)
	require.NoError(t, err)
	require.Positive(t, u.CPU())
	require.Positive(t, u.AnonMB)
	require.Greater(t, u.PeakMB, u.AnonMB)
	require.GreaterOrEqual(t, u.Wall, 0.001)
	require.Zero(t, u.Server)
}

// What a program's children take is its own.
func TestChildrenCount(t *testing.T) {
	script := "sh -c '" + busy + "'; true"
	u, err := Chain{Commands: [][]string{{"sh", "-c", script}}}.Run(t.Context(), 0)
	require.NoError(t, err)
	require.Positive(t, u.CPU())
	m := treeMB(os.Getpid())
	require.Positive(t, m.anon)
	require.Greater(t, m.all, m.anon)
}

// What nobody here has started is competing; the busy loop is this process's own child
// and belongs to the chain.
func TestCompetingIsWhatOthersTake(t *testing.T) {
	other := Chain{Commands: [][]string{{"sh", "-c", "while :; do :; done"}}, KillAfter: 700 * time.Millisecond}
	ended := make(chan error, 1)
	go func() {
		_, err := other.Run(t.Context(), 0)
		ended <- err
	}()
	u, err := Chain{Commands: [][]string{{"sleep", "0.5"}}}.Run(t.Context(), 0)
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, ErrKilled)
	require.Greater(t, u.Competing, 0.02)
}

func TestFailuresSayWhy(t *testing.T) {
	for _, commands := range [][][]string{
		{{"echo", "x"}, {"sh", "-c", "echo why >&2; exit 3"}},
		{{"sh", "-c", "echo why >&2; exit 3"}, {"cat"}},
		{{"sh", "-c", "echo why; exit 3"}},
	} {
		_, err := Chain{Commands: commands}.Run(t.Context(), 0)
		require.ErrorContains(t, err, "why")
		require.ErrorContains(t, err, "exit status 3")
	}
	_, err := Chain{Commands: [][]string{{"cat"}, {"/nowhere/program"}}}.Run(t.Context(), 0)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOutputGoesToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	_, err := Chain{Commands: [][]string{{"echo", "some"}, {"cat"}}, Stdout: path}.Run(t.Context(), 0)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "some\n", string(text))
}

func TestChainsAreKilled(t *testing.T) {
	began := time.Now()
	u, err := Chain{Commands: [][]string{{"sh", "-c", "sleep 60 | cat"}, {"cat"}}, KillAfter: 50 * time.Millisecond}.Run(t.Context(), 0)
	require.ErrorIs(t, err, ErrKilled)
	require.Positive(t, u.Wall)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Chain{Commands: [][]string{{"sleep", "60"}}}.Run(ctx, 0)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 30*time.Second)
	// One that ends before its time was not killed.
	_, err = Chain{Commands: [][]string{{"true"}}, KillAfter: time.Minute}.Run(t.Context(), 0)
	require.NoError(t, err)
}

// A program that never ends is done when its work is.
func TestProgramsThatDoNotEnd(t *testing.T) {
	looks := 0
	until := func() bool { looks++; return looks > 3 }
	u, err := Chain{Commands: [][]string{{"sleep", "60"}}, Until: until}.Run(t.Context(), 0)
	require.NoError(t, err)
	require.Less(t, u.Wall, 30.0)
	_, err = Chain{Commands: [][]string{{"true"}}, Until: func() bool { return false }}.Run(t.Context(), 0)
	require.ErrorContains(t, err, "before its work was done")
	_, err = Chain{Commands: [][]string{{"sh", "-c", "echo why; exit 3"}}, Until: func() bool { return false }}.Run(t.Context(), 0)
	require.ErrorContains(t, err, "why")
}

func TestAwaitQuietEnds(t *testing.T) {
	require.NoError(t, AwaitQuiet(0))
}
