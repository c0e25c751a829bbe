package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// past is a folder of files with what a destination knows of their stream.
type past struct {
	t     *testing.T
	dir   string
	src   *Source
	known connectors.Recovered
}

func newPast(t *testing.T) *past {
	t.Helper()
	dir := t.TempDir()
	src, err := NewSource(SourceConfig{Path: filepath.Join(dir, "*.csv")})
	require.NoError(t, err)
	return &past{t: t, dir: dir, src: src}
}

func (p *past) put(name, content string) { put(p.t, p.dir, name, content) }

// scan plans the stream, or returns the error.
func (p *past) scan(mode connectors.WriteMode, fresh bool) (connectors.Plan, error) {
	scan, err := p.src.Scan(p.t.Context(), connectors.ScanRequest{
		Streams: []connectors.StreamSpec{{Stream: "s", Mode: mode, Fresh: fresh}}, Previous: p.known, Splits: 1,
	})
	if err != nil {
		return connectors.Plan{}, err
	}
	return scan.Plan(), nil
}

func (p *past) mustScan(mode connectors.WriteMode) connectors.Plan {
	p.t.Helper()
	plan, err := p.scan(mode, false)
	require.NoError(p.t, err)
	return plan
}

// begun makes the plan's load the one that the destination knows; the named parts
// are final.
func (p *past) begun(plan connectors.Plan, finished bool, final ...messages.PartID) {
	p.t.Helper()
	require.Len(p.t, plan.Loads, 1)
	l := plan.Loads[0]
	p.known = connectors.Recovered{
		Loads: []connectors.LoadStatus{{ID: l.ID, Mode: l.Mode, Finished: finished, Identity: plan.Identity, History: l.History}}, Parts: l.Parts,
	}
	for _, part := range l.Parts {
		r := messages.Receipt{Part: part.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number, Commit: 1}, Final: finished}
		for _, id := range final {
			r.Final = r.Final || id == part.ID
		}
		r.Rows.Read = 7
		p.known.Receipts = append(p.known.Receipts, r)
	}
}

func partIDs(plan connectors.Plan) []string {
	var ids []string
	for _, l := range plan.Loads {
		for _, part := range l.Parts {
			ids = append(ids, string(part.ID))
		}
	}
	return ids
}

func TestFinishedFilesAreSkippedForEver(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "v\n1\n")
	first := p.mustScan(connectors.ModeAppend)
	require.Equal(t, []string{"s/a.csv"}, partIDs(first))
	require.EqualValues(t, 1, first.Loads[0].ID.Number)
	p.begun(first, true)
	require.Empty(t, p.mustScan(connectors.ModeAppend).Loads)

	p.put("b.csv", "v\n2\n")
	second := p.mustScan(connectors.ModeAppend)
	require.Equal(t, []string{"s/b.csv"}, partIDs(second))
	require.EqualValues(t, 2, second.Loads[0].ID.Number)
	p.begun(second, true)
	p.put("c.csv", "v\n3\n")
	third := p.mustScan(connectors.ModeUpsert)
	require.Equal(t, []string{"s/c.csv"}, partIDs(third), "the first load is remembered through the history")
	h, err := decodeHistory(third.Loads[0].History)
	require.NoError(t, err)
	require.Len(t, h.Files, 2)
	require.EqualValues(t, 7, h.Files[0].Rows)

	require.NoError(t, os.Remove(filepath.Join(p.dir, "a.csv")))
	require.Equal(t, []string{"s/c.csv"}, partIDs(p.mustScan(connectors.ModeAppend)), "a finished file may be gone")
}

func TestAllFinishedFilesMayBeGone(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "v\n1\n")
	p.begun(p.mustScan(connectors.ModeAppend), true)
	require.NoError(t, os.Remove(filepath.Join(p.dir, "a.csv")))
	require.Empty(t, p.mustScan(connectors.ModeAppend).Loads)
	_, err := p.scan(connectors.ModeReplace, false)
	coded(t, err, messages.CodeSourceMissing, connectors.KindConfig)
}

