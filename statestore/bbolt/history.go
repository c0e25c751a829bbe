package bbolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// keptRecord is a kept checkpoint as it is stored.
type keptRecord struct {
	Receipt messages.Receipt `json:"receipt"`
	Saved   time.Time        `json:"saved"`
}

// slot is the place of a kept checkpoint: the next one of the same epoch and hour takes
// it, so that a checkpoint costs one put and what is kept is thinned out by itself.
type slot struct {
	part  string
	load  messages.LoadID
	epoch messages.Epoch
	hour  int64
}

// key returns the key of a slot: those of a part stand side by side, and a key tells its
// load without the value.
func (s slot) key() string {
	b := appendName(partPrefix(s.part), s.load.Name)
	b = binary.BigEndian.AppendUint64(b, s.load.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(s.epoch))
	return string(binary.BigEndian.AppendUint64(b, uint64(s.hour))) //nolint:gosec // compared for equality only
}

// partPrefix is what the keys of a part begin with, and no other's.
func partPrefix(part string) []byte { return appendName(nil, part) }

func appendName(b []byte, name string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

// cutName undoes appendName.
func cutName(b []byte) (name string, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return "", nil, false
	}
	b = b[size:]
	return string(b[:n]), b[n:], true
}

func parseSlot(key []byte) (s slot, err error) {
	part, rest, ok := cutName(key)
	if ok {
		s.load.Name, rest, ok = cutName(rest)
	}
	if !ok || len(rest) != 3*8 {
		return s, damaged("a kept checkpoint under the key %q", key)
	}
	s.part, s.load.Number = part, binary.BigEndian.Uint64(rest)
	s.epoch = messages.Epoch(binary.BigEndian.Uint64(rest[8:]))
	s.hour = int64(binary.BigEndian.Uint64(rest[16:])) //nolint:gosec // as it was written
	return s, nil
}

func decodeKept(a address, value []byte) (statestore.Kept, error) {
	k, err := decode[keptRecord](a, value)
	if err != nil {
		return statestore.Kept{}, err
	}
	var d decoder
	kept := statestore.Kept{Receipt: mapReceipt(k.Receipt, d.text), Saved: k.Saved}
	if slotOf(kept).key() != a.key {
		return kept, fmt.Errorf("%w: a kept checkpoint of task %q is stored as another", statestore.ErrDamaged, kept.Receipt.Part)
	}
	return kept, d.err()
}

func slotOf(k statestore.Kept) slot {
	return slot{string(k.Receipt.Part), k.Receipt.LoadID(), k.Receipt.Token.Epoch, statestore.Hour(k.Saved)}
}

// keep remembers a receipt, escaped already, of a part and load by their true names. Only
// the first one of an epoch or an hour looks at the others of its part.
func (c *change) keep(part string, load messages.LoadID, escaped messages.Receipt) error {
	s := slot{part, load, escaped.Token.Epoch, statestore.Hour(c.now)}
	a := c.address(kindHistory, s.key())
	isNew := c.history.Get([]byte(a.key)) == nil
	if err := c.put(c.history, a, keptRecord{Receipt: escaped, Saved: c.now}); err != nil || !isNew {
		return err
	}
	return c.thin(part)
}

// thin drops what a part has too many of.
func (c *change) thin(part string) error {
	n := 0
	prefix := partPrefix(part)
	walk := c.history.Cursor()
	for key, _ := walk.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = walk.Next() {
		n++
	}
	if n <= statestore.HistoryKept {
		return nil
	}
	all, err := keptOf(c.history, c.name, part)
	if err != nil {
		return err
	}
	for _, k := range all[statestore.HistoryKept:] {
		if err := c.remove(c.history, c.address(kindHistory, slotOf(k).key())); err != nil {
			return err
		}
	}
	return nil
}

// keptOf returns the kept checkpoints of a part, newest first. b may be nil.
func keptOf(b *bolt.Bucket, pipeline, part string) (all []statestore.Kept, err error) {
	if b == nil {
		return nil, nil
	}
	prefix := partPrefix(part)
	walk := b.Cursor()
	for key, value := walk.Seek(prefix); bytes.HasPrefix(key, prefix); key, value = walk.Next() {
		k, err := decodeKept(address{pipeline, kindHistory, string(key)}, value)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	slices.SortFunc(all, statestore.Kept.Compare)
	return all, nil
}

// removeKept removes the kept checkpoints of some loads; by key, without their values.
func (c *change) removeKept(which func(messages.LoadID) bool) error {
	var keys []string // a bucket must not change while it is walked
	err := c.history.ForEach(func(key, _ []byte) error {
		s, err := parseSlot(key)
		if err == nil && which(s.load) {
			keys = append(keys, string(key))
		}
		return err
	})
	for _, key := range keys {
		if err == nil {
			err = c.remove(c.history, c.address(kindHistory, key))
		}
	}
	return err
}

// History implements statestore.Store.
func (s *Store) History(ctx context.Context, p messages.PipelineID, part messages.PartID) (kept []statestore.Kept, err error) {
	err = s.view(ctx, func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketPipelines).Bucket([]byte(p)); b != nil {
			kept, err = keptOf(b.Bucket([]byte(kindHistory)), string(p), string(part))
		}
		return err
	})
	if err != nil {
		return nil, statestore.Wrap(statestore.Error{Op: "list checkpoints", Path: s.path, Pipeline: p, Part: part, Err: err})
	}
	return kept, nil
}
