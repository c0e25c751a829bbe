package conntest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// discoverChangesNothing: Check and Discover look only, and say the same twice.
func discoverChangesNothing(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	want := r.Rows(t)
	found, err := r.Source.Check(t.Context(), r.Streams)
	require.NoError(t, err)
	for _, finding := range found {
		if finding.Severity == connectors.SeverityError {
			t.Errorf("check of a good origin found an error: %s", finding.Message)
		}
	}
	first, err := r.Source.Discover(t.Context(), r.Streams)
	require.NoError(t, err)
	second, err := r.other().Discover(t.Context(), r.Streams)
	require.NoError(t, err)
	require.Equal(t, shapes(first), shapes(second), "discover again")
	for _, spec := range r.Streams {
		at := slices.IndexFunc(first, func(d connectors.Discovered) bool { return d.Stream == spec.Stream })
		if at < 0 {
			t.Errorf("discover does not list stream %s", spec.Stream)
			continue
		}
		require.NotNil(t, first[at].Schema, "schema of %s", spec.Stream)
	}
	r.same(want, r.readAll(r.scan(r.Source, r.request(1)), large), "after check and discover")
}

// shapes makes discovered streams comparable.
func shapes(found []connectors.Discovered) []string {
	var out []string
	for _, d := range found {
		out = append(out, fmt.Sprintf("%s key %v cursors %v rows %d %s", d.Stream, d.Key, d.Cursors, d.Rows, d.Schema))
	}
	return out
}

// planText makes a plan comparable. The token of a scan is left out: it names a snapshot,
// and each scan takes its own.
func planText(t T, p connectors.Plan) string {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "identity %s more %v\n", p.Identity, p.More)
	for _, l := range p.Loads {
		planned := slices.Clone(l.Parts)
		for i := range planned {
			planned[i].Scan = ""
		}
		parts, err := json.Marshal(planned)
		require.NoError(t, err)
		fmt.Fprintf(&text, "load %+v %s history %s parts %s\n", l.ID, l.Continuity, l.History, parts)
		for _, s := range l.Streams {
			fmt.Fprintf(&text, "  stream %s key %v rows %d schema %s\n", s.Stream, s.Key, s.Rows, s.Schema)
		}
	}
	return text.String()
}

// scanIsDeterministic: the same request and the same origin give the same plan.
func scanIsDeterministic(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	for _, splits := range []int{1, 3} {
		want := planText(t, r.scan(r.Source, r.request(splits)))
		require.Equal(t, want, planText(t, r.scan(r.Source, r.request(splits))), "the same source again, %d splits", splits)
		require.Equal(t, want, planText(t, r.scan(r.other(), r.request(splits))), "another node, %d splits", splits)
	}
}

// planIsWellFormed: what the engine relies on without looking.
func planIsWellFormed(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	p := r.scan(r.Source, r.request(3))
	require.NotEmpty(t, p.Loads, "a first scan finds loads")
	require.NotEmpty(t, p.Identity, "the origin has an identity")
	parts, names := make(map[messages.PartID]bool), make(map[string]bool)
	covered := make(map[messages.StreamID]bool)
	for _, l := range p.Loads {
		require.Equal(t, uint64(1), l.ID.Number, "a first load has number 1")
		require.False(t, names[l.ID.Name], "load %s is planned twice", l.ID.Name)
		require.Empty(t, l.Continuity, "a new load has no continuity")
		names[l.ID.Name] = true
		require.NotEmpty(t, l.Parts, "load %s has no part", l.ID.Name)
		for _, s := range l.Streams {
			require.NotNil(t, s.Schema, "schema of %s", s.Stream)
			require.False(t, covered[s.Stream], "stream %s is in two loads", s.Stream)
			covered[s.Stream] = true
			for _, k := range s.Key {
				require.True(t, s.Schema.HasField(k), "key column %s of %s is not in the schema", k, s.Stream)
			}
		}
		for _, part := range l.Parts {
			require.Equal(t, l.ID, part.Load, "part %s names its load", part.ID)
			require.NotEmpty(t, part.ID)
			require.False(t, parts[part.ID], "part %s is planned twice", part.ID)
			parts[part.ID] = true
			require.NotEmpty(t, part.Streams, "part %s has streams", part.ID)
			for _, s := range part.Streams {
				require.True(t, covers(l, s), "part %s reads stream %s, which its load does not have", part.ID, s)
			}
			for _, before := range part.After {
				require.GreaterOrEqual(t, indexPart(l.Parts, before), 0, "part %s waits for %s", part.ID, before)
			}
			require.JSONEq(t, jsonText(t, part), jsonText(t, throughJSON(t, part)))
		}
	}
	for _, spec := range r.Streams {
		require.True(t, covered[spec.Stream], "stream %s is in no load", spec.Stream)
	}
}

