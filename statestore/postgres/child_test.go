package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
)

// The test binary runs itself as a process that can be stopped and killed, with the name
// of what it shall do and the URL of a store.
const (
	childWhat = "RB_TEST_PGSTATE_CHILD"
	childURL  = "RB_TEST_PGSTATE_URL"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(childWhat); what != "" {
		if err := childMain(what, os.Getenv(childURL)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

func childMain(what, url string) error {
	if what == "idle" {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	ctx, c := context.Background(), postgres.Config{URL: url}
	if what == "wake" {
		c.TTL = time.Second
	}
	s, err := postgres.Open(ctx, c)
	if err != nil {
		return err
	}
	e, err := s.Acquire(ctx, "a", statestore.Claim{})
	if err != nil {
		return err
	}
	fmt.Println("epoch", e)
	switch what {
	case "own":
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "wake":
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		hold, lost := s.Hold("a", e), isClosed(s.Lost("a", e))
		fmt.Printf("hold %s, lost %t, save %s\n", fenced(hold), lost, fenced(s.Save(ctx, "a", e, commit(99))))
		return nil
	case "save":
		return childSave(ctx, s, e)
	}
	return errors.New("unknown work: " + what)
}

func fenced(err error) string {
	if errors.Is(err, statestore.ErrFenced) {
		return "fenced"
	}
	return fmt.Sprint(err)
}

// childSave saves one commit after the other and says so, for ever.
func childSave(ctx context.Context, s *postgres.Store, e messages.Epoch) error {
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
		if v.Commit++; v.Commit%20 == 0 {
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

// child is a running process of this binary.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	done  bool
}

func startChild(t *testing.T, what, url string) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := &child{Cmd: exec.Command(exe)}
	c.Env = append(os.Environ(), childWhat+"="+what, childURL+"="+url)
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

// line waits for a line that begins with word.
func (c *child) line(t *testing.T, word string) {
	t.Helper()
	require.True(t, c.lines.Scan(), "the child ended: %v", c.lines.Err())
	require.True(t, strings.HasPrefix(c.lines.Text(), word), "the child said %q", c.lines.Text())
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
