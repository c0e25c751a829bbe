// Package proc runs programs and reads from /proc what they take: wall time, their
// own CPU, that of the PostgreSQL server, that of everything else, resident memory.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// lookEach is how often the memory of the programs is looked at.
const lookEach = 20 * time.Millisecond

// Usage is what a run took. Times are in seconds.
type Usage struct {
	Wall      float64
	User      float64 // of the programs and their children
	System    float64
	Server    float64 // CPU of the server; 0 when its process is not known
	Competing float64 // CPU of everything else on the machine
	PeakMB    float64 // resident memory of the programs and their children
	AnonMB    float64 // without the pages of files, most of which are those of the program
}

// CPU is what the programs took.
func (u Usage) CPU() float64 { return u.User + u.System }

// Chain is a sequence of programs, each reading what the one before writes.
type Chain struct {
	Commands [][]string
	Env      []string // besides that of this process
	Dir      string
	Stdout   string // file for what the last one writes; empty: kept for the error message
	// KillAfter, when it is not 0, kills all of them, and Run returns ErrKilled if they had not ended before.
	KillAfter time.Duration
	// Look is called now and then while they run.
	Look func()
	// Until is for programs that do not end: they are killed when it says that their work is done.
	Until func() bool
}

// ErrKilled is the error of a chain that was killed as asked for.
var ErrKilled = errors.New("killed, as asked for")

// running is a chain that has been started.
type running struct {
	commands []*exec.Cmd
	faults   []*tail
}

// Run starts the programs and waits for all of them. server is the process of a
// PostgreSQL server, or 0.
func (c Chain) Run(ctx context.Context, server int) (Usage, error) {
	children := len(childrenOf(server))
	before, err := machineTimes(server)
	if err != nil {
		return Usage{}, err
	}
	began := time.Now()
	r, err := c.start()
	if err != nil {
		return Usage{}, err
	}
	killed := make(chan bool, 1)
	stop := make(chan struct{}) // closed when the programs have ended
	peak := make(chan memory, 1)
	done := false // written by the watcher, read when it has ended
	go func() { killed <- r.killer(ctx, stop, c.KillAfter) }()
	go func() {
		peak <- r.watch(stop, func() {
			if c.Look != nil {
				c.Look()
			}
			if c.Until != nil && !done && c.Until() {
				done = true
				r.kill()
			}
		})
	}()
	var u Usage
	for i, cmd := range r.commands {
		if werr := cmd.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w\n%s", cmd.Path, werr, r.faults[i]))
		}
		u.User += cmd.ProcessState.UserTime().Seconds()
		u.System += cmd.ProcessState.SystemTime().Seconds()
	}
	u.Wall = time.Since(began).Seconds()
	close(stop)
	m := <-peak
	u.PeakMB, u.AnonMB = m.all, m.anon
	switch inTime := !<-killed; {
	case !inTime && err != nil:
		err = ErrKilled
	case done:
		err = nil
	case c.Until != nil && err == nil:
		err = errors.New("it ended before its work was done")
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return u, err
	}
	settle(server, children)
	after, err := machineTimes(server)
	if err != nil {
		return u, err
	}
	u.Server = after.server - before.server
	u.Competing = max(0, after.busy-before.busy-u.Server-u.CPU()-(after.self-before.self))
	return u, nil
}

// start connects the programs with pipes of the kernel and starts them.
func (c Chain) start() (*running, error) {
	r := &running{}
	var read *os.File
	for i, args := range c.Commands {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = c.Dir
		cmd.Env = append(cmd.Environ(), c.Env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // children are killed with their parents
		fault := &tail{}
		cmd.Stderr = fault
		if read != nil {
			cmd.Stdin = read
		}
		next, closers, err := c.output(cmd, i, fault)
		if err == nil {
			err = cmd.Start()
		}
		for _, f := range append(closers, read) {
			if f != nil {
				_ = f.Close() // the child has its own
			}
		}
		if err != nil {
			if next != nil {
				_ = next.Close() // nobody writes
			}
			r.kill()
			for _, started := range r.commands {
				_ = started.Wait() // killed
			}
			return nil, err
		}
		r.commands, r.faults = append(r.commands, cmd), append(r.faults, fault)
		read = next
	}
	return r, nil
}

// output decides where a program writes, and returns where the next one reads.
func (c Chain) output(cmd *exec.Cmd, i int, fault io.Writer) (next *os.File, closers []*os.File, err error) {
	if i+1 < len(c.Commands) {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		cmd.Stdout = write
		return read, []*os.File{write}, nil
	}
	if c.Stdout == "" {
		cmd.Stdout = fault
		return nil, nil, nil
	}
	f, err := os.Create(c.Stdout)
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdout = f
	return nil, []*os.File{f}, nil
}

func (r *running) kill() {
	for _, cmd := range r.commands {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	}
}

// killer kills the programs when ctx or their time ends before them, and says whether
// that was for the time.
func (r *running) killer(ctx context.Context, stop <-chan struct{}, after time.Duration) bool {
	var out <-chan time.Time
	if after > 0 {
		timer := time.NewTimer(after)
		defer timer.Stop()
		out = timer.C
	}
	select {
	case <-stop:
		return false
	case <-ctx.Done():
		r.kill()
		return false
	case <-out:
		r.kill()
		return true
	}
}

// memory is resident memory in MB.
type memory struct{ all, anon float64 }

// watch returns the peak of the resident memory: the sum of the high-water marks
// of the programs, or, if they have children, the greatest sum of all that live at one
// look. What wait4 reports would not do: it begins with the size of the process that
// forked.
func (r *running) watch(stop <-chan struct{}, look func()) memory {
	ticker := time.NewTicker(lookEach)
	defer ticker.Stop()
	marks := make([]float64, len(r.commands))
	var most memory
	for {
		var sum memory
		for i, cmd := range r.commands {
			tree := treeMB(cmd.Process.Pid)
			marks[i] = max(marks[i], memoryMB(cmd.Process.Pid, "VmHWM:"))
			sum.all, sum.anon = sum.all+tree.all, sum.anon+tree.anon
		}
		most.all, most.anon = max(most.all, sum.all), max(most.anon, sum.anon)
		look()
		select {
		case <-ticker.C:
		case <-stop:
			sum.all = 0
			for _, m := range marks {
				sum.all += m
			}
			most.all = max(most.all, sum.all)
			return most
		}
	}
}

// tail keeps the end of what a program says.
type tail struct{ buf bytes.Buffer }

// tailMost is how much of it is kept.
const tailMost = 8 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if t.buf.Len() > 2*tailMost {
		t.buf.Next(t.buf.Len() - tailMost)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(t.buf.String()) }
