package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

const (
	pipe  = messages.PipelineID("shop")
	store = "store-1"
)

// target is a destination folder and the rows that go there.
type target struct {
	t        testing.TB
	dir      string
	dest     *Destination
	attempts messages.Attempt // before the first one of a pass
	join     bool             // the epoch of a pass is registered
	said     promises         // of the newest pass
}

func newTarget(t testing.TB, c DestinationConfig) *target {
	t.Helper()
	c.Path = filepath.Join(t.TempDir(), "out")
	return &target{t: t, dir: c.Path, dest: destAt(t, c)}
}

// atOnce is a disk that needs no fsync, which is most of the time of a test.
func atOnce(*os.File) error { return nil }

func destAt(t testing.TB, c DestinationConfig) *Destination {
	t.Helper()
	d, err := NewDestination(c)
	require.NoError(t, err)
	return d
}

func (g *target) open(epoch messages.Epoch) connectors.Session {
	g.t.Helper()
	s, err := g.dest.Open(g.t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: epoch, Store: store})
	require.NoError(g.t, err)
	g.t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

var idSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)

func idLoad(number uint64, mode connectors.WriteMode, parts int) connectors.Load {
	l := connectors.Load{
		ID: messages.LoadID{Name: "orders", Number: number}, Mode: mode,
		Streams: []connectors.StreamPlan{{Stream: "orders", Schema: idSchema, Target: "orders"}},
	}
	for i := range parts {
		l.Parts = append(l.Parts, connectors.Part{ID: messages.PartID(fmt.Sprintf("orders/%d", i)), Load: l.ID, Streams: []messages.StreamID{"orders"}})
	}
	return l
}

// ids returns a batch of n rows from id from.
func ids(t testing.TB, from, n int) messages.Batch {
	t.Helper()
	var values [][]any
	for i := from; i < from+n; i++ {
		values = append(values, []any{i, fmt.Sprintf("row %d", i)})
	}
	rec, err := conntest.Build(memory.DefaultAllocator, idSchema, values)
	require.NoError(t, err)
	return messages.Batch{Stream: "orders", Version: 1, Rows: messages.ArrowRows{Record: rec}}
}

func wantIDs(from, n int) []string {
	var out []string
	for i := from; i < from+n; i++ {
		out = append(out, fmt.Sprintf("%d|row %d", i, i))
	}
	return out
}

func at(kind messages.BarrierKind, rows, since int64) messages.Barrier {
	return messages.Barrier{Kind: kind, Position: messages.Position{At: messages.Int64Cursor(rows)}, Rows: since}
}

// errCrash is the end of the process, as far as the folder is concerned.
var errCrash = errors.New("crashed")

// crasher lets n steps happen and none after that, cleaning up included.
type crasher struct {
	left  atomic.Int64
	steps []string
	mu    sync.Mutex
}

func (c *crasher) hook(step string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, step)
	if c.left.Add(-1) < 0 {
		return errCrash
	}
	return nil
}

// pass runs a whole load as an engine would, from whatever the folder says, in
// batches of 10 rows with a commit each. It returns the first error.
func (g *target) pass(d *Destination, epoch messages.Epoch, mode connectors.WriteMode, number uint64, base, rows int) error {
	ctx := g.t.Context()
	s, err := d.Open(ctx, connectors.SessionRequest{Pipeline: pipe, Epoch: epoch, Store: store, Join: g.join})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close(ctx) }()
	g.said = promises{epoch: epoch}
	l := idLoad(number, mode, 2)
	if err := s.Begin(ctx, l); err != nil {
		return err
	}
	for i, p := range l.Parts {
		if err := g.part(s, p, messages.Token{Epoch: epoch, Attempt: g.attempts + messages.Attempt(i+1)}, base+i*rows, rows); err != nil {
			return err
		}
	}
	err = s.Finish(ctx, l.ID)
	g.said.finished = err == nil
	return err
}

