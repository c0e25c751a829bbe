package mutant

// Fault names a planted fault.
type Fault string

// The faults that reviews of comparable tools have found in the field, and those of
// the actor protocol that its simulation must find.
const (
	SaveBeforeCommit    Fault = "M1"  // the state is persisted before the destination has committed
	ReceiptOutside      Fault = "M2"  // rows and receipt are committed in two transactions
	NoEpoch             Fault = "M3"  // a commit does not check the epoch
	NoTies              Fault = "M7"  // a cursor goes on behind its value, ties or not
	SwapTwice           Fault = "M8"  // a replace swaps in two transactions
	LettersOutside      Fault = "M9"  // dead letters have a transaction of their own
	NoCredit            Fault = "M10" // a stage sends without credit
	CommitNotDurable    Fault = "M11" // synchronous_commit is off
	NoFolderSync        Fault = "M12" // a folder is not synced after a rename or link
	CommitAgain         Fault = "M13" // a COMMIT without a reply is done again without looking
	EpochOfStore        Fault = "M16" // the epoch comes from the state store only
	TruncateInsert      Fault = "M17" // a replace empties the target and fills it
	ResumeFromStore     Fault = "P1"  // the source resumes from the state store, not from the receipt
	NoAttempt           Fault = "P2"  // the next attempt of a part goes by the number of the last
	NoStoreEpoch        Fault = "P3"  // a save that the state store has fenced counts as done
	AckCoversOthers     Fault = "P4"  // an ack of one part confirms another
	FinishEarly         Fault = "P5"  // a load is finished before all its final receipts are persisted
	NoLatch             Fault = "P6"  // a destination goes on after an error, over a hole
	OverlappingAttempts Fault = "P7"  // the next attempt starts before the last one has stopped
	EndBeforeSaved      Fault = "P8"  // a task ends before its last receipt is persisted
	TrustStore          Fault = "P9"  // a state store ahead of the destination is believed
)

// Faults returns every fault.
func Faults() []Fault {
	return []Fault{
		SaveBeforeCommit, ReceiptOutside, NoEpoch, NoTies, SwapTwice, LettersOutside, NoCredit, CommitNotDurable, NoFolderSync, CommitAgain,
		EpochOfStore, TruncateInsert, ResumeFromStore, NoAttempt, NoStoreEpoch, AckCoversOthers, FinishEarly, NoLatch, OverlappingAttempts,
		EndBeforeSaved, TrustStore,
	}
}
