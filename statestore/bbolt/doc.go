// Package bbolt is the embedded state store: one file, for one process at a time.
//
// # Files
//
//	state.db        the database
//	state.db.id     which store this is; knows that there was one when the database is gone
//	state.db.lock   locked while a process has the store; says which one
//	state.db.damaged-N  a database that Config.Rebuild has set aside
//
// All are made under another name, synced and renamed: at every instant a file
// is there as a whole or not at all.
//
// # Layout
//
//	meta/identity, meta/digest
//	pipelines/<name>/epoch
//	pipelines/<name>/receipts/<part>   messages.Receipt
//	pipelines/<name>/loads/<name>      highest load number reached, highest finished
//	pipelines/<name>/runs/<ulid>       statestore.Run
//	pipelines/<name>/history/<slot>    a kept checkpoint; slot: part, load, epoch, hour
//	pipelines/<name>/orders/<key>      statestore.Order; key: load name, part
//
// A value is JSON behind a CRC32C over its place and itself. meta/digest sums up
// all of them: a value that is missing, or is the one of an earlier day, is
// noticed like one that is torn. A file without a bucket has none of its values: one of
// a program that did not know history and orders is opened as it is.
//
// # Damage
//
// Open reads the whole file before it trusts a byte: first its structure, without
// bbolt, which follows damaged page numbers out of its memory map; then bbolt's
// own check; then every value and the digest. What does not hold is ErrDamaged,
// as is a file that is gone or empty while its identity file is there (I11). The
// one thing that is silent is a torn last transaction: bbolt then shows the one
// before, which is what a crash during Save leaves too; versions are compared
// with the destination's anyway, and epochs are raised above its floor.
//
// A panic of bbolt, also a fault because the file was cut while it was mapped,
// ends the store with ErrDamaged, not the process.
//
// # Failure
//
//	ErrFull     the transaction did not happen; the store goes on
//	ErrBroken   a sync failed: what is on disk is unknown; every later call fails
//	ErrDamaged  every later call fails
//	ErrFenced   another owner; the store goes on, the caller must not
//
// # Ownership
//
// A Store belongs to whoever opened it, who closes it. Its methods may be called
// concurrently; writers wait for each other, and give up when their context
// ends. A transaction that has begun is finished whatever happens to the
// context: an fsync cannot be interrupted. The package has no goroutines.
//
// It runs on systems with flock; the folder must not be on a network file system
// that does not have it.
package bbolt