func (g *target) part(s connectors.Session, p connectors.Part, token messages.Token, base, rows int) error {
	ctx := g.t.Context()
	w, r, err := s.OpenWriter(ctx, p, token)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close(ctx) }()
	from, err := r.Position.At.Int64()
	require.NoError(g.t, err)
	require.Equal(g.t, from, r.Rows.Read)
	for done := int(from); !r.Final; {
		if err := w.Write(ctx, ids(g.t, base+done, 10)); err != nil {
			return err
		}
		done += 10
		kind := messages.BarrierPeriodic
		if done == rows {
			kind = messages.BarrierEnd
		}
		if r, err = w.Commit(ctx, at(kind, int64(done), 10)); err != nil {
			return err
		}
		g.said.committed(r)
	}
	return nil
}

// TestCrashAtEveryStepIsExact ends the process before each step that touches the
// folder, in turn; a new owner goes on, and every row is there once. Whatever a reader sees
// in between is a prefix of each part (append) or a whole version (replace).
func TestCrashAtEveryStepIsExact(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			seen := make(map[string]bool)
			n := 0
			for ; ; n++ {
				g := newTarget(t, DestinationConfig{Format: FormatJSONL})
				g.dest.flush = atOnce
				before := 0
				if mode == connectors.ModeReplace {
					require.NoError(t, g.pass(g.dest, 1, mode, 1, 1000, 20)) // an old version to keep
					before = 40
				}
				c := &crasher{}
				c.left.Store(int64(n))
				crashing := destAt(t, g.dest.config)
				crashing.hook, crashing.flush = c.hook, atOnce
				err := g.pass(crashing, 2, mode, 2, 0, 20)
				for _, step := range c.steps {
					seen[step] = true
				}
				if err == nil && c.left.Load() >= 0 {
					break // it never got that far
				}
				g.seesWholeVersion(mode, before)
				require.NoError(t, g.pass(g.dest, 3, mode, 2, 0, 20), "after a crash at step %d, %v", n, c.steps[len(c.steps)-1])
				require.ElementsMatch(t, wantIDs(0, 40), committedRows(t, g.dir, pipe, "orders", FormatJSONL), "crash at step %d", n)
				g.holdsNoOrphans()
			}
			require.Greater(t, n, 40)
			for _, step := range []string{
				stepWrite, stepSync, stepRename, stepDirSync, stepManifest, stepManifestSync, stepLink, stepLinked, stepLinkSync, stepTrim, stepRemove,
			} {
				require.True(t, seen[step], "step %s was never taken", step)
			}
		})
	}
}

func (g *target) seesWholeVersion(mode connectors.WriteMode, before int) {
	g.t.Helper()
	rows := committedRows(g.t.(*testing.T), g.dir, pipe, "orders", FormatJSONL)
	if mode == connectors.ModeAppend {
		require.Zero(g.t, len(rows)%10, "whole commits only")
		return
	}
	if len(rows) == before && before > 0 && strings.HasPrefix(rows[0], "10") {
		require.ElementsMatch(g.t, wantIDs(1000, 40), rows)
		return
	}
	require.ElementsMatch(g.t, wantIDs(0, 40), rows)
}

// holdsNoOrphans opens the folder once more, which sweeps it, and requires that
// every file left is listed.
func (g *target) holdsNoOrphans() {
	g.t.Helper()
	s, err := g.dest.Open(g.t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 9, Store: store})
	require.NoError(g.t, err)
	require.NoError(g.t, s.Close(g.t.Context()))
	c, err := ReadCommitted(g.dir, pipe)
	require.NoError(g.t, err)
	on, err := filepath.Glob(filepath.Join(g.dir, "orders", "*"))
	require.NoError(g.t, err)
	require.ElementsMatch(g.t, c.Files("orders"), on)
	tmp, err := os.ReadDir(filepath.Join(g.dir, bookkeeping, string(pipe), "tmp"))
	require.NoError(g.t, err)
	require.Empty(g.t, tmp)
}

