// Package conntest is the conformance suite of the connectors contract, and the
// in-memory connectors and the small engine with which other packages test.
//
// A connector's test hands the suite a factory:
//
//	func TestConformance(t *testing.T) {
//		conntest.Destination(t, conntest.DestinationFactory{
//			Modes: []connectors.WriteMode{connectors.ModeAppend},
//			New: func(t conntest.T) conntest.Target { ... },
//		})
//	}
//
// # Checks
//
// Each check has a name, so that a failure says which promise was broken. A
// check uses only the contract: it plays the engine on one side and reads rows as
// a user would on the other, as canonical text (see RowText). Around every check
// stands a guard for goroutines that outlive it, and every batch comes from an
// allocator that must be empty in the end.
//
// The suite runs on T, not on *testing.T, so that it can be run against a
// connector with a planted fault: Caught returns what each check reported, without
// failing the test around it. That is how the suite itself is tested.
//
// # Small engine
//
// Drive runs a source into a destination as the engine does: open, scan, begin,
// parts, finish. It can stop at any item as if the process had died; driving again
// must then give exact rows. Emitter is its half of the source contract alone.
//
// # In-memory connectors
//
// MemorySource and MemoryDestination keep the whole contract: transactions,
// fencing, receipts, replace, upsert. Their Hook fields inject faults. They do no
// I/O and wait on channels, timers and contexts only, so they run in a synctest
// bubble. They are safe for concurrent use; set hooks before use.
package conntest
