// Package destination writes one part.
//
//	opening ──OpenWriter──▶ idle ──item──▶ busy ──done──▶ idle
//	                                         │
//	                                         └── error ──▶ failed: tells the owner;
//	                                             what it is sent stays in the register
//
// The worker goroutine owns the connectors.Writer and, while it has it, the batch.
// Its first act is OpenWriter, which fences every other writer of the part; the
// receipt goes to the owner, who lets the source resume from it. A barrier becomes
// a Commit, its receipt an ack to the checkpoint actor: absolute, so that a lost or
// doubled one does no harm. After the first error the worker latches: it writes and
// commits nothing more, because a commit behind a hole would cover it.
package destination
