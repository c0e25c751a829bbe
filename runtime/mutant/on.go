//go:build mutants

package mutant

import (
	"fmt"
	"os"
	"slices"
	"sync"
)

var planted = sync.OnceValue(func() Fault {
	f := Fault(os.Getenv("RB_MUTANT"))
	if f != "" && !slices.Contains(Faults(), f) {
		fmt.Fprintf(os.Stderr, "RB_MUTANT: there is no fault %q\n", f)
		os.Exit(64)
	}
	return f
})

// On reports whether f is planted.
func On(f Fault) bool { return planted() == f }
