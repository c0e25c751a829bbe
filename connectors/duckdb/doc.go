// Package duckdb reads from and writes to DuckDB database files.
//
// # One process, one handle
//
// DuckDB lets one process at a time open a file for writing. Inside the process
// every destination value of a file shares one handle, see registry: it serialises
// what must not run side by side (bookkeeping, COMMIT, upserts into one table) and
// knows every live writer, so that fencing needs no round trip: whoever is fenced
// is interrupted, rolled back and told by whom. The file's own tables say the same
// to the next process.
//
// # What is in the file
//
// The schema _rapidbyte of the same file holds
//
//	owner     epoch and state store of each pipeline: the fence
//	load      the newest load of each name: mode, streams as planned, finished
//	receipt   one row per part: position, counts, the part as planned
//	dlq       dead letters
//
// and is written in the same transactions as the rows. Staging tables of replace
// stand beside their target under a name that begins with _rapidbyte_stage_: DuckDB
// cannot move a table to another schema.
//
// # Destination states
//
//	Session   open -> fenced (a higher epoch opened) -> closed
//	Writer    idle -> writing (a transaction is open) -> idle at Commit;
//	          fenced (a younger writer of the part, an older load) -> closed
//
// append and replace write into the target or staging within one transaction per
// commit. upsert collects a commit in a temporary table, then merges it, the last
// row of a key winning. COMMIT is never interrupted; when it fails in a way that
// does not say what happened, the error is CommitUnknown and the next OpenWriter
// finds out from the receipt.
//
// # Source
//
// A database is opened read-only, for one scan or one part. Tables are split by
// ranges of rowid, which is stable in a file that nobody writes; views are one
// part that ends with its only barrier. A fingerprint of the file in each split
// tells whether an unfinished load can be continued exactly.
//
// # Ownership
//
// Write releases its batch; DuckDB copies it. A reader's batches are copies in
// memory of ReadRequest.Mem.
//
// # Failure
//
// Every error is a *connectors.Error; classify says which complaint of DuckDB is
// of which kind. A file that another process has open is tried for two seconds,
// then refused with its process number.
package duckdb
