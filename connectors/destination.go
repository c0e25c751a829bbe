package connectors

import (
	"context"

	"rapidbyte.io/node/messages"
)

// Destination writes to a target system.
type Destination interface {
	// Check is preflight: can these loads be begun? It changes nothing.
	Check(ctx context.Context, loads []Load) ([]Finding, error)

	// Open takes the pipeline over for r.Epoch, in this order: register the epoch
	// (refuse with a FencedError that names the registered one if that is not lower),
	// end every session of a lower one, read what is recovered. After it returns, no
	// writer of a lower epoch commits anything. The owner opens once per epoch: an equal
	// one that is registered already was drawn by somebody else, from a state store that
	// was lost, restored or copied. Only r.Join says otherwise. Called at the start of
	// every attempt of a run.
	Open(ctx context.Context, r SessionRequest) (Session, error)
}

// SessionRequest identifies the owner.
type SessionRequest struct {
	Pipeline messages.PipelineID
	Epoch    messages.Epoch
	Join     bool   // a further session of the same owner: Epoch is registered already, and nothing changes
	Run      string // that opens the session; for metadata columns
	Store    string // identity of the state store; another one is refused (CodeDestForeign) ..
	Adopt    bool   // .. unless the operator says that the other store is gone for good
}

// Session is one node's access to the target during one attempt. Its methods may
// be called concurrently. Every change it makes checks the epoch in the same
// transaction; a mismatch is KindFenced.
type Session interface {
	// Recovered returns what Open found, at the moment of the fence.
	Recovered() Recovered

	// Begin makes l the current load: targets and staging exist, each part has a
	// receipt at commit 0 that carries the part, receipts and staging of earlier
	// loads of that name are gone. One atomic step; beginning a begun load again
	// changes nothing, except that an Evolver brings it to another Shape. Called by the
	// coordinator before any task of l.
	Begin(ctx context.Context, l Load) error

	// OpenWriter fences every other writer of the part, waits until the fate of its
	// last transaction is known, and returns the receipt. From then on the receipt
	// changes only through this writer.
	OpenWriter(ctx context.Context, p Part, t messages.Token) (Writer, messages.Receipt, error)

	// Finish makes a complete load visible and marks it finished, in one step: the
	// swap of a replace; nothing but the mark for the other modes. It refuses unless
	// every part has a final receipt. Called by the coordinator when all final
	// receipts are in the state store; calling it again changes nothing.
	Finish(ctx context.Context, l messages.LoadID) error

	// Close gives up what is not committed.
	Close(ctx context.Context) error
}

// Beginner is implemented by a Session that begins many loads for less than it takes to
// begin one by one.
type Beginner interface {
	// BeginAll begins loads as Begin does with each, in steps of as many as it likes; each
	// step is atomic. An error names the stream that it is about. Calling it again is safe.
	BeginAll(ctx context.Context, loads []Load) error
}

// Finisher is implemented by a Session that finishes many loads for less than it takes to
// finish one by one.
type Finisher interface {
	// FinishAll finishes loads as Finish does with each, all of them in one step. After an
	// error the caller finishes each by itself.
	FinishAll(ctx context.Context, ids []messages.LoadID) error
}

// Writer writes one part. Calls do not overlap; one goroutine makes them. After
// an error only Close is called: a writer never continues over a hole.
type Writer interface {
	// Write takes the next item. It moves d. It must consume it before it returns
	// (to the server, a temporary table or file): the distance between barriers is
	// unbounded, memory is not. Bad rows are dead letters of the same transaction,
	// or an error of KindData, by policy. Nothing becomes visible.
	Write(ctx context.Context, d messages.Data) error

	// Commit makes everything written since the last barrier visible, together with
	// the receipt and the dead letters, as one step, after checking epoch, attempt
	// and commit number there. The receipt carries b.Position unchanged. When the
	// outcome is not certain the error says CommitUnknown.
	Commit(ctx context.Context, b messages.Barrier) (messages.Receipt, error)

	// Close drops what is not committed and frees everything. Idempotent.
	Close(ctx context.Context) error
}

// RawWriter is implemented by a Destination that can take rows undecoded: where a table
// holds exactly the values that they came from, and nobody has to look at one.
type RawWriter interface {
	// AcceptsRaw says for each load whether its writers would take rows in the Raw of its
	// parts, once it is begun; empty: they would, else why not, to stand behind "because".
	// Changes nothing. It is for a person: a writer decides by the table as it is then.
	AcceptsRaw(ctx context.Context, loads []Load) (why []string, err error)
}

// RawTaker is implemented by the Writer of a RawWriter.
type RawTaker interface {
	// TakesRaw says whether rows in the Raw of its Part can come; empty: yes, and then all
	// of this attempt do. Else why not: they come as Arrow. Called once, behind OpenWriter.
	TakesRaw() (why string)
}

// Planner is implemented by a Destination that can say what Begin would do.
type Planner interface {
	// Changes lists statements, each with the lock it takes; nothing is executed.
	Changes(ctx context.Context, loads []Load) ([]string, error)
}

// Verifier is implemented by both ends of a pipeline that can be compared.
type Verifier interface {
	// Digests returns count and order-independent hash per key range, of one snapshot.
	Digests(ctx context.Context, r DigestRequest) ([]Digest, error)
}

// DigestRequest asks for the digests of one stream.
type DigestRequest struct {
	Stream  messages.StreamID
	Columns []string
	Bounds  []messages.Cursor // n bounds make n+1 ranges
}

// Digest sums up one range.
type Digest struct {
	Rows int64
	Hash [16]byte
}

// Remover is implemented by a connector that leaves things behind.
type Remover interface {
	// Teardown drops slot, publication, staging or receipts of a pipeline; dryRun only
	// lists them. It refuses while a session of the pipeline is alive.
	Teardown(ctx context.Context, p messages.PipelineID, dryRun bool) ([]string, error)
}

// Surveyor is implemented by a Destination that can be looked at without being taken over.
type Surveyor interface {
	// Survey returns what Open would find, of one moment. It registers nothing, fences
	// nobody and creates nothing.
	Survey(ctx context.Context, p messages.PipelineID) (Surveyed, error)
}

// Surveyed is what a destination knows of a pipeline; zero: nothing.
type Surveyed struct {
	Recovered
	Epoch messages.Epoch // registered
	Store string         // identity of the owner's state store
}

// Forgetful is implemented by a Destination that keeps no receipts across
// processes. There is nothing to compare the state store with: the engine drops the
// stored state of its loads at each start and reads from the beginning.
type Forgetful interface {
	// Forgets reports whether it does.
	Forgets() bool
}

// DeadLetterBox is implemented by a Destination that keeps dead letters.
type DeadLetterBox interface {
	// DeadLetters returns what q selects, oldest first. Changes nothing.
	DeadLetters(ctx context.Context, q DeadLetterQuery) ([]DeadLetter, error)

	// Purge removes what q selects and returns how many those were.
	Purge(ctx context.Context, q DeadLetterQuery) (int64, error)

	// Replay writes what q selects into its targets, with the load's write mode, each
	// row and the removal of its dead letter in one transaction. A row that fails again
	// stays.
	Replay(ctx context.Context, q DeadLetterQuery) (Replayed, error)
}

// Evolver is implemented by a Destination that can bring a begun load to another shape:
// the source has more or fewer columns than when the load began.
type Evolver interface {
	// Evolves reports whether Begin does that for a load of mode, in the same step that
	// records the new Shape; it refuses what it cannot do with KindSchema or KindConfig.
	Evolves(mode WriteMode) bool
}
