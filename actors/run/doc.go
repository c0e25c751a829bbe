// Package run owns one execution of a pipeline under one epoch: it plans tasks,
// wires their actors, and ends them.
//
//	opening ──session──▶ marking ──▶ scanning ──plan──▶ beginning ──▶ running ──▶ closing ──▶ ended
//	   └──────────────────┴─────────────┴── error ─────────┴────────────┴───────────▶
//
// # Who owns what
//
// The actor owns the Session, the Scan, the checkpoint actor and per attempt of a
// part the source, transform and destination actors with their flow.Register.
// Calls that block (Open, Scan, Begin, Finish, Close) run one after the other on its
// worker goroutine. Which part runs when is decided by board, a pure machine; what
// becomes of an unfinished load by Spec.Plan, a pure function.
//
// # Speed
//
// How many tasks run at a time and how long batches are is decided when the plan is known,
// by pure functions (tune.go) of the document's pins, cores, parts, connections left, memory
// and the width of rows. It changes nothing that is written; each decision is in the
// report with its reason. Loads are begun together, and those that wait for their end
// are marked together, where the session can.
//
// # Failure
//
// The failure of any actor of a task ends that attempt only: all its actors are
// stopped, and when the last one has terminated, so that nothing of it has effects
// any more, the next attempt starts from the part's receipt, after a backoff. A part
// that gives up fails its load; the other loads go on. A lost scan, a fence, a bug
// and a state store that cannot save end the run. The first cause is reported.
//
// # Orders
//
// What an operator has ordered is read from the state: to start a load over (its stream is
// Fresh in this run) or to read on from another position than the receipt's. An order names
// the number or version it was given for; the destination says whether that has passed.
//
// # Ending
//
// Ended goes to the parent when every task has stopped and session and scan are
// closed. The parent answers with Conclude, if the run is over for good, and stops
// the actor.
package run
