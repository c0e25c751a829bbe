package killtest

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// finished returns a campaign whose first generation was loaded without a kill.
func finished(t *testing.T, s scenario) *campaign {
	t.Helper()
	binary, err := program()
	require.NoError(t, err)
	c := newCampaignIn(t, s, 1, binary, t.TempDir())
	c.provide()
	require.False(t, c.start(nil).killed)
	require.NoError(t, c.judge())
	c.requireTidy()
	return c
}

func TestKillCheckFindsDamageInDuckDB(t *testing.T) {
	c := finished(t, scenario{to: "duckdb", streams: []stream{
		{name: "a", mode: appends, format: "csv", files: 2, rows: 600},
		{name: "u", mode: upserts, format: "csv", files: 1, rows: 600},
		{name: "r", mode: replaces, format: "csv", files: 1, rows: 600},
	}})
	c.settle()
	path := c.to.(duckDestination).path
	sound := kept(t, path, path+".wal")
	for _, damage := range []struct{ name, sql, targets, want string }{
		{"a row is gone", "DELETE FROM %s WHERE rowid = 7", "aur", "1 rows missing"},
		{"a row is there twice", "INSERT INTO %s SELECT * FROM %[1]s WHERE rowid = 7", "ar", "1 rows doubled"},
		{"a value is another", "UPDATE %s SET qty = qty + 1 WHERE rowid = 7", "aur", "1 rows changed"},
		{"a value is NULL", "UPDATE %s SET flag = NULL WHERE rowid = (SELECT min(rowid) FROM %[1]s WHERE flag)", "aur", "1 rows changed"},
		{"a text has another case", "UPDATE %s SET name = upper(name) WHERE rowid = (SELECT min(rowid) FROM %[1]s WHERE name LIKE 'plain%%')", "aur", "1 rows changed"},
		{"a key is another", "UPDATE %s SET id = -1 WHERE rowid = 7", "aur", "1 rows missing"},
		{"all rows are gone", "DELETE FROM %s", "aur", "rows missing"},
	} {
		for target := range strings.SplitSeq(damage.targets, "") {
			t.Run(damage.name+" in "+target, func(t *testing.T) {
				sound()
				require.NoError(t, c.judge())
				execSQL(t, path, fmt.Sprintf(damage.sql, target))
				require.ErrorContains(t, c.judge(), damage.want)
				d := c.found()
				load := d.loads[target].number
				require.Error(t, c.oracles[target].during(d.rows[target], load, applied(d, target, load)), "the check after a kill finds it too")
			})
		}
	}
	t.Run("a unique index hides rows", func(t *testing.T) {
		sound()
		execSQL(t, path, "DELETE FROM a; CREATE UNIQUE INDEX hides ON a (id)")
		require.ErrorContains(t, c.judge(), "unique in a target of append")
	})
	t.Run("a staging table is left", func(t *testing.T) {
		sound()
		require.NoError(t, c.to.tidy(t.Context()))
		execSQL(t, path, "CREATE TABLE _rapidbyte_stage_x AS SELECT * FROM r")
		require.ErrorContains(t, c.to.tidy(t.Context()), "_rapidbyte_stage_x")
	})
}

// kept remembers files and returns what brings them back.
func kept(t *testing.T, paths ...string) func() {
	t.Helper()
	content := map[string][]byte{}
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil {
			content[path] = b
		}
	}
	return func() {
		for _, path := range paths {
			if b, ok := content[path]; ok {
				require.NoError(t, os.WriteFile(path, b, 0o600))
			} else {
				require.NoError(t, os.RemoveAll(path))
			}
		}
	}
}

func execSQL(t *testing.T, path, text string) {
	t.Helper()
	db, err := sql.Open("duckdb", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), text)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

