// Package file reads and writes files: CSV, JSON Lines, Parquet and Arrow IPC, in
// local folders, with gzip or zstd around the text formats.
//
// # Source
//
// Each file of a stream's pattern is one part. Scan looks at all files, makes one
// schema of them and puts into each part's split what decides how it is read: path,
// fingerprint, dialect, schema. A continued load is therefore read exactly as it was
// planned, whatever the configuration says by then.
//
//	no load before, or a reset        all files, a new load
//	finished, replace                 all files, a new load
//	finished, append or upsert        the files that no finished load has read
//	unfinished, files unchanged       the same parts, from their receipts
//	unfinished, files changed         replace and upsert begin again, append refuses
//
// A file is known by its absolute path, its size and a hash of its two ends. One that
// a finished load has read and that is not the same any more is refused: it can be
// neither skipped nor read twice. A file that is gone is fine.
//
// A position is a number of rows; of an uncompressed text file also the byte behind
// them, so that resuming seeks. Every border between batches is exact.
//
// # Text
//
// Types are inferred from whole files up to 64 MiB a stream, from their heads behind
// that. A text is a number, a bool, a date or a timestamp only if the value says all
// of it: a leading zero, a plus sign, a digit that a float64 cannot hold, a letter
// make the column text. A later value that does not fit is an error that names file,
// row, field and the setting that helps (`columns: {name: text}`); the rows before it
// are emitted first.
//
// CSV: an empty unquoted field is NULL in a typed column and the empty string in a text
// column; a quoted empty field makes the column text. null_values lists unquoted texts
// that are NULL everywhere. Rows with too few or too many fields, a text behind a
// closing quote, a quote that never closes and bytes that are not UTF-8 are errors.
// Line ends inside quotes stay as they are. Blank lines are rows only if the file has
// a single column.
//
// JSON Lines: a key that is missing is NULL, one that was not seen when the columns were
// inferred is an error. Objects, arrays and columns of mixed kinds become text columns
// that hold the exact JSON (field metadata rapidbyte.type = json), which the
// destination writes back unquoted.
//
// # Destination
//
//	<path>/<target>/<data files>
//	<path>/_rapidbyte/<pipeline>/m-<20 digits>.json   manifests, the newest is the truth
//	<path>/_rapidbyte/<pipeline>/tmp/                 what is being written
//	<path>/_rapidbyte/<pipeline>/dead/                dead letters, as JSON Lines
//
// The manifest is the transaction. It lists the files of each target, the loads, the
// parts as planned and their receipts, and the epoch of the owner. A commit writes its
// files under temporary names, syncs and renames them, and publishes the next
// manifest by link(2), which fails if somebody else was faster; then the newest one
// is read and everything is decided again by package manifest. An owner of a lower
// epoch, an older attempt and a stale commit number are refused there.
//
// An append lists files as they are committed. A replace stages them in its load;
// Finish lists them in place of the target's files, in one manifest, and then removes
// the old ones. A crash anywhere leaves files that no manifest lists; the next owner
// removes those of older epochs.
//
// # Reading what was written
//
// Read the manifest with the highest number and open the files that it lists for the
// target, and no others: manifest.targets.<target>.files[].name, each with rows, bytes
// and sha256. A listed file never changes. If one is gone, a replace has
// finished since: read the manifest again. ReadCommitted does this in Go; in a shell:
//
//	m=$(ls _rapidbyte/PIPELINE/m-*.json | tail -1)
//	jq -r '.manifest.targets.TARGET.files[].name' "$m"
//
// CSV files have a header, NULL is an unquoted empty field and the empty string a
// quoted one. Binary values are base64, nested ones JSON, decimals exact, timestamps
// ISO 8601. JSON Lines writes NaN and the infinities as texts, as protocol buffers do.
//
// # Failure
//
// Everything that decodes bytes recovers from panics and bounds its allocations: Arrow
// metadata is checked before Arrow's own reader sees it, because that one allocates what a
// damaged length says. Parquet page checksums are verified where they exist. All
// writing goes through one os.Root, so no name leaves the folder.
//
// Source and Destination hold configuration only and may be used concurrently. A
// reader and a writer belong to one goroutine each; a session may be shared.
package file
