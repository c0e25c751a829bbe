package bbolt

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unicode/utf8"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// Kinds of values: the names of the buckets of a pipeline, of its one plain key,
// and of the bucket beside the pipelines.
const (
	kindEpoch    = "epoch"
	kindReceipts = "receipts"
	kindLoads    = "loads"
	kindRuns     = "runs"
	kindHistory  = "history"
	kindOrders   = "orders"
	kindMeta     = "meta"
)

// address says where a value belongs. It goes into the checksum, so that a value
// that turns up elsewhere is noticed.
type address struct{ pipeline, kind, key string }

// appendTo appends a form of a that no other address has.
func (a address) appendTo(b []byte) []byte {
	for _, s := range []string{a.pipeline, a.kind, a.key} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

func epochAddress(pipeline string) address { return address{pipeline, kindEpoch, kindEpoch} }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumBytes = 4 // of the checksum in front of a value

// seal returns the value to store for body: CRC32C over address and body, body.
func seal(a address, body []byte) []byte {
	value := make([]byte, sumBytes, sumBytes+len(body))
	binary.BigEndian.PutUint32(value, checksum(a, body))
	return append(value, body...)
}

// unseal returns the body of a stored value; it borrows it.
func unseal(a address, value []byte) ([]byte, error) {
	if len(value) < sumBytes || binary.BigEndian.Uint32(value) != checksum(a, value[sumBytes:]) {
		return nil, fmt.Errorf("%w: the checksum of %s %q does not hold", statestore.ErrDamaged, a.kind, a.key)
	}
	return value[sumBytes:], nil
}

func checksum(a address, body []byte) uint32 {
	var scratch [256]byte
	sum := crc32.Checksum(a.appendTo(scratch[:0]), castagnoli)
	return crc32.Update(sum, castagnoli, body)
}

// encode returns v as a sealed value.
func encode(a address, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: encode %s %q: %w", statestore.ErrInvalid, a.kind, a.key, err)
	}
	return seal(a, body), nil
}

// decode reads a sealed value.
func decode[T any](a address, value []byte) (v T, err error) {
	body, err := unseal(a, value)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("%w: decode %s %q: %w", statestore.ErrDamaged, a.kind, a.key, err)
	}
	return v, nil
}

// digest sums up all values of a store, whatever their order. A checksum per
// value cannot see that a value is gone or is the one of last week; this can. It
// is stored in the transaction that changes it.
type digest struct {
	Count uint64 `json:"count"`
	Sum   uint64 `json:"sum"` // of the first 64 bits of SHA-256 of address and value, mod 2^64
}

func (d *digest) add(a address, value []byte) {
	d.Count++
	d.Sum += fingerprint(a, value)
}

func (d *digest) remove(a address, value []byte) {
	d.Count--
	d.Sum -= fingerprint(a, value)
}

func fingerprint(a address, value []byte) uint64 {
	var scratch [1 << 10]byte
	sum := sha256.Sum256(append(a.appendTo(scratch[:0]), value...))
	return binary.BigEndian.Uint64(sum[:])
}

// loadRecord is how far a load name has come.
type loadRecord struct {
	Current  uint64 `json:"current,omitempty"`  // highest number of a receipt; smaller ones are gone
	Finished uint64 `json:"finished,omitempty"` // highest number marked finished
}

func (l loadRecord) reached() uint64 { return max(l.Current, l.Finished) }

// plain marks a text that JSON would change: one that is not UTF-8, and one that
// looks like a marked text. Names of files and cursors of old databases are not
// always UTF-8.
const plain = "\x00base64:"

func escape(s string) string {
	if utf8.ValidString(s) && !strings.HasPrefix(s, plain) {
		return s
	}
	return plain + base64.StdEncoding.EncodeToString([]byte(s))
}

func unescape(s string) (string, error) {
	coded, ok := strings.CutPrefix(s, plain)
	if !ok {
		return s, nil
	}
	b, err := base64.StdEncoding.DecodeString(coded)
	return string(b), err
}

// mapReceipt returns r with f applied to every text. It leaves r alone.
func mapReceipt(r messages.Receipt, f func(string) string) messages.Receipt {
	r.Part = messages.PartID(f(string(r.Part)))
	r.Load = f(r.Load)
	r.Position = mapPosition(r.Position, f)
	return r
}

func mapPosition(p messages.Position, f func(string) string) messages.Position {
	p.At = mapCursor(p.At, f)
	p.Streams = slices.Clone(p.Streams)
	for i, s := range p.Streams {
		p.Streams[i] = messages.StreamCursor{
			Stream: messages.StreamID(f(string(s.Stream))),
			State:  messages.StreamState(f(string(s.State))),
			At:     mapCursor(s.At, f),
		}
	}
	return p
}

func mapCursor(c messages.Cursor, f func(string) string) messages.Cursor {
	c.Type, c.Value = messages.CursorType(f(string(c.Type))), f(c.Value)
	c.Parts = slices.Clone(c.Parts)
	for i, p := range c.Parts {
		c.Parts[i] = mapCursor(p, f)
	}
	return c
}

func mapRun(r statestore.Run, f func(string) string) statestore.Run {
	r.ID, r.Why = f(r.ID), f(r.Why)
	r.State, r.Code = messages.RunState(f(string(r.State))), messages.Code(f(string(r.Code)))
	return r
}

// decoder undoes escape and keeps the first error.
type decoder struct{ errs []error }

func (d *decoder) text(s string) string {
	s, err := unescape(s)
	if err != nil {
		d.errs = append(d.errs, fmt.Errorf("%w: %w", statestore.ErrDamaged, err))
	}
	return s
}

func (d *decoder) err() error { return errors.Join(d.errs...) }

func decodeReceipt(a address, value []byte) (messages.Receipt, error) {
	r, err := decode[messages.Receipt](a, value)
	if err != nil {
		return r, err
	}
	var d decoder
	r = mapReceipt(r, d.text)
	if string(r.Part) != a.key {
		return r, fmt.Errorf("%w: the receipt of task %q is stored as that of %q", statestore.ErrDamaged, r.Part, a.key)
	}
	return r, d.err()
}

func decodeRun(a address, value []byte) (statestore.Run, error) {
	r, err := decode[statestore.Run](a, value)
	if err != nil {
		return r, err
	}
	var d decoder
	r = mapRun(r, d.text)
	return r, d.err()
}
