package messages

import (
	"slices"
	"strings"
)

// Code is the stable name of one thing that can go wrong: RB-xxxx. The first
// digits say whose it is and with that the exit code; see Exit. A code is never
// given a second meaning.
type Code string

// Exit codes of the process, by the class of the first cause.
const (
	ExitOK          = 0
	ExitConfig      = 2
	ExitSchema      = 3
	ExitSource      = 4
	ExitDestination = 5
	ExitState       = 6
	ExitCancelled   = 7
	ExitFenced      = 8
	ExitPlugin      = 9
	ExitData        = 10
	ExitUsage       = 64
	ExitInternal    = 70
)

// The codes. Each has one entry in the catalogue.
const (
	CodeInternal      Code = "RB-0001"
	CodePanic         Code = "RB-0002"
	CodeUsage         Code = "RB-0101"
	CodeOutput        Code = "RB-0102"
	CodeRowBroken     Code = "RB-1001"
	CodeRowTooLarge   Code = "RB-1002"
	CodeValueRange    Code = "RB-1003"
	CodeFileDamaged   Code = "RB-1004"
	CodeRowRefused    Code = "RB-1005"
	CodeRowsTooMany   Code = "RB-1006"
	CodeRowsSwallowed Code = "RB-1007"
	CodeDocSyntax     Code = "RB-2001"
	CodeDocKey        Code = "RB-2002"
	CodeDocValue      Code = "RB-2003"
	CodeDocMissing    Code = "RB-2004"
	CodeDocConflict   Code = "RB-2005"
	CodeDocVariable   Code = "RB-2006"
	CodeDocRead       Code = "RB-2007"
	CodeNotAvailable  Code = "RB-2010"
	CodeStreamUnknown Code = "RB-2020"
	CodeSchemaColumn  Code = "RB-3001"
	CodeSchemaType    Code = "RB-3002"
	CodeSchemaName    Code = "RB-3003"
	CodeSchemaQuery   Code = "RB-3004"
	CodeSchemaEmpty   Code = "RB-3005"
	CodeSource        Code = "RB-4001"
	CodeSourceMissing Code = "RB-4002"
	CodeSourceDenied  Code = "RB-4003"
	CodeSourceGap     Code = "RB-4004"
	CodeSourceChanged Code = "RB-4005"
	CodeDest          Code = "RB-5001"
	CodeDestMissing   Code = "RB-5002"
	CodeDestDenied    Code = "RB-5003"
	CodeDestFull      Code = "RB-5004"
	CodeDestBusy      Code = "RB-5005"
	CodeDestDamaged   Code = "RB-5006"
	CodeDestForeign   Code = "RB-5007"
	CodeState         Code = "RB-6001"
	CodeStateHeld     Code = "RB-6002"
	CodeStateDamaged  Code = "RB-6003"
	CodeStateFull     Code = "RB-6004"
	CodeStateAhead    Code = "RB-6005"
	CodeStateForeign  Code = "RB-6006"
	CodeCancelled     Code = "RB-7001"
	CodeStalled       Code = "RB-7002"
	CodeFenced        Code = "RB-8001"
)

// CodeInfo is the entry of one code in docs/ERRORS.md.
type CodeInfo struct {
	Code  Code
	Title string
	Means string // what has happened, and what is still safe
	Next  string // what to do
}

// Exit returns the exit code of c's class.
func (c Code) Exit() int {
	digits := strings.TrimPrefix(string(c), "RB-")
	if len(digits) != 4 {
		return ExitInternal
	}
	switch digits[0] {
	case '1':
		return ExitData
	case '2':
		return ExitConfig
	case '3':
		return ExitSchema
	case '4':
		return ExitSource
	case '5':
		return ExitDestination
	case '6':
		return ExitState
	case '7':
		return ExitCancelled
	case '8':
		return ExitFenced
	case '9':
		return ExitPlugin
	}
	if digits[:2] == "01" {
		return ExitUsage
	}
	return ExitInternal
}

// Info returns the catalogue entry of c; ok is false when there is none.
func (c Code) Info() (info CodeInfo, ok bool) {
	for _, e := range catalogue {
		if e.Code == c {
			return e, true
		}
	}
	return CodeInfo{}, false
}

// Codes returns the catalogue, sorted by code.
func Codes() []CodeInfo {
	return slices.SortedFunc(slices.Values(catalogue), func(a, b CodeInfo) int {
		return strings.Compare(string(a.Code), string(b.Code))
	})
}

