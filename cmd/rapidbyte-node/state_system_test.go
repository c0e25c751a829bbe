//go:build system

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/messages"
)

// requireAll asserts that every row of the streams has arrived once.
func requireAll(t *testing.T, dir string, rows int, streams ...string) {
	t.Helper()
	for _, s := range streams {
		got, err := committed(filepath.Join(dir, "out"), "p", s)
		require.NoError(t, err)
		require.Len(t, got, rows, "stream %s: none doubled", s)
		slices.Sort(got)
		require.Len(t, slices.Compact(got), rows, "stream %s: none lost", s)
	}
}

// A disk that fails while state is made durable: nobody can know what is on it before it
// is read afresh. The process ends, says so, and the next one knows.
func TestSystemAFailedSyncOfTheStateEndsTheProcess(t *testing.T) {
	const rows = 200_000
	inject := []string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"}

	t.Run("from the first one", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "p.yaml", generatorDocument("p", "rows: 100", "file", "path: out, format: jsonl", "a"))
		cmd := exec.Command("strace", append(inject, "rapidbyte-node", "run", "p.yaml")...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, messages.ExitState, cmd.ProcessState.ExitCode(), "%s", out)
		require.Contains(t, string(out), "RB-6001")
		require.Contains(t, string(out), "input/output error")
		p := start(t, dir, "run", "p.yaml")
		require.Zero(t, p.wait(t, time.Minute), p.stderr.String())
		requireAll(t, dir, 100, "a")
	})

	t.Run("in the middle of a run", func(t *testing.T) {
		dir := t.TempDir()
		document := func(source string) {
			write(t, dir, "p.yaml", generatorDocument("p", source, "file", "path: out, format: jsonl", "a", "b")+"resources: {checkpoint_interval_rows: 2000}\n")
		}
		document(fmt.Sprintf("rows: %d, rows_per_second: 8000", rows)) // 25 seconds: time to attach
		p := start(t, dir, "run", "p.yaml", "-o", "json", "--events", "events")
		await(t, filepath.Join(dir, "events"), `"event":"checkpoint"`)
		trace := exec.Command("strace", append(inject, "-p", strconv.Itoa(p.cmd.Process.Pid))...)
		require.NoError(t, trace.Start())
		code := p.wait(t, time.Minute)
		require.NoError(t, trace.Wait())
		require.Equal(t, messages.ExitState, code, p.stderr.String())
		var e struct{ Error errorBody }
		require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &e))
		require.Equal(t, messages.CodeState, e.Error.Code)
		require.Contains(t, e.Error.Why, "input/output error")
		require.Contains(t, e.Error.Why, "only a restart can tell what is stored")
		require.Contains(t, e.Error.Why, "state.db")

		document(fmt.Sprintf("rows: %d", rows))
		p = start(t, dir, "run", "p.yaml")
		require.Zero(t, p.wait(t, time.Minute), p.stderr.String())
		requireAll(t, dir, rows, "a", "b")
	})
}

// The disk of the state is full: what the destination has committed stays, and with space
// the run goes on.
func TestSystemAFullStateDiskLosesNothing(t *testing.T) {
	const rows, streams = 500, 60
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	require.NoError(t, os.Mkdir(disk, 0o700))
	require.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"), "mounting needs root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(disk, 0)) })
	var names []string
	for i := range streams {
		names = append(names, fmt.Sprintf("s%02d_%s", i, strings.Repeat("x", 50)))
	}
	document := func(streams ...string) {
		write(t, dir, "p.yaml", generatorDocument("p", fmt.Sprintf("rows: %d", rows), "file", "path: out, format: jsonl", streams...)+
			"state: {connection: disk/state.db}\n")
	}
	document(names[0])
	p := start(t, dir, "run", "p.yaml")
	require.Zero(t, p.wait(t, time.Minute), p.stderr.String())

	ballast, err := os.Create(filepath.Join(disk, "ballast"))
	require.NoError(t, err)
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, ballast.Close())
	document(names[1:]...)
	p = start(t, dir, "run", "p.yaml", "-o", "json")
	require.Equal(t, messages.ExitState, p.wait(t, time.Minute), p.stderr.String())
	var e struct{ Error errorBody }
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &e))
	require.Equal(t, messages.CodeStateFull, e.Error.Code)
	require.Contains(t, e.Error.Why, "no space left on device")

	require.NoError(t, os.Remove(ballast.Name()))
	p = start(t, dir, "run", "p.yaml")
	require.Zero(t, p.wait(t, time.Minute), p.stderr.String())
	requireAll(t, dir, rows, names...)
}

// A folder that may not be written to is an error with its path, not a run without state.
func TestSystemAReadOnlyStateIsRefused(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	require.NoError(t, os.Mkdir(disk, 0o700))
	require.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"), "mounting needs root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(disk, 0)) })
	write(t, dir, "p.yaml", generatorDocument("p", "rows: 100", "file", "path: out, format: jsonl", "a")+"state: {connection: disk/state.db}\n")
	p := start(t, dir, "run", "p.yaml")
	require.Zero(t, p.wait(t, time.Minute), p.stderr.String())
	require.NoError(t, unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	p = start(t, dir, "run", "p.yaml", "-o", "json")
	require.Equal(t, messages.ExitState, p.wait(t, time.Minute), p.stderr.String())
	var e struct{ Error errorBody }
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &e))
	require.Equal(t, messages.CodeState, e.Error.Code)
	require.Contains(t, e.Error.Why, "read-only file system")
	require.Contains(t, e.Error.Why, "state.db")
	requireAll(t, dir, 100, "a")
}
