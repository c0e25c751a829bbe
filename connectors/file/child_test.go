package file

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

// childEnv names what a re-executed test binary does instead of running tests.
const childEnv = "RB_FILE_CHILD"

var (
	errNoSpace  error = syscall.ENOSPC
	errReadOnly error = syscall.EROFS
)

const (
	childRows = 400 // of each of two parts
	childStep = 4   // rows of one commit
)

// runChild loads a folder until it is done. "load <dir> <mode> <epoch> <limit>":
// limit bounds the size of a file, 0 for none.
func runChild(args string) int {
	var dir, mode string
	var epoch, limit uint64
	if _, err := fmt.Sscan(args, &dir, &mode, &epoch, &limit); err != nil {
		return fail(err)
	}
	if limit > 0 {
		signal.Ignore(syscall.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fail(err)
		}
	}
	if err := childLoad(dir, connectors.WriteMode(mode), messages.Epoch(epoch)); err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	code := messages.Code("")
	if e, ok := err.(*connectors.Error); ok { //nolint:errorlint // as returned
		code = e.Code
	}
	fmt.Fprintln(os.Stderr, code, err)
	return 1
}

func childLoad(dir string, mode connectors.WriteMode, epoch messages.Epoch) error {
	ctx := context.Background()
	d, err := NewDestination(DestinationConfig{Path: dir, Format: FormatCSV})
	if err != nil {
		return err
	}
	s, err := d.Open(ctx, connectors.SessionRequest{Pipeline: pipe, Epoch: epoch, Store: store})
	if err != nil {
		return err
	}
	l := idLoad(1, mode, 2)
	if err := s.Begin(ctx, l); err != nil {
		return err
	}
	for i, p := range l.Parts {
		w, r, err := s.OpenWriter(ctx, p, messages.Token{Epoch: epoch, Attempt: messages.Attempt(i + 1)})
		if err != nil {
			return err
		}
		done, err := r.Position.At.Int64()
		if err != nil {
			return err
		}
		for !r.Final {
			var values [][]any
			for k := range childStep {
				id := i*childRows + int(done) + k
				values = append(values, []any{id, fmt.Sprintf("row %d", id)})
			}
			rec, err := conntest.Build(memory.DefaultAllocator, idSchema, values)
			if err != nil {
				return err
			}
			if err := w.Write(ctx, messages.Batch{Stream: "orders", Rows: messages.ArrowRows{Record: rec}}); err != nil {
				return err
			}
			done += childStep
			kind := messages.BarrierPeriodic
			if done == childRows {
				kind = messages.BarrierEnd
			}
			if r, err = w.Commit(ctx, at(kind, done, childStep)); err != nil {
				return err
			}
		}
		if err := w.Close(ctx); err != nil {
			return err
		}
	}
	return s.Finish(ctx, l.ID)
}

// child starts the test binary as a loader.
func child(t *testing.T, dir string, mode connectors.WriteMode, epoch, limit int) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", childEnv, dir, mode, epoch, limit))
	var said strings.Builder
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	return cmd, &said
}

// TestKilledProcessLosesAndDoublesNothing kills loaders with SIGKILL at random times.
func TestKilledProcessLosesAndDoublesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("RB_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("RB_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, mode := range []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace} {
		dir := t.TempDir() + "/out"
		epoch := 0
		for range 8 {
			epoch++
			cmd, _ := child(t, dir, mode, epoch, 0)
			timer := time.NewTimer(time.Duration(50+random.IntN(400)) * time.Millisecond)
			<-timer.C
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()
			rows := committedRows(t, dir, pipe, "orders", FormatCSV)
			require.Zero(t, len(rows)%childStep, "whole commits")
			if mode == connectors.ModeReplace {
				require.Contains(t, []int{0, 2 * childRows}, len(rows), "nothing or all of a replace")
			}
		}
		cmd, said := child(t, dir, mode, epoch+1, 0)
		require.NoError(t, cmd.Wait(), said.String())
		require.ElementsMatch(t, wantIDs(0, 2*childRows), committedRows(t, dir, pipe, "orders", FormatCSV))
	}
}

// TestFullDiskIsNamedAndLeavesNothing runs a loader whose files may not grow over a
// few kilobytes: the manifest outgrows it in the middle of the load.
func TestFullDiskIsNamedAndLeavesNothing(t *testing.T) {
	dir := t.TempDir() + "/out"
	cmd, said := child(t, dir, connectors.ModeAppend, 1, 6000)
	require.Error(t, cmd.Wait())
	require.True(t, strings.HasPrefix(said.String(), string(messages.CodeDestFull)), said.String())
	before := committedRows(t, dir, pipe, "orders", FormatCSV)
	require.NotEmpty(t, before)
	require.Less(t, len(before), 2*childRows)
	tmp, err := os.ReadDir(dir + "/" + bookkeeping + "/" + string(pipe) + "/tmp")
	require.NoError(t, err)
	require.LessOrEqual(t, len(tmp), 1, "only what the process had open when it gave up")

	cmd, said = child(t, dir, connectors.ModeAppend, 2, 0)
	require.NoError(t, cmd.Wait(), said.String())
	require.ElementsMatch(t, wantIDs(0, 2*childRows), committedRows(t, dir, pipe, "orders", FormatCSV))
}
