package bbolt_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// The file is one of a program that knew neither history nor orders: its pipelines have
// no buckets for them.
func TestAFileWithoutHistoryIsOpenedAndGoesOn(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "before-history.db.gz"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	database, err := io.ReadAll(z)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "state.db")
	require.NoError(t, os.WriteFile(path, database, 0o600))

	s := open(t, path)
	ids, err := s.Pipelines(t.Context())
	require.NoError(t, err)
	require.Equal(t, []messages.PipelineID{"billing", "shop"}, ids)
	st, err := s.Load(t.Context(), "shop")
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Epoch)
	require.Len(t, st.Receipts, 3)
	require.Equal(t, []messages.LoadID{{Name: "customers", Number: 2}}, st.Finished)
	require.Equal(t, "01J", st.Run.ID)
	require.Empty(t, st.Orders)
	kept, err := s.History(t.Context(), "shop", "orders/1")
	require.NoError(t, err)
	require.Empty(t, kept)

	e, err := s.Acquire(t.Context(), "shop", statestore.Claim{Mine: 1})
	require.NoError(t, err)
	next := st.Receipts[1]
	next.Version.Commit, next.Token.Epoch = 8, e
	order := statestore.Order{Load: messages.LoadID{Name: "orders", Number: 1}, Part: "orders/2", From: st.Receipts[2].Version}
	require.NoError(t, s.Save(t.Context(), "shop", e, statestore.Update{Receipts: []messages.Receipt{next}, Orders: []statestore.Order{order}}))
	require.NoError(t, s.Close())

	s = open(t, path)
	st, err = s.Load(t.Context(), "shop")
	require.NoError(t, err)
	require.Equal(t, next, st.Receipts[1])
	require.Equal(t, []statestore.Order{order}, st.Orders)
	kept, err = s.History(t.Context(), "shop", "orders/1")
	require.NoError(t, err)
	require.Len(t, kept, 1)
	require.Equal(t, next, kept[0].Receipt)
	st, err = s.Load(t.Context(), "billing")
	require.NoError(t, err)
	require.Len(t, st.Receipts, 3, "a pipeline that nobody has touched since")
}