func TestChangedFinishedFileIsRefused(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "v\n1\n")
	p.begun(p.mustScan(connectors.ModeAppend), true)
	p.put("a.csv", "v\n2\n")
	_, err := p.scan(connectors.ModeAppend, false)
	e := coded(t, err, messages.CodeSourceChanged, connectors.KindConfig)
	require.Contains(t, e.Place.File, "a.csv")
	plan, err := p.scan(connectors.ModeAppend, true)
	require.NoError(t, err, "a reset reads it again")
	require.EqualValues(t, 2, plan.Loads[0].ID.Number)
	require.Len(t, p.mustScan(connectors.ModeReplace).Loads, 1, "a replace reads everything anyway")
}

func TestUnfinishedLoadGoesOnAsPlanned(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "v\n1\n")
	p.put("b.csv", "v\n2\n")
	plan := p.mustScan(connectors.ModeAppend)
	p.begun(plan, false, "s/a.csv")
	p.put("c.csv", "v\nx\n")
	p.put("a.csv", "v\nchanged behind its last row\n")
	again := p.mustScan(connectors.ModeAppend)
	require.Equal(t, plan.Loads[0].Parts, again.Loads[0].Parts)
	require.Equal(t, plan.Loads[0].ID, again.Loads[0].ID)
	require.Equal(t, connectors.ContinueExact, again.Loads[0].Continuity)
	require.True(t, again.More)

	p.begun(again, true)
	_, err := p.scan(connectors.ModeAppend, false)
	e := coded(t, err, messages.CodeSourceChanged, connectors.KindConfig)
	require.Contains(t, e.Place.File, "a.csv", "a changed finished file is noticed when the load is finished")
}

func TestUnfinishedLoadWhoseFileChanged(t *testing.T) {
	for _, change := range []string{"v\n9\n", ""} {
		p := newPast(t)
		p.put("a.csv", "v\n1\n")
		p.put("b.csv", "v\n2\n")
		for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert} {
			p.put("b.csv", "v\n2\n")
			p.known = connectors.Recovered{}
			p.begun(p.mustScan(mode), false, "s/a.csv")
			if change == "" {
				require.NoError(t, os.Remove(filepath.Join(p.dir, "b.csv")))
			} else {
				p.put("b.csv", change)
			}
			plan, err := p.scan(mode, false)
			if mode == connectors.ModeAppend {
				e := coded(t, err, messages.CodeSourceChanged, connectors.KindConfig)
				require.Contains(t, e.Place.File, "b.csv")
				require.Contains(t, e.Next, "--full-refresh")
				continue
			}
			require.NoError(t, err)
			require.EqualValues(t, 2, plan.Loads[0].ID.Number, "the load begins again")
			require.Empty(t, plan.Loads[0].Continuity)
			require.Len(t, plan.Warnings, 1)
		}
	}
}

func TestGivenUpReplaceForgetsNothing(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "v\n1\n")
	p.begun(p.mustScan(connectors.ModeAppend), true)
	p.put("b.csv", "v\n2\n")
	replace := p.mustScan(connectors.ModeReplace)
	require.Equal(t, []string{"s/a.csv", "s/b.csv"}, partIDs(replace))
	p.begun(replace, false)
	back := p.mustScan(connectors.ModeAppend)
	require.Equal(t, []string{"s/b.csv"}, partIDs(back), "the rows of a are still in the target")
	require.EqualValues(t, 3, back.Loads[0].ID.Number)

	p.begun(replace, true)
	require.Empty(t, p.mustScan(connectors.ModeAppend).Loads, "a finished replace has read both")
}

