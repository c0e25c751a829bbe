// Package statestore is the contract of the engine's memory: which epoch owns a
// pipeline, how far each part is confirmed, and which runs there were.
//
// The store never decides anything. It holds K, the copy of what destinations
// have proven (their receipts, D), and hands out epochs. Whoever starts compares
// both; the destination is the authority (rule 8 of docs/ARCHITECTURE.md).
//
// Every change is one transaction that checks the epoch of the lease. A version
// is never lowered (I1). A lost or damaged store is refused by name, never taken
// as empty (I11). The package knows no connector and no actor.
package statestore
