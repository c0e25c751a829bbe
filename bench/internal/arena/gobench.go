package arena

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"rapidbyte.io/node/bench/internal/artefact"
	"rapidbyte.io/node/bench/internal/proc"
	"rapidbyte.io/node/bench/internal/scenario"
)

// goBench runs benchmarks of a Go package; each round is one go test. The first warms up.
func (a *Arena) goBench(ctx context.Context, s *scenario.Scenario, r *artefact.Result) error {
	benchtime := s.Go.Time
	if s.Go.Scaled > 0 {
		benchtime = strconv.Itoa(s.Go.Scaled) + "x"
	}
	args := []string{"go", "test", "-run", "^$", "-bench", s.Go.Bench, "-count", "1", "-timeout", "30m"}
	if benchtime != "" {
		args = append(args, "-benchtime", benchtime)
	}
	plan := schedule{
		rounds: s.Rounds, retries: a.options.Retries, limit: a.options.Competing, log: a.options.Log,
		round: func(number, _ int, _ func(artefact.Run) bool) ([]artefact.Run, error) {
			out := filepath.Join(a.dir, "go-test.txt")
			chain := proc.Chain{Commands: [][]string{append(args, s.Go.Package)}, Stdout: out}
			if _, err := chain.Run(ctx, 0); err != nil {
				text, _ := os.ReadFile(out) // the error of the program counts
				return nil, fmt.Errorf("%w\n%s", err, text)
			}
			text, err := os.ReadFile(out)
			if err != nil {
				return nil, err
			}
			runs := parseBench(string(text), s.Go.Metric, number)
			if len(runs) == 0 {
				return nil, fmt.Errorf("%s has no benchmark that matches %s", s.Go.Package, s.Go.Bench)
			}
			fmt.Fprintf(a.options.Log, "  round %d: %d benchmarks\n", number, len(runs))
			return runs, nil
		},
	}
	var err error
	r.Runs, r.Discarded, err = plan.run()
	r.Complete = err == nil
	return err
}

var benchRE = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// parseBench reads the lines that go test writes. A benchmark that times several in turn
// reports NAME-UNIT for each, which makes them contestants of their own.
func parseBench(text, unit string, round int) []artefact.Run {
	var out []artefact.Run
	for l := range strings.Lines(text) {
		m := benchRE.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil {
			continue
		}
		run := artefact.Run{Contestant: m[1], Round: round, Metrics: map[string]float64{}}
		fields := strings.Fields(m[2])
		for i := 0; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				continue
			}
			if name, ok := strings.CutSuffix(fields[i+1], "-"+unit); ok {
				out = append(out, artefact.Run{Contestant: name, Round: round, Metrics: map[string]float64{unit: v}})
			} else {
				run.Metrics[fields[i+1]] = v
			}
		}
		if _, ok := run.Metrics[unit]; ok {
			out = append(out, run)
		}
	}
	return out
}
