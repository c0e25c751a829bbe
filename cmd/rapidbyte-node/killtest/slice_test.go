package killtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// sliceMost is how long a slice lasts: campaigns that have begun are ended.
const sliceMost = 40 * time.Minute

// killsPerSeed is how many kills a campaign of a slice has.
const killsPerSeed = 25

// line is what the results file says of a slice.
type line struct {
	Date           string         `json:"date"`
	Commit         string         `json:"commit"`
	Seed           uint64         `json:"seed"`             // the first that was asked for
	Seeds          string         `json:"seeds"`            // that are done, as 7-9,12
	Failed         string         `json:"failed,omitempty"` // that are to be looked at
	Scenarios      map[string]int `json:"scenarios"`        // kills of each
	Stores         map[string]int `json:"stores"`           // kills of each state store
	Kills          int            `json:"kills"`
	Moving         int            `json:"kills_while_rows_moved"`
	Processes      int            `json:"processes"`
	Rows           int64          `json:"rows_moved"`
	Lost           int64          `json:"rows_lost"`
	Doubled        int64          `json:"rows_doubled"`
	Changed        int64          `json:"rows_changed"`
	StoreBehind    int            `json:"store_behind"` // kills after which the destination alone had a commit
	Unrecorded     int            `json:"unrecorded"`   // kills after which it alone had a load finished
	Seconds        float64        `json:"seconds"`
	SecondsPerKill float64        `json:"seconds_per_kill"`
}

// results is the file of lines. One slice at a time writes its line, as it grows.
type results struct {
	file *os.File
	at   int64 // where the line of this slice begins
	done seeds
}

// openResults reads what is done, and takes the file for itself.
func openResults(path string) (r *results, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another slice writes there: %w", path, err), f.Close())
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r = &results{file: f, at: int64(len(text)), done: seeds{}}
	for i, one := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		if len(one) == 0 {
			continue
		}
		var l line
		err := json.Unmarshal(one, &l)
		if err == nil {
			err = r.done.parse(l.Seeds)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s, line %d: %w", path, i+1, err), f.Close())
		}
	}
	return r, nil
}

// save writes the line of this slice over what it was before.
func (r *results) save(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	_, err = r.file.WriteAt(text, r.at)
	return errors.Join(err, r.file.Truncate(r.at+int64(len(text))), r.file.Sync())
}

// seeds are those of campaigns that are done.
type seeds map[uint64]bool

func (s seeds) String() string {
	var all []uint64
	for seed := range s {
		all = append(all, seed)
	}
	slices.Sort(all)
	var parts []string
	for i := 0; i < len(all); {
		end := i
		for end+1 < len(all) && all[end+1] == all[end]+1 {
			end++
		}
		part := strconv.FormatUint(all[i], 10)
		if end > i {
			part += "-" + strconv.FormatUint(all[end], 10)
		}
		parts = append(parts, part)
		i = end + 1
	}
	return strings.Join(parts, ",")
}

func (s seeds) parse(text string) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, more := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 64)
		last := first
		if err == nil && more {
			last, err = strconv.ParseUint(to, 10, 64)
		}
		if err != nil || last < first || last-first > 1<<20 {
			return fmt.Errorf("seeds %q: %w", text, errors.Join(err, errors.New("not as 7-9,12")))
		}
		for seed := first; seed <= last; seed++ {
			s[seed] = true
		}
	}
	return nil
}

// slice is some campaigns, for a while.
type slice struct {
	commit string
	first  uint64 // seed
	kills  int    // of all seeds, those that are done before among them
	each   int    // of one seed
	most   time.Duration
	stop   func() bool // no other campaign is begun; nil: never
}

// ended adds a campaign to the line.
func (l *line) ended(done, failed seeds, seed uint64, c *campaign, ok bool) {
	if s := c.sights; ok {
		done[seed] = true
		l.Rows += s.rows
	} else {
		failed[seed] = true
	}
	l.Seeds, l.Failed = done.String(), failed.String()
	l.Scenarios[c.scenario.name] += c.sights.kills
	l.Stores[c.scenario.stateStore()] += c.sights.kills
	l.Kills += c.sights.kills
	l.Moving += c.sights.moving
	l.Processes += c.sights.processes
	l.Lost += c.sights.lost
	l.Doubled += c.sights.doubled
	l.Changed += c.sights.changed
	l.StoreBehind += c.sights.storeBehind
	l.Unrecorded += c.sights.unrecorded
}

