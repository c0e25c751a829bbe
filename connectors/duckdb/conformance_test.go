package duckdb

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestDestinationConformance(t *testing.T) {
	conntest.Destination(t, conntest.DestinationFactory{
		Modes:     []connectors.WriteMode{connectors.ModeAppend, connectors.ModeReplace, connectors.ModeUpsert},
		Refuses:   []string{"duration_us", "decimal256"},
		Exclusive: true,
		New: func(t conntest.T) conntest.Target {
			path := filepath.Join(t.TempDir(), "x.duckdb")
			return conntest.Target{
				Destination: newDestination(t, path),
				Reopen:      func(t conntest.T) connectors.Destination { return newDestination(t, path) },
				Rows:        func(t conntest.T, target string) []string { return tableRows(t, path, "main", target) },
			}
		},
	})
}

func TestSourceConformance(t *testing.T) {
	conntest.Source(t, conntest.SourceFactory{
		New: func(t conntest.T) conntest.Origin {
			path := filepath.Join(t.TempDir(), "x.duckdb")
			sqlFile(t, path, `CREATE TABLE orders (id BIGINT PRIMARY KEY, name VARCHAR); INSERT INTO orders SELECT i, 'row ' || i FROM range(1, 41) r(i);
				CREATE TABLE customers (id INTEGER NOT NULL, note VARCHAR); INSERT INTO customers SELECT i, NULL FROM range(7) r(i);
				CREATE TABLE nobody (id INTEGER)`)
			source := func(t conntest.T) connectors.Source {
				s, err := NewSource(SourceConfig{Path: path})
				require.NoError(t, err)
				s.splitRows = 5
				return s
			}
			grown := 0
			return conntest.Origin{
				Source: source(t), Reopen: source,
				Streams: []connectors.StreamSpec{
					{Stream: "orders", Sync: connectors.SyncFullRefresh, Mode: connectors.ModeAppend},
					{Stream: "main.customers", Sync: connectors.SyncFullRefresh, Mode: connectors.ModeAppend},
					{Stream: "nobody", Sync: connectors.SyncFullRefresh, Mode: connectors.ModeAppend},
				},
				Rows: func(t conntest.T) map[messages.StreamID][]string {
					return map[messages.StreamID][]string{
						"orders": rowsOf(t, path, "FROM orders"), "main.customers": rowsOf(t, path, "FROM customers"), "nobody": nil,
					}
				},
				Append: func(t conntest.T) {
					grown++
					sqlFile(t, path, fmt.Sprintf("INSERT INTO orders VALUES (%d, 'added')", 1000+grown))
				},
			}
		},
	})
}
