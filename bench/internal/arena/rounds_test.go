package arena

import (
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/peer"
	"rapidbyte.io/node/bench/internal/scenario"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
)

// disturbances plays rounds in which something else takes so many seconds of CPU.
func disturbances(s schedule, seconds ...float64) (kept []artefact.Run, discarded int, numbers []int) {
	attempts := 0
	s.log, s.limit = io.Discard, 0.3
	s.round = func(number, attempt int, stop func(artefact.Run) bool) ([]artefact.Run, error) {
		if attempt != attempts {
			return nil, errors.New("attempts are counted one by one")
		}
		numbers = append(numbers, number)
		c, quiet := seconds[attempts], 0.0
		attempts++
		runs := []artefact.Run{{Contestant: "a", Round: number, Competing: &quiet}, {Contestant: "b", Round: number, Competing: &c}, {Contestant: "c", Round: number}}
		if stop(runs[0]) {
			return nil, errors.New("nothing disturbed the first run")
		}
		if stop(runs[1]) {
			return runs[:2], nil // what will be discarded is not run to its end
		}
		return runs, nil
	}
	kept, discarded, err := s.run()
	if err != nil {
		panic(err)
	}
	return kept, discarded, numbers
}

func TestDisturbedRoundsAreRepeated(t *testing.T) {
	kept, discarded, numbers := disturbances(schedule{rounds: 2, retries: 5}, 9, 0.1, 0.31, 0.5, 0.3)
	require.Equal(t, []int{0, 1, 2, 2, 2}, numbers, "the warm-up is not repeated, however disturbed")
	require.Equal(t, 2, discarded)
	require.Len(t, kept, 6)
	for i, r := range kept {
		require.Equal(t, 1+i/3, r.Round)
		require.False(t, r.Disturbed)
	}
}

// When the retries are used up, a disturbed round counts and says so.
func TestRetriesEnd(t *testing.T) {
	kept, discarded, numbers := disturbances(schedule{rounds: 1, retries: 1}, 0, 9, 9)
	require.Equal(t, []int{0, 1, 1}, numbers)
	require.Equal(t, 1, discarded)
	require.Equal(t, []bool{false, true, false}, []bool{kept[0].Disturbed, kept[1].Disturbed, kept[2].Disturbed})
}

// Nothing is known of what competes with a server that is not ours.
func TestUnknownCompetitionDiscardsNothing(t *testing.T) {
	s := schedule{rounds: 1, retries: 5, limit: 0.3, log: io.Discard, round: func(int, int, func(artefact.Run) bool) ([]artefact.Run, error) { return []artefact.Run{{}}, nil }}
	kept, discarded, err := s.run()
	require.NoError(t, err)
	require.Zero(t, discarded)
	require.Equal(t, []artefact.Run{{}}, kept)
}

func TestWhatWasMeasuredBeforeAnErrorIsKept(t *testing.T) {
	s := schedule{rounds: 3, log: io.Discard, round: func(number, _ int, _ func(artefact.Run) bool) ([]artefact.Run, error) {
		if number == 2 {
			return nil, errors.New("broken")
		}
		return []artefact.Run{{Round: number}}, nil
	}}
	kept, _, err := s.run()
	require.EqualError(t, err, "broken")
	require.Equal(t, []artefact.Run{{Round: 1}}, kept)
}

func TestBenchmarksAreRead(t *testing.T) {
	runs := parseBench("goos: linux\nBenchmarkActors/transforms-0-2         \t       1\t  41000000 ns/op\t     99000 batches/s\nBenchmarkX \t 10\t 5 MB/s\nPASS\n", "ns/op", 3)
	require.Equal(t, []artefact.Run{{Contestant: "Actors/transforms-0", Round: 3, Metrics: map[string]float64{"ns/op": 41000000, "batches/s": 99000}}}, runs)
	runs = parseBench("BenchmarkCheckpoint-2 5 1091 bbolt-1-µs 566 fsync-µs 3 x/op\n", "µs", 1)
	require.Equal(t, []artefact.Run{
		{Contestant: "bbolt-1", Round: 1, Metrics: map[string]float64{"µs": 1091}}, {Contestant: "fsync", Round: 1, Metrics: map[string]float64{"µs": 566}},
	}, runs)
}

func TestWhatWasChosenIsRead(t *testing.T) {
	dir := t.TempDir()
	got, err := chosen(dir)
	require.NoError(t, err)
	require.Empty(t, got)
	path := filepath.Join(dir, reportName)
	require.NoError(t, os.WriteFile(path, []byte(`{"result":{"streams":[{"lane":"arrow","lane_reason":"why"},{"lane":"arrow","lane_reason":"why"},{"lane":"passthrough"},{}],`+
		`"tuning":[{"what":"tasks","value":"2 at a time","reason":"one per core"}]}}`), 0o600))
	got, err = chosen(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"lane arrow (why)", "lane passthrough", "tasks 2 at a time"}, got)
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = chosen(dir)
	require.ErrorContains(t, err, reportName)
}

// TestDocumentsAreValid makes the document of every contestant of ours in every scenario.
func TestDocumentsAreValid(t *testing.T) {
	all, err := scenario.Load(os.DirFS("../../scenarios"))
	require.NoError(t, err)
	base, err := url.Parse("postgres://me@127.0.0.1:1/db")
	require.NoError(t, err)
	documents := 0
	for _, s := range all {
		if s.Kind != scenario.Copy {
			continue
		}
		a := &Arena{dir: t.TempDir(), options: Options{Programs: map[string]string{"": "rapidbyte-node"}}}
		c := &contest{Arena: a, server: &server{base: base, own: true}, s: s, result: &artefact.Result{}, in: "/in", columns: []column{{"id", "bigint"}, {"v", "text"}}}
		for _, contestant := range s.Contestants {
			e := &entrant{Contestant: contestant, db: "target", tool: peer.Tool{Name: contestant.Peer, Path: "/bin/" + contestant.Peer}}
			line, err := c.line(e, t.TempDir(), 1)
			require.NoError(t, err, "%s: %s", s.Name, contestant.Name)
			if !contestant.Ours() {
				continue
			}
			for name, text := range line.Files {
				_, err := config.Parse(name, []byte(text), plugin.Builtins(), config.OS())
				require.NoError(t, err, "%s: %s\n%s", s.Name, contestant.Name, text)
				documents++
			}
		}
	}
	require.Greater(t, documents, 30)
}
