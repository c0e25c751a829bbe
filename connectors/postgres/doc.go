// Package postgres is the PostgreSQL source and destination.
//
// # Source
//
// A scan exports one snapshot, and every part of every stream reads under it: by
// COPY (query) TO STDOUT (FORMAT binary), decoded straight into Arrow buffers. A table
// is split by ranges of blocks (ctid) or of its partition key. Within a part positions
// are exact behind each piece of blocks, at no cost per row. An incremental stream reads
// behind a compound position (cursor, tie-breakers) up to a bound that is read first;
// the server alone compares cursors, in the column's own type and collation.
//
// The snapshot dies with the node. What that means for an unfinished load is the
// engine's decision; the source answers "drift" for a table and "exact" for a history
// behind a cursor.
//
// # Destination
//
// Each writer has one connection and one transaction per commit: rows, dead letters and
// the receipt together, after the owner's row has been locked against a take-over and
// the part's row has answered to epoch, attempt and commit number. Rows go straight into
// the table by binary COPY (append), into a staging table that takes the target's name
// when the load is complete (replace), or through a temporary table and one merging
// statement per commit (upsert). A type without a binary form here goes through the
// temporary table too, as text, and is cast by the server.
//
// Bookkeeping is in the schema _rapidbyte: owner (the fence), load, receipt, dlq. The
// application_name of every connection is rb:<pipeline>:e:<epoch>, by which a new owner
// finds and ends the sessions of older ones: nothing milder frees the locks of a client
// that is frozen.
//
// A small table costs what its statements cost, so those that are about many tables are
// sent once: begin.go reads the catalogue for 64 loads at a time (shelf.go), and a writer
// uses the layout that Begin has read while the catalogue's rows on its table are the same
// versions (laid.go).
//
// # Recovery
//
// There is one way: OpenWriter locks the part's receipt, which waits for the fate of an
// older writer's last transaction, and returns it. A COMMIT whose answer was lost is
// nothing special.
//
// # Types
//
// internal/codec maps column types to Arrow and back. What Arrow has no type for travels
// as text and carries its PostgreSQL type in the metadata of the field, so that a
// PostgreSQL destination makes the very same column; enums, domains and composite types
// are made where they are missing. A value that the Arrow type of its column cannot hold
// stops the run with its row named; as_text lets the column travel as text instead. No
// value is ever changed to fit.
//
// # Passing through
//
// Between two servers rows travel undecoded where the table has the very types of the
// source and nobody needs a value (raw_reader.go, raw_sink.go): codec.Framer cuts what
// COPY sends at the ends of rows, and the sink sends it on into the COPY of the table or
// of the temporary one. A writer decides when it opens, by the table as it is.
//
// # Connections
//
// A server is named either by its parts (host, port, user, password, database) or by one
// dsn; the two are never mixed, so nobody has to know which wins. The keys of the
// transport (sslmode, sslrootcert, sslcert, sslkey) and of time limits may stand beside
// both. The password and the dsn are secrets: no method of this package repeats them. A
// running task has one data connection at each end, taken from a pool; scan and session
// have one each beside.
//
// # Failure handling
//
// Every error is a connectors.Error whose Kind follows from the SQLSTATE (errors.go). A
// row that the target refuses is found by halving under savepoints and set aside or named,
// as the document says. A lock that is not had within lock_timeout is reported with the
// session that holds it.
//
// A server that has said nothing for a while, although a call waits for it, is asked over
// another connection what the session does (vigil.go). One that works or waits for a lock
// may take its time. If it waits for us, has ended or is out of reach, the connection is
// half open: it is given up within 30 s, and its session ended so that no lock stays.
package postgres
