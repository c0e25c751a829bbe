// Package killtest kills the program, again and again, and proves that no row is
// lost and none is there twice.
//
// It holds only tests. They build the real program once, run it as a process of its
// own on files, generated rows and databases, and end it by SIGKILL.
//
// # Campaign
//
// A campaign is one pipeline in one folder and has one seed, which decides the
// scenario, the rows and when to kill. It has generations: new source rows are
// provided; the program is started and killed several times, also while it still
// recovers from the kill before; at last it runs to completion and once more, which
// must move nothing. A kill is keyed on progress, which is read from the events of
// the run: so many events, tasks or streams, and a moment later; a few come by the
// clock while the process starts.
//
// Campaigns between two databases of one PostgreSQL server, which the tests start,
// are held for each write mode, full refreshes and incremental ones, with the state in a
// file and in a schema beside the targets.
// Now and then a killed run is followed by the next at once, beside sessions with locks
// that stand for those of the killed run whose connections are cut on their way.
//
// # What is checked
//
// After each kill, before anything is started again, by readers that share no code
// with the program (encoding/csv, encoding/json, pqarrow, SQL) beside the format of
// the manifest:
//
//	append    the rows are source rows, none too often, and as many as the receipts say (I2)
//	replace   the target is the old or the new version, whole; never old again (I5)
//	upsert    one row per key, a version the source had, never an older one than before
//	state     never ahead of the destination (I1); epochs never fall (I4)
//
// After completion the target equals the source, whole rows and their counts (package
// rowcheck: a server digests its table itself, and what is lost, doubled or changed is
// named); tables have no unique index that would hide a row that was written twice; no temporary or
// unlisted file, staging table or session is left. While the targets of a replace are
// in a server two connections read them all the time, one of them under REPEATABLE
// READ where the swap is exact for every snapshot: they see whole versions only, and
// never an older one after a newer (I5). When the first task of a run starts, no
// session of an earlier epoch is left at either end. Planted damage proves that the
// checks find what they look for.
//
// # Many kills
//
// task crash:random -- KILLS SEED (scripts/crash-random) kills the committed program as
// often as one likes, in campaigns over all scenarios, two of three between databases.
// Each seed from SEED on is a campaign of 25 kills. The score is kept in
// docs/reliability/kills.jsonl, a line per slice of at most 40 minutes, which grows with
// each campaign that ends: which seeds are done and which failed, kills, rows moved,
// lost, doubled and changed. Seeds that the file calls done are not run again, so that
// the same command goes on after an interruption. A campaign that fails is recorded,
// keeps its folder and fails the command.
//
// A kill costs two things: the start of a process and its way to the kill, so most come
// within a few events of the start; and the runs to completion, so a generation has as
// many kills as it takes to come to its end.
//
// # Environment
//
//	RB_KILLS=n   kills of all campaigns together, and of each write mode between
//	             databases; default 200
//	RB_SEED=n    the campaign of this seed alone
//	RB_PROGRAM=f kill this program, not one that is built for the purpose
//
// A campaign that fails prints its seed and keeps its folder. The seed repeats the
// scenario and the plan, not the timing of two processes.
package killtest
