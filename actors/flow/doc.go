// Package flow holds what the stages of a task have in common: credits, the
// register of batches on their way, the port through which a worker goroutine
// hands items to its actor, and the props every actor is spawned with.
//
// # Credits
//
// The receiver grants, the sender spends. A hop has a Window of batches and bytes.
// The sender's Balance says whether it may send; the receiver's Grants collects
// what has been consumed and returns it in portions of half a window. In flight on
// a hop are never more batches than the window, and never more bytes than the
// window and one batch. Barriers need no credit.
//
// # One way out
//
// A stage's worker goroutine pushes items into a Port. The port stamps them,
// enters batches in the Register, offers them to its own actor and waits until the
// actor, holding the credit, has sent them on. So there is one outstanding item per
// stage, and a slow destination stops the reader (I6).
//
// # No batch is lost
//
// proto.actor drops the messages in the mailbox of a stopped actor without a dead
// letter. Every batch is therefore in the Register from the moment it is offered
// until the worker of the next stage takes it. When all actors of an attempt have
// terminated, their owner releases what is left.
package flow
