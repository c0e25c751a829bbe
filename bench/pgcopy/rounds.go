package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// run is one contestant in one round.
type run struct {
	Contest    string `json:"contest"`
	Contestant string `json:"contestant"`
	Rows       int64  `json:"rows"`
	Round      int    `json:"round"`
	Noisy      bool   `json:"noisy,omitempty"` // counted although something else took CPU
	usage
}

// measure runs the rounds of a contest and returns those that count.
func (b *bed) measure(c contest, o options) ([][]run, error) {
	if err := b.exec(schemas(c)...); err != nil {
		return nil, err
	}
	if err := b.exec(c.prepare...); err != nil {
		return nil, err
	}
	want, err := b.query(c.expected)
	if err != nil {
		return nil, err
	}
	var out [][]run
	attempts := 0
	for number, retries := 0, o.retries; number <= o.rounds; attempts++ {
		if err := b.awaitQuiet(); err != nil {
			return nil, err
		}
		runs, err := b.round(c, number, attempts)
		if err != nil {
			return nil, err
		}
		noisy := slices.ContainsFunc(runs, func(r run) bool { return r.Competing > o.competing })
		if noisy && number > 0 && retries > 0 {
			retries--
			fmt.Fprintf(os.Stderr, "round %d again: something else took %.2f s of CPU\n", number, competing(runs))
			continue
		}
		if err := b.verify(c, want); err != nil {
			return nil, fmt.Errorf("round %d: %w", number, err)
		}
		for i := range runs {
			runs[i].Noisy = runs[i].Competing > o.competing
			fmt.Fprintf(os.Stderr, "round %d: %s %.3f s, CPU %.2f s, peak %.0f MB\n", number, runs[i].Contestant, runs[i].Wall, runs[i].cpu(), runs[i].PeakMB)
		}
		if number > 0 {
			out = append(out, runs)
		}
		number++
	}
	return out, nil
}

// Limits of the wait for a quiet machine.
const (
	quietMost = 20 * time.Second
	quietLook = 500 * time.Millisecond
	quietBusy = 0.15 // processors
)

// awaitQuiet waits, not for ever, until the machine has little to do.
func (b *bed) awaitQuiet() error {
	for end := time.Now().Add(quietMost); time.Now().Before(end); {
		before, err := machineTimes(b.server.PID())
		if err != nil {
			return err
		}
		time.Sleep(quietLook)
		after, err := machineTimes(b.server.PID())
		if err != nil {
			return err
		}
		if after.busy-before.busy < quietBusy*quietLook.Seconds() {
			return nil
		}
	}
	return nil
}

func competing(runs []run) float64 {
	most := 0.0
	for _, r := range runs {
		most = max(most, r.Competing)
	}
	return most
}

func schemas(c contest) []string {
	out := []string{"CREATE SCHEMA " + sourceSchema, "CREATE SCHEMA " + baseSchema}
	for _, p := range c.contestants {
		out = append(out, "CREATE SCHEMA "+p.schema)
	}
	return out
}

// round runs every contestant once. attempt numbers the pipelines.
func (b *bed) round(c contest, number, attempt int) ([]run, error) {
	order := slices.Clone(c.contestants)
	if number%2 == 1 {
		slices.Reverse(order) // what drifts with time must not favour one
	}
	runs := make([]run, 0, len(order))
	for _, p := range order {
		if err := b.exec(append(c.reset(p.schema), "CHECKPOINT")...); err != nil {
			return nil, err
		}
		line, err := p.chain(attempt)
		if err != nil {
			return nil, err
		}
		count := &connections{bed: b}
		look := count.look
		if !c.connections {
			look = nil
		}
		u, err := line.run(b.server.PID(), look)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		u.Connection = count.most
		runs = append(runs, run{Contest: c.title, Contestant: p.name, Rows: c.rows, Round: number, usage: u})
	}
	if number%2 == 1 {
		slices.Reverse(runs)
	}
	return runs, nil
}

// connections counts those of the node.
type connections struct {
	bed  *bed
	once sync.Once
	most int
}

func (n *connections) look() {
	rows, err := n.bed.query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
	if err != nil {
		n.once.Do(func() { fmt.Fprintln(os.Stderr, "connections cannot be counted:", err) })
		return
	}
	if k, err := strconv.Atoi(rows[0][0]); err == nil {
		n.most = max(n.most, k)
	}
}

// verify compares what each contestant has written.
func (b *bed) verify(c contest, want [][]string) error {
	for _, p := range c.contestants {
		got, err := b.query(c.actual(p.schema))
		if err != nil {
			return err
		}
		if !slices.Equal(got[0], want[0]) {
			return fmt.Errorf("%s left %s rows with hash %s, expected %s with %s", p.name, got[0][0], got[0][1], want[0][0], want[0][1])
		}
	}
	return nil
}
