// Package source reads one part within its credits.
//
//	waiting ──Resume──▶ reading ──barrier of kind drain or end──▶ ended
//	                       │
//	                       └── error ──▶ failed: tells the owner, ignores the rest
//
// The reader goroutine owns the connectors.Reader and everything it has not yet
// offered. It pushes through an emitter, which stamps items, cuts batches to the
// limits, asks for barriers at the checkpoint interval, and blocks for credit. The
// actor holds the credit and sends on. Drain closes a channel that the emitter looks
// at: the next barrier the reader emits becomes the drain barrier, and nothing can
// be emitted behind it.
//
// The actor stays until its owner stops it: a Confirmer must hear which positions
// are persisted. Stopping cancels and joins the goroutine; afterwards the origin is
// not touched any more.
package source