// run begins campaigns of seeds that are not done, until time is up, and returns how many
// seeds are left.
func (s slice) run(t *testing.T, path string) (left int) {
	t.Helper()
	r, err := openResults(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.file.Close()) }()
	var todo []uint64
	for i := range uint64((s.kills + s.each - 1) / s.each) {
		if !r.done[s.first+i] {
			todo = append(todo, s.first+i)
		}
	}
	if len(todo) == 0 {
		return 0
	}
	begin := time.Now()
	l := line{Date: begin.UTC().Format(time.RFC3339), Commit: s.commit, Seed: s.first, Scenarios: map[string]int{}, Stores: map[string]int{}}
	done, failed := seeds{}, seeds{}
	server := pgtest.Start(t, "autovacuum=off")
	var mu sync.Mutex
	t.Run("slice", func(t *testing.T) {
		for _, seed := range todo {
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				if time.Since(begin) > s.most || s.stop != nil && s.stop() {
					return // it is not recorded
				}
				c := newMixedCampaign(t, seed, server)
				ok := false
				defer func() { // also after FailNow
					mu.Lock()
					defer mu.Unlock()
					l.ended(done, failed, seed, c, ok && !t.Failed())
					l.Seconds = math.Round(time.Since(begin).Seconds())
					l.SecondsPerKill = math.Round(l.Seconds/float64(max(l.Kills, 1))*1000) / 1000
					require.NoError(t, r.save(l))
				}()
				c.run(s.each)
				ok = true
			})
		}
	})
	t.Logf("%d kills, %d while rows moved; %d rows, %d lost, %d doubled, %d changed; %.0f s; seeds %s, failed: %q",
		l.Kills, l.Moving, l.Rows, l.Lost, l.Doubled, l.Changed, l.Seconds, l.Seeds, l.Failed)
	require.NotContains(t, server.Log(t), "PANIC")
	return len(todo) - len(done)
}

// newMixedCampaign draws from all scenarios.
func newMixedCampaign(t *testing.T, seed uint64, server *pgtest.Server) *campaign {
	t.Helper()
	binary, err := program()
	require.NoError(t, err)
	s := mixed(seed)
	dir := keptFolder(t, fmt.Sprintf("go run github.com/go-task/task/v3/cmd/task@v3.44.1 crash:random -- 1 %d", seed), seed, s)
	if s.server {
		return newServerCampaignIn(t, s, seed, binary, dir, server)
	}
	return newCampaignIn(t, s, seed, binary, dir)
}

// mixed is the scenario of a seed: two of three are between databases.
func mixed(seed uint64) scenario {
	if n := seed / 3; seed%3 == 2 {
		return scenarios[n%uint64(len(scenarios))]
	}
	return betweenServers(seed/3*2 + seed%3)
}

// TestPGKillSlice is the program behind task crash:random if RB_SLICE names the results
// file. It goes on with slices until all seeds are done.
func TestPGKillSlice(t *testing.T) {
	path := os.Getenv("RB_SLICE")
	if path == "" {
		testSlices(t)
		return
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	s := slice{
		commit: os.Getenv("RB_COMMIT"), first: uint64(envInt(t, "RB_SEED", 1)), kills: envInt(t, "RB_KILLS", 1000), //nolint:gosec // not negative
		each: killsPerSeed, most: sliceMost, stop: func() bool { return len(interrupted) > 0 },
	}
	for left := 1; left > 0 && !t.Failed() && !s.stop(); {
		t.Run("next", func(t *testing.T) { left = s.run(t, path) })
		t.Logf("%d seeds are left", left)
	}
}

// testSlices interrupts a slice and lets another go on.
func testSlices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reliability", "kills.jsonl")
	s := slice{commit: "abc", first: 1, kills: 4, each: 2, most: time.Hour}
	var begun atomic.Int32
	s.stop = func() bool { return begun.Add(1) > 1 }
	t.Run("interrupted", func(t *testing.T) { require.Equal(t, 1, s.run(t, path)) })
	s.stop = nil
	t.Run("the rest", func(t *testing.T) { require.Zero(t, s.run(t, path)) })
	t.Run("nothing is left", func(t *testing.T) { require.Zero(t, s.run(t, path)) })
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 2)
	all := seeds{}
	for _, one := range lines {
		var l line
		require.NoError(t, json.Unmarshal([]byte(one), &l))
		require.Equal(t, 2, l.Kills)
		require.Positive(t, l.Rows)
		require.Positive(t, l.SecondsPerKill)
		require.Greater(t, l.Processes, l.Kills, "the run that completes is one more")
		require.Equal(t, 2, l.Stores["bbolt"])
		require.Zero(t, l.Lost+l.Doubled+l.Changed)
		require.NoError(t, all.parse(l.Seeds))
	}
	require.Equal(t, "1-2", all.String(), "one between databases and one of files")
}

func TestKillSliceWritesWhatItHasSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kills.jsonl")
	require.NoError(t, os.WriteFile(path, []byte("{\"seeds\":\"1-3,9\",\"kills\":4}\n"), 0o600))
	r, err := openResults(path)
	require.NoError(t, err)
	require.Equal(t, "1-3,9", r.done.String())
	_, err = openResults(path)
	require.ErrorContains(t, err, "another slice writes there")
	l, done, failed := line{Scenarios: map[string]int{}, Stores: map[string]int{}}, seeds{}, seeds{}
	good := &campaign{scenario: scenario{name: "x"}, sights: sights{kills: 25, rows: 100, processes: 30, moving: 20}}
	l.ended(done, failed, 5, good, true)
	require.NoError(t, r.save(l))
	bad := &campaign{scenario: scenario{name: "x"}, sights: sights{kills: 3, rows: 7, lost: 2, doubled: 1}}
	l.ended(done, failed, 6, bad, false)
	require.NoError(t, r.save(l))
	require.NoError(t, r.file.Close())
	r, err = openResults(path)
	require.NoError(t, err)
	require.Equal(t, "1-3,5,9", r.done.String(), "a seed that failed is not done")
	require.NoError(t, r.file.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 2, "one line per slice")
	require.JSONEq(t, `{"date":"","commit":"","seed":0,"seeds":"5","failed":"6","scenarios":{"x":28},"stores":{"bbolt":28},"kills":28,"kills_while_rows_moved":20,
		"processes":30,"rows_moved":100,"rows_lost":2,"rows_doubled":1,"rows_changed":0,"store_behind":0,"unrecorded":0,"seconds":0,"seconds_per_kill":0}`, lines[1])
	require.NoError(t, os.WriteFile(path, []byte("{\"seeds\":\"1-\"}\n"), 0o600))
	_, err = openResults(path)
	require.ErrorContains(t, err, "line 1")
}

func TestKillDamageIsCounted(t *testing.T) {
	a := &oracle{mode: appends}
	a.grow([]row{{ID: 1}, {ID: 2}, {ID: 3}})
	err := a.complete(t.Context(), checked([]row{{ID: 1}, {ID: 1}, {ID: 3, Qty: 1}}))
	require.Equal(t, [3]int64{1, 1, 1}, counted(fmt.Errorf("stream a: %w", err)))
	require.Equal(t, [3]int64{1, 1, 0}, counted(errors.Join(damage{lost: 1}, fmt.Errorf("x: %w", damage{doubled: 1}))))
	require.Equal(t, [3]int64{0, 2, 0}, counted(a.during([]row{{ID: 1}, {ID: 1}, {ID: 2}}, 1, 1)))
	require.Equal(t, [3]int64{2, 0, 0}, counted(a.during([]row{{ID: 1}}, 1, 3)))
	require.Equal(t, [3]int64{}, counted(errors.New("of another kind")))
	require.Equal(t, [3]int64{}, counted(nil))
}

func counted(err error) [3]int64 {
	d := worst(err)
	return [3]int64{d.lost, d.doubled, d.changed}
}
