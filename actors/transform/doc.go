// Package transform applies one transform to the items of a task.
//
//	idle ──item──▶ busy ──done──▶ idle
//	                 │
//	                 └── error ──▶ failed: tells the owner; what it is sent stays in
//	                               the register until the attempt is over
//
// The worker goroutine owns the connectors.Stage. It takes one item at a time and
// pushes zero or more through its port, blocking for credit; upstream is granted
// credit for an item only when all its output has been accepted downstream. Before
// a barrier is forwarded the stage is flushed, and the engine forwards it, not the
// stage: a batch that was filtered out entirely never holds a barrier back.
package transform
