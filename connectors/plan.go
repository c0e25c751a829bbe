package connectors

import (
	"encoding/json"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/messages"
)

// WriteMode says what a load does to its target.
type WriteMode string

// The write modes.
const (
	ModeAppend  WriteMode = "append"
	ModeUpsert  WriteMode = "upsert"
	ModeReplace WriteMode = "replace"
)

// Part is one unit of work, as planned. It crosses nodes and is stored by the
// destination with the receipt, so that a lost state store can be rebuilt.
type Part struct {
	ID      messages.PartID     `json:"id"`
	Load    messages.LoadID     `json:"load"`
	Streams []messages.StreamID `json:"streams"`
	Split   json.RawMessage     `json:"split"`           // the source's own: range, file, slot
	Scan    string              `json:"scan,omitempty"`  // token by which any node reads the same snapshot
	Raw     string              `json:"raw,omitempty"`   // RawRows format in which the source can send it, set by the engine; in a ReadRequest: agreed; empty means Arrow
	After   []messages.PartID   `json:"after,omitempty"` // parts that must be final and persisted first
	Rows    int64               `json:"rows,omitempty"`  // estimate, 0 unknown
}

// Continuity is the source's answer to "may an unfinished load go on?".
type Continuity string

// The answers. What the engine does depends on the destination: a staged load is
// begun again unless the answer is exact; a direct append stops, or goes on with
// a warning after drift if the document says so; an upsert reads again.
const (
	ContinueExact Continuity = "exact" // same rows in the same order (files, immutable keys, logs)
	ContinueDrift Continuity = "drift" // a new snapshot: rows changed in between may be missed or doubled
	ContinueLost  Continuity = "lost"  // positions mean nothing any more
)

// Load is one pass that is begun and finished as a whole. A source fills ID,
// Streams, Parts, History and Continuity; the engine sets the rest before Begin.
type Load struct {
	ID         messages.LoadID
	Mode       WriteMode
	Streams    []StreamPlan
	Parts      []Part
	Identity   string          // of the origin, from Plan
	Run        string          // that begins the load
	Shape      string          // fingerprint of targets, columns and upsert keys, as the writer gets them
	History    json.RawMessage // the source's own memory of what earlier loads of this name read
	Continuity Continuity      // of an unfinished load with this ID; empty when it is new
	Adds       bool            // to what earlier loads of the name wrote, which is not read again: Begin refuses a target that has lost it (CodeStateAhead)
}

// StreamPlan is the shape of one stream.
type StreamPlan struct {
	Stream messages.StreamID
	Schema *arrow.Schema // as the source reads it; in a Load given to Begin: as the writer receives it
	Key    []string      // primary key; empty: none
	Target string        // name at the destination; set by the engine
	Rows   int64         // estimate of the whole stream, 0 unknown
}

// Plan is what a Scan will read.
type Plan struct {
	Identity string // of the origin; a receipt with another one is refused
	Loads    []Load // empty: nothing new to read
	// More says that a further Scan, after these loads have finished, finds more: an
	// unfinished load is continued exactly as it was planned, without what came since.
	More bool
	// Room is how many connections the origin has left; 0: it is not known, or it needs none.
	Room int
	// Warnings are told to the user before anything moves.
	Warnings []Finding
}

// Recovered is what a destination knows about a pipeline. Of each load name only
// the highest number is known.
type Recovered struct {
	Loads    []LoadStatus
	Parts    []Part // of those loads, finished or not
	Receipts []messages.Receipt
}

// LoadStatus is what the destination recorded of a load.
type LoadStatus struct {
	ID       messages.LoadID `json:"id"`
	Finished bool            `json:"finished"`
	Mode     WriteMode       `json:"mode,omitempty"` // an unfinished load does not change its mode
	Identity string          `json:"identity,omitempty"`
	Run      string          `json:"run,omitempty"`   // that began it: a run that goes on does not load twice
	Shape    string          `json:"shape,omitempty"` // an unfinished load does not change it
	Parts    int             `json:"parts,omitempty"` // receipts that there must be; 0: they cannot be lost one by one
	History  json.RawMessage `json:"history,omitempty"`
}

// Status returns what a destination records of l with Begin.
func (l Load) Status() LoadStatus {
	return LoadStatus{ID: l.ID, Mode: l.Mode, Identity: l.Identity, Run: l.Run, Shape: l.Shape, Parts: len(l.Parts), History: l.History}
}

// SyncMode says which rows of a stream are read.
type SyncMode string

// The sync modes.
const (
	SyncFullRefresh SyncMode = "full_refresh"
	SyncIncremental SyncMode = "incremental"
	SyncCDC         SyncMode = "cdc"
)

// StreamSpec is what the document asks for one stream.
type StreamSpec struct {
	Stream       messages.StreamID
	Sync         SyncMode
	Mode         WriteMode // a replace reads everything again; append and upsert may skip what is known
	Key          []string  // primary key of the document; empty: the source's own
	CursorField  string
	TieBreaker   string
	CursorMode   string        // strict, lookback, raw
	Lookback     time.Duration // of CursorMode lookback
	NullCursor   string        // fail, first, ignore
	PartitionKey string        // column by whose range the stream is split
	Columns      []string      // projection; empty: all
	Filter       string        // row filter, in the source's language
	Path         string        // files: pattern of this stream
	Fresh        bool          // begin a new load and forget what earlier ones read
}

// Discovered is one stream that a source offers.
type Discovered struct {
	StreamPlan
	Cursors []string // columns that can serve as cursor, best first
	View    bool     // derived from other streams: a copy of everything leaves it out
}

// Limits bound what a reader builds. The engine derives them from the document's
// resources; a reader may build smaller batches, never larger ones.
type Limits struct {
	BatchRows  int64 // rows of one batch
	BatchBytes int64 // Arrow footprint of one batch; a single larger row is a batch of its own
	RowBytes   int64 // a larger row is an error that names it: CodeRowTooLarge
}

// Severity of a Finding.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityNote    Severity = "note"
)

// Finding is one line of a preflight report.
type Finding struct {
	Severity Severity       `json:"severity"`
	Code     messages.Code  `json:"code,omitempty"`
	Message  string         `json:"message"`
	Where    messages.Place `json:"where,omitzero"`
	Remedy   string         `json:"remedy,omitempty"` // the exact GRANT, setting or command
}
