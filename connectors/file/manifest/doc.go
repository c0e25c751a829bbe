// Package manifest is the bookkeeping of a folder that a pipeline writes to: what
// is committed, by whom, and how far each part has come.
//
// A Manifest is one numbered, immutable state. Its methods are the events of the
// destination (take over, begin, open a writer, commit, finish); each returns the
// next state or an error and never changes the receiver. The package does no I/O
// and knows no clock: whoever publishes the next state under the next number wins,
// and that exclusive creation is the only lock there is.
//
//	empty --TakeOver--> owned --Begin--> loading --OpenWriter, Commit--> loading
//	                                        |
//	                                        +--Finish--> owned (load finished)
//
// Each method checks the epoch first (I4): a state of a higher epoch answers
// with a connectors.FencedError. Files of an append are listed by the commit that
// wrote them (I2); files of a replace are staged in their load and listed by Finish,
// all at once, in place of what the target had (I5).
//
// Encode and Decode carry a format version and a checksum over the exact bytes of
// the state, so that a damaged manifest is never taken for a shorter history.
package manifest
