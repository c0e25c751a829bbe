package conntest_test

import (
	"testing"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestMemoryDestinationConforms(t *testing.T) {
	conntest.Destination(t, memoryDestinations(nil))
}

func TestMemorySourceConforms(t *testing.T) {
	conntest.Source(t, memorySources(connectors.SyncFullRefresh, nil))
}

func TestIncrementalMemorySourceConforms(t *testing.T) {
	conntest.Source(t, memorySources(connectors.SyncIncremental, nil))
}

// memorySources makes fresh memory sources of 30 and 4 rows, each changed by spoil.
func memorySources(sync connectors.SyncMode, spoil func(s *conntest.MemorySource) connectors.Source) conntest.SourceFactory {
	return conntest.SourceFactory{
		Incremental: sync == connectors.SyncIncremental,
		New: func(conntest.T) conntest.Origin {
			s := conntest.NewMemorySource(conntest.Numbers("orders", 30), conntest.Numbers("customers", 4))
			var spoiled connectors.Source = s
			if spoil != nil {
				spoiled = spoil(s)
			}
			return conntest.Origin{
				Source: spoiled, Streams: conntest.Specs(sync, connectors.ModeAppend, "orders", "customers"),
				Rows: func(conntest.T) map[messages.StreamID][]string {
					return map[messages.StreamID][]string{"orders": s.Rows("orders"), "customers": s.Rows("customers")}
				},
				Append: func(conntest.T) { s.Append("orders", conntest.NumberRows(31, 5)...) },
			}
		},
	}
}

// memoryDestinations makes fresh memory destinations, each changed by spoil.
func memoryDestinations(spoil func(d *conntest.MemoryDestination) connectors.Destination) conntest.DestinationFactory {
	return conntest.DestinationFactory{
		Modes: []connectors.WriteMode{connectors.ModeAppend, connectors.ModeUpsert, connectors.ModeReplace},
		New: func(conntest.T) conntest.Target {
			d := &conntest.MemoryDestination{}
			var spoiled connectors.Destination = d
			if spoil != nil {
				spoiled = spoil(d)
			}
			return conntest.Target{
				Destination: spoiled,
				Reopen:      func(conntest.T) connectors.Destination { return spoiled },
				Rows:        func(_ conntest.T, target string) []string { return d.Rows(target) },
			}
		},
	}
}