func TestKillCheckFindsDamageInFiles(t *testing.T) {
	c := finished(t, scenario{to: "file", format: "jsonl", streams: []stream{{name: "a", mode: appends, format: "csv", files: 2, rows: 600}}})
	dir := c.to.(*fileDestination).dir
	m, err := c.to.(*fileDestination).manifest()
	require.NoError(t, err)
	files := m.Targets["a"].Files
	require.Greater(t, len(files), 2)
	first := filepath.Join(dir, "a", files[0].Name)
	sound, err := os.ReadFile(first)
	require.NoError(t, err)

	// judged changes the content of the first file and what the manifest lists, as a
	// writer would that committed the wrong rows.
	judged := func(t *testing.T, content []byte, list func([]manifest.File) []manifest.File) error {
		require.NoError(t, os.WriteFile(first, content, 0o600))
		wrong := *m
		wrong.Number++
		changed := slices.Clone(files)
		sum := sha256.Sum256(content)
		changed[0].SHA256, changed[0].Bytes = hex.EncodeToString(sum[:]), int64(len(content))
		changed[0].Rows = int64(strings.Count(string(content), "\n"))
		wrong.Targets = map[string]manifest.Target{"a": {Columns: m.Targets["a"].Columns, Files: list(changed)}}
		b, err := manifest.Encode(&wrong)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "_rapidbyte", pipeline, manifest.Name(wrong.Number)), b, 0o600))
		c.to = newFileDestination(dir)
		return c.judge()
	}
	all := func(f []manifest.File) []manifest.File { return f }
	lines := strings.SplitAfter(string(sound), "\n")
	require.NoError(t, judged(t, sound, all))
	for name, damage := range map[string]struct {
		content string
		list    func([]manifest.File) []manifest.File
		want    string
	}{
		"a row is gone":            {strings.Join(lines[1:], ""), all, "1 rows missing"},
		"a row is there twice":     {lines[0] + string(sound), all, "1 rows doubled"},
		"a value is another":       {strings.Replace(string(sound), `"qty":`, `"qty":1`, 1), all, "1 rows changed"},
		"a file is listed twice":   {string(sound), func(f []manifest.File) []manifest.File { return append(f, f[1]) }, "rows doubled"},
		"a file is listed no more": {string(sound), func(f []manifest.File) []manifest.File { return f[1:] }, "rows missing"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, judged(t, []byte(damage.content), damage.list), damage.want)
		})
	}
	t.Run("a file is not what was committed", func(t *testing.T) {
		require.NoError(t, judged(t, sound, all))
		require.NoError(t, os.WriteFile(first, append([]byte(" "), sound...), 0o600))
		c.to = newFileDestination(dir)
		require.ErrorContains(t, c.judge(), "not the file that was committed")
	})
	t.Run("files that nobody lists", func(t *testing.T) {
		require.NoError(t, judged(t, sound, all))
		require.NoError(t, c.to.tidy(t.Context()))
		for _, path := range []string{filepath.Join(dir, "a", "orphan.jsonl"), filepath.Join(dir, "_rapidbyte", pipeline, "tmp", "1-x")} {
			require.NoError(t, os.WriteFile(path, sound, 0o600))
			require.NoError(t, c.judge(), "it is not counted")
			require.ErrorContains(t, c.to.tidy(t.Context()), filepath.Base(path))
			require.NoError(t, os.Remove(path))
		}
	})
}

