// Package fencetest stops an owner in the middle of a commit, lets another process take
// over, and wakes the first: it must commit nothing more, say that it was fenced, and
// exit with the code of that.
//
// It holds only tests. They build the program with the build tag failpoints. Both
// processes share a state store in PostgreSQL; its lease runs out while the first one
// stands still, as it would on a machine that was paused.
//
// # Round
//
// A round has a write mode, and a crash point at which the first process is held when
// SIGSTOP reaches it:
//
//	dest.copy.mid       rows of a COPY are on their way, the target is locked by them
//	dest.receipt.after  the receipt is written, its row is locked
//	dest.commit.sent    COMMIT is sent: whether it counts is the server's to say
//
// The second process is started at once, waits for the lease, ends the sessions of the
// first, and completes. Then the first is woken. The target must be the source row by
// row, before and after that, and the receipts those of the second epoch.
//
// # Environment
//
//	RB_ROUNDS=n      rounds; default 5
//	RB_SEED=n        the seed of the first round; default 1
//	RB_RESULTS=file  append the figures there as one line of JSON
package fencetest
