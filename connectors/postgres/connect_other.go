//go:build !linux

package postgres

import (
	"syscall"
	"time"
)

// userTimeout has no counterpart here: keepalives find a peer that is gone.
func userTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
