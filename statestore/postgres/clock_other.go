//go:build !linux

package postgres

import "time"

var start = time.Now()

// sinceBoot is the monotonic clock, which may stand still while the machine sleeps.
func sinceBoot() time.Duration { return time.Since(start) }
