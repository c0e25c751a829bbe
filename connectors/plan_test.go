package connectors_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Parts and load statuses are stored by destinations: their form is a promise to
// the version of the engine that reads them back.
func TestStoredFormIsStable(t *testing.T) {
	part := connectors.Part{
		ID: "orders/1", Load: messages.LoadID{Name: "orders", Number: 3}, Streams: []messages.StreamID{"orders"},
		Split: json.RawMessage(`{"from":1}`), Scan: "snap", Raw: "pgcopy", After: []messages.PartID{"orders/0"}, Rows: 5,
	}
	const stored = `{"id":"orders/1","load":{"name":"orders","number":3},"streams":["orders"],"split":{"from":1},` +
		`"scan":"snap","raw":"pgcopy","after":["orders/0"],"rows":5}`
	text, err := json.Marshal(part)
	require.NoError(t, err)
	require.JSONEq(t, stored, string(text))
	var back connectors.Part
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, part, back)

	status := connectors.LoadStatus{
		ID: part.Load, Finished: true, Identity: "db-1", History: json.RawMessage(`{"files":["a"]}`),
	}
	text, err = json.Marshal(status)
	require.NoError(t, err)
	require.JSONEq(t, `{"id":{"name":"orders","number":3},"finished":true,"identity":"db-1","history":{"files":["a"]}}`, string(text))
	var again connectors.LoadStatus
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, status, again)
}
