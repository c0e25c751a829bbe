package conntest

import (
	"testing"

	"rapidbyte.io/node/connectors"
)

// DestinationFactory makes targets for the destination checks.
type DestinationFactory struct {
	// New returns a destination on a fresh, empty target. What it opens it closes
	// with t.Cleanup.
	New func(t T) Target

	// Modes that the destination supports; append or upsert must be among them. A
	// mode that is missing must be refused by Begin with KindConfig.
	Modes []connectors.WriteMode

	// Refuses names the TypeCases whose column the destination cannot hold. It must
	// refuse them at Check, Begin or Write with KindSchema or KindConfig and an error
	// that names the column.
	Refuses []string

	// Shows says how a TypeCase reads back where the target has no such type and
	// holds another one on purpose: rows as Target.Rows returns them. Cases that are
	// in neither Refuses nor Shows must come back exactly.
	Shows map[string][]string

	// Exclusive says that one process at a time can have the target open: the checks
	// then close every session before they call Reopen.
	Exclusive bool

	// Forgets says that nothing survives the destination value (connectors.Forgetful):
	// checks of a restart are then made with the same value.
	Forgets bool
}

// Target is one thing to write to.
type Target struct {
	Destination connectors.Destination

	// Reopen returns a new destination value on the same target, as the next process
	// would make it. Nil only if the factory says Forgets.
	Reopen func(t T) connectors.Destination

	// Rows returns what a reader of the target sees now, as RowText of each row in the
	// order of the target's columns; reserved columns are left out. The order of rows
	// is free. A target that does not exist has no rows. It is called while
	// sessions are open and from other goroutines. Nil: nobody can read this target.
	Rows func(t T, target string) []string
}

// Destination runs every destination check as a subtest of t.
func Destination(t *testing.T, f DestinationFactory) {
	t.Helper()
	runAll(t, DestinationChecks(), f)
}
