package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
)

// place is a pipeline from csv files to a file destination, with an embedded state store.
type place struct {
	dir, state string // state: the folder of the store
	files      int
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{dir: t.TempDir()}
	p.state = filepath.Join(p.dir, "state")
	return p
}

// more adds a file of 10 rows to what the source has.
func (p *place) more(t *testing.T) {
	t.Helper()
	p.files++
	text := "id,v\n"
	for i := range 10 {
		text += fmt.Sprintf("%d,x\n", p.files*10+i)
	}
	require.NoError(t, os.MkdirAll(filepath.Join(p.dir, "in"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "in", fmt.Sprintf("%d.csv", p.files)), []byte(text), 0o600))
}

// run runs the pipeline once; err is that of opening the store.
func (p *place) run(t *testing.T) (r messages.RunResult, err error) {
	t.Helper()
	doc, err := config.Parse("p.yaml", fmt.Appendf(nil, `version: "1.0"
pipeline: p
source: {use: file, config: {path: "%[1]s/in/*.csv"}, streams: [{name: s}]}
destination: {use: file, config: {path: "%[1]s/out", format: jsonl}, write_mode: append}
state: {connection: "%[2]s/state.db"}
`, p.dir, p.state), plugin.Builtins(), config.OS())
	require.NoError(t, err)
	spec, err := node.Build(t.Context(), doc, node.BuildOptions{})
	require.NoError(t, err)
	store, err := node.OpenStore(t.Context(), doc, false)
	if err != nil {
		return r, err
	}
	n := node.Start(node.Options{})
	r = n.Run(context.Background(), spec, store)
	n.Stop()
	require.NoError(t, store.Close())
	return r, nil
}

// done runs the pipeline over one more file and returns the epoch.
func (p *place) done(t *testing.T) messages.Epoch {
	t.Helper()
	p.more(t)
	r, err := p.run(t)
	require.NoError(t, err)
	require.Nil(t, r.Failure)
	require.EqualValues(t, 10, r.Streams[0].RowsWritten, "what is new, and nothing twice")
	return r.Epoch
}

// The store is the one of some runs ago: its epochs have been handed out before. None is
// handed out again, by either of the two.
func TestRestoredStateStoreNeverHandsOutAnEpochAgain(t *testing.T) {
	p := newPlace(t)
	p.done(t)
	backup := filepath.Join(p.dir, "backup")
	require.NoError(t, os.CopyFS(backup, os.DirFS(p.state)))
	var last messages.Epoch
	for range 4 {
		last = p.done(t)
	}
	require.NoError(t, os.RemoveAll(p.state))
	require.NoError(t, os.Rename(backup, p.state))
	require.Equal(t, last+1, p.done(t), "the destination knows the highest")
	require.Equal(t, last+2, p.done(t))
}

// A copy runs at another place, and the first one once more: whoever comes later is above
// whoever was there before.
func TestCopiedStateStoreIsFencedByTheEpochOfTheDestination(t *testing.T) {
	p := newPlace(t)
	last := p.done(t)
	original, copied := p.state, filepath.Join(p.dir, "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(original)))
	for range 3 {
		for _, state := range []string{copied, original} {
			p.state = state
			e := p.done(t)
			require.Greater(t, e, last)
			last = e
		}
	}
}

// A folder that was deleted as a whole leaves no trace of a store: the destination has one.
func TestDeletedStateFolderIsNotTakenForAFirstRun(t *testing.T) {
	p := newPlace(t)
	p.done(t)
	require.NoError(t, os.RemoveAll(p.state))
	p.more(t)
	r, err := p.run(t)
	require.NoError(t, err)
	require.Equal(t, messages.CodeDestForeign, r.Failure.Code)
	require.Contains(t, r.Failure.Next, "rebuild")

	require.NoError(t, os.RemoveAll(p.state))
	require.NoError(t, os.WriteFile(p.state, nil, 0o600)) // something else stands there
	_, err = p.run(t)
	require.Error(t, err)
	f, ok := err.(messages.Failure) //nolint:errorlint // as documented
	require.True(t, ok)
	require.Equal(t, messages.CodeState, f.Code)
	require.Equal(t, messages.ExitState, f.Code.Exit())
	require.Contains(t, f.Why, p.state)
}
