package run

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// I6: the windows and the batches of all tasks fit into the cap, however small it is
// and however many tasks are asked for.
func TestBudgetFitsIntoTheCap(t *testing.T) {
	for _, memory := range []int64{1 << 20, 3 << 20, 64 << 20, 256 << 20, 8 << 30} {
		for _, tasks := range []int{1, 2, 16, 1024} {
			for hops := 1; hops <= 4; hops++ {
				r := Resources{MemoryBytes: memory, Tasks: tasks, BatchesMax: 16}
				w, l := r.budget(hops)
				n := int64(r.tasks(hops))
				require.GreaterOrEqual(t, n, int64(1))
				require.LessOrEqual(t, n, int64(tasks))
				require.LessOrEqual(t, l.BatchBytes, w.Bytes/4, "a batch is at most a quarter of the window")
				if quarters(hops)*batchBytesMin > memory {
					require.EqualValues(t, 1, n, "one task runs in any case")
					continue
				}
				h := int64(hops)
				require.LessOrEqual(t, n*(h*(w.Bytes+l.BatchBytes)+(h+1)*l.BatchBytes), memory,
					"%d bytes, %d tasks, %d hops", memory, tasks, hops)
			}
		}
	}
}
