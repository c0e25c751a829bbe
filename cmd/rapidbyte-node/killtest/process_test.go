package killtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"rapidbyte.io/node/messages"
)

// kill says when a process is killed: a moment after the n-th event of a kind.
type kill struct {
	kind  messages.EventKind // "": of any kind
	n     int                // 0: the moment counts from the start of the process
	delay time.Duration
}

func (k kill) String() string {
	switch {
	case k.n == 0:
		return fmt.Sprintf("%v after the start", k.delay)
	case k.kind == "":
		return fmt.Sprintf("%v after event %d", k.delay, k.n)
	}
	return fmt.Sprintf("%v after %s %d", k.delay, k.kind, k.n)
}

// lastTask is the task_ended after which no other task runs. It is no event.
const lastTask messages.EventKind = "last_task"

func micros(random *rand.Rand, most int) time.Duration {
	return time.Duration(random.IntN(most+1)) * time.Microsecond
}

// recovering kills while the run opens what the one before has left.
func recovering(random *rand.Rand) kill {
	return kill{kind: messages.EventRunStarted, n: 1, delay: micros(random, 45_000)}
}

// reach is after how many events most kills come: few, because a kill early in a run is
// as good as a late one, and cheaper. The next run goes on from there.
const reach = 16

// someKill draws a plan.
func someKill(random *rand.Rand) kill {
	switch p := random.IntN(100); {
	case p < 3:
		return kill{delay: micros(random, 60_000)}
	case p < 15:
		return recovering(random)
	case p < 18: // a load may be complete
		return kill{kind: messages.EventTaskEnded, n: 1 + random.IntN(6), delay: micros(random, 3000)}
	case p < 24: // the last load is complete
		return kill{kind: lastTask, n: 1, delay: micros(random, 4000)}
	case p < 26:
		return kill{kind: messages.EventStreamFinished, n: 1 + random.IntN(3), delay: micros(random, 3000)}
	case p < 29: // the run is about to be recorded as complete
		return kill{kind: messages.EventStreamFinished, n: 2, delay: micros(random, 35_000)}
	case p < 30:
		return kill{kind: messages.EventRunEnded, n: 1}
	case p < 55:
		return kill{n: 2 + random.IntN(reach)}
	}
	return kill{n: 2 + random.IntN(reach), delay: micros(random, 6_000)}
}

// someKillBetweenServers is a plan with more kills while rows move. events is how many a
// whole run has.
func someKillBetweenServers(random *rand.Rand, events int) kill {
	p := random.IntN(100)
	switch {
	case p < 1:
		return kill{delay: micros(random, 60_000)}
	case p < 5:
		return recovering(random)
	case p < 13: // the last load is complete: a replace becomes visible
		return kill{kind: lastTask, n: 1, delay: micros(random, 12_000)}
	case p < 14:
		return kill{kind: messages.EventStreamFinished, n: 1 + random.IntN(3), delay: micros(random, 5000)}
	case p < 15:
		return kill{kind: messages.EventRunEnded, n: 1}
	case p < 35: // anywhere
		return kill{n: 5 + random.IntN(max(events*2/3-5, 5)), delay: micros(random, 4000)}
	}
	return kill{kind: messages.EventCheckpoint, n: 1 + random.IntN(reach/4), delay: micros(random, 4000)}
}

// attempt is how one process went.
type attempt struct {
	killed  bool           // by us; otherwise it ended by itself
	code    int            // exit code of one that ended by itself
	midRun  bool           // killed between run_started and run_ended
	moving  bool           // killed while a task ran
	commits int            // checkpoint events
	events  int            // of any kind
	written int64          // rows of the stream that wrote the most
	epoch   messages.Epoch // 0: no task was started
	log     string         // file with its standard error
}

// hangs is when a process is declared stuck: a run takes a second.
const hangs = 2 * time.Minute

// execute runs the document in dir, to its end or until it is killed by plan. seen, if
// not nil, is told each event.
func execute(binary, dir string, number int, plan *kill, seen func(messages.Event) error) (a attempt, err error) {
	name := filepath.Join(dir, "log", fmt.Sprintf("%03d", number))
	a.log = name + ".stderr"
	stderr, err := os.Create(a.log)
	if err != nil {
		return a, err
	}
	defer stderr.Close()
	events, err := os.Create(name + ".events")
	if err != nil {
		return a, err
	}
	defer events.Close()
	cmd := exec.Command(binary, "run", "p.yaml", "--output", "plain", "--events", "-")
	cmd.Dir, cmd.Stderr = dir, stderr
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return a, err
	}
	if err := cmd.Start(); err != nil {
		return a, err
	}
	var stuck atomic.Bool
	watch := time.AfterFunc(hangs, func() {
		stuck.Store(true)
		_ = cmd.Process.Signal(syscall.SIGQUIT) // goroutines to the log
	})
	defer watch.Stop()
	if plan != nil && plan.n == 0 {
		timer := time.AfterFunc(plan.delay, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	var wrong error
	progress := progress{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e messages.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			break // a line that the kill has cut off
		}
		_, _ = fmt.Fprintln(events, lines.Text())
		a.written, a.epoch = max(a.written, e.RowsWritten), max(a.epoch, e.Token.Epoch)
		if seen != nil {
			wrong = errors.Join(wrong, seen(e))
		}
		if progress.met(e.Kind, plan) {
			time.Sleep(plan.delay)
			_ = cmd.Process.Kill() // it may have ended
		}
	}
	_ = cmd.Wait() // how it ended is in ProcessState
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	a.killed = status.Signaled() && status.Signal() == syscall.SIGKILL
	a.code, a.commits = cmd.ProcessState.ExitCode(), progress[messages.EventCheckpoint]
	a.events = progress[""]
	a.midRun = a.killed && progress[messages.EventRunStarted] > 0 && progress[messages.EventRunEnded] == 0
	a.moving = a.killed && progress[messages.EventTaskStarted] > progress[messages.EventTaskEnded]
	if stuck.Load() {
		return a, fmt.Errorf("it hung for %v, see %s", hangs, a.log)
	}
	return a, wrong
}

// progress counts events by kind; "" is all of them.
type progress map[messages.EventKind]int

// met counts an event and reports whether it is the one that plan waits for.
func (p progress) met(event messages.EventKind, plan *kill) bool {
	kinds := []messages.EventKind{event, ""}
	if p[event]++; event == messages.EventTaskEnded && p[event] == p[messages.EventTaskStarted] {
		kinds = append(kinds, lastTask)
		p[lastTask]++
	}
	p[""]++
	return plan != nil && plan.n > 0 && slices.Contains(kinds, plan.kind) && p[plan.kind] == plan.n
}
