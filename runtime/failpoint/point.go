package failpoint

// Point names a place in the code.
type Point string

// The points, by crash point. Those of a slot and of a schema change come with what
// they belong to.
const (
	SourceRead     Point = "source.read.before"          // C01: a reader is open and has read nothing
	SourceBatch    Point = "source.batch.built"          // C02: a batch is in memory
	BatchSent      Point = "batch.sent"                  // C03: an item is in the next stage's mailbox
	TransformDone  Point = "transform.done"              // C04: a transform has accepted an item
	DestBegin      Point = "dest.begin.after"            // C05: the transaction of a commit is open
	DestCopyMid    Point = "dest.copy.mid"               // C06: some rows of a COPY are on their way
	DestCopyAfter  Point = "dest.copy.after"             // C07: all rows are there, the receipt is not
	DestReceipt    Point = "dest.receipt.after"          // C08: the receipt is written, its row locked
	DestCommitSent Point = "dest.commit.sent"            // C09: COMMIT is sent, its reply not read
	DestCommitted  Point = "dest.commit.after"           // C10: committed, and nobody was told
	AckReceived    Point = "ack.received.before_persist" // C11: the checkpoint actor has the receipt
	StateMid       Point = "state.persist.mid"           // C12: in the transaction of the state store
	StateAfter     Point = "state.persist.after"         // C13: the receipt is in the state store
	EpochIssued    Point = "fence.epoch.issued"          // C15: the state store has handed out the epoch
	EpochInstalled Point = "fence.installed"             // C15: the destination has registered it
	ResumeRead     Point = "resume.before_first_read"    // C15: the source is about to be asked for rows
	StagingFull    Point = "replace.staging.full"        // C16: every receipt of the load is final
	SwapBefore     Point = "replace.swap.before"         // C16: in the transaction of the swap
	SwapAfter      Point = "replace.swap.after"          // C16: swapped, and nobody was told
	DeadLettered   Point = "dlq.insert.after"            // C19: dead letters are written, in the transaction of the rows
	FileWrite      Point = "file.write"                  // C20: some rows are in a temporary file
	FileSync       Point = "file.fsync"                  // C20: a data file is synced under its temporary name
	FileRename     Point = "file.rename"                 // C20: a data file has its name, the folder is not synced
	ManifestLink   Point = "manifest.link"               // C20: the manifest is linked, its folder is not synced
	DirSync        Point = "dir.fsync"                   // C20: a folder is synced
	FinishBefore   Point = "run.finish.before_mark"      // C21: every load is finished, the run is not recorded as complete
	FinishAfter    Point = "run.finish.after_mark"       // C21: it is, and nobody was told
	Draining       Point = "drain"                       // C22: a drain was asked for
)

// Points returns every point, in the order of the crash points.
func Points() []Point {
	return []Point{
		SourceRead, SourceBatch, BatchSent, TransformDone, DestBegin, DestCopyMid, DestCopyAfter, DestReceipt, DestCommitSent, DestCommitted,
		AckReceived, StateMid, StateAfter, EpochIssued, EpochInstalled, ResumeRead, StagingFull, SwapBefore, SwapAfter, DeadLettered,
		FileWrite, FileSync, FileRename, ManifestLink, DirSync, FinishBefore, FinishAfter, Draining,
	}
}

// Error is what Hit returns for the action error.
type Error struct {
	Point Point
	Text  string
}

// Error implements error.
func (e *Error) Error() string { return "failpoint " + string(e.Point) + ": " + e.Text }

// Transient says that the same call may succeed later.
func (e *Error) Transient() bool { return true }
