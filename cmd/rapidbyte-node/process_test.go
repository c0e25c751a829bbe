package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// process is the program running beside the test.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	ended          chan struct{} // closed when it has ended
}

// start runs the program in dir; the test ends it if nobody else did.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("rapidbyte-node", args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "LC_ALL=C")
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.stdout, &p.stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its exit code is read from ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // mostly ended already
		<-p.ended
	})
	return p
}

// wait returns the exit code and fails when it takes longer than within.
func (p *process) wait(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		require.FailNow(t, "still running", "after %s\n%s", within, p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// await waits until a line of the file matches.
func await(t *testing.T, path, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	require.Eventually(t, func() bool {
		b, _ := os.ReadFile(path) // not there yet
		return re.Match(b)
	}, 20*time.Second, 10*time.Millisecond, "no %s in %s", pattern, path)
}

func TestSIGTERMDrainsAndTheNextRunCompletes(t *testing.T) {
	dir := t.TempDir()
	const rows = 60_000
	write(t, dir, "p.yaml", generatorDocument("p", fmt.Sprintf("rows: %d, rows_per_second: 20000", rows), "file", "path: out, format: jsonl", "a", "b")+
		"resources: {checkpoint_interval_rows: 2000}\n")
	p := start(t, dir, "run", "p.yaml", "-o", "json", "--events", "events")
	await(t, filepath.Join(dir, "events"), `"event":"checkpoint"`)
	began := time.Now()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, messages.ExitCancelled, p.wait(t, 10*time.Second), p.stderr.String())
	require.Less(t, time.Since(began), 10*time.Second)

	var e struct {
		OK     bool
		Result runResult
		Error  errorBody
	}
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &e))
	require.False(t, e.OK)
	require.Equal(t, messages.RunDrained, e.Result.State)
	require.Equal(t, messages.CodeCancelled, e.Error.Code)
	require.Equal(t, "SIGTERM", e.Error.Why)
	require.Contains(t, p.stderr.String(), "SIGTERM: stopping at the next committed position; once more stops at once")
	require.Contains(t, p.stderr.String(), "next -> Run again")

	// What the summary says is what is there.
	before := 0
	for _, s := range e.Result.Streams {
		got, err := committed(filepath.Join(dir, "out"), "p", string(s.Stream))
		require.NoError(t, err)
		require.Len(t, got, int(s.RowsWritten), "of %s", s.Stream)
		before += len(got)
	}
	require.Positive(t, before)
	require.Less(t, before, 2*rows)
	require.Contains(t, e.Error.What, number(int64(before))+" rows")

	p = start(t, dir, "run", "p.yaml", "-o", "json")
	require.Zero(t, p.wait(t, 30*time.Second), p.stderr.String())
	id := e.Result.RunID
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &e))
	require.Equal(t, id, e.Result.RunID, "an unfinished run is continued under its id")
	after := int64(0)
	for _, s := range []string{"a", "b"} {
		got, err := committed(filepath.Join(dir, "out"), "p", s)
		require.NoError(t, err)
		slices.Sort(got)
		require.Len(t, slices.Compact(got), rows, "nothing is lost, nothing is doubled")
	}
	for _, s := range e.Result.Streams {
		after += s.RowsWritten
	}
	require.EqualValues(t, 2*rows-before, after, "finished work is not repeated")
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", generatorDocument("p", "rows: 1000", "blackhole", "write_delay: 60s", "a"))
	p := start(t, dir, "run", "p.yaml", "--events", "events")
	await(t, filepath.Join(dir, "events"), `"event":"task_started"`)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	await(t, filepath.Join(dir, "events"), `"event":"draining"`)
	time.Sleep(2 * signalsApart)
	began := time.Now()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, messages.ExitCancelled, p.wait(t, 5*time.Second), p.stderr.String())
	require.Less(t, time.Since(began), 4*time.Second)
	require.Contains(t, p.stderr.String(), "SIGINT, then SIGINT: stopped at once")

	// It left nothing that keeps the next one from running.
	write(t, dir, "p.yaml", generatorDocument("p", "rows: 1000", "blackhole", "", "a"))
	p = start(t, dir, "run", "p.yaml")
	require.Zero(t, p.wait(t, 20*time.Second), p.stderr.String())
}

func TestADrainThatCannotFinishEndsInTime(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", generatorDocument("p", "rows: 1000", "blackhole", "write_delay: 60s", "a"))
	p := start(t, dir, "run", "p.yaml", "--events", "events")
	await(t, filepath.Join(dir, "events"), `"event":"task_started"`)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, messages.ExitCancelled, p.wait(t, 10*time.Second), p.stderr.String())
	require.Contains(t, p.stderr.String(), "0 rows of this run are committed")
}

// A reader of our output that goes away does not end the run.
func TestAClosedPipeDoesNotStopARun(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.yaml", generatorDocument("p", "rows: 20000, rows_per_second: 20000", "file", "path: out, format: jsonl", "a"))
	cmd := exec.Command("sh", "-c", "{ rapidbyte-node run p.yaml -v --events - 2>&1; echo $? > code; } | head -n 1 > /dev/null; cat code")
	cmd.Dir = dir
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(messages.CodeOutput.Exit()), strings.TrimSpace(string(out)), "the events were lost, which is said")
	got, err := committed(filepath.Join(dir, "out"), "p", "a")
	require.NoError(t, err)
	require.Len(t, got, 20000)
}

// The heap holds what is in flight and a fixed part, however slow the destination
// and however wide the rows.
func TestMemoryStaysInsideItsBudget(t *testing.T) {
	const budget = 64 << 20
	dir := t.TempDir()
	source := fmt.Sprintf("rows: %d, columns: [{name: id, kind: id}, {name: payload, kind: bytes, bytes: 1mb}]", budgetRows)
	write(t, dir, "p.yaml", generatorDocument("p", source, "blackhole", "write_delay: 1ms, commit_delay: 5ms", "a")+"resources: {max_memory: 64mb}\n")
	p := start(t, dir, "run", "p.yaml", "-o", "json")
	peak := int64(0)
	for running := true; running; {
		select {
		case <-p.ended:
			running = false
		case <-time.After(20 * time.Millisecond):
			peak = max(peak, highWater(p.cmd.Process.Pid))
		}
	}
	require.Zero(t, p.wait(t, time.Minute), p.stderr.String())
	var e struct{ Result runResult }
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &e))
	require.EqualValues(t, budgetRows, e.Result.Streams[0].RowsWritten)
	require.GreaterOrEqual(t, e.Result.Streams[0].Bytes, int64(budgetRows)<<20)
	t.Logf("peak %d MiB in %d ms", peak>>20, e.Result.ElapsedMS)
	require.Positive(t, peak)
	require.Less(t, peak, int64(budget+budgetFixed))
}

// highWater returns the peak resident size of a process in bytes, 0 when it has ended.
// It is the process's own, where rusage inherits that of the parent.
func highWater(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it has ended
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64) // digits
	return n << 10
}
