// Package pipeline owns one pipeline for as long as this process may run it.
//
//	acquiring ──epoch──▶ running ──Ended──▶ concluding ──▶ done
//	    ▲                  │ │
//	    │ higher epoch met │ └── again ──▶ backoff ──▶ running
//	    └──────────────────┘
//
// The actor draws the epoch, loads the state, and starts a run actor; the next one
// starts only after the old one has terminated. It decides about another go of a run
// whose tasks never lived, or whose scan was lost, with capped and jittered backoff; a
// part's own retries are the run actor's. A destination that has met a higher epoch
// (the state store was lost or restored) is answered with one above it. Drain and Stop
// pass through to the run.
package pipeline
