package bbolt

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rapidbyte.io/node/statestore"
)

// lockPoll is how often a held lock is tried again.
const lockPoll = 25 * time.Millisecond

// holder is what the owner of a store writes into its lock file, for the message
// that the next process shows.
type holder struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Command string    `json:"command"` // name of the program, without arguments: they may hold secrets
	Since   time.Time `json:"since"`
}

// takeLock opens path, makes this process its holder, and writes down who that
// is. The file is never removed: a lock on a name that can vanish protects
// nothing. Closing the returned file gives the lock up.
func takeLock(ctx context.Context, path string, deadline, now time.Time) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, f, deadline); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	host, _ := os.Hostname() // informative only
	text, err := json.Marshal(holder{PID: os.Getpid(), Host: host, Command: filepath.Base(os.Args[0]), Since: now.UTC()})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(text, '\n'), 0)
	}
	if err != nil && !isFull(err) { // on a full disk the lock holds, it only has no name
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// flock locks f for this process alone. When that is not possible before the
// deadline, the error names the process that has it.
func flock(ctx context.Context, f *os.File, deadline time.Time) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock on %s: %w", f.Name(), context.Cause(ctx))
		case <-tick.C:
		}
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		case !time.Now().Before(deadline):
			return fmt.Errorf("%w: %s", statestore.ErrHeld, describeHolder(f))
		}
		tick.Reset(min(lockPoll, max(0, time.Until(deadline))))
	}
}

// describeHolder says which process has the lock on f. The kernel's own table is
// asked first; it hides processes of other containers, and knows none on other
// hosts, where only the text in the lock file helps.
func describeHolder(f *os.File) string {
	var h holder
	if strings.HasSuffix(f.Name(), lockSuffix) {
		text, err := os.ReadFile(f.Name())
		if err != nil || json.Unmarshal(text, &h) != nil {
			h = holder{}
		}
	}
	host, _ := os.Hostname() // informative only
	if pid := kernelHolder(f); pid > 0 && pid != h.PID {
		h = holder{PID: pid, Host: host}
	}
	if h.PID == 0 {
		return "an unknown process"
	}
	s := "process " + strconv.Itoa(h.PID)
	if h.Command == "" && h.Host == host {
		h.Command = commandOf(h.PID)
	}
	if h.Command != "" {
		s += " (" + h.Command + ")"
	}
	if h.Host != host {
		s += " on host " + h.Host
	}
	if h.Host == host && h.PID == os.Getpid() {
		s += ", which is this process"
	}
	if !h.Since.IsZero() {
		s += ", since " + h.Since.Format(time.RFC3339)
	}
	return s
}

// commandOf returns the name of a running program, "" if it cannot be known.
func commandOf(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// kernelHolder finds the process that has a lock on f; 0 if it cannot be known.
func kernelHolder(f *os.File) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil { //nolint:gosec // a descriptor
		return 0
	}
	table, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer table.Close() // only read
	// 1: FLOCK  ADVISORY  WRITE 4242 fd:01:1234567 0 EOF
	dev := uint64(st.Dev) //nolint:gosec,unconvert // its type differs between systems
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), st.Ino)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != want {
			continue
		}
		if pid, err := strconv.Atoi(field[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
