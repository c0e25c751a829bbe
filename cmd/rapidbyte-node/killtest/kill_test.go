package killtest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	killsWanted      = 200
	killsPerCampaign = 16
)

func TestKilledRunsMoveEveryRowExactlyOnce(t *testing.T) {
	wanted := envInt(t, "RB_KILLS", killsWanted)
	first, campaigns := 1, (wanted+killsPerCampaign-1)/killsPerCampaign
	if only := envInt(t, "RB_SEED", 0); only > 0 {
		first, campaigns, wanted = only, 1, killsPerCampaign
	}
	var mu sync.Mutex
	var all sights
	t.Run("campaigns", func(t *testing.T) {
		left := wanted
		for i := range campaigns {
			n := min(killsPerCampaign, left)
			left -= n
			seed := uint64(first + i)
			t.Run(fmt.Sprintf("seed %d %s", seed, scenarios[seed%uint64(len(scenarios))].name), func(t *testing.T) {
				t.Parallel()
				c := newCampaign(t, seed)
				c.run(n)
				mu.Lock()
				defer mu.Unlock()
				all.add(c.sights)
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%+v", all)
	require.Equal(t, wanted, all.kills)
	if wanted >= killsWanted/4 { // fewer say nothing about a share
		require.GreaterOrEqual(t, all.midRun*4, all.kills*3, "too few runs were killed in the middle")
	}
}
