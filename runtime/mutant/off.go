//go:build !mutants

package mutant

// On is false: no fault is planted.
func On(Fault) bool { return false }
