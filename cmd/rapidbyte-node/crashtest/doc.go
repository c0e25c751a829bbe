// Package crashtest makes the program fail at every crash point, and proves that no row
// is lost and none is there twice.
//
// It holds only tests. They build the program once with the build tag failpoints and
// run it as a process of its own: on files, DuckDB and the databases of a PostgreSQL
// server, which they start.
//
// # Cell
//
// A cell is a crash point, a mode, a state store, an action and a hit:
//
//	mode     append, upsert, replace, incremental (PostgreSQL to PostgreSQL),
//	         passthrough, passthrough_upsert (the same, undecoded),
//	         files (files to files), duckdb (files to DuckDB)
//	store    bbolt, postgres
//	action   kill9, panic, error
//	hit      the first, or one in the middle of those of an undisturbed run
//
// The process of a cell fails there. One that was killed is followed, in some cells, by
// others that are killed while they recover. Then a run completes, and one more moves
// nothing. The crash point drain is reached by SIGTERM while a source is held up; the
// process must be gone ten seconds later.
//
// A cell counts only if the process was at its point, which it writes to a log. Which
// point belongs to which mode is a table in the test; an undisturbed run that tells
// otherwise, in either direction, fails.
//
// # What is checked
//
// After each crash, before anything is started again: the state store is not ahead of the
// destination (I1); epochs have not fallen (I4); what is appended are source rows, none
// twice, as many as the receipts say (I2); what is replaced is one whole version (I5);
// what is upserted has each key once. After completion the target is what the source
// says, dead letters included (I7). At the end no staging table, temporary file or
// session is left. The exit code of a process that gave up is one that the table of
// expectations allows; a bug is reported by a panic alone.
//
// A process that ends by itself gives its lease of a shared store back. Planted damage
// proves that the checks find what they look for.
//
// # Environment
//
//	RB_CRASH=short    each point in each of its modes, other values by turns; the default
//	RB_CRASH=full     every cell, 40 minutes of them; the next run goes on
//	RB_CRASH=PATTERN  the cells whose name matches the regular expression
//
// The full sweep keeps its place in docs/reliability/crash.cells and appends its figures
// to docs/reliability/crash.jsonl. Finished cells of the same commit are skipped.
package crashtest
