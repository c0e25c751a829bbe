package mutant_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/runtime/mutant"
)

func TestNoFaultIsPlantedUnasked(t *testing.T) {
	t.Setenv("RB_MUTANT", "")
	faults := mutant.Faults()
	for i, f := range faults {
		require.False(t, mutant.On(f), f)
		require.False(t, slices.Contains(faults[:i], f), "%s twice", f)
	}
}