// TestPausedWriterCommitsNothing pauses a writer right before its link; another one
// takes the part over, as a new owner or as a younger attempt of the same, and
// publishes so much that the paused one's number is free again.
func TestPausedWriterCommitsNothing(t *testing.T) {
	t.Run("new owner", func(t *testing.T) { pausedCommitsNothing(t, 2, messages.Token{Epoch: 2}) })
	t.Run("younger attempt", func(t *testing.T) { pausedCommitsNothing(t, 1, messages.Token{Epoch: 1, Attempt: 11}) })
}

func pausedCommitsNothing(t *testing.T, epoch messages.Epoch, by messages.Token) {
	t.Helper()
	g := newTarget(t, DestinationConfig{Format: FormatJSONL})
	g.attempts, g.join = 10, epoch == 1
	zombie := destAt(t, g.dest.config)
	armed := false
	zombie.hook = func(step string) error {
		if step != stepLink || !armed {
			return nil
		}
		armed = false
		require.NoError(t, g.pass(g.dest, epoch, connectors.ModeAppend, 1, 0, 50))
		return nil
	}
	s, err := zombie.Open(t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 1, Store: store})
	require.NoError(t, err)
	defer func() { _ = s.Close(t.Context()) }()
	l := idLoad(1, connectors.ModeAppend, 2)
	require.NoError(t, s.Begin(t.Context(), l))
	w, _, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(t, err)
	require.NoError(t, w.Write(t.Context(), ids(t, 0, 10)))
	armed = true
	_, err = w.Commit(t.Context(), at(messages.BarrierPeriodic, 10, 10))
	var fenced *connectors.FencedError
	require.ErrorAs(t, err, &fenced)
	require.Equal(t, by, fenced.Registered)
	require.NoError(t, w.Close(t.Context()))
	require.ElementsMatch(t, wantIDs(0, 100), committedRows(t, g.dir, pipe, "orders", FormatJSONL))
	g.holdsNoOrphans()
}

// TestWriterPausedBehindItsLinkHasCommitted pauses a writer right behind its link: the
// commit has happened, and whoever publishes next builds on it. The files stay.
func TestWriterPausedBehindItsLinkHasCommitted(t *testing.T) {
	for _, c := range []struct {
		name   string
		epoch  messages.Epoch // of who comes between
		rows   int            // of each part that it writes
		outlet func(t *testing.T, err error)
	}{
		{"new owner", 2, 20, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"new owner, trimmed since", 2, 50, func(t *testing.T, err error) {
			var fenced *connectors.FencedError
			require.ErrorAs(t, err, &fenced)
		}},
		{"same owner, trimmed since", 1, 50, func(t *testing.T, err error) {
			require.Equal(t, connectors.KindFenced, connectors.KindOf(err))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTarget(t, DestinationConfig{Format: FormatJSONL})
			g.attempts, g.join = 10, c.epoch == 1
			paused := destAt(t, g.dest.config)
			armed := false
			paused.hook = func(step string) error {
				if step != stepLinked || !armed {
					return nil
				}
				armed = false
				if c.rows > 20 {
					require.NoError(t, g.pass(g.dest, c.epoch, connectors.ModeAppend, 1, 0, c.rows))
					return nil
				}
				return g.open(c.epoch).Close(t.Context())
			}
			s, err := paused.Open(t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 1, Store: store})
			require.NoError(t, err)
			defer func() { _ = s.Close(t.Context()) }()
			l := idLoad(1, connectors.ModeAppend, 2)
			require.NoError(t, s.Begin(t.Context(), l))
			w, _, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
			require.NoError(t, err)
			require.NoError(t, w.Write(t.Context(), ids(t, 0, 10)))
			armed = true
			_, err = w.Commit(t.Context(), at(messages.BarrierPeriodic, 10, 10))
			c.outlet(t, err)
			require.False(t, armed)
			require.NoError(t, w.Close(t.Context()))
			require.NoError(t, g.pass(g.dest, 5, connectors.ModeAppend, 1, 0, c.rows))
			require.ElementsMatch(t, wantIDs(0, 2*c.rows), committedRows(t, g.dir, pipe, "orders", FormatJSONL))
			g.holdsNoOrphans()
		})
	}
}

