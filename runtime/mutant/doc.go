// Package mutant plants known faults in the program, to see that the tests find them.
//
// Without the build tag mutants On is false at compile time and the faults are not in
// the binary. With it RB_MUTANT names the one fault that is planted:
//
//	go test -tags mutants ...   with RB_MUTANT=M3
//
// scripts/mutants runs the tests that must fail for each, and fails when one survives.
// The package is a leaf.
package mutant
