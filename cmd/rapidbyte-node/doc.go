// Command rapidbyte-node moves data as a pipeline document says.
//
//	rapidbyte-node run pipeline.yaml       moves the data, shows progress, prints a summary
//	rapidbyte-node check pipeline.yaml     looks whether a run would work; changes nothing
//	rapidbyte-node discover pipeline.yaml  lists the streams of the source
//	rapidbyte-node init --from URI --to URI  writes a document from what the source has
//	rapidbyte-node copy --from URI --to URI  runs such a document at once
//	rapidbyte-node dlq list pipeline.yaml  lists rows that were set aside; show, export, replay, purge
//	rapidbyte-node schema                  prints the JSON Schema of the document
//	rapidbyte-node completion, version, help
//
// The command holds no logic of the engine: flags, signals, exit codes and what the
// terminal shows. Everything else is a call to runtime/config and runtime/node.
//
// # Output
//
// stdout carries results only: a summary, a report, a schema, or with --output json
// one envelope. stderr carries progress, logs and errors. With --events - the events
// take stdout and the result goes to stderr. Every text that came from outside is
// escaped before it reaches a terminal.
//
// # How a run ends
//
//	signal 1 ──▶ drain: stop at the next committed position, at most 10 s, exit code 7
//	signal 2 ──▶ stop at once, exit code 7: safe, because what is committed has a receipt
//
// The exit code is the class of the first cause; docs/ERRORS.md lists all of them.
//
// # Memory
//
// resources.max_memory is a hard cap on the bytes of batches in flight. The heap also
// holds what does not grow with the data: the actors, the buffers of the connectors,
// the decoders. run sets the soft limit of the Go runtime to max_memory plus 64 MiB
// for that, so that garbage is collected before the heap exceeds the budget; GOGC keeps
// its default, because below the limit it is what keeps the collector cheap. A
// GOMEMLIMIT in the environment wins.
package main