// TestTargetsThatAreOneFolder loads two targets whose names the file system takes for
// one, as it does where it ignores case. Neither is an orphan of the other.
func TestTargetsThatAreOneFolder(t *testing.T) {
	g := newTarget(t, DestinationConfig{Format: FormatJSONL})
	require.NoError(t, g.pass(g.dest, 1, connectors.ModeAppend, 1, 0, 10))
	require.NoError(t, os.Symlink("orders", filepath.Join(g.dir, "Orders")))
	s := g.open(2)
	l := idLoad(1, connectors.ModeAppend, 1)
	l.ID.Name, l.Streams[0].Target = "other", "Orders"
	l.Parts[0].ID, l.Parts[0].Load = "other/0", l.ID
	require.NoError(t, s.Begin(t.Context(), l))
	require.NoError(t, g.part(s, l.Parts[0], messages.Token{Epoch: 2, Attempt: 1}, 100, 10))
	g.open(3)
	require.ElementsMatch(t, wantIDs(0, 20), committedRows(t, g.dir, pipe, "orders", FormatJSONL))
	require.ElementsMatch(t, wantIDs(100, 10), committedRows(t, g.dir, pipe, "Orders", FormatJSONL))
}

func TestNewFoldersAreMadeDurable(t *testing.T) {
	dir := t.TempDir()
	var synced []string
	note := func(dir string) error {
		synced = append(synced, dir)
		return nil
	}
	path := filepath.Join(dir, "a", "b", "c")
	require.NoError(t, makePath(path, note))
	require.Equal(t, []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "a", "b")}, synced)
	require.DirExists(t, path)
	require.NoError(t, makePath(path, note))
	require.Len(t, synced, 3, "nothing was made")
	require.NoError(t, destAt(t, DestinationConfig{Path: path, Format: FormatCSV}).syncPath(path))
}

