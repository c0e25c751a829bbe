package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// kills is how often a process is killed; RB_KILLS sets another number.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("RB_KILLS")
	if text == "" {
		return 15
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// Each process is killed in the middle of its saves; the next one takes over at once.
func TestPGNothingThatWasSavedIsLostWhenTheProcessIsKilled(t *testing.T) {
	p := newPlace(t)
	s := open(t, p.config())
	random := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // reproducible on purpose
	var epoch messages.Epoch
	var saved messages.Version
	for round := range kills(t) {
		c := startChild(t, "save", p.URL(p.db))
		require.True(t, c.lines.Scan(), "the child says its epoch")
		var e messages.Epoch
		_, err := fmt.Sscanf(c.lines.Text(), "epoch %d", &e)
		require.NoError(t, err, c.lines.Text())
		require.Greater(t, e, epoch, "an epoch was handed out twice")
		epoch = e
		timer := time.AfterFunc(time.Duration(5+random.IntN(60))*time.Millisecond, func() { _ = c.Process.Kill() })
		for c.lines.Scan() {
			n, err := fmt.Sscanf(c.lines.Text(), "saved %d %d", &saved.Load, &saved.Commit)
			require.Equal(t, 2, n, "round %d: %q: %v", round, c.lines.Text(), err)
		}
		timer.Stop()
		c.kill()
		checkSaved(t, s.Load, saved, round)
	}
	require.Positive(t, saved.Commit, "no child ever saved")
}

func checkSaved(t *testing.T, load func(context.Context, messages.PipelineID) (statestore.State, error), saved messages.Version, round int) {
	t.Helper()
	st, err := load(t.Context(), "a")
	require.NoError(t, err)
	if saved.Load > 0 {
		require.Len(t, st.Receipts, 10, "round %d", round)
	}
	for _, r := range st.Receipts {
		require.GreaterOrEqual(t, r.Version.Compare(saved), 0, "round %d: %v was saved, %v is there", round, saved, r.Version)
		require.Equal(t, st.Receipts[0].Version, r.Version, "round %d: a step was torn", round)
	}
}

// The server is killed under a saver, and started again: what was acknowledged is there.
func TestPGNothingThatWasSavedIsLostWhenTheServerIsKilled(t *testing.T) {
	server := pgtest.Start(t)
	p := place{server, "postgres"}
	random := rand.New(rand.NewPCG(2, 2)) //nolint:gosec // reproducible on purpose
	var saved messages.Version
	for round := range 3 {
		c := startChild(t, "save", p.URL(p.db))
		c.line(t, "epoch")
		c.line(t, "saved")
		timer := time.NewTimer(time.Duration(random.IntN(150)) * time.Millisecond)
		done := make(chan string)
		go func() {
			last := ""
			for c.lines.Scan() {
				if _, err := fmt.Sscanf(c.lines.Text(), "saved %d %d", &saved.Load, &saved.Commit); err != nil {
					last = c.lines.Text()
				}
			}
			done <- last
		}()
		<-timer.C
		server.Kill9(t)
		require.Contains(t, <-done, "error save checkpoint of pipeline a", "it is told soon")
		c.kill()
		server.Restart(t)
		s := open(t, p.config())
		checkSaved(t, s.Load, saved, round)
		require.NoError(t, s.Close())
	}
	require.Positive(t, saved.Load)
}
