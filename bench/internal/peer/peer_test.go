package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/bench/internal/scenario"
)

func work(mode scenario.Mode) Work {
	return Work{
		From: scenario.Postgres, To: scenario.Postgres, Mode: mode, Source: "postgres://me@127.0.0.1:1/src?sslmode=disable", Target: "postgres://me@127.0.0.1:1/dst",
		Schema: "bench", Tables: []string{"narrow"}, Columns: []string{"id", "k", "na\"me"}, Key: []string{"id"}, Cursor: "id", Dir: "/scratch/peer", Rows: 10, Tasks: 2,
	}
}

// TestGoldenCommandLines shows each tool's line for each kind of work.
func TestGoldenCommandLines(t *testing.T) {
	var b strings.Builder
	show := func(name, title string, w Work) {
		l, err := Tool{Name: name, Path: "/usr/bin/" + name}.Line(w)
		text := l.Describe()
		if err != nil {
			require.ErrorIs(t, err, ErrUnfit)
			text = err.Error() + "\n"
		}
		fmt.Fprintf(&b, "## %s: %s\n%s\n", name, title, text)
	}
	for _, name := range Names() {
		for _, mode := range []scenario.Mode{scenario.Append, scenario.Replace, scenario.Upsert, scenario.Incremental} {
			w := work(mode)
			if name == "psql" && mode == scenario.Upsert {
				w.Method = "merge"
				show(name, "upsert, merge", w)
				w.Method = "on_conflict"
			}
			show(name, string(mode), w)
		}
		w := work(scenario.Append)
		w.Tables, w.Fresh = []string{"t0000", "t0001"}, true
		show(name, "two tables that are not there", w)
		w = work(scenario.Append)
		w.To, w.Out = scenario.CSV, "/scratch/peer/out.csv"
		show(name, "to csv", w)
	}
	for _, method := range []string{"text", "discard", "merge"} {
		w := work(scenario.Append)
		w.Method = method
		show("psql", "append, "+method, w)
	}
	path := filepath.Join("testdata", "lines.golden")
	if os.Getenv("RB_UPDATE") != "" {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		"psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n":                                           "15.18",
		"00:52:05 32207 INFO  Running pgcopydb version 0.10-1 from x\npgcopydb version 0.10-1\nmore\n": "0.10-1",
		"pgloader version \"3.6.7~devel\"\ncompiled with SBCL 2.2.9.debian\n":                          "3.6.7~devel",
		"Version: 1.5.23\n": "1.5.23", "ingestr v1.2.3\n": "v1.2.3", "conduit v0.14.0 linux/amd64": "v0.14.0", "unknown\n": "unknown",
	} {
		require.Equal(t, want, versionIn(text), text)
	}
}

func TestAbsentToolsAreNotFound(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Find("sling")
	require.ErrorIs(t, err, exec.ErrNotFound)
	_, err = Find("nobody")
	require.ErrorContains(t, err, `found peer "nobody", expected one of psql`)
	require.Len(t, adapters, len(Names()))
	require.ErrorIs(t, Fit("conduit", work(scenario.Upsert)), ErrUnfit)
	require.NoError(t, Fit("conduit", work(scenario.Append)))
}

func TestToolsAreFoundInThePath(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sling"), []byte("#!/bin/sh\necho Version: 1.5.23\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	tool, err := Find("sling")
	require.NoError(t, err)
	require.Equal(t, Tool{"sling", filepath.Join(dir, "sling"), "1.5.23"}, tool)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sling"), []byte("#!/bin/sh\necho broken; exit 1\n"), 0o755))
	_, err = Find("sling")
	require.ErrorContains(t, err, "broken")
}