func jsonText(t T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// unknownStreamIsRefused: by Scan, with KindConfig.
func unknownStreamIsRefused(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	request := r.request(1)
	bogus := r.Streams[0]
	bogus.Stream, bogus.Path = "no such stream", "no-such-path-*"
	request.Streams = []connectors.StreamSpec{bogus}
	scan, err := r.Source.Scan(t.Context(), request)
	if err == nil && f.AnyStream {
		require.NoError(t, scan.Close(t.Context()))
		return
	}
	if err == nil {
		_ = scan.Close(t.Context())
		t.Errorf("a stream that does not exist was planned: %s", planText(t, scan.Plan()))
		return
	}
	require.Equal(t, connectors.KindConfig, connectors.KindOf(err), "scan of an unknown stream: %v", err)
}

// finishedLoadIsFollowed: after finished loads a scan reads everything again under
// the next number, or only what was added, as the factory says.
func finishedLoadIsFollowed(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	first := r.scan(r.Source, r.request(2))
	before := r.readAll(first, large)
	request := r.request(2)
	request.Previous = recoveredOf(throughRecovered(t, first), true, nil)
	request.Epoch = 2

	second := r.scan(r.other(), request)
	if !f.Incremental {
		for _, l := range second.Loads {
			require.Equal(t, uint64(2), l.ID.Number, "the load after a finished one")
			require.Empty(t, l.Continuity)
		}
		r.same(before, r.readAll(second, large), "after finished loads")
		return
	}
	for stream, rows := range r.readAll(second, large) {
		require.Empty(t, rows, "stream %s has nothing new", stream)
	}
	if r.Append == nil {
		return
	}
	r.Append(t)
	third := r.scan(r.other(), request)
	got := r.readAll(third, large)
	for stream, rows := range r.Rows(t) {
		added, gone := Difference(rows, before[stream])
		require.Empty(t, gone, "append added rows to %s", stream)
		sameRows(t, added, got[stream], "rows added to "+string(stream))
	}
	for _, l := range third.Loads {
		require.Greater(t, l.ID.Number, uint64(1))
	}
}

// throughRecovered is a plan as a destination gives it back.
func throughRecovered(t T, p connectors.Plan) connectors.Plan {
	t.Helper()
	p.Loads = slices.Clone(p.Loads)
	for i, l := range p.Loads {
		p.Loads[i].Parts = throughJSON(t, l.Parts)
		if l.History != nil {
			p.Loads[i].History = json.RawMessage(jsonText(t, l.History))
		}
	}
	return p
}

// unfinishedLoadIsContinued: under its ID, with the parts as they were planned,
// whatever was added since (rule 8 of the plan: Continuity answers).
func unfinishedLoadIsContinued(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	first := r.scan(r.Source, r.request(2))
	want := r.Rows(t)
	at, got := make(map[messages.PartID]messages.Position), make(map[messages.StreamID][]string)
	for _, l := range first.Loads { // each part is read up to a barrier in its middle
		for _, part := range l.Parts {
			a := r.read(reading{part: part, plan: l, limits: tiny, every: 1})
			m := a.barriers[(len(a.barriers)-1)/2]
			at[part.ID] = m.barrier.Position
			for stream, rows := range a.rows {
				got[stream] = append(got[stream], rows[:m.before[stream]]...)
			}
		}
	}
	if r.Append != nil {
		r.Append(t)
	}
	request := r.request(7) // another number of splits changes nothing
	request.Previous, request.Epoch = recoveredOf(throughRecovered(t, first), false, at), 2
	second := r.scan(r.other(), request)
	exact := true
	for _, l := range first.Loads {
		i := slices.IndexFunc(second.Loads, func(m connectors.Load) bool { return m.ID.Name == l.ID.Name })
		require.GreaterOrEqual(t, i, 0, "unfinished load %s is not continued", l.ID.Name)
		again := second.Loads[i]
		require.Equal(t, l.ID, again.ID, "an unfinished load keeps its number")
		switch again.Continuity {
		case connectors.ContinueExact:
			require.JSONEq(t, jsonText(t, l.Parts), jsonText(t, again.Parts), "parts of load %s", l.ID.Name)
		case connectors.ContinueDrift, connectors.ContinueLost:
			exact = false
		default:
			t.Errorf("load %s is unfinished, its continuity is %q", l.ID.Name, again.Continuity)
			exact = false
		}
	}
	if !exact {
		return
	}
	for _, l := range second.Loads {
		for _, part := range l.Parts {
			for stream, rows := range r.read(reading{part: part, plan: l, from: at[part.ID], limits: large}).rows {
				got[stream] = append(got[stream], rows...)
			}
		}
	}
	r.same(want, got, "an unfinished load that is continued exactly")
	if f.Incremental && r.Append != nil {
		require.True(t, second.More, "what was added since is left to a further scan: More")
	}
}

// freshStartsOver: a spec with Fresh forgets what earlier loads read.
func freshStartsOver(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	first := throughRecovered(t, r.scan(r.Source, r.request(1)))
	for _, finished := range []bool{true, false} {
		request := r.request(1)
		request.Previous, request.Epoch = recoveredOf(first, finished, nil), 2
		request.Streams = slices.Clone(r.Streams)
		for i := range request.Streams {
			request.Streams[i].Fresh = true
		}
		p := r.scan(r.other(), request)
		require.Len(t, p.Loads, len(first.Loads))
		for _, l := range p.Loads {
			require.Equal(t, uint64(2), l.ID.Number, "a fresh load is a new one")
			require.Empty(t, l.Continuity, "a fresh load is not continued")
		}
		r.same(r.Rows(t), r.readAll(p, large), fmt.Sprintf("fresh, the load before finished: %v", finished))
	}
}

// previewCreatesNothing: the plan can be read, and the next scan is not changed.
func previewCreatesNothing(t T, f SourceFactory) {
	r := newSourceRig(t, f)
	request := r.request(1)
	want := planText(t, r.scan(r.Source, request))
	request.Preview = true
	p := r.scan(r.Source, request)
	total := 0
	for _, l := range p.Loads {
		for _, part := range l.Parts {
			a := r.read(reading{part: part, plan: l, limits: large, rows: 3})
			for stream, rows := range a.rows {
				total += len(rows)
				if len(rows) > 3 {
					t.Errorf("preview of 3 rows gave %d of stream %s", len(rows), stream)
				}
			}
		}
	}
	require.Positive(t, total, "a preview shows rows")
	request.Preview = false
	require.Equal(t, want, planText(t, r.scan(r.Source, request)), "scan after a preview")
}
