// Package messages holds the values that travel between actors.
//
// There are two families. Items travel in band, in order, inside one task on
// one node: Batch, SchemaChange, Truncate, Rejected and Barrier. They may hold
// Arrow memory and never cross a node. Notes travel between actors, possibly
// between nodes: Receipt, DestinationAck, CheckpointCommitted, StageFailed and
// the control messages. They are small and plain: numbers, strings and cursors,
// and they survive a round trip through JSON or protobuf. A note may be lost,
// delayed or delivered twice; whoever receives one must end in the same state.
// An item may not.
//
// It is the vocabulary of the engine and its leaf: it imports nothing of ours
// and knows no actor library. A message is sent by value and never changed after
// it is sent. A no-op marker method says which actor may receive it.
package messages
