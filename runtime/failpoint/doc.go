// Package failpoint makes a process fail at a named place: the crash points C01 to
// C22 of docs/RELIABILITY.md.
//
// Without the build tag failpoints Hit is an empty function that the compiler
// inlines away. With it the environment decides:
//
//	RB_FAILPOINTS="dest.commit.after=kill9@3;state.persist.mid=sleep(2s)"
//
// A rule is point=action, or point=action@n for the n-th hit of the process alone, or
// point=action%n for each n-th. Actions:
//
//	kill9        SIGKILL to the own process: nothing is cleaned up
//	exit(n)      os.Exit(n); 70 without a number: deferred calls do not run
//	panic        a panic on the goroutine that hit the point
//	error        Hit returns an *Error, which is transient
//	error(text)  the same, with a text
//	sleep(1s)    Hit returns after a while
//	block        Hit returns when whoever listens on RB_FAILPOINTS_SOCKET answers
//
// A block connects to that unix socket, writes "point hit\n" and waits for one line;
// so a test learns that the place was reached, does what it likes, and lets go. With
// RB_FAILPOINTS_LOG=file every hit is appended there as "point hit\n", before the rule
// is followed, so that a test can tell a point that was passed from one that was not.
//
// A rule that cannot be understood ends the process at its first hit with exit code
// 64: a campaign that injects nothing proves nothing.
//
// The package is a leaf. It has no goroutines.
package failpoint
