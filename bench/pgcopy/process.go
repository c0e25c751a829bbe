package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lookEach is how often the memory of a client is looked at.
const lookEach = 20 * time.Millisecond

// usage is what one run took. Times are in seconds.
type usage struct {
	Wall       float64 `json:"wall_s"`
	User       float64 `json:"client_user_s"`
	System     float64 `json:"client_system_s"`
	Server     float64 `json:"server_cpu_s"`
	Competing  float64 `json:"competing_cpu_s"` // of everything else on the machine
	PeakMB     float64 `json:"client_peak_mb"`
	Connection int     `json:"connections,omitempty"` // most at a time, where they were counted
}

// cpu is what the client took.
func (u usage) cpu() float64 { return u.User + u.System }

// chain is a sequence of programs, each reading what the one before writes.
type chain []*exec.Cmd

// run starts the programs and waits for all of them.
func (c chain) run(serverPID int, look func()) (usage, error) {
	faults := make([]bytes.Buffer, len(c)) // each written by one goroutine
	for i, cmd := range c {
		cmd.Stderr = &faults[i]
	}
	c[len(c)-1].Stdout = c[len(c)-1].Stderr
	processes := len(childrenOf(serverPID))
	before, err := machineTimes(serverPID)
	if err != nil {
		return usage{}, err
	}
	began := time.Now()
	if err := c.start(); err != nil {
		return usage{}, err
	}
	stop := make(chan struct{}) // closed when the programs have ended
	peak := make(chan float64, 1)
	go func() { peak <- c.watch(stop, look) }()
	var u usage
	for i, cmd := range c {
		if werr := cmd.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w\n%s", cmd.Path, werr, faults[i].String()))
		}
		u.User += cmd.ProcessState.UserTime().Seconds()
		u.System += cmd.ProcessState.SystemTime().Seconds()
	}
	u.Wall = time.Since(began).Seconds()
	close(stop)
	u.PeakMB = <-peak
	if err != nil {
		return u, err
	}
	settle(serverPID, processes)
	after, err := machineTimes(serverPID)
	if err != nil {
		return u, err
	}
	u.Server = after.server - before.server
	u.Competing = max(0, after.busy-before.busy-u.Server-u.cpu()-(after.self-before.self))
	return u, nil
}

// start connects the programs with pipes of the kernel and starts them.
func (c chain) start() error {
	var read *os.File
	for i, cmd := range c {
		if read != nil {
			cmd.Stdin = read
		}
		var write *os.File
		next := read
		if i+1 < len(c) {
			var err error
			if next, write, err = os.Pipe(); err != nil {
				return err
			}
			cmd.Stdout = write
		}
		err := cmd.Start()
		if write != nil {
			write.Close()
		}
		if read != nil {
			read.Close()
		}
		if err != nil {
			return err
		}
		read = next
	}
	return nil
}

// watch returns the peak of the programs' resident memory in MB. What wait4 reports
// would not do: it begins with the size of the process that forked.
func (c chain) watch(stop <-chan struct{}, look func()) float64 {
	ticker := time.NewTicker(lookEach)
	defer ticker.Stop()
	peaks := make([]float64, len(c))
	for {
		for i, cmd := range c {
			peaks[i] = max(peaks[i], peakMB(cmd.Process.Pid))
		}
		if look != nil {
			look()
		}
		select {
		case <-ticker.C:
		case <-stop:
			sum := 0.0
			for _, p := range peaks {
				sum += p
			}
			return sum
		}
	}
}

// peakMB is the high-water mark of a process's resident pages; 0 when it has ended.
func peakMB(pid int) float64 {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status") // gone: it has ended
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseFloat(kb, 64) // a zombie has none
	return n / 1024
}

// times are seconds of CPU since some beginning.
type times struct{ busy, server, self float64 }

// ticksPerSecond is USER_HZ, which Linux fixed at 100 for every program.
const ticksPerSecond = 100

// machineTimes reads the CPU of the machine, of the server and of this process.
func machineTimes(serverPID int) (times, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return times{}, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return times{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var t times
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user nice system .. irq softirq steal
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return times{}, err
		}
		t.busy += n / ticksPerSecond
	}
	t.server = serverTime(serverPID)
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return times{}, err
	}
	t.self = float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
	return t, nil
}

// serverTime sums the processes of the server: the first with those that it has
// buried, and its children.
func serverTime(pid int) float64 {
	sum := processTime(pid)
	for _, child := range childrenOf(pid) {
		sum += processTime(child)
	}
	return sum
}

func childrenOf(pid int) []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none is possible
	var out []int
	for word := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(word); err == nil {
			out = append(out, child)
		}
	}
	return out
}

// settle waits, not for ever, until the server has buried the processes that served the
// client: one that ends between two looks would be missed.
func settle(pid, processes int) {
	for end := time.Now().Add(time.Second); len(childrenOf(pid)) > processes && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// processTime is the CPU of a process and of the children that it has waited for.
func processTime(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // gone: counted by its parent
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return 0
	}
	sum := 0.0
	for _, f := range fields[11:15] { // utime stime cutime cstime
		n, _ := strconv.ParseFloat(f, 64) // the kernel writes numbers
		sum += n
	}
	return sum / ticksPerSecond
}
