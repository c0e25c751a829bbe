package file

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// paperDisk knows what of a folder is on the disk, as POSIX promises it: of a file what
// it held when it was last synced, of a folder the names it held then. Everything else
// may be there after a power cut, or not.
type paperDisk struct {
	t     *testing.T
	base  string // a folder that was always there
	nodes map[uint64]*node
	held  []*os.File // so that no inode is used again
}

// node is a file or a folder.
type node struct {
	dir    bool
	data   []byte           // of a file, as synced
	synced bool             // the data
	names  map[string]*node // of a folder, as synced
}

func newPaperDisk(t *testing.T) *paperDisk {
	t.Helper()
	d := &paperDisk{t: t, base: t.TempDir(), nodes: map[uint64]*node{}}
	t.Cleanup(d.release)
	return d
}

func (d *paperDisk) release() {
	for _, f := range d.held {
		require.NoError(d.t, f.Close())
	}
	d.held = nil
}

// at returns the node of a path.
func (d *paperDisk) at(path string) *node {
	var stat unix.Stat_t
	require.NoError(d.t, unix.Stat(path, &stat))
	n := d.nodes[stat.Ino]
	if n == nil {
		f, err := os.Open(path)
		require.NoError(d.t, err)
		d.held = append(d.held, f)
		n = &node{dir: stat.Mode&unix.S_IFMT == unix.S_IFDIR}
		d.nodes[stat.Ino] = n
	}
	return n
}

// names returns what a folder holds at the moment.
func (d *paperDisk) names(path string) map[string]*node {
	entries, err := os.ReadDir(path)
	require.NoError(d.t, err)
	out := map[string]*node{}
	for _, e := range entries {
		out[e.Name()] = d.at(filepath.Join(path, e.Name()))
	}
	return out
}

// flush stands for fsync.
func (d *paperDisk) flush(f *os.File) error {
	n := d.at(f.Name())
	if n.dir {
		n.names = d.names(f.Name())
		return nil
	}
	data, err := os.ReadFile(f.Name())
	n.data, n.synced = data, true
	return err
}

// cut returns a copy of the folder as it is when the power comes back. keep says of each
// thing that was not synced whether it happened.
func (d *paperDisk) cut(keep func() bool) string {
	to := d.t.TempDir()
	d.copy(d.at(d.base), d.base, to, keep)
	return to
}

// copy writes what is left of a folder; live is where it was, empty if that is gone.
func (d *paperDisk) copy(n *node, live, to string, keep func() bool) {
	require.NoError(d.t, os.MkdirAll(to, 0o750))
	left, now := map[string]*node{}, map[string]*node{}
	if live != "" {
		now = d.names(live)
	}
	for name, child := range n.names {
		if now[name] == child || !keep() { // else it was removed, or replaced
			left[name] = child
		}
	}
	for name, child := range now {
		if n.names[name] != child && keep() {
			left[name] = child
		}
	}
	for name, child := range left {
		path, from := filepath.Join(to, name), ""
		if now[name] == child {
			from = filepath.Join(live, name)
		}
		if child.dir {
			d.copy(child, from, path, keep)
			continue
		}
		data := child.data
		if !child.synced && from != "" && keep() {
			var err error
			data, err = os.ReadFile(from)
			require.NoError(d.t, err)
		}
		require.NoError(d.t, os.WriteFile(path, data, 0o600))
	}
}

// promises is what a destination has said yes to in one pass.
type promises struct {
	epoch    messages.Epoch // that owns the folder
	commits  map[messages.PartID]uint64
	finished bool
}

func (p *promises) committed(r messages.Receipt) {
	if p.commits == nil {
		p.commits = map[messages.PartID]uint64{}
	}
	p.commits[r.Part] = r.Version.Commit
}

// TestPowerCutAtEveryStepKeepsWhatWasPromised cuts the power before each step that
// touches the folder, in turn. Of what was not synced nothing is left, or some of it;
// whatever was acknowledged is there, and a new owner goes on as if nothing had been.
func TestPowerCutAtEveryStepKeepsWhatWasPromised(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			n, commits := 0, 0
			for ; ; n++ {
				disk := newPaperDisk(t)
				_ = disk.flush(open(t, disk.base))
				g := &target{t: t, dir: filepath.Join(disk.base, "made", "out")}
				g.dest = destAt(t, DestinationConfig{Path: g.dir, Format: FormatJSONL})
				g.dest.flush = disk.flush
				before := 0
				if mode == connectors.ModeReplace {
					require.NoError(t, g.pass(g.dest, 1, mode, 1, 1000, 20))
					before = 40
				}
				c := &crasher{}
				c.left.Store(int64(n))
				g.said = promises{}
				g.dest.hook = c.hook
				err := g.pass(g.dest, 2, mode, 2, 0, 20)
				commits = max(commits, len(g.said.commits))
				random := rand.New(rand.NewPCG(uint64(n), 0)) //nolint:gosec // counts steps
				for _, keep := range []func() bool{func() bool { return false }, func() bool { return random.IntN(2) == 0 }} {
					g.afterPowerCut(disk.cut(keep), mode, before, fmt.Sprintf("step %d of %v", n, c.steps))
				}
				disk.release()
				if err == nil && c.left.Load() >= 0 {
					break
				}
			}
			require.Greater(t, n, 40)
			require.Equal(t, 2, commits, "parts that were committed to")
		})
	}
}

// afterPowerCut checks what is left in base, and that a new owner completes it.
func (g *target) afterPowerCut(base string, mode connectors.WriteMode, before int, when string) {
	g.t.Helper()
	after := &target{t: g.t, dir: filepath.Join(base, "made", "out")}
	after.dest = destAt(g.t, DestinationConfig{Path: after.dir, Format: FormatJSONL})
	after.dest.flush = atOnce
	if g.said.epoch > 0 {
		_, err := after.dest.Open(g.t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: g.said.epoch - 1, Store: store})
		require.Equal(g.t, connectors.KindFenced, connectors.KindOf(err), "the owner was forgotten: %v; %s", err, when)
	}
	after.seesWholeVersion(mode, before)
	s := after.open(3)
	for part, commit := range g.said.commits {
		has := uint64(0)
		for _, r := range s.Recovered().Receipts {
			if r.Part == part && r.Version.Load == 2 {
				has = r.Version.Commit
			}
		}
		require.GreaterOrEqual(g.t, has, commit, "an acknowledged commit of %s is lost; %s", part, when)
	}
	require.Equal(g.t, g.said.finished, g.said.finished && s.Recovered().Loads[0].Finished, "a finished load is open again; %s", when)
	require.NoError(g.t, s.Close(g.t.Context()))
	require.NoError(g.t, after.pass(after.dest, 4, mode, 2, 0, 20), when)
	require.ElementsMatch(g.t, wantIDs(0, 40), committedRows(g.t.(*testing.T), after.dir, pipe, "orders", FormatJSONL), when) //nolint:forcetypeassert // of this test
	after.holdsNoOrphans()
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}
