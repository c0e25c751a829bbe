//go:build failpoints

package failpoint

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled says whether the program was built with failpoints.
const Enabled = true

// rule is what happens at one point.
type rule struct {
	action string
	arg    string
	nth    int // 0: each hit
	every  int // 0: nth decides
}

var state struct {
	sync.Mutex
	read  bool
	rules map[Point]rule
	hits  map[Point]int
	log   *os.File
}

// Hit follows the rule of a point. It is safe for concurrent use.
func Hit(p Point) error {
	r, n, ok := next(p)
	if !ok || r.every > 0 && n%r.every != 0 || r.every == 0 && r.nth > 0 && n != r.nth {
		return nil
	}
	switch r.action {
	case "kill9":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it is on its way
	case "exit":
		code, _ := strconv.Atoi(r.arg)
		os.Exit(code)
	case "panic":
		panic(fmt.Sprintf("failpoint %s, hit %d", p, n))
	case "error":
		return &Error{Point: p, Text: r.arg}
	case "sleep":
		d, _ := time.ParseDuration(r.arg)
		time.Sleep(d)
	case "block":
		block(p, n)
	}
	return nil
}

// next counts a hit and finds its rule.
func next(p Point) (rule, int, bool) {
	state.Lock()
	defer state.Unlock()
	if !state.read {
		state.read = true
		state.hits = map[Point]int{}
		rules, err := parse(os.Getenv("RB_FAILPOINTS"))
		if err != nil {
			fmt.Fprintln(os.Stderr, "RB_FAILPOINTS:", err)
			os.Exit(64)
		}
		state.rules = rules
		if name := os.Getenv("RB_FAILPOINTS_LOG"); name != "" {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the test's own file
			if err != nil {
				fmt.Fprintln(os.Stderr, "RB_FAILPOINTS_LOG:", err)
				os.Exit(64)
			}
			state.log = f
		}
	}
	state.hits[p]++
	n := state.hits[p]
	if state.log != nil {
		fmt.Fprintf(state.log, "%s %d\n", p, n)
	}
	r, ok := state.rules[p]
	return r, n, ok
}

// block tells the listener where the process is, and waits for its answer. Without a
// listener it waits for ever.
func block(p Point, n int) {
	c, err := net.Dial("unix", os.Getenv("RB_FAILPOINTS_SOCKET"))
	if err != nil {
		select {}
	}
	defer c.Close()
	fmt.Fprintf(c, "%s %d\n", p, n)
	_, _ = bufio.NewReader(c).ReadString('\n')
}

// parse reads the rules of RB_FAILPOINTS.
func parse(text string) (map[Point]rule, error) {
	rules := map[Point]rule{}
	for one := range strings.SplitSeq(text, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		name, what, ok := strings.Cut(one, "=")
		if !ok || !known(Point(name)) {
			return nil, fmt.Errorf("%q names no point", one)
		}
		r, err := parseRule(what)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", one, err)
		}
		rules[Point(name)] = r
	}
	return rules, nil
}

func known(p Point) bool {
	for _, q := range Points() {
		if p == q {
			return true
		}
	}
	return false
}

func parseRule(what string) (r rule, err error) {
	r.action = what
	if i := strings.LastIndexAny(what, "@%"); i > strings.LastIndex(what, ")") {
		n, err := strconv.Atoi(what[i+1:])
		if err != nil || n < 1 {
			return r, fmt.Errorf("%q is no number of a hit", what[i+1:])
		}
		if r.action = what[:i]; what[i] == '@' {
			r.nth = n
		} else {
			r.every = n
		}
	}
	if i := strings.IndexByte(r.action, '('); i >= 0 && strings.HasSuffix(r.action, ")") {
		r.action, r.arg = r.action[:i], r.action[i+1:len(r.action)-1]
	}
	switch r.action {
	case "kill9", "panic", "block":
	case "error":
		if r.arg == "" {
			r.arg = "injected"
		}
	case "exit":
		if r.arg == "" {
			r.arg = "70"
		}
		_, err = strconv.Atoi(r.arg)
	case "sleep":
		_, err = time.ParseDuration(r.arg)
	default:
		err = fmt.Errorf("there is no action %q", r.action)
	}
	return r, err
}