// TestTwoOwnersRaceForOneNumber runs sessions of rising epochs at once: each committed
// row is there once, whoever wrote it.
func TestTwoOwnersRaceForOneNumber(t *testing.T) {
	g := newTarget(t, DestinationConfig{Format: FormatCSV})
	g.dest.flush = atOnce
	var wg sync.WaitGroup
	for epoch := range messages.Epoch(6) {
		owner := *g
		wg.Go(func() {
			err := owner.pass(destAtFast(t, owner.dest.config), epoch+1, connectors.ModeAppend, 1, 0, 100)
			if err != nil && connectors.KindOf(err) != connectors.KindFenced {
				t.Errorf("epoch %d: %v", epoch+1, err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, g.pass(g.dest, 7, connectors.ModeAppend, 1, 0, 100))
	require.ElementsMatch(t, wantIDs(0, 200), committedRows(t, g.dir, pipe, "orders", FormatCSV))
}

func destAtFast(t testing.TB, c DestinationConfig) *Destination {
	d := destAt(t, c)
	d.flush = atOnce
	return d
}

// TestReadersNeverSeeHalfAReplace polls the manifest while versions of different
// length replace each other.
func TestReadersNeverSeeHalfAReplace(t *testing.T) {
	g := newTarget(t, DestinationConfig{Format: FormatJSONL})
	g.dest.flush = atOnce
	require.NoError(t, g.pass(g.dest, 1, connectors.ModeReplace, 1, 100_000, 20))
	done := make(chan struct{})
	var wg sync.WaitGroup
	polls := 0
	wg.Go(func() {
		last := ""
		for {
			select {
			case <-done:
				return
			default:
			}
			rows := committedRows(t, g.dir, pipe, "orders", FormatJSONL)
			version := rows[0][:1]
			want := map[string]int{"1": 40, "2": 80, "3": 120, "4": 160, "5": 200}[version]
			if len(rows) != want {
				t.Errorf("version %s has %d rows, want %d", version, len(rows), want)
				return
			}
			if version < last {
				t.Errorf("version %s after %s", version, last)
				return
			}
			last = version
			polls++
		}
	})
	for v := 2; v <= 5; v++ {
		require.NoError(t, g.pass(g.dest, messages.Epoch(v), connectors.ModeReplace, uint64(v), v*100_000, v*20))
	}
	close(done)
	wg.Wait()
	require.Positive(t, polls)
}

func TestCommitsAreSplitIntoFiles(t *testing.T) {
	for _, c := range []DestinationConfig{
		{Format: FormatCSV, MaxRowsPerFile: 7}, {Format: FormatParquet, MaxRowsPerFile: 7}, {Format: FormatArrow, MaxFileBytes: 40_000}, {Format: FormatJSONL, MaxFileBytes: 40_000},
	} {
		g := newTarget(t, c)
		s := g.open(1)
		l := idLoad(1, connectors.ModeAppend, 1)
		require.NoError(t, s.Begin(t.Context(), l))
		w, _, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
		require.NoError(t, err)
		n := 50
		if c.MaxFileBytes > 0 {
			n = 20_000
		}
		require.NoError(t, w.Write(t.Context(), ids(t, 0, n)))
		_, err = w.Commit(t.Context(), at(messages.BarrierEnd, int64(n), int64(n)))
		require.NoError(t, err)
		require.NoError(t, w.Close(t.Context()))
		got, err := ReadCommitted(g.dir, pipe)
		require.NoError(t, err)
		require.EqualValues(t, n, got.Rows("orders"))
		require.GreaterOrEqual(t, len(got.Files("orders")), 3, c)
		for _, f := range got.Targets["orders"].Files {
			if c.MaxRowsPerFile > 0 {
				require.LessOrEqual(t, f.Rows, c.MaxRowsPerFile)
			}
		}
		require.ElementsMatch(t, wantIDs(0, n), committedRows(t, g.dir, pipe, "orders", c.Format))
	}
}

func TestDamagedManifestIsNeverGuessed(t *testing.T) {
	g := newTarget(t, DestinationConfig{Format: FormatJSONL})
	require.NoError(t, g.pass(g.dest, 1, connectors.ModeAppend, 1, 0, 20))
	names, err := filepath.Glob(filepath.Join(g.dir, bookkeeping, string(pipe), "m-*.json"))
	require.NoError(t, err)
	require.Len(t, names, manifestsKept)
	newest := names[len(names)-1]
	good, err := os.ReadFile(newest)
	require.NoError(t, err)
	flip := func(at int) []byte {
		b := append([]byte(nil), good...)
		b[at] ^= 4
		return b
	}
	for _, bad := range [][]byte{{}, good[:len(good)/2], flip(len(good) / 2), flip(20), []byte("{}"), []byte("null"), append([]byte("x"), good...)} {
		require.NoError(t, os.WriteFile(newest, bad, 0o600))
		_, err := g.dest.Open(t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 2, Store: store})
		e := coded(t, err, messages.CodeDestDamaged, connectors.KindConfig)
		require.Contains(t, e.Place.File, filepath.Base(newest))
	}
	require.NoError(t, os.WriteFile(newest, good, 0o600))
	require.NoError(t, g.pass(g.dest, 2, connectors.ModeAppend, 1, 0, 20))
}

func TestFolderProblemsAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := put(t, dir, "file", "x")
	for _, path := range []string{file, file + "/below"} {
		d := destAt(t, DestinationConfig{Path: path})
		_, err := d.Open(t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 1, Store: store})
		coded(t, err, messages.CodeDestMissing, connectors.KindConfig)
		found, err := d.Check(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, messages.CodeDestMissing, found[0].Code)
	}
	d := destAt(t, DestinationConfig{Path: dir})
	_, err := d.Open(t.Context(), connectors.SessionRequest{Pipeline: "../x", Epoch: 1, Store: store})
	coded(t, err, messages.CodeDocValue, connectors.KindConfig)
	s, err := d.Open(t.Context(), connectors.SessionRequest{Pipeline: pipe, Epoch: 1, Store: store})
	require.NoError(t, err)
	defer func() { _ = s.Close(t.Context()) }()
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "escape")))
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, ".hidden", "_RapidByte", "a\x00b", "a\nb", strings.Repeat("x", 300), "\xff"} {
		l := idLoad(1, connectors.ModeAppend, 1)
		l.Streams[0].Target = name
		coded(t, s.Begin(t.Context(), l), messages.CodeSchemaName, connectors.KindConfig)
		found, err := d.Check(t.Context(), []connectors.Load{l})
		require.NoError(t, err)
		require.Len(t, found, 1)
	}
	l := idLoad(1, connectors.ModeAppend, 1)
	l.Streams[0].Target = "escape"
	require.Error(t, s.Begin(t.Context(), l))
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left, "nothing leaves the folder")
}

