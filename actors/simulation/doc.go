// Package simulation runs the actors of production (node, pipeline, run, checkpoint,
// source, transform, destination) against simulated systems, one thing at a time, in an
// order that a seed decides. It holds tests only.
//
// # What is simulated
//
// Every actor receives through a mailbox that only keeps what it is given. Every call of
// a source, a transform, a destination and a state store waits too. A scheduler picks
// what happens next, one message of one actor or one call, and waits until all
// goroutines wait again before it picks the next. All of it runs in a bubble of
// testing/synctest, so that time is virtual: the same seed gives the same steps, and
// minutes of backoff cost nothing.
//
// The simulated systems are models of their own, not those of conntest and storetest:
//
//   - origin: tables that grow or change as a whole, read in parts behind a snapshot
//     that can be lost; full refreshes and incremental reading, with every Continuity
//   - warehouse: append, upsert and replace by the rules of PostgreSQL: epoch, token and
//     commit number are checked in the transaction that changes rows and receipt; a
//     COMMIT whose reply is lost is done, is not done, or lands later, until somebody
//     who opens waits for it; it can be restored from an older backup
//   - file: the state store; what was not answered when the process died is there or
//     not; it can be restored from an older copy, or lost and rebuilt
//
// A process dies at any step (its actors are never scheduled again and its calls are cut
// off), freezes and wakes up when another one has taken over, is asked to drain, meets
// transient errors, lost replies, slow and hanging calls, panics in actors and connectors.
// Each seed draws which of these it has, and how often. Then the faults stop, and a run
// must complete within minutes of virtual time.
//
// # What is checked
//
// After each change: I1 to I7 of docs/ARCHITECTURE.md as far as they concern the actors;
// that no load is begun over committed rows, no finished one loaded twice and none
// finished before its receipts are persisted; that attempts of a part never overlap; that
// a run which says completed, failed or drained has reason to. At the end of each process
// all its actors have stopped, every batch is released, and no goroutine is left. A
// campaign fails when it never reached one of the rare states it is meant for.
//
// # What is not
//
// Arrow, real connectors and stores, and the disk below them: their own suites and the
// kill tests have those. The actor library's own mailbox and dispatcher are replaced, so
// that data races are left to the race detector. Change data capture, two pipelines in
// one process and a load over several nodes are not simulated.
//
// # How to use it
//
//	go test -run TestSimulation ./actors/simulation             10,000 seeds
//	RB_SEEDS=1000000 go test -run 'TestSimulation$' ...         more
//	RB_SEED=4711 go test -v -run 'TestSimulation$' ...          one, step by step
package simulation
