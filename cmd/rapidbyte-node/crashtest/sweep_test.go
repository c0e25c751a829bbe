package crashtest

import (
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// slice is how long a full sweep takes on new cells.
const slice = 40 * time.Minute

// atOnce is how many cells are under way.
const atOnce = 2

// sweep is one run of the test.
type sweep struct {
	binary string
	server *pgtest.Server
	places chan struct{} // capacity atOnce: one token per cell under way
	until  time.Time     // zero: no end
	book   *book         // nil: nothing is kept

	mu   sync.Mutex
	sum  figures
	left int
}

func TestCrashSweep(t *testing.T) {
	cells, kept := chosen(t)
	binary, err := program(t)
	require.NoError(t, err)
	s := &sweep{
		binary: binary, places: make(chan struct{}, atOnce),
		server: pgtest.Start(t, "fsync=off", "full_page_writes=off", "autovacuum=off"),
	}
	if kept {
		s.book, err = openBook()
		require.NoError(t, err)
		s.until = time.Now().Add(slice)
		cells = slices.DeleteFunc(cells, func(c cell) bool { return s.book.has(c) })
	}
	t.Run("cells", func(t *testing.T) {
		for _, m := range modes {
			for _, store := range stores {
				mine := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.mode != m.name || c.store != store })
				if len(mine) > 0 {
					t.Run(m.name+"/"+store, func(t *testing.T) {
						t.Parallel()
						s.group(t, m, store, mine)
					})
				}
			}
		}
	})
	t.Logf("%+v; %d cells are left", s.sum, s.left)
	require.NotContains(t, s.server.Log(t), "PANIC")
	if t.Failed() || s.book == nil {
		return
	}
	if s.left > 0 {
		t.Logf("run it again: it goes on with the cells that are left")
		return
	}
	require.NoError(t, s.book.conclude())
}

// chosen are the cells to run; kept says that they are kept in a book.
func chosen(t *testing.T) (cells []cell, kept bool) {
	t.Helper()
	switch which := os.Getenv("RB_CRASH"); which {
	case "", "short":
		return shortCells(), false
	case "full":
		return fullCells(), true
	default:
		pattern, err := regexp.Compile(which)
		require.NoError(t, err)
		cells = slices.DeleteFunc(fullCells(), func(c cell) bool { return !pattern.MatchString(c.String()) })
		require.NotEmpty(t, cells, "no cell matches RB_CRASH")
		return cells, false
	}
}

// group runs the cells of one mode and one store, one after the other.
func (s *sweep) group(t *testing.T, m mode, store string, cells []cell) {
	s.places <- struct{}{}
	defer func() { <-s.places }()
	g, err := newGroup(t, m, store, s.binary, s.server)
	require.NoError(t, err)
	require.NoError(t, compareHits(m, g.hits))
	for i, c := range cells {
		if !s.until.IsZero() && time.Now().After(s.until) {
			s.count(figures{}, len(cells)-i)
			return
		}
		f, err := g.run(t.Context(), c)
		s.count(f, 0)
		if err != nil {
			t.Errorf("%s: %v\nagain: RB_CRASH='^%s$' go test -run TestCrashSweep ./cmd/rapidbyte-node/crashtest", c, err, c)
			continue
		}
		if s.book != nil {
			require.NoError(t, s.book.add(c, f))
		}
	}
}

func (s *sweep) count(f figures, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.add(f)
	s.left += left
}

// Each pair of values occurs in the short sweep.
func TestCrashSweepHasEachPair(t *testing.T) {
	pairs := map[[2]string]bool{}
	for _, c := range shortCells() {
		if len(c.then) > 0 {
			continue
		}
		values := []string{c.mode, c.store, string(c.point), c.action}
		if c.middle {
			values = append(values, "middle")
		} else {
			values = append(values, "first")
		}
		for _, a := range values {
			for _, b := range values {
				pairs[[2]string{a, b}] = true
			}
		}
	}
	actions, hits := []string{kill9, panics, fails}, []string{"first", "middle"}
	for _, a := range actions {
		for _, b := range slices.Concat(stores, hits, everyMode) {
			require.True(t, pairs[[2]string{a, b}], "%s with %s", a, b)
		}
	}
	for _, store := range stores {
		for _, b := range slices.Concat(hits, everyMode) {
			require.True(t, pairs[[2]string{store, b}], "%s with %s", store, b)
		}
	}
	for _, p := range failpoint.Points() {
		for _, m := range belongs[p] {
			require.True(t, pairs[[2]string{string(p), m}], "%s in %s", p, m)
		}
		for _, a := range actions[:min(len(actions), len(belongs[p]))] {
			require.True(t, len(belongs[p]) < len(actions) || pairs[[2]string{string(p), a}], "%s with %s", p, a)
		}
	}
}

// Planted damage is found.
func TestCrashSweepFindsDamage(t *testing.T) {
	for _, m := range modes {
		for _, st := range m.streams {
			t.Run(m.name+"/"+st.name, func(t *testing.T) { requireDamageFound(t, st) })
		}
	}
}

func requireDamageFound(t *testing.T, st stream) {
	t.Helper()
	witnessed := func() *witness { return &witness{stream: st, renewed: map[string]bool{}} }
	state := func(rows []row) found {
		f := nothing()
		f.loads[st.name] = mark{number: 2}
		for _, r := range rows {
			f.rows[st.name] = append(f.rows[st.name], r.text())
		}
		f.receipts["p"] = receiptOf(st, len(f.rows[st.name]))
		return f
	}
	all := st.target(st.source())
	good := state(all)
	require.NoError(t, witnessed().during(good))
	require.NoError(t, witnessed().complete(good).same())
	for name, rows := range map[string][]row{
		"lost": all[:len(all)-1], "doubled": append(slices.Clone(all), all[0]), "foreign": append(slices.Clone(all[1:]), row{id: 1, name: "x"}),
	} {
		bad := state(rows)
		require.Error(t, witnessed().complete(bad).same(), name)
		bad.receipts["p"] = receiptOf(st, len(all))
		if name != "lost" || st.mode != upserts {
			require.Error(t, witnessed().during(bad), name)
		}
	}
	if len(st.old) > 0 && st.mode != appends {
		w := witnessed()
		require.NoError(t, w.during(good))
		require.Error(t, w.during(state(st.target(st.old))), "it went back")
	}
}

// receiptOf says that n rows beside the old ones were applied.
func receiptOf(st stream, n int) messages.Receipt {
	r := messages.Receipt{Part: "p", Load: st.name, Version: messages.Version{Load: 2, Commit: 1}, Final: true}
	r.Rows.Applied = int64(n - len(st.target(st.old)))
	return r
}
