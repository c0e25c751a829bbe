package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// owner is who has a lease, as its row says it. Two Stores are two owners, also in one
// process.
type owner struct {
	Store   string `json:"store"` // UUID of the Store
	Host    string `json:"host"`
	Name    string `json:"name"` // of the node or the program, without arguments: they may hold secrets
	PID     int    `json:"pid"`
	Boot    string `json:"boot,omitempty"`    // which start of which machine; empty: unknown
	Space   string `json:"space,omitempty"`   // of process numbers: a container has its own
	Started string `json:"started,omitempty"` // when the process began, since the start of the machine
}

// newOwner describes a Store of this process.
func newOwner(name string) owner {
	host, _ := os.Hostname() // informative only
	if name == "" {
		name = filepath.Base(os.Args[0])
	}
	o := owner{Store: uuid.NewString(), Host: host, Name: name, PID: os.Getpid()}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, err2 := os.Readlink("/proc/self/ns/pid")
	started, _, err3 := process(o.PID)
	if err := errors.Join(err, err2, err3); err == nil { // elsewhere nobody can see whether a process lives
		o.Boot, o.Space, o.Started = strings.TrimSpace(string(boot)), space, started
	}
	return o
}

func (o owner) text() string {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // texts and a number
	}
	return ascii(string(b))
}

// parseOwner reads what the row says; of another's text what can be read.
func parseOwner(text string) owner {
	var o owner
	if json.Unmarshal([]byte(text), &o) != nil {
		return owner{Name: "an unknown owner"}
	}
	return o
}

// gone reports whether the process of o has certainly ended: it ran here, and is no more.
// One that is stopped lives: it may go on at any time.
func (o owner) gone(here owner) bool {
	if o.Boot == "" || o.Boot != here.Boot || o.Space != here.Space || o.PID <= 0 {
		return false
	}
	if errors.Is(unix.Kill(o.PID, 0), unix.ESRCH) {
		return true
	}
	started, state, err := process(o.PID)
	if err != nil {
		return false // others' processes may be hidden
	}
	return started != o.Started || state == 'Z' || state == 'X'
}

// process returns when a process began, and its state.
func process(pid int) (started string, state byte, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", 0, err
	}
	// 4242 (name, which may hold blanks and brackets) S 1 ..
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return string(fields[19]), fields[0][0], nil
}

func (o owner) String() string {
	if o.PID == 0 {
		return o.Name
	}
	s := fmt.Sprintf("process %d (%s)", o.PID, o.Name)
	if o.Host != "" {
		s += " on host " + o.Host
	}
	return s
}
