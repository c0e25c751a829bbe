package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
)

// spread is a median with the least and the greatest.
type spread struct{ median, least, most float64 }

// over returns the spread of a value of each round.
func over(rounds [][]run, value func([]run) float64) spread {
	all := make([]float64, len(rounds))
	for i, r := range rounds {
		all[i] = value(r)
	}
	slices.Sort(all)
	n := len(all)
	return spread{(all[(n-1)/2] + all[n/2]) / 2, all[0], all[n-1]}
}

// fastest is the wall time of the best peer in a round.
func fastest(c contest, runs []run) float64 {
	best := math.Inf(1)
	for i, p := range c.contestants {
		if p.peer {
			best = min(best, runs[i].Wall)
		}
	}
	return best
}

// report writes a Markdown table, and behind it the runs as lines of JSON.
func report(w io.Writer, c contest, o options, rounds [][]run, server string) error {
	fmt.Fprintf(w, "%s: %d rows, %d rounds, %d task(s); TCP over loopback, %s, PostgreSQL %s, GOMAXPROCS %d\n\n",
		c.title, c.rows, len(rounds), o.tasks, runtime.Version(), server, runtime.GOMAXPROCS(0))
	fmt.Fprintln(w, "| | wall s | x the best peer | rows/s | client CPU s | ns/row | server CPU s | client peak MB |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	noisy := 0
	for i, p := range c.contestants {
		wall := over(rounds, func(r []run) float64 { return r[i].Wall })
		cpu := over(rounds, func(r []run) float64 { return r[i].cpu() })
		server := over(rounds, func(r []run) float64 { return r[i].Server })
		peak := over(rounds, func(r []run) float64 { return r[i].PeakMB })
		ratio := "-"
		if s := over(rounds, func(r []run) float64 { return r[i].Wall / fastest(c, r) }); s.median > 0 {
			ratio = fmt.Sprintf("%.2f [%.2f-%.2f]", s.median, s.least, s.most)
		}
		rows := float64(c.rows)
		fmt.Fprintf(w, "| %s | %.3f [%.3f-%.3f] | %s | %.0f | %.2f | %.0f | %.2f | %.0f |\n", p.name, wall.median, wall.least, wall.most, ratio,
			rows/wall.median, cpu.median, cpu.median/rows*1e9, server.median, peak.most)
		for _, r := range rounds {
			if r[i].Noisy {
				noisy++
			}
		}
	}
	if noisy > 0 {
		fmt.Fprintf(w, "\n%d of %d runs lost more than %.1f s of CPU to other programs.\n", noisy, len(rounds)*len(c.contestants), o.competing)
	}
	fmt.Fprintln(w)
	enc := json.NewEncoder(w)
	for _, round := range rounds {
		for _, r := range round {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
	}
	return nil
}
