package bbolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
)

// The test binary runs itself as a process that can be killed, with the name of
// what it shall do and the path of a store.
const (
	childWhat = "RB_TEST_BBOLT_CHILD"
	childPath = "RB_TEST_BBOLT_PATH"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(childWhat); what != "" {
		if err := childMain(what, os.Getenv(childPath)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func childMain(what, path string) error {
	switch what {
	case "hold":
		s, err := bbolt.Open(context.Background(), bbolt.Config{Path: path})
		if err != nil {
			return err
		}
		fmt.Println("holding")
		_, err = io.Copy(io.Discard, os.Stdin) // until it is told to stop
		return errors.Join(err, s.Close())
	case "hold-raw":
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			return err
		}
		fmt.Println("holding")
		_, err = io.Copy(io.Discard, os.Stdin)
		return errors.Join(err, db.Close())
	case "save":
		return childSave(path)
	case "limit":
		return childLimit(path)
	}
	return errors.New("unknown work: " + what)
}

// childSave saves one commit after the other and says so, for ever.
func childSave(path string) error {
	ctx := context.Background()
	s, err := bbolt.Open(ctx, bbolt.Config{Path: path})
	if err != nil {
		return err
	}
	e, err := s.Acquire(ctx, "a", statestore.Claim{})
	if err != nil {
		return err
	}
	fmt.Println("epoch", e)
	st, err := s.Load(ctx, "a")
	if err != nil {
		return err
	}
	var v messages.Version
	if len(st.Receipts) > 0 {
		v = st.Receipts[0].Version
	}
	v.Load = max(1, v.Load)
	for {
		if v.Commit++; v.Commit%50 == 0 {
			v = messages.Version{Load: v.Load + 1}
		}
		if err := s.Save(ctx, "a", e, commitOf(v, e)); err != nil {
			return err
		}
		fmt.Println("saved", v.Load, v.Commit)
	}
}

// commitOf is an update of ten parts that must be stored together or not at all.
func commitOf(v messages.Version, e messages.Epoch) statestore.Update {
	u := statestore.Update{Run: &statestore.Run{ID: fmt.Sprintf("run-%d", v.Load), Epoch: e, State: messages.RunRunning}}
	for i := range 10 {
		u.Receipts = append(u.Receipts, messages.Receipt{
			Part: messages.PartID(fmt.Sprintf("orders/%d", i)), Load: "orders", Version: v, Token: messages.Token{Epoch: e},
			Position: messages.Position{At: messages.Cursor{Type: messages.CursorText, Value: strings.Repeat("x", 100)}},
		})
	}
	return u
}

// childLimit fills a store until a file may not grow, twice, and goes on.
func childLimit(path string) error {
	ctx := context.Background()
	s, err := bbolt.Open(ctx, bbolt.Config{Path: path})
	if err != nil {
		return err
	}
	e, err := s.Acquire(ctx, "a", statestore.Claim{})
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	last := 0
	for round := range 2 {
		limit := uint64(st.Size()) + uint64(round*200+100)<<10 //nolint:gosec // positive
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}); err != nil {
			return err
		}
		for {
			if last > 5000 {
				return errors.New("the limit was never felt")
			}
			err := s.Save(ctx, "a", e, bigCommit(last+1))
			if errors.Is(err, statestore.ErrFull) {
				fmt.Println("full", last)
				break
			}
			if err != nil {
				return err
			}
			last++
		}
		loaded, err := s.Load(ctx, "a")
		if err != nil || len(loaded.Receipts) != last {
			return fmt.Errorf("%d receipts, want %d: %w", len(loaded.Receipts), last, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return err
	}
	if err := s.Save(ctx, "a", e, bigCommit(last+1)); err != nil {
		return err
	}
	fmt.Println("done", last+1)
	return s.Close()
}

func bigCommit(n int) statestore.Update {
	return statestore.Update{Receipts: []messages.Receipt{{
		Part: messages.PartID(fmt.Sprintf("orders/%06d", n)), Load: "orders", Version: messages.Version{Load: 1, Commit: 1},
		Position: messages.Position{At: messages.Cursor{Type: messages.CursorText, Value: strings.Repeat("y", 900)}},
	}}}
}

// child is a running process of this binary.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	done  bool
}

func start(t *testing.T, what, path string) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := &child{Cmd: exec.Command(exe)}
	c.Env = append(os.Environ(), childWhat+"="+what, childPath+"="+path)
	c.Stderr = os.Stderr
	c.stdin, err = c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	c.lines = bufio.NewScanner(out)
	require.NoError(t, c.Start())
	t.Cleanup(c.kill)
	return c
}

// line waits for a line that begins with word and returns the rest of it.
func (c *child) line(t *testing.T, word string) string {
	t.Helper()
	require.True(t, c.lines.Scan(), "the child ended: %v", c.lines.Err())
	rest, ok := strings.CutPrefix(c.lines.Text(), word)
	require.True(t, ok, "the child said %q", c.lines.Text())
	return strings.TrimSpace(rest)
}

// kill ends the process with SIGKILL, if it is still there, and reaps it.
func (c *child) kill() {
	if !c.done {
		c.done = true
		_ = c.Process.Kill()
		for c.lines.Scan() { // drained, so that Wait does not cut it off
		}
		_ = c.Wait()
	}
}

// envInt returns a number from the environment, for longer campaigns.
func envInt(t *testing.T, name string, or int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return or
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

func open(t *testing.T, path string) *bbolt.Store {
	t.Helper()
	s, err := bbolt.Open(t.Context(), bbolt.Config{Path: path, Timeout: 10 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func openError(t *testing.T, c bbolt.Config) error {
	t.Helper()
	s, err := bbolt.Open(t.Context(), c)
	if err == nil {
		require.NoError(t, s.Close())
	}
	require.Error(t, err)
	var e *statestore.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "open state store", e.Op)
	require.Equal(t, c.Path, e.Path)
	return err
}
