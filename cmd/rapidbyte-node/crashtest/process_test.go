package crashtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// order is what a process is told to do at its crash points.
type order struct {
	rules string // of RB_FAILPOINTS
	// drain is the batch whose building is held up until a drain was asked for; 0: none.
	drain int
}

// ended is how one process went.
type ended struct {
	killed  bool // by itself
	code    int
	hits    map[failpoint.Point]int
	written map[messages.StreamID]int64 // rows of its streams, as they finished
	passed  bool                        // its rows, undecoded
	took    time.Duration               // since a drain was asked for
	output  string                      // standard error
}

// hangs is when a process is declared stuck: a run takes less than a second.
const hangs = time.Minute

// execute runs the document in dir. number names its logs.
func execute(binary, dir string, number int, o order) (e ended, err error) {
	name := filepath.Join(dir, "log", fmt.Sprintf("%02d", number))
	hits := name + ".hits"
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(binary, "run", "p.yaml", "--output", "plain", "--events", "-")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all", "RB_FAILPOINTS_LOG="+hits)
	rules := o.rules
	var held net.Listener
	if o.drain > 0 {
		if held, err = net.Listen("unix", filepath.Join(dir, "s")); err != nil {
			return e, err
		}
		defer held.Close()
		rules = strings.TrimPrefix(fmt.Sprintf("%s;%s=block@%d", rules, failpoint.SourceBatch, o.drain), ";")
		cmd.Env = append(cmd.Env, "RB_FAILPOINTS_SOCKET="+held.Addr().String())
	}
	cmd.Env = append(cmd.Env, "RB_FAILPOINTS="+rules)
	if err := cmd.Start(); err != nil {
		return e, err
	}
	var stuck atomic.Bool
	gone := make(chan struct{})
	watch := time.AfterFunc(hangs, func() {
		stuck.Store(true)
		_ = cmd.Process.Signal(syscall.SIGQUIT) // goroutines to its standard error
	})
	asked := make(chan time.Time, 1)
	go func() {
		defer close(asked)
		if held != nil {
			asked <- drain(held, cmd.Process, hits, gone)
		}
	}()
	_ = cmd.Wait() // how it ended is in ProcessState
	end := time.Now()
	close(gone)
	if held != nil {
		_ = held.Close() // it may never have been reached
	}
	if t := <-asked; !t.IsZero() {
		e.took = end.Sub(t)
	}
	watch.Stop()
	if stuck.Load() {
		err = fmt.Errorf("it hung for %v", hangs)
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	e.killed = status.Signaled() && status.Signal() == syscall.SIGKILL
	e.code, e.output = cmd.ProcessState.ExitCode(), stderr.String()
	e.written, e.passed = finished(stdout.Bytes()), bytes.Contains(stdout.Bytes(), []byte("rows pass through as they are"))
	var readErr error
	e.hits, readErr = readHits(hits)
	err = errors.Join(err, readErr, os.WriteFile(name+".stderr", stderr.Bytes(), 0o600), os.WriteFile(name+".events", stdout.Bytes(), 0o600))
	return e, err
}

// drain waits until a source is held up, asks for a drain, and lets the source go on when
// that was heard. It returns when it asked; zero: there was nothing to hold up.
func drain(held net.Listener, p *os.Process, hits string, gone <-chan struct{}) time.Time {
	conn, err := held.Accept()
	if err != nil {
		return time.Time{} // closed: the process has ended
	}
	defer conn.Close()
	asked := time.Now()
	_ = p.Signal(syscall.SIGTERM) // it may have ended
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return asked
		case <-tick.C:
			if now, err := readHits(hits); err != nil || now[failpoint.Draining] > 0 {
				return asked
			}
		}
	}
}

// readHits counts the hits in a log. One line may be cut off by a kill.
func readHits(name string) (map[failpoint.Point]int, error) {
	f, err := os.Open(name)
	out := map[failpoint.Point]int{}
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if point, _, ok := strings.Cut(lines.Text(), " "); ok {
			out[failpoint.Point(point)]++
		}
	}
	return out, lines.Err()
}

// finished returns how many rows the streams have written that came to their end.
func finished(events []byte) map[messages.StreamID]int64 {
	out := map[messages.StreamID]int64{}
	for line := range bytes.Lines(events) {
		var e messages.Event
		if json.Unmarshal(line, &e) != nil {
			break // cut off by a kill
		}
		if e.Kind == messages.EventStreamFinished {
			out[e.Stream] = e.RowsWritten
		}
	}
	return out
}