// Rows that an unfinished append has committed stand in the target until a replace has
// swapped: one that is given up leaves them there, and they are not read again.
func TestReplaceOfAnUnfinishedAppendForgetsNothing(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		p := newPast(t)
		for _, name := range []string{"a.csv", "b.csv", "c.csv"} {
			p.put(name, "v\n1\n")
		}
		p.begun(p.mustScan(connectors.ModeAppend), false, "s/a.csv")
		p.known.Receipts[2].Version.Commit = 0 // c is untouched
		replace, err := p.scan(connectors.ModeReplace, fresh)
		require.NoError(t, err)
		require.Equal(t, []string{"s/a.csv", "s/b.csv", "s/c.csv"}, partIDs(replace))
		p.begun(replace, false)

		_, err = p.scan(connectors.ModeAppend, false)
		e := coded(t, err, messages.CodeSourceChanged, connectors.KindConfig)
		require.Contains(t, e.Place.File, "b.csv", "its rows are there in part")
		require.Contains(t, e.Error(), "7 rows of it are in the target")
		require.Equal(t, []string{"s/b.csv", "s/c.csv"}, partIDs(p.mustScan(connectors.ModeUpsert)), "b is read again without harm")
		require.NoError(t, os.Remove(filepath.Join(p.dir, "b.csv")))
		require.Equal(t, []string{"s/c.csv"}, partIDs(p.mustScan(connectors.ModeAppend)))
	}
}

func TestTypesOfEarlierLoadsStayWhereTheyFit(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "f,z,n\n1.5,007,1\n")
	p.begun(p.mustScan(connectors.ModeAppend), true)
	p.put("b.csv", "f,z,n\n2,8,x\n")
	plan := p.mustScan(connectors.ModeAppend)
	s := plan.Loads[0].Streams[0].Schema
	require.Equal(t, "f:float64 z:utf8 n:utf8", rows{schema: s}.columns())
}

func TestStreamsFindTheirFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "in/orders.csv", "v\n1\n")
	put(t, dir, "in/users.csv.gz", string(gzipped(t, []byte("v\n1\n"))))
	put(t, dir, "in/deep/orders.jsonl", "{\"v\":1}\n")
	put(t, dir, "in/.hidden.csv", "v\n1\n")
	put(t, dir, "in/_rapidbyte/p/m.json", "{}")
	put(t, dir, "odd[1].csv", "v\n1\n")
	src, err := NewSource(SourceConfig{Path: dir + "/in"})
	require.NoError(t, err)
	found, err := src.Discover(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, messages.StreamID("orders"), found[0].Stream)
	require.EqualValues(t, 2, found[0].Rows)
	require.Equal(t, messages.StreamID("users"), found[1].Stream)
	findings, err := src.Check(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, findings)

	plan := planOf(t, src, connectors.StreamSpec{Stream: "orders"}, connectors.Recovered{})
	require.Equal(t, []string{"orders/deep/orders.jsonl", "orders/orders.csv"}, partIDs(plan))
	two := []connectors.StreamSpec{{Stream: "orders"}, {Stream: "nosuch"}}
	_, err = src.Scan(t.Context(), connectors.ScanRequest{Streams: two})
	coded(t, err, messages.CodeStreamUnknown, connectors.KindConfig)
	plan = planOf(t, src, connectors.StreamSpec{Stream: "odd", Path: dir + "/odd[1].csv"}, connectors.Recovered{})
	require.Equal(t, []string{"odd/odd[1].csv"}, partIDs(plan))
	for _, path := range []string{dir + "/nosuch.csv", dir + "/nosuch/*.csv", dir + "/in/*.parquet", "/dev/null"} {
		_, err = src.Scan(t.Context(), connectors.ScanRequest{Streams: []connectors.StreamSpec{{Stream: "s", Path: path}}})
		coded(t, err, messages.CodeSourceMissing, connectors.KindConfig)
	}
	findings, err = src.Check(t.Context(), []connectors.StreamSpec{{Stream: "s", Path: dir + "/nosuch.csv"}, {Stream: "c", Sync: connectors.SyncCDC}})
	require.NoError(t, err)
	require.Len(t, findings, 2)
	require.Equal(t, messages.CodeSourceMissing, findings[0].Code)
}

func TestChangedFileIsNotOpened(t *testing.T) {
	p := newPast(t)
	p.put("a.csv", "v\n1\n")
	part := p.mustScan(connectors.ModeAppend).Loads[0].Parts[0]
	p.put("a.csv", "v\n2\n")
	_, err := p.src.Open(t.Context(), connectors.ReadRequest{Part: part})
	coded(t, err, messages.CodeSourceChanged, connectors.KindConfig)
	require.NoError(t, os.Remove(filepath.Join(p.dir, "a.csv")))
	_, err = p.src.Open(t.Context(), connectors.ReadRequest{Part: part})
	coded(t, err, messages.CodeSourceMissing, connectors.KindConfig)
}