const nothingMoved = "Nothing was read or written."

var catalogue = []CodeInfo{
	{CodeInternal, "Internal error", "The engine did something that its own rules forbid, and stopped. What was committed stays valid.", "Run again; the run resumes from the last receipt. Please report it with the output of `-vv`."},
	{CodePanic, "A stage panicked", "A bug in a stage. Its attempt was ended; nothing of it was committed after the panic.", "Run again; please report it with the output of `-vv`."},
	{CodeUsage, "Wrong usage", "The command line could not be understood. " + nothingMoved, "See `rapidbyte-node help`."},
	{CodeOutput, "An output cannot be written", "The result, the `--report` file or the `--events` file could not be written. What was moved before that stays committed.", "Check the path, the permissions and the free space."},
	{CodeRowBroken, "A row cannot be read", "The source holds a row that does not fit its format or its column types. Rows before the last checkpoint are in the destination; the run stopped before the bad row.", "Mend the row, or declare another type for the column, and run again: it resumes where it stopped."},
	{CodeRowTooLarge, "A row is larger than max_row_bytes", "One row is over the limit. The run stopped before it.", "Raise `resources.max_row_bytes`, and `max_memory` with it, or leave the column out."},
	{CodeValueRange, "A value does not fit its target", "A value cannot be represented in the destination's type. It was not changed or cut; the commit that held it was not made.", "Cast the column in a transform, or change the type in the destination."},
	{CodeFileDamaged, "A file is damaged", "A file is truncated or malformed. Whole batches before the damage may be committed; nothing behind it was read.", "Restore the file and run again, or remove it from the pattern."},
	{CodeRowRefused, "The destination refuses a row", "A constraint, a trigger or a type of the target does not accept a row. The commit that held it was not made.", "Mend the row or the target, or set `on_data_error: dlq` to set such rows aside, then run again: it resumes behind the last receipt."},
	{CodeRowsTooMany, "Too many rows were set aside", "More rows could not be written than `max_dlq_rows` or `max_dlq_ratio` allow. The commit that would have exceeded the limit was not made.", "Look at the dead letters with `rapidbyte-node dlq list`, mend the cause or raise the limit, then run again."},
	{CodeRowsSwallowed, "The target dropped rows silently", "Fewer rows arrived in the target than were written: a trigger or rule swallows them. The commit was rolled back.", "Remove or disable the trigger for the loading role, or load into another table."},
	{CodeDocSyntax, "The document is not valid YAML", "The pipeline document could not be parsed. " + nothingMoved, "Mend the document at the given place."},
	{CodeDocKey, "Unknown key", "The document has a key that means nothing here; it is refused so that a typing error is never silently ignored. " + nothingMoved, "Use the suggested spelling, or remove the key. `rapidbyte-node schema` prints all keys."},
	{CodeDocValue, "Wrong value", "A value has the wrong type or is not one of the allowed ones. " + nothingMoved, "Use one of the values that the message lists."},
	{CodeDocMissing, "Missing key", "A required key is absent or empty. " + nothingMoved, "Add the key."},
	{CodeDocConflict, "Keys contradict each other", "Two settings cannot hold at the same time. " + nothingMoved, "Change one of the two."},
	{CodeDocVariable, "A variable cannot be resolved", "An environment variable or file that the document refers to is missing. " + nothingMoved, "Set it, or give a default: `${NAME:-default}`."},
	{CodeDocRead, "The document cannot be read", "The file is missing, unreadable or too large. " + nothingMoved, "Check the path and the permissions."},
	{CodeNotAvailable, "Not available in this version", "The document is valid, but asks for something that this version cannot do. " + nothingMoved, "Remove the setting, or use a version that has it."},
	{CodeStreamUnknown, "No such stream", "The source has no stream of this name. " + nothingMoved, "`rapidbyte-node discover` lists the streams."},
	{CodeSchemaColumn, "A column is missing", "A column that the pipeline needs is not there any more. Nothing was written with a hole in it.", "Restore the column, or change the document."},
	{CodeSchemaType, "A column has another type", "The type of a column differs from what the target or an earlier load has. Nothing was converted silently.", "Cast the column in a transform, or start over with `--full-refresh` into a new target."},
	{CodeSchemaName, "A name cannot be used", "A stream, target or column name is empty, too long, doubled or collides with another one.", "Rename it with a transform, or set `target:` for the stream."},
	{CodeSchemaQuery, "The transform does not fit the stream", "The SQL of a transform cannot be run over the columns of the stream. " + nothingMoved, "Mend the query; the message is the SQL engine's own."},
	{CodeSchemaEmpty, "A stream has no columns", "There is nothing to create a target from. " + nothingMoved, "Give the file a header, or remove it from the pattern."},
	{CodeSource, "The source failed", "The source could not be read, after all retries. What was committed stays; the next run resumes behind it.", "Look at the cause, then run again."},
	{CodeSourceMissing, "The source is not there", "A file, pattern, table or database does not exist.", "Check the path or name; `rapidbyte-node discover` lists what is there."},
	{CodeSourceDenied, "The source refuses access", "Permissions or credentials do not suffice.", "Grant what the message names."},
	{CodeSourceGap, "The source no longer has what follows", "The position of the last run does not exist in the source any more. Nothing was skipped silently.", "Load again: `rapidbyte-node run DOCUMENT --full-refresh --stream NAME`, into an empty target where `write_mode` is append."},
	{CodeSourceChanged, "The source changed under a finished load", "A file that has been read is not the same any more. It was neither skipped nor read twice.", "Give new content a new file name, or load again with `--full-refresh`."},
	{CodeDest, "The destination failed", "The destination could not be written, after all retries. What has a receipt stays; nothing else is visible.", "Look at the cause, then run again: it resumes behind the last receipt."},
	{CodeDestMissing, "The destination is not there", "A folder, database or schema does not exist and cannot be created.", "Create it, or correct the path."},
	{CodeDestDenied, "The destination refuses access", "Permissions or credentials do not suffice.", "Grant what the message names."},
	{CodeDestFull, "The destination is full", "There is no space left. Nothing of the failed commit is visible.", "Free space, then run again: it resumes behind the last receipt."},
	{CodeDestBusy, "The destination is held by another process", "Another process has the destination open.", "Stop the process that the message names, then run again."},
	{CodeDestDamaged, "The destination's bookkeeping is damaged", "Receipts or manifest cannot be trusted. Nothing was written.", "Restore the destination from a backup, or load into a new target."},
	{CodeDestForeign, "The destination belongs to another state store", "Another state store has run this pipeline into this destination. Two owners would double rows.", "Run from where that store is; if it is lost for good, `rapidbyte-node state rebuild DOCUMENT` takes the destination's receipts over (`rapidbyte-node run DOCUMENT --rebuild-state` does, and runs)."},
	{CodeState, "The state store failed", "A checkpoint could not be saved. Rows and receipts in the destination are safe; the next run repairs the state from them.", "Look at the cause, then run again."},
	{CodeStateHeld, "The state store is held by another process", "Only one process may use an embedded state store, and only one run a pipeline of a shared one. " + nothingMoved, "Wait for the process that the message names, or stop it."},
	{CodeStateDamaged, "The state store is damaged", "What it holds is cut off, gone or was changed: its checksums do not hold. It was not taken as empty. " + nothingMoved, "`rapidbyte-node state rebuild DOCUMENT` sets it aside and rebuilds it from the destination's receipts (`rapidbyte-node run DOCUMENT --rebuild-state` does, and runs)."},
	{CodeStateFull, "The state store's disk is full", "A checkpoint could not be saved. Rows and receipts in the destination are safe.", "Free space, then run again."},
	{CodeStateAhead, "The state is ahead of the destination", "The destination has lost data that was confirmed: it was restored, dropped or replaced by something else. " + nothingMoved, "Restore the destination. If the whole of it was restored to an earlier state, `rapidbyte-node state rebuild DOCUMENT` takes over what it has. Otherwise load again: `rapidbyte-node run DOCUMENT --full-refresh --stream NAME`, into an empty target where `write_mode` is append."},
	{CodeStateForeign, "The state store belongs to something else", "What is there is not a state store of this program, or one of another version.", "Choose another `state.connection`."},
	{CodeCancelled, "Cancelled", "The run was asked to stop and stopped at a committed position.", "Run again: it resumes there."},
	{CodeStalled, "No progress", "A stage made no progress for longer than the limit; the message names what it was waiting for.", "Look at the named cause, then run again."},
	{CodeFenced, "Another owner has taken over", "A newer owner runs this pipeline. This one stopped without changing anything.", "Nothing, if that is intended. Otherwise find the second process."},
}
