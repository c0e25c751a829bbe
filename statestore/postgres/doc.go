// Package postgres is the shared state store: a schema in a database, for any number of
// processes on any number of machines. Each pipeline has one owner at a time.
//
// # Layout
//
//	_rapidbyte_state.store      version of the layout, identity, number of pipelines
//	_rapidbyte_state.pipeline   name, epoch, digest of what follows
//	_rapidbyte_state.receipt    messages.Receipt, one per part
//	_rapidbyte_state.load       highest load number reached, highest finished, per load name
//	_rapidbyte_state.run        statestore.Run
//	_rapidbyte_state.orders     statestore.Order
//	_rapidbyte_state.history    statestore.Kept
//	_rapidbyte_state.lease      who has which pipeline under which epoch, until when
//	_rapidbyte_state.aside      what Config.Rebuild has set aside
//
// A value is JSON in a column of type text, which the server gives back byte for byte, in
// ASCII, so that the encoding of the database does not matter. Rows are found by the
// SHA-256 of a name, because a name is any bytes. Beside a value is a CRC32C over its
// place and itself. The digest of a pipeline sums up its values: one that is missing, or
// is the one of an earlier day, is noticed like one that was changed by hand. The history
// is not in it: nothing depends on it but the choice of an operator.
//
// The schema may be in the database of a destination; theirs has another name.
//
// # Transactions
//
// Save is one transaction of two round trips. It locks the row of the pipeline, compares
// the epoch, reads what the update concerns and writes what differs. synchronous_commit
// is on, whatever role and database say. If the answer to COMMIT is lost, nobody knows
// whether it was done: Save returns an error that may be retried, and saving the same
// again changes nothing.
//
// # Leases
//
// Acquire takes the lease and raises the epoch in one statement. A goroutine renews all
// leases every third of their time to live, by one statement on a connection of its own.
// Time is the server's; the owner counts from when the renewal was sent, on a clock that
// nobody sets and that (on Linux) goes on while the machine sleeps, so that it stops before
// anybody else begins. The lease only says who may begin: every transaction checks the
// epoch, here and at the destination.
//
// Acquire waits for another owner's lease to run out, but as soon as that one renews it
// the answer is ErrHeld. An owner whose process ran in the same process space of the same
// boot of the same machine and has ended is not waited for. One that is stopped lives.
//
// # Damage
//
// Load proves every value of the pipeline, Save what it touches. What does not hold is
// ErrDamaged, as is a table that is gone or empty while there are values of its
// pipelines. One damaged pipeline stops no other. A database without the schema is a new
// store with another identity, which destinations refuse until the operator says that the
// first one is lost (I11). A backup that was restored is behind its destinations, which
// repair it, and their epochs raise its own.
//
// With Config.Rebuild Acquire moves the rows of a pipeline that is damaged into the table
// aside and begins an empty one under the next epoch, in one transaction; the destination
// fills it. Open does the same with the whole schema, by another name for it, when the
// store itself cannot be read; the new one has another identity. A lease is respected.
//
// # Versions
//
// Open migrates an older store; Migrate goes back. Each step is one transaction under an
// advisory lock. A store of a version that this program does not know is ErrForeign, also
// if it becomes one while it is open.
//
// # Ownership
//
// A Store belongs to whoever opened it, who closes it; that gives its leases back. Its
// methods may be called concurrently. It uses four connections at most. Nothing waits for
// ever: calls, statements, locks and transactions have limits, here and on the server. It
// must reach the server itself or a pooler in session mode.
package postgres
