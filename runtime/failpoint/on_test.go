//go:build failpoints

package failpoint

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain is also the process that fails: three hits of a point.
func TestMain(m *testing.M) {
	if os.Getenv("RB_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	for range 3 {
		if err := Hit(DestCommitted); err != nil {
			os.Exit(3)
		}
	}
	os.Exit(0)
}

func child(t *testing.T, rules string, env ...string) (code int, signal syscall.Signal, hits string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RB_TEST_CHILD=1", "RB_FAILPOINTS="+rules, "RB_FAILPOINTS_LOG="+log)
	cmd.Env = append(cmd.Env, env...)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok {
		require.NoError(t, err)
	} else if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		signal = ws.Signal()
	}
	text, _ := os.ReadFile(log)
	return cmd.ProcessState.ExitCode(), signal, string(text)
}

func TestActions(t *testing.T) {
	const first, second = "dest.commit.after 1\n", "dest.commit.after 2\n"
	for _, c := range []struct {
		rules  string
		code   int
		signal syscall.Signal
		hits   string
	}{
		{"", 0, 0, first + second + "dest.commit.after 3\n"},
		{"dest.commit.after=kill9", -1, syscall.SIGKILL, first},
		{"drain=kill9; dest.commit.after=kill9@2", -1, syscall.SIGKILL, first + second},
		{"dest.commit.after=exit(9)@2", 9, 0, first + second},
		{"dest.commit.after=exit", 70, 0, first},
		{"dest.commit.after=panic%2", 2, 0, first + second},
		{"dest.commit.after=error(no @ luck)", 3, 0, first},
		{"dest.commit.after=error@4", 0, 0, first + second + "dest.commit.after 3\n"},
		{"dest.commit.after=sleep(1ms)", 0, 0, first + second + "dest.commit.after 3\n"},
		{"dest.commit.never=kill9", 64, 0, ""},
		{"dest.commit.after=explode", 64, 0, ""},
		{"dest.commit.after=kill9@0", 64, 0, ""},
		{"dest.commit.after=sleep(soon)", 64, 0, ""},
	} {
		code, signal, hits := child(t, c.rules)
		require.Equal(t, c.code, code, c.rules)
		require.Equal(t, c.signal, signal, c.rules)
		require.Equal(t, c.hits, hits, c.rules)
	}
}

func TestBlockWaitsForAnAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	done := make(chan int)
	go func() {
		code, _, _ := child(t, "dest.commit.after=block@2", "RB_FAILPOINTS_SOCKET="+socket)
		done <- code
	}()
	c, err := l.Accept()
	require.NoError(t, err)
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "dest.commit.after 2\n", line)
	select {
	case <-done:
		t.Fatal("it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, c.Close())
	require.Zero(t, <-done)
}