func TestKillCheckFindsAStoreThatIsAhead(t *testing.T) {
	at := func(load, commit uint64) messages.Receipt {
		return messages.Receipt{Part: "a/1", Load: "a", Version: messages.Version{Load: load, Commit: commit}}
	}
	d := nothing()
	d.epoch, d.loads["a"], d.receipts["a/1"] = 5, mark{number: 2}, at(2, 7)
	for _, c := range []struct {
		name  string
		state statestore.State
		want  string
	}{
		{"equal", statestore.State{Epoch: 5, Receipts: []messages.Receipt{at(2, 7)}}, ""},
		{"behind", statestore.State{Epoch: 6, Receipts: []messages.Receipt{at(2, 6)}}, ""},
		{"of an older load", statestore.State{Epoch: 6, Receipts: []messages.Receipt{at(1, 99)}, Finished: []messages.LoadID{{Name: "a", Number: 1}}}, ""},
		{"a commit ahead", statestore.State{Epoch: 5, Receipts: []messages.Receipt{at(2, 8)}}, "the store has commit"},
		{"a load ahead", statestore.State{Epoch: 5, Receipts: []messages.Receipt{at(3, 1)}}, "the store has commit"},
		{"finished", statestore.State{Epoch: 5, Finished: []messages.LoadID{{Name: "a", Number: 2}}}, "has finished load"},
		{"an epoch behind", statestore.State{Epoch: 4}, "handed out 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := behind(stored{state: c.state}, d)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
	missing := nothing()
	missing.epoch = 5
	require.ErrorContains(t, behind(stored{state: statestore.State{Epoch: 5, Receipts: []messages.Receipt{at(2, 1)}}}, missing), "the destination none")
}

func TestKillCheckKnowsWhatMayNotBeSeenMidway(t *testing.T) {
	rows := func(qty int64, ids ...int64) (out []row) {
		for _, id := range ids {
			out = append(out, row{ID: id, Qty: qty})
		}
		return out
	}
	r := &oracle{mode: replaces}
	r.grow(rows(1, 1, 2))
	r.settle(1, 0)
	r.grow(rows(2, 1, 2, 3))
	require.NoError(t, r.during(rows(1, 1, 2), 2, 0))
	require.ErrorContains(t, r.during(nil, 2, 0), "neither version")
	require.ErrorContains(t, r.during(rows(2, 1, 2), 2, 2), "neither version")
	require.ErrorContains(t, r.during(append(rows(1, 1), rows(2, 2, 3)...), 2, 2), "neither version")
	require.NoError(t, r.during(rows(2, 1, 2, 3), 2, 3))
	require.ErrorContains(t, r.during(rows(1, 1, 2), 2, 3), "the new one was seen before: true")

	u := &oracle{mode: upserts}
	u.grow(rows(1, 1, 2))
	u.settle(1, 0)
	u.grow(append(rows(2, 1, 3), rows(3, 1)...))
	require.NoError(t, u.during(rows(1, 1, 2), 2, 0))
	require.ErrorContains(t, u.during(rows(1, 1), 2, 0), "key 2 is gone")
	require.ErrorContains(t, u.during(rows(1, 1, 2, 2), 2, 0), "twice")
	require.ErrorContains(t, u.during(rows(9, 1, 2), 2, 0), "never had")
	require.NoError(t, u.during(append(rows(3, 1), rows(1, 2)...), 2, 1))
	require.ErrorContains(t, u.during(append(rows(2, 1), rows(1, 2)...), 2, 1), "went back")
	require.ErrorContains(t, u.complete(t.Context(), checked(append(rows(2, 1, 3), rows(1, 2)...))), "1 rows changed")
	require.NoError(t, u.complete(t.Context(), checked(append(rows(3, 1), append(rows(1, 2), rows(2, 3)...)...))))

	a := &oracle{mode: appends}
	a.grow(rows(1, 1, 2))
	require.NoError(t, a.during(nil, 0, 0))
	require.NoError(t, a.during(rows(1, 2), 1, 1))
	require.ErrorContains(t, a.during(rows(1, 2), 1, 2), "the receipts say 2")
	require.ErrorContains(t, a.during(rows(1, 2, 2), 1, 2), "too many")
	a.settle(1, 2)
	a.grow(rows(1, 2, 3))
	require.NoError(t, a.complete(t.Context(), checked(rows(1, 1, 2, 2, 3))), "a row that the source has twice")
	require.ErrorContains(t, a.complete(t.Context(), checked(rows(1, 1, 2, 3))), "1 rows missing")
	require.NoError(t, a.during(rows(1, 1, 2, 3), 2, 1))
	require.ErrorContains(t, a.during(rows(1, 1, 2, 3), 2, 0), "the receipts say 2")
	require.ErrorContains(t, a.during(rows(1, 1, 2, 3), 1, 2), "the receipts say 2")
	require.NoError(t, a.during(rows(1, 1, 2, 3), 1, 3), "the load goes on")
	require.ErrorContains(t, a.during(rows(1, 2, 2, 3), 2, 1), "1 rows missing")
}
