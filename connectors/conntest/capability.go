package conntest

import (
	"slices"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// sourceCapabilities: what a source says of itself is what the factory says.
func sourceCapabilities(t T, f SourceFactory) {
	if m, ok := f.New(t).Source.(connectors.Rememberer); ok {
		require.Equal(t, f.Incremental, m.Remembers(), "Remembers, against Incremental of the factory")
	}
}

// destinationCapabilities: a destination that forgets must say so, or the engine
// takes its empty target for lost data.
func destinationCapabilities(t T, f DestinationFactory) {
	g, ok := f.New(t).Destination.(connectors.Forgetful)
	require.Equal(t, f.Forgets, ok && g.Forgets(), "Forgets, against that of the factory")
}

// changesAreOnlyListed: a Planner executes nothing and says the same twice.
func changesAreOnlyListed(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	planner, ok := r.Destination.(connectors.Planner)
	if !ok {
		return
	}
	loads := []connectors.Load{r.load(1, r.mode, "orders", 2)}
	first, err := planner.Changes(r.ctx, loads)
	require.NoError(t, err)
	require.NotEmpty(t, first, "a fresh target needs changes")
	second, err := planner.Changes(r.ctx, loads)
	require.NoError(t, err)
	require.Equal(t, first, second, "nothing was executed")
	r.sees("orders", nil, "after listing changes")
	require.Empty(t, r.open(r.Destination, 2).Recovered().Loads, "loads after listing changes")
}

// teardownForgets: a Remover refuses while a session is alive, lists in a dry run,
// and then forgets this pipeline and no other. The rows stay.
func teardownForgets(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	if _, ok := r.Destination.(connectors.Remover); !ok {
		return
	}
	other := r.request(1)
	other.Pipeline = "conntest-other"
	s, err := r.Destination.Open(r.ctx, other)
	require.NoError(t, err)
	theirs := r.load(1, r.mode, "theirs", 1)
	require.NoError(t, s.Begin(r.ctx, theirs))
	require.NoError(t, s.Close(r.ctx))

	ours, l := r.begun(r.mode)
	w, _ := r.writer(ours, l.Parts[0], 1, 1)
	r.write(w, NumberRows(1, 5))
	r.commit(w, messages.BarrierEnd, 5, 5)
	require.NoError(t, ours.Finish(r.ctx, l.ID))
	remover, _ := r.Destination.(connectors.Remover)
	if _, err := remover.Teardown(r.ctx, pipeline, false); err == nil {
		t.Errorf("a pipeline with an open session was torn down")
	}
	r.closeAll()

	d := r.restart()
	remover, _ = d.(connectors.Remover)
	listed, err := remover.Teardown(r.ctx, pipeline, true)
	require.NoError(t, err)
	require.NotEmpty(t, listed, "a dry run lists what would go")
	require.Len(t, r.open(d, 2).Recovered().Receipts, 1, "a dry run changes nothing")
	r.closeAll()
	gone, err := remover.Teardown(r.ctx, pipeline, false)
	require.NoError(t, err)
	slices.Sort(listed)
	slices.Sort(gone)
	require.Equal(t, listed, gone, "what the dry run listed")
	found := r.open(d, 3).Recovered()
	require.Empty(t, found.Loads, "loads after a teardown")
	require.Empty(t, found.Receipts, "receipts after a teardown")
	r.sees("orders", texts(NumberRows(1, 5)), "rows after a teardown")
	other.Epoch = 2
	s, err = d.Open(r.ctx, other)
	require.NoError(t, err)
	r.sessions = append(r.sessions, s)
	require.Len(t, s.Recovered().Receipts, 1, "receipts of another pipeline")
}

// surveyFencesNobody: a survey sees what Open would find and changes nothing, also beside
// a session that writes.
func surveyFencesNobody(t T, f DestinationFactory) {
	r := newDestRig(t, f)
	d, ok := r.Destination.(connectors.Surveyor)
	if !ok {
		return
	}
	found, err := d.Survey(r.ctx, pipeline)
	require.NoError(t, err, "a survey of a target that nobody has used")
	require.Equal(t, connectors.Surveyed{}, found)
	s := r.open(r.Destination, 3)
	l := r.load(1, r.mode, "orders", 1)
	require.NoError(t, s.Begin(r.ctx, l))
	w, _ := r.writer(s, l.Parts[0], 3, 1)
	r.write(w, NumberRows(1, 4))
	want := r.commit(w, messages.BarrierPeriodic, 4, 4)
	found, err = d.Survey(r.ctx, pipeline)
	require.NoError(t, err, "a survey beside a session")
	require.Equal(t, messages.Epoch(3), found.Epoch, "the epoch of the owner")
	require.Equal(t, r.request(3).Store, found.Store)
	require.Equal(t, []messages.Receipt{want}, found.Receipts)
	require.Len(t, found.Parts, 1)
	require.Len(t, found.Loads, 1)
	r.write(w, NumberRows(5, 2))
	r.commit(w, messages.BarrierPeriodic, 6, 2)
	known := r.open(r.restart(), 4).Recovered()
	found, err = d.Survey(r.ctx, pipeline)
	if f.Exclusive && err != nil {
		require.Equal(t, connectors.KindConfig, connectors.KindOf(err), "another process has the target: %v", err)
		return
	}
	require.NoError(t, err)
	require.Equal(t, known, found.Recovered, "what Open finds")
	r.sees("orders", texts(NumberRows(1, 6)), "after surveys")
}
