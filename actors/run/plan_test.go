package run

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// evolving is a destination that can add columns to a load that goes on.
type evolving struct{ connectors.Destination }

func (evolving) Evolves(m connectors.WriteMode) bool { return m != connectors.ModeReplace }

// A history that goes on may gain columns where the destination can add them. Anywhere
// else an append is refused, and other modes begin again.
func TestNewColumnsInAHistoryThatGoesOn(t *testing.T) {
	schema := func(names ...string) *arrow.Schema {
		var f []arrow.Field
		for _, n := range names {
			f = append(f, arrow.Field{Name: n, Type: arrow.PrimitiveTypes.Int64})
		}
		return arrow.NewSchema(f, nil)
	}
	for _, c := range []struct {
		name    string
		dest    connectors.Destination
		sync    connectors.SyncMode
		mode    connectors.WriteMode
		refused bool
		number  uint64
	}{
		{"added", evolving{}, connectors.SyncIncremental, connectors.ModeAppend, false, 1},
		{"added to an upsert", evolving{}, connectors.SyncIncremental, connectors.ModeUpsert, false, 1},
		{"a full refresh is one shape", evolving{}, connectors.SyncFullRefresh, connectors.ModeAppend, true, 0},
		{"cannot be added", nil, connectors.SyncIncremental, connectors.ModeAppend, true, 0},
		{"cannot be added: read again", nil, connectors.SyncIncremental, connectors.ModeUpsert, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := Spec{Pipeline: "p", Destination: c.dest, Streams: []Stream{{StreamSpec: connectors.StreamSpec{Stream: "s", Sync: c.sync, Mode: c.mode}, Target: "s"}}}
			id := messages.LoadID{Name: "s", Number: 1}
			load := func(s *arrow.Schema, answer connectors.Continuity) connectors.Load {
				return connectors.Load{
					ID: id, Continuity: answer, Streams: []connectors.StreamPlan{{Stream: "s", Schema: s, Key: []string{"id"}}},
					Parts: []connectors.Part{{ID: "s", Load: id, Streams: []messages.StreamID{"s"}}},
				}
			}
			first, _, err := spec.Plan(connectors.Plan{Identity: "o", Loads: []connectors.Load{load(schema("id"), "")}}, connectors.Recovered{})
			require.NoError(t, err)
			known := connectors.Recovered{
				Loads: []connectors.LoadStatus{first[0].Status()}, Parts: first[0].Parts,
				Receipts: []messages.Receipt{{Part: "s", Load: "s", Version: messages.Version{Load: 1, Commit: 3}}},
			}
			again, _, err := spec.Plan(connectors.Plan{Identity: "o", Loads: []connectors.Load{load(schema("id", "new"), connectors.ContinueExact)}}, known)
			if c.refused {
				require.Equal(t, connectors.KindConfig, connectors.KindOf(err))
				require.ErrorContains(t, err, "other columns")
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.number, again[0].ID.Number)
			require.NotEqual(t, first[0].Shape, again[0].Shape)
		})
	}
}
