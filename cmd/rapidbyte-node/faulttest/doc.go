// Package faulttest breaks the connections of a run, one at a time, and proves that the
// run goes on from its receipt.
//
// It holds only tests. They run real pipelines from one PostgreSQL database to another in
// this process, by way of a pgtest.Proxy at either end and before the state store, which
// resets connections at a message or at a byte, lets them go silent, delays, slices and
// limits their bytes; and they end sessions and servers while rows move.
//
// # What is checked
//
// After every run, by SQL at both ends:
//
//	end       the run is completed, and the fault was met
//	rows      count, sum and xor of the hashes of all rows are those of the source
//	retries   the result counts them, and each is told by an event with the first cause:
//	          the fault, never what followed from it in this process
//	sessions  none of the run is left at either server
package faulttest
