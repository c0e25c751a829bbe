package arena

import (
	"fmt"
	"io"
	"slices"

	"rapidbyte.io/node/bench/internal/artefact"
)

// schedule runs rounds until enough of them count. Round 0 warms up and is dropped; one
// that something else took CPU from is discarded and repeated, while retries last.
type schedule struct {
	rounds  int
	retries int
	limit   float64 // seconds of competing CPU
	log     io.Writer
	// round runs everybody once, or until stop says that the round will be discarded.
	// attempt counts all rounds.
	round func(number, attempt int, stop func(artefact.Run) bool) ([]artefact.Run, error)
}

func (s schedule) run() (kept []artefact.Run, discarded int, err error) {
	retries := s.retries
	for number, attempt := 0, 0; number <= s.rounds; attempt++ {
		again := number > 0 && retries > 0
		runs, err := s.round(number, attempt, func(r artefact.Run) bool { return again && s.disturbed(r) })
		if err != nil {
			return kept, discarded, err
		}
		if i := slices.IndexFunc(runs, s.disturbed); i >= 0 && again {
			retries--
			discarded++
			fmt.Fprintf(s.log, "  round %d again: something else took %.2f s of CPU from %s\n", number, *runs[i].Competing, runs[i].Contestant)
			continue
		}
		for i := range runs {
			runs[i].Disturbed = s.disturbed(runs[i])
		}
		if number > 0 {
			kept = append(kept, runs...)
		}
		number++
	}
	return kept, discarded, nil
}

// disturbed reports whether something else took CPU from a run. Of a server that is not
// ours that is not known.
func (s schedule) disturbed(r artefact.Run) bool { return r.Competing != nil && *r.Competing > s.limit }
