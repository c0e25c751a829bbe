package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// BenchmarkCommit1000Parts is the share of a commit that grows with the number of
// parts: decide and encode.
func BenchmarkCommit1000Parts(b *testing.B) {
	m, err := Empty("p").TakeOver(connectors.SessionRequest{Epoch: 1, Store: "s"})
	require.NoError(b, err)
	l := load(1, connectors.ModeAppend, 1000)
	for i := range l.Parts {
		l.Parts[i].Split = json.RawMessage(fmt.Sprintf(`{"path":"/data/in/%d.csv","schema":%q}`, i, strings.Repeat("x", 400)))
	}
	m, _, err = m.Begin(1, l)
	require.NoError(b, err)
	m, r, err := m.OpenWriter(1, l.Parts[0], messages.Token{Epoch: 1, Attempt: 1})
	require.NoError(b, err)
	for b.Loop() {
		to := r
		to.Version.Commit++
		if m, err = m.Commit(1, Commit{From: r, Next: to}); err != nil {
			b.Fatal(err)
		}
		r = to
		out, err := Encode(m)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(out)))
	}
}
