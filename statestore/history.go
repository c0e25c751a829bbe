package statestore

import (
	"cmp"
	"time"

	"rapidbyte.io/node/messages"
)

// HistoryKept is how many checkpoints of a part a store remembers.
const HistoryKept = 64

// Kept is a checkpoint that is remembered though newer ones have followed it.
type Kept struct {
	Receipt messages.Receipt
	Saved   time.Time // UTC, of the store's clock
}

// Supersedes reports whether k takes the place of l, which was saved before it: a store
// keeps the last receipt of each epoch and hour only. The epoch is that of the receipt's
// token, the hour is of UTC.
func (k Kept) Supersedes(l Kept) bool {
	return k.Receipt.Part == l.Receipt.Part && k.Receipt.LoadID() == l.Receipt.LoadID() &&
		k.Receipt.Token.Epoch == l.Receipt.Token.Epoch && Hour(k.Saved) == Hour(l.Saved)
}

// Compare orders the checkpoints of a part, the newest first: by version, then by who
// wrote it.
func (k Kept) Compare(l Kept) int {
	return cmp.Or(
		l.Receipt.Version.Compare(k.Receipt.Version), l.Receipt.Token.Compare(k.Receipt.Token),
		cmp.Compare(k.Receipt.Load, l.Receipt.Load), l.Saved.Compare(k.Saved),
	)
}

// Hour returns the hour that t is in, counted from the Unix epoch.
func Hour(t time.Time) int64 {
	const seconds = 3600
	s := t.Unix()
	if s < 0 {
		s -= seconds - 1
	}
	return s / seconds
}
