package duckdb

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Rows that were appended to a table which another pipeline has replaced since must
// not be covered by a receipt: they are in no table.
func TestReplaceOfAnotherPipelineFailsAnOpenAppend(t *testing.T) {
	h := newHarness(t)
	ctx := t.Context()
	sp := orders
	begun := load(connectors.ModeAppend, 1, sp, "orders")
	w := h.begin(begun)
	require.NoError(t, w.Write(ctx, h.batch(sp, []any{int64(1), "x"})))
	require.NoError(t, w.(*Writer).sinks["orders"].flush(ctx)) //nolint:forcetypeassert // ours

	other, err := h.dest.Open(ctx, connectors.SessionRequest{Pipeline: "q", Epoch: 1, Store: "store"})
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close(ctx)) }()
	l := load(connectors.ModeReplace, 1, sp, "orders")
	require.NoError(t, other.Begin(ctx, l))
	v, _, err := other.OpenWriter(ctx, l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(t, err)
	require.NoError(t, v.Write(ctx, h.batch(sp, []any{int64(2), "y"})))
	_, err = v.Commit(ctx, barrier(messages.BarrierEnd, 1, 1))
	require.NoError(t, err)
	require.NoError(t, other.Finish(ctx, l.ID))
	_, err = w.Commit(ctx, barrier(messages.BarrierEnd, 1, 1))
	require.Equal(t, connectors.KindTransient, connectors.KindOf(err), "%v", err)
	require.ErrorContains(t, err, "has been dropped")
	require.NoError(t, v.Close(ctx))
	require.NoError(t, w.Close(ctx))

	w, r, err := h.s.OpenWriter(ctx, begun.Parts[0], messages.Token{Epoch: 1, Attempt: 2})
	require.NoError(t, err)
	require.Zero(t, r.Version.Commit, "no receipt without its rows")
	require.NoError(t, w.Write(ctx, h.batch(sp, []any{int64(1), "x"})))
	h.commit(w, messages.BarrierEnd, 1, 1)
	require.NoError(t, w.Close(ctx))
	require.NoError(t, other.Close(ctx))
	require.NoError(t, h.s.Close(ctx))
	require.ElementsMatch(t, []string{"1|x", "2|y"}, tableRows(t, h.path, "main", "orders"))
}

func TestNewFoldersAreMadeDurable(t *testing.T) {
	dir := t.TempDir()
	var synced []string
	note := func(dir string) error {
		synced = append(synced, dir)
		return nil
	}
	path := filepath.Join(dir, "a", "b")
	require.NoError(t, makePath(path, note))
	require.Equal(t, []string{dir, filepath.Join(dir, "a")}, synced)
	require.NoError(t, makePath(path, note))
	require.Len(t, synced, 2, "nothing was made")
	require.NoError(t, syncFolder(path))
}
