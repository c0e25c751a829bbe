//go:build !failpoints

package failpoint_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/runtime/failpoint"
)

// A program that is not built for it takes no orders from its environment.
func TestWithoutTheTagNothingHappens(t *testing.T) {
	t.Setenv("RB_FAILPOINTS", "dest.commit.after=exit(9)")
	require.False(t, failpoint.Enabled)
	for _, p := range failpoint.Points() {
		require.NoError(t, failpoint.Hit(p))
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = failpoint.Hit(failpoint.DestCommitted) }))
}