// A file that is written while it is read: what was added is not read, and the part
// does not end, whatever the format would say of the rest.
func TestFileThatChangesWhileItIsReadHasNoEnd(t *testing.T) {
	zipped := func(text string) string { return string(gzipped(t, []byte(text))) }
	for _, c := range []struct {
		name   string
		zipped bool
		change func(content string) string
	}{
		{"grows", false, func(s string) string { return s + "999\n" }},
		{"shrinks", false, func(s string) string { return s[:len(s)-4] }},
		{"is emptied", false, func(string) string { return "" }},
		{"grows by a member", true, func(s string) string { return s + zipped("999\n") }},
		{"is rewritten", true, func(s string) string { return zipped("v\n"+strings.Repeat("9\n", 8)) + s }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPast(t)
			content := "v\n" + strings.Repeat("101\n", 1000)
			if c.zipped { // known by its first bytes
				content = zipped(content)
			}
			p.put("a.csv", content)
			part := p.mustScan(connectors.ModeAppend).Loads[0].Parts[0]
			r, err := p.src.Open(t.Context(), connectors.ReadRequest{Part: part, Limits: connectors.Limits{BatchRows: 10, BatchBytes: 1 << 20, RowBytes: 1 << 20}})
			require.NoError(t, err)
			defer func() { require.NoError(t, r.Close(t.Context())) }()
			read := int64(0)
			e := &conntest.Emitter{Sink: func(_ context.Context, it messages.Item) error {
				switch it := it.(type) {
				case messages.Batch:
					if read == 0 {
						p.put("a.csv", c.change(content))
					}
					read += it.Rows.Len()
					it.Rows.Release()
				case messages.Barrier:
					require.NotEqual(t, messages.BarrierEnd, it.Kind)
				case messages.SchemaChange, messages.Truncate, messages.Rejected:
					require.Fail(t, "a file has rows only", "%T", it)
				}
				return nil
			}}
			coded(t, r.Read(t.Context(), e), messages.CodeSourceChanged, connectors.KindConfig)
			require.LessOrEqual(t, read, int64(1000))
		})
	}
}

func TestConfigurationProblemsAreAllNamed(t *testing.T) {
	paths := func(ps []connectors.Problem) (out []string) {
		for _, p := range ps {
			out = append(out, p.Path)
		}
		return out
	}
	require.Equal(t, []string{"path", "format", "compression", "csv.delimiter", "csv.quote", "columns.a", "columns.b"}, paths(SourceConfig{
		Path: "[", Format: "xml", Compression: "lzma", CSV: CSVConfig{Delimiter: "ab", Quote: "\n"}, Columns: map[string]string{"a": "decimal(99,1)", "b": "int", "c": "text"},
	}.Problems()))
	require.Equal(t, []string{"csv.quote"}, paths(SourceConfig{CSV: CSVConfig{Delimiter: ";", Quote: ";"}}.Problems()))
	require.Equal(t, []string{"columns", "compression"}, paths(SourceConfig{Format: FormatParquet, Compression: CompressionGzip, Columns: map[string]string{"a": "text"}}.Problems()))
	require.Equal(t, []string{"path", "format", "max_file_bytes", "max_rows_per_file"}, paths(DestinationConfig{Format: "xml", MaxFileBytes: -1, MaxRowsPerFile: -1}.Problems()))
	require.Equal(t, []string{"compression"}, paths(DestinationConfig{Path: "x", Format: FormatCSV, Compression: CompressionSnappy}.Problems()))
	require.Empty(t, DestinationConfig{Path: "x"}.Problems())
	_, err := NewSource(SourceConfig{Format: "xml"})
	coded(t, err, messages.CodeDocValue, connectors.KindConfig)
	_, err = NewDestination(DestinationConfig{})
	coded(t, err, messages.CodeDocValue, connectors.KindConfig)
}
