package postgres_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Whoever finds that a pipeline is not there yet holds nothing of it while it asks again.
func TestPGConcurrentClaimsOfANewPipeline(t *testing.T) {
	const owners, pipelines = 8, 60
	s := open(t, newPlace(t).config())
	for i := range pipelines {
		id := messages.PipelineID(fmt.Sprintf("p%d", i))
		epochs := make([]messages.Epoch, owners)
		errs := make([]error, owners)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for k := range owners {
			wg.Go(func() {
				<-start
				epochs[k], errs[k] = s.Acquire(t.Context(), id, statestore.Claim{})
			})
		}
		close(start)
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err, "pipeline %s", id)
		}
		slices.Sort(epochs)
		require.Equal(t, []messages.Epoch{1, 2, 3, 4, 5, 6, 7, 8}, epochs)
	}
}
