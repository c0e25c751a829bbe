package bbolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
	"rapidbyte.io/node/statestore/storetest"
)

func TestStoreConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() (statestore.Store, error) {
		path := filepath.Join(t.TempDir(), "below", "state.db")
		return func() (statestore.Store, error) { return bbolt.Open(t.Context(), bbolt.Config{Path: path}) }
	})
}

func TestStoreConformsAtAnyTime(t *testing.T) {
	storetest.RunClock(t, func(t *testing.T, now func() time.Time) func() (statestore.Store, error) {
		path := filepath.Join(t.TempDir(), "state.db")
		return func() (statestore.Store, error) { return bbolt.Open(t.Context(), bbolt.Config{Path: path, Now: now}) }
	})
}
