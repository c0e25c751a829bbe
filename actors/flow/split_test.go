package flow_test

import (
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"rapidbyte.io/node/actors/flow"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// texts returns a batch of one text column whose rows have the given lengths.
func texts(mem memory.Allocator, lengths []int) messages.ArrowRows {
	b := array.NewRecordBuilder(mem, arrow.NewSchema([]arrow.Field{{Name: "t", Type: arrow.BinaryTypes.String}}, nil))
	defer b.Release()
	for _, n := range lengths {
		b.Field(0).(*array.StringBuilder).Append(strings.Repeat("x", n))
	}
	return messages.ArrowRows{Record: b.NewRecordBatch()}
}

func TestSplitKeepsEveryRowInOrderWithinTheLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
		lengths := rapid.SliceOfN(rapid.IntRange(0, 300), 1, 200).Draw(t, "lengths")
		l := connectors.Limits{
			BatchRows:  rapid.Int64Range(1, 50).Draw(t, "rows"),
			BatchBytes: rapid.Int64Range(1, 2000).Draw(t, "bytes"),
			RowBytes:   1000,
		}
		pieces, err := flow.Split(texts(mem, lengths), l, 1)
		require.NoError(t, err)
		var got []int
		for _, p := range pieces {
			require.LessOrEqual(t, p.Len(), l.BatchRows)
			if p.Len() > 1 {
				require.LessOrEqual(t, p.Bytes(), l.BatchBytes)
			}
			col := p.(messages.ArrowRows).Record.Column(0).(*array.String)
			for i := range col.Len() {
				got = append(got, len(col.Value(i)))
			}
			p.Release()
		}
		require.Equal(t, lengths, got)
		require.Zero(t, mem.CurrentAlloc())
	})
}

func TestRowOverTheLimitIsNamed(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	lengths := make([]int, 100)
	lengths[41] = 5000
	_, err := flow.Split(texts(mem, lengths), connectors.Limits{BatchRows: 1000, BatchBytes: 1 << 20, RowBytes: 1000}, 1001)
	f := connectors.FailureOf(err, messages.Place{Stream: "orders"})
	require.Equal(t, messages.CodeRowTooLarge, f.Code)
	require.EqualValues(t, 1042, f.Where.Row)
	require.Equal(t, messages.ExitData, f.Code.Exit())
}
