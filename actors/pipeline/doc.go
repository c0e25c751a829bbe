// Package pipeline owns one pipeline for as long as this process may run it.
//
//	acquiring ──epoch──▶ running ──Ended──▶ concluding ──▶ releasing ──▶ done
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
//
// Where the store leases the pipeline, the actor watches the lease. When it is lost the
// run ends at once, as fenced, and nothing more is started; before each commit the lease is
// asked for, since a process that was frozen hears of nothing. It is given back when the
// run actor has terminated, whatever the outcome, so that the next owner need not wait.
package pipeline
