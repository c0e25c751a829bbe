package run

import (
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

const (
	backoffBase = 200 * time.Millisecond
	backoffCap  = 30 * time.Second
)

// Retry decides whether something is tried again, and when: exponential backoff
// with full jitter and a cap, a bounded number of times in a row.
type Retry struct {
	Max    int // tries after the first, without progress in between
	failed int // in a row
}

// Failed records a failure and returns the delay before the next try; ok is false
// when there is none. jitter is in [0, 1).
func (r *Retry) Failed(f messages.Failure, after time.Duration, jitter float64) (delay time.Duration, ok bool) {
	if !Retryable(f) || r.failed >= r.Max {
		return 0, false
	}
	ceiling := min(backoffBase<<min(r.failed, 20), backoffCap)
	r.failed++
	return max(after, time.Duration(jitter*float64(ceiling))), true
}

// Progressed forgets failures: something was committed since.
func (r *Retry) Progressed() { r.failed = 0 }

// Tries returns how often something failed in a row.
func (r *Retry) Tries() int { return r.failed }

// Retryable reports whether trying again can help: the world hiccuped, or a stage
// crashed and starts afresh from the receipt.
func Retryable(f messages.Failure) bool {
	return connectors.Kind(f.Kind) == connectors.KindTransient || f.Code == messages.CodePanic
}
