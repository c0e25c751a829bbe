//go:build !race

package codec

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
)

// What the codec costs is kept in testdata/baseline.json and compared by this test, which
// runs with the unit tests. Time is the ratio to a loop over the same bytes in the same process: the
// fastest of many short turns of each, so that neither another machine nor a busy one
// changes it much. A change that is meant to cost more renews the file:
//
//	RB_UPDATE=1 go test -run TestCostIsThatOfTheBaseline ./connectors/postgres/internal/codec
const (
	costRows   = 2048 // of a turn
	costTurns  = 25   // of each contestant in a try
	costTries  = 8    // the first good one counts
	costFactor = 2    // of the baseline's ratio is too much
)

// cost is what one batch takes.
type cost struct {
	Ratio  float64 `json:"ratio"`  // of its time to that of the loop
	Allocs int     `json:"allocs"` // whatever the number of rows
}

// walk is the loop: it finds every value of the messages and copies it.
func walk(dst, messages []byte) (used int) {
	for len(messages) > 0 {
		size := 1 + int(binary.BigEndian.Uint32(messages[1:]))
		row := messages[messageHead+2 : size]
		for messages = messages[size:]; len(row) > 0; {
			n := max(int(int32(binary.BigEndian.Uint32(row))), 0)
			used += copy(dst[used:], row[4:4+n])
			row = row[4+n:]
		}
	}
	return used
}

// costWork returns a function that turns rows of cols one way, once, and their messages.
func costWork(t *testing.T, cols []Column, decode bool, rows int) (work func(), messages []byte) {
	rec := benchRecord(cols, rows)
	t.Cleanup(rec.Release)
	messages = messagesOf(t, cols, rec)
	if decode {
		d := newDecoder(t, cols, keeper{}, connectors.Limits{BatchRows: int64(rows), BatchBytes: 1 << 30, RowBytes: 1 << 20})
		require.NoError(t, d.Append(AppendHeader(nil)))
		return func() {
			if _, err := d.AppendMessages(messages); err != nil {
				panic(err)
			}
			d.Take().Release()
		}, messages
	}
	_, types, _ := fieldsOf(cols)
	e, err := NewEncoder(rec.Schema(), sameTargets(types))
	require.NoError(t, err)
	var dst []byte
	return func() {
		if dst, _, err = e.Encode(dst[:0], rec, 0, rec.NumRows(), math.MaxInt); err != nil {
			panic(err)
		}
	}, messages
}

// fastest returns the least time that f took and before.
func fastest(f func(), before time.Duration) time.Duration {
	begin := time.Now()
	f()
	return min(before, time.Since(begin))
}

func measure(t *testing.T, cols []Column, decode bool) (c cost) {
	work, messages := costWork(t, cols, decode, costRows)
	dst := make([]byte, len(messages))
	own, loop := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for range costTurns {
		own = fastest(work, own)
		loop = fastest(func() { walk(dst, messages) }, loop)
	}
	c.Ratio = math.Round(100*float64(own)/float64(loop)) / 100
	c.Allocs = int(testing.AllocsPerRun(20, work))
	more, _ := costWork(t, cols, decode, 4*costRows)
	require.Equal(t, c.Allocs, int(testing.AllocsPerRun(20, more)), "allocations grow with the rows")
	return c
}

// TestCostIsThatOfTheBaseline: see above.
func TestCostIsThatOfTheBaseline(t *testing.T) {
	path := filepath.Join("testdata", "baseline.json")
	var base map[string]cost
	update := os.Getenv("RB_UPDATE") != ""
	if !update {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &base))
	}
	found := map[string]cost{}
	for name, run := range map[string]func() cost{
		"decode_narrow": func() cost { return measure(t, narrow(), true) },
		"decode_wide":   func() cost { return measure(t, wide(), true) },
		"encode_narrow": func() cost { return measure(t, narrow(), false) },
		"encode_wide":   func() cost { return measure(t, wide(), false) },
	} {
		c := run()
		for i := 1; i < costTries && (update || c.Ratio > costFactor*base[name].Ratio); i++ {
			c.Ratio = min(c.Ratio, run().Ratio)
		}
		found[name] = c
		t.Logf("%s: %.2f times the loop (baseline %.2f), %d allocations a batch", name, c.Ratio, base[name].Ratio, c.Allocs)
		if update {
			continue
		}
		require.Equal(t, base[name].Allocs, c.Allocs, "%s: allocations a batch", name)
		require.LessOrEqual(t, c.Ratio, costFactor*base[name].Ratio, "%s: time beside a loop over the same bytes", name)
	}
	require.Len(t, found, 4)
	if update {
		text, err := json.MarshalIndent(found, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, append(text, '\n'), 0o600))
	}
}
