package duckdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

const childEnv = "RB_DUCKDB_CHILD" // "mode path epoch"

const fullDisk = "full" // instead of a mode: append, with files of limited size

const childRows = 40 // rows of one commit of the child

// runChild commits in a loop until it is killed. It says "commit n" on its
// standard output after each commit that returned.
func runChild(args string) {
	f := strings.SplitN(args, " ", 3)
	epoch, _ := strconv.Atoi(f[1])
	mode := connectors.WriteMode(f[0])
	if f[0] == fullDisk {
		mode = connectors.ModeAppend
		limitFiles()
	}
	if err := commitForEver(mode, f[2], messages.Epoch(epoch)); err != nil {
		if e, ok := errors.AsType[*connectors.Error](err); ok && f[0] == fullDisk {
			fmt.Printf("ended %s %s\n", e.Code, e.Kind)
			return
		}
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func commitForEver(mode connectors.WriteMode, path string, epoch messages.Epoch) error {
	ctx := context.Background()
	d, err := NewDestination(DestinationConfig{Path: path})
	if err != nil {
		return err
	}
	s, err := d.Open(ctx, connectors.SessionRequest{Pipeline: "p", Epoch: epoch, Store: "store"})
	if err != nil {
		return err
	}
	l := crashLoad(mode, s.Recovered())
	if err := s.Begin(ctx, l); err != nil {
		return err
	}
	w, r, err := s.OpenWriter(ctx, l.Parts[0], messages.Token{Epoch: epoch, Attempt: 1})
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		if r.Final {
			if err := s.Finish(ctx, l.ID); err != nil {
				return err
			}
			fmt.Printf("finish %d\n", l.ID.Number)
			l = crashLoadNumber(mode, l.ID.Number+1)
			if err := s.Begin(ctx, l); err != nil {
				return err
			}
			if w, r, err = s.OpenWriter(ctx, l.Parts[0], messages.Token{Epoch: epoch, Attempt: messages.Attempt(n + 1)}); err != nil {
				return err
			}
		}
		at, err := r.Position.At.Int64()
		if err != nil {
			return err
		}
		rec, err := conntest.Build(memory.DefaultAllocator, l.Streams[0].Schema, conntest.NumberRows(int(at)+1, childRows))
		if err != nil {
			return err
		}
		if err := w.Write(ctx, messages.Batch{Stream: "orders", Version: 1, Rows: messages.ArrowRows{Record: rec}}); err != nil {
			return err
		}
		kind := messages.BarrierPeriodic
		if mode == connectors.ModeReplace && r.Version.Commit == 4 {
			kind = messages.BarrierEnd
		}
		if r, err = w.Commit(ctx, barrier(kind, at+childRows, childRows)); err != nil {
			return err
		}
		fmt.Printf("commit %d %d\n", r.Version.Load, r.Version.Commit)
	}
}

// crashLoad continues the unfinished load, or begins the next.
func crashLoad(mode connectors.WriteMode, found connectors.Recovered) connectors.Load {
	number := uint64(1)
	for _, l := range found.Loads {
		number = l.ID.Number
		if l.Finished {
			number++
		}
	}
	return crashLoadNumber(mode, number)
}

func crashLoadNumber(mode connectors.WriteMode, number uint64) connectors.Load {
	n := conntest.Numbers("orders", 0)
	return load(mode, number, connectors.StreamPlan{Stream: n.Stream, Schema: n.Schema, Key: n.Key}, "orders")
}

// TestKilledProcessLeavesRowsAndReceiptsEqual kills a committing process again and
// again: after each death the file holds exactly the rows that its receipt says,
// and at least those whose commit had returned.
func TestKilledProcessLeavesRowsAndReceiptsEqual(t *testing.T) {
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "x.duckdb")
			for kill := range 20 {
				said := killedChild(t, mode, path, kill+1)
				checkCrash(t, mode, path, kill+2, said)
			}
		})
	}
}

// killedChild runs a child and kills it a little after its first lines.
func killedChild(t *testing.T, mode connectors.WriteMode, path string, epoch int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", childEnv, mode, 1000*epoch, path))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var said []string
	lines := bufio.NewScanner(out)
	for range 3 {
		require.True(t, lines.Scan(), "the child ended before it was killed")
		said = append(said, lines.Text())
	}
	timer := time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	require.Error(t, cmd.Wait(), "killed")
	return said
}

func checkCrash(t *testing.T, mode connectors.WriteMode, path string, epoch int, said []string) {
	t.Helper()
	d := newDestination(t, path)
	s, err := d.Open(t.Context(), connectors.SessionRequest{Pipeline: "p", Epoch: messages.Epoch(1000*epoch - 1), Store: "store"})
	require.NoError(t, err)
	defer s.Close(context.Background())
	got := s.Recovered()
	require.Len(t, got.Receipts, 1)
	require.Len(t, got.Loads, 1)
	receipt := got.Receipts[0]
	at, err := receipt.Position.At.Int64()
	require.NoError(t, err)
	require.Equal(t, int64(receipt.Version.Commit)*childRows, at)
	require.Equal(t, at, receipt.Rows.Applied)
	for _, line := range said { // what was promised is there
		var load, commit uint64
		if n, _ := fmt.Sscanf(line, "commit %d %d", &load, &commit); n == 2 {
			require.GreaterOrEqual(t, receipt.Version.Compare(messages.Version{Load: load, Commit: commit}), 0, "receipt %v, the child said %s", receipt.Version, line)
		}
		if n, _ := fmt.Sscanf(line, "finish %d", &load); n == 1 {
			require.False(t, got.Loads[0].ID.Number < load || got.Loads[0].ID.Number == load && !got.Loads[0].Finished, "the child said %s", line)
		}
	}
	rows := tableRows(t, path, "main", "orders")
	if mode == connectors.ModeReplace { // the target is the last finished load, whole
		want := 5 * childRows
		if receipt.Version.Load == 1 && !got.Loads[0].Finished {
			want = 0
		}
		require.Len(t, rows, want)
		return
	}
	var want []string
	for _, r := range conntest.NumberRows(1, int(at)) {
		want = append(want, conntest.Join(conntest.Text(r[0]), conntest.Text(r[1])))
	}
	slices.Sort(want)
	slices.Sort(rows)
	require.Equal(t, want, rows)
}
