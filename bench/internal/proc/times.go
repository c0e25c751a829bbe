package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// times are seconds of CPU since some beginning.
type times struct{ busy, server, self float64 }

// ticksPerSecond is USER_HZ, which Linux fixed at 100 for every program.
const ticksPerSecond = 100

// machineTimes reads the CPU of the machine, of the server and of this process.
func machineTimes(server int) (times, error) {
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
	t.server = serverTime(server)
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
	if pid == 0 {
		return 0
	}
	sum := processTime(pid)
	for _, child := range childrenOf(pid) {
		sum += processTime(child)
	}
	return sum
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

// childrenOf lists the children of every thread of a process.
func childrenOf(pid int) []int {
	if pid == 0 {
		return nil
	}
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // gone: it has none
	var out []int
	for _, thread := range threads {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name())) // none is possible
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// settle waits, not for ever, until the server has buried the processes that served the
// client: one that ends between two looks would be missed.
func settle(server, processes int) {
	for end := time.Now().Add(time.Second); len(childrenOf(server)) > processes && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// memoryMB reads a line of a process's status; 0 when it has ended.
func memoryMB(pid int, name string) float64 {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status") // gone: it has ended
	_, rest, _ := strings.Cut(string(text), name)
	kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseFloat(kb, 64) // a zombie has none
	return n / 1024
}

// treeMB is the resident memory of a process and all below it.
func treeMB(pid int) memory {
	sum := memory{memoryMB(pid, "VmRSS:"), memoryMB(pid, "RssAnon:")}
	for _, child := range childrenOf(pid) {
		m := treeMB(child)
		sum.all, sum.anon = sum.all+m.all, sum.anon+m.anon
	}
	return sum
}

// Limits of the wait for a quiet machine.
const (
	quietLook = 500 * time.Millisecond
	quietBusy = 0.15 // processors
)

// AwaitQuiet waits, for most at the longest, until the machine has little to do.
func AwaitQuiet(most time.Duration) error {
	for end := time.Now().Add(most); time.Now().Before(end); {
		before, err := machineTimes(0)
		if err != nil {
			return err
		}
		time.Sleep(quietLook)
		after, err := machineTimes(0)
		if err != nil {
			return err
		}
		if after.busy-before.busy < quietBusy*quietLook.Seconds() {
			return nil
		}
	}
	return nil
}