func TestErrorsOfTheFileSystemAreClassified(t *testing.T) {
	for errno, want := range map[error]struct {
		code messages.Code
		kind connectors.Kind
	}{
		os.ErrPermission: {messages.CodeDestDenied, connectors.KindConfig},
		errNoSpace:       {messages.CodeDestFull, connectors.KindTransient},
		errReadOnly:      {messages.CodeDestDenied, connectors.KindConfig},
		errStop:          {messages.CodeDest, connectors.KindTransient},
	} {
		coded(t, destError("x", "y", connectors.CommitNone, fmt.Errorf("wrapped: %w", errno)), want.code, want.kind)
	}
	coded(t, sourceError("x", "y", os.ErrPermission), messages.CodeSourceDenied, connectors.KindConfig)
	coded(t, sourceError("x", "y", os.ErrNotExist), messages.CodeSourceMissing, connectors.KindConfig)
	coded(t, sourceError("x", "y", errStop), messages.CodeSource, connectors.KindTransient)
}

func TestTypeChangeIsRefusedAndNewColumnsAreTaken(t *testing.T) {
	g := newTarget(t, DestinationConfig{Format: FormatCSV})
	s := g.open(1)
	require.NoError(t, s.Begin(t.Context(), idLoad(1, connectors.ModeAppend, 1)))
	l := idLoad(2, connectors.ModeAppend, 1)
	l.Streams[0].Schema = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}}, nil)
	e := coded(t, s.Begin(t.Context(), l), messages.CodeSchemaType, connectors.KindSchema)
	require.Equal(t, "id", e.Place.Field)
	l.Mode = connectors.ModeReplace
	require.NoError(t, s.Begin(t.Context(), l), "a replace brings its own columns")
	l = idLoad(3, connectors.ModeAppend, 1)
	l.Streams[0].Schema = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "more", Type: arrow.PrimitiveTypes.Float64}}, nil)
	require.NoError(t, s.Begin(t.Context(), l))
	c, err := ReadCommitted(g.dir, pipe)
	require.NoError(t, err)
	require.Len(t, c.Targets["orders"].Columns, 3)
}

func TestDeadLettersAreListedWithTheirCommit(t *testing.T) {
	g := newTarget(t, DestinationConfig{})
	s := g.open(1)
	l := idLoad(1, connectors.ModeAppend, 1)
	require.NoError(t, s.Begin(t.Context(), l))
	w, _, err := s.OpenWriter(t.Context(), l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(t, err)
	defer func() { _ = w.Close(t.Context()) }()
	require.NoError(t, w.Write(t.Context(), messages.Rejected{Stream: "orders", Reason: "too_short", Rows: ids(t, 3, 2).Rows}))
	c, err := ReadCommitted(g.dir, pipe)
	require.NoError(t, err)
	require.Empty(t, c.Dead)
	_, err = w.Commit(t.Context(), at(messages.BarrierEnd, 2, 2))
	require.NoError(t, err)
	c, err = ReadCommitted(g.dir, pipe)
	require.NoError(t, err)
	require.Len(t, c.Dead, 1)
	content, err := os.ReadFile(filepath.Join(g.dir, bookkeeping, string(pipe), "dead", c.Dead[0].Name))
	require.NoError(t, err)
	require.Equal(t, []string{
		`{"stream":"orders","part":"orders/0","reason":"too_short","row":{"id":3,"name":"row 3"}}`,
		`{"stream":"orders","part":"orders/0","reason":"too_short","row":{"id":4,"name":"row 4"}}`, "",
	}, strings.Split(string(content), "\n"))
}
