package postgres

import (
	"sync"
	"time"

	"rapidbyte.io/node/statestore"
)

// hintsMax bounds the rows that are remembered.
const hintsMax = 1 << 16

// hints remembers which checkpoints of this hour have a row in the history: one more
// does not make it longer, so that nobody has to look whether it is too long. To forget
// is harmless.
type hints struct {
	mu   sync.Mutex
	hour int64
	rows map[string]struct{}
}

func (h *hints) has(now time.Time, row string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.rows[row]
	return ok && h.hour == statestore.Hour(now)
}

func (h *hints) add(now time.Time, rows []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hour := statestore.Hour(now); h.rows == nil || h.hour != hour || len(h.rows)+len(rows) > hintsMax {
		h.hour, h.rows = hour, map[string]struct{}{}
	}
	for _, row := range rows {
		h.rows[row] = struct{}{}
	}
}
