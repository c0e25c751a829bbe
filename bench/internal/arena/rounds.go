package arena

import (
	"fmt"
	"io"

	"rapidbyte.io/node/bench/internal/artefact"
)

// schedule runs rounds until enough of them count. Round 0 warms up and is dropped; one
// that something else took CPU from is discarded and repeated, while retries last.
type schedule struct {
	rounds  int
	retries int
	limit   float64 // seconds of competing CPU
	log     io.Writer
	// round runs everybody once. attempt counts all rounds.
	round func(number, attempt int) ([]artefact.Run, error)
}

func (s schedule) run() (kept []artefact.Run, discarded int, err error) {
	retries := s.retries
	for number, attempt := 0, 0; number <= s.rounds; attempt++ {
		runs, err := s.round(number, attempt)
		if err != nil {
			return kept, discarded, err
		}
		most := competing(runs)
		if number > 0 && most > s.limit && retries > 0 {
			retries--
			discarded++
			fmt.Fprintf(s.log, "  round %d again: something else took %.2f s of CPU\n", number, most)
			continue
		}
		for i := range runs {
			c := runs[i].Competing
			runs[i].Disturbed = c != nil && *c > s.limit
		}
		if number > 0 {
			kept = append(kept, runs...)
		}
		number++
	}
	return kept, discarded, nil
}

// competing is the most that something else took during a run.
func competing(runs []artefact.Run) float64 {
	most := 0.0
	for _, r := range runs {
		if r.Competing != nil {
			most = max(most, *r.Competing)
		}
	}
	return most
}
