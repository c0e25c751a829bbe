package pgtest

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// pidFile, in the folder of a server, holds the process to kill.
const pidFile = "pid"

// watchdogScript waits for the end of its input, kills the server and removes
// the folder.
const watchdogScript = `trap '' INT TERM HUP
read -r _
if pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ]; then
	kill -QUIT "$pid" 2>/dev/null
	n=0
	while [ $n -lt 50 ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; n=$((n+1)); done
	kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"`

// watchdog removes a folder, and the server in it, when this process is gone.
type watchdog struct {
	dir string
	pid int
	end *os.File // closing it tells the watchdog to act
}

// watchdogs are those that have not been sent home.
var watchdogs struct {
	sync.Mutex
	all map[*watchdog]bool
}

func newWatchdog(dir string) (*watchdog, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := command("/", nil, "/bin/sh", "-c", watchdogScript, "watchdog", dir)
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	dog := &watchdog{dir: dir, pid: cmd.Process.Pid, end: w}
	watchdogs.Lock()
	defer watchdogs.Unlock()
	if watchdogs.all == nil {
		watchdogs.all = make(map[*watchdog]bool)
	}
	watchdogs.all[dog] = true
	return dog, cmd.Process.Release()
}

// guard names the process to kill; 0 is none.
func (d *watchdog) guard(pid int) error {
	path := filepath.Join(d.dir, pidFile)
	if pid == 0 {
		return os.Remove(path)
	}
	return os.WriteFile(path, []byte(strconv.Itoa(pid)), 0o600)
}

// finish makes the watchdog act now and waits for it.
func (d *watchdog) finish() {
	watchdogs.Lock()
	known := watchdogs.all[d]
	delete(watchdogs.all, d)
	watchdogs.Unlock()
	if known {
		d.end.Close()
		_, _ = syscall.Wait4(d.pid, nil, 0, nil) // it is ours, and it ends
	}
}

// finishAll removes what no test has removed.
func finishAll() {
	watchdogs.Lock()
	var all []*watchdog
	for d := range watchdogs.all {
		all = append(all, d)
	}
	watchdogs.Unlock()
	for _, d := range all {
		d.finish()
	}
}
