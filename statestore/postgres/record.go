package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// kind says what a value is: the name of its table.
type kind string

const (
	kindStore    kind = "store"
	kindPipeline kind = "pipeline"
	kindReceipt  kind = "receipt"
	kindLoad     kind = "load"
	kindRun      kind = "run"
	kindOrder    kind = "orders"
	kindHistory  kind = "history"
)

// address says where a value belongs. It goes into the checksum, so that a value
// that turns up elsewhere is noticed.
type address struct {
	pipeline string
	kind     kind
	key      string
}

// appendTo appends a form of a that no other address has.
func (a address) appendTo(b []byte) []byte {
	return appendTexts(b, a.pipeline, string(a.kind), a.key)
}

func appendTexts(b []byte, texts ...string) []byte {
	for _, s := range texts {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// row is the column that finds the value.
func (a address) row() []byte { return rowOf(a.key) }

// rowOf stands for a name where rows are found by it: an index takes no name of 4 KiB,
// and a text of the server neither NUL nor what is not UTF-8.
func rowOf(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return sum[:]
}

// cell is a value with its checksum, as a row has them.
type cell struct {
	row   []byte
	value string
	sum   int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(a address, value string) int64 {
	var scratch [256]byte
	sum := crc32.Checksum(a.appendTo(scratch[:0]), castagnoli)
	return int64(crc32.Update(sum, castagnoli, []byte(value)))
}

// form is how the values of a kind are written.
type form[T any] struct {
	kind  kind
	texts func(T, func(string) string) T // returns a copy with every text mapped
	key   func(T) string
}

var (
	stores    = form[storeRecord]{kindStore, func(r storeRecord, _ func(string) string) storeRecord { return r }, func(storeRecord) string { return "" }}
	pipelines = form[pipelineRecord]{kindPipeline, mapPipeline, func(r pipelineRecord) string { return r.Name }}
	receipts  = form[messages.Receipt]{kindReceipt, mapReceipt, func(r messages.Receipt) string { return string(r.Part) }}
	loads     = form[loadRecord]{kindLoad, mapLoad, func(l loadRecord) string { return l.Name }}
	runs      = form[statestore.Run]{kindRun, mapRun, func(r statestore.Run) string { return r.ID }}
	orders    = form[orderRecord]{kindOrder, mapOrder, orderRecord.key}
	history   = form[keptRecord]{kindHistory, mapKept, keptRecord.key}
)

// seal writes v.
func (f form[T]) seal(pipeline string, v T) (address, cell, error) {
	a := address{pipeline, f.kind, f.key(v)}
	body, err := json.Marshal(f.texts(v, escape))
	if err != nil {
		return a, cell{}, fmt.Errorf("%w: encode the %s %q: %w", statestore.ErrInvalid, a.kind, a.key, err)
	}
	value := ascii(string(body))
	return a, cell{a.row(), value, checksum(a, value)}, nil
}

// open reads c and proves that it is what was written, and is in its place.
func (f form[T]) open(pipeline string, c cell) (a address, v T, err error) {
	if err := json.Unmarshal([]byte(c.value), &v); err != nil {
		return a, v, fmt.Errorf("%w: decode a value of the kind %s: %w", statestore.ErrDamaged, f.kind, err)
	}
	var errs []error
	v = f.texts(v, func(s string) string {
		s, err := unescape(s)
		errs = append(errs, err)
		return s
	})
	if err := errors.Join(errs...); err != nil {
		return a, v, fmt.Errorf("%w: decode a value of the kind %s: %w", statestore.ErrDamaged, f.kind, err)
	}
	a = address{pipeline, f.kind, f.key(v)}
	switch {
	case !bytes.Equal(c.row, a.row()):
		err = damaged("the %s %q stands in the place of another", a.kind, a.key)
	case c.sum != checksum(a, c.value):
		err = damaged("the checksum of the %s %q does not hold", a.kind, a.key)
	}
	return a, v, err
}

// ascii writes JSON without a character that some encoding of a database lacks.
func ascii(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
			b.WriteRune(r)
		case r > 0xFFFF:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func damaged(text string, args ...any) error {
	return fmt.Errorf("%w: %s", statestore.ErrDamaged, fmt.Sprintf(text, args...))
}

// digest sums up all values of a pipeline, whatever their order. A checksum per
// value cannot see that a value is gone or is the one of last week; this can. It
// is stored in the transaction that changes it.
type digest struct {
	Count uint64 `json:"count"`
	Sum   uint64 `json:"sum"` // of the first 64 bits of SHA-256 of address and value, mod 2^64
}

func (d *digest) add(a address, value string) {
	d.Count++
	d.Sum += fingerprint(a, value)
}

func (d *digest) remove(a address, value string) {
	d.Count--
	d.Sum -= fingerprint(a, value)
}

func fingerprint(a address, value string) uint64 {
	var scratch [1 << 10]byte
	sum := sha256.Sum256(append(a.appendTo(scratch[:0]), value...))
	return binary.BigEndian.Uint64(sum[:])
}

// storeRecord says which store this is, and how many pipelines it knows: that one is
// gone is noticed.
type storeRecord struct {
	Identity  string    `json:"identity"` // UUID
	Created   time.Time `json:"created"`
	Pipelines uint64    `json:"pipelines"`
}

// pipelineRecord is what the row of a pipeline says.
type pipelineRecord struct {
	Name   string         `json:"name"`
	Epoch  messages.Epoch `json:"epoch"`
	Digest digest         `json:"digest"`
}

// loadRecord is how far a load name has come.
type loadRecord struct {
	Name     string `json:"name"`
	Current  uint64 `json:"current,omitempty"`  // highest number of a receipt; smaller ones are gone
	Finished uint64 `json:"finished,omitempty"` // highest number marked finished
}

func (l loadRecord) reached() uint64 { return max(l.Current, l.Finished) }

// orderRecord is statestore.Order.
type orderRecord struct {
	Load  messages.LoadID   `json:"load"`
	Part  messages.PartID   `json:"part,omitempty"`
	From  messages.Version  `json:"from,omitzero"`
	To    messages.Position `json:"to,omitzero"`
	Given time.Time         `json:"given"`
}

func (o orderRecord) key() string {
	return string(appendTexts(nil, o.Load.Name, string(o.Part)))
}

// keptRecord is statestore.Kept.
type keptRecord struct {
	Receipt messages.Receipt `json:"receipt"`
	Saved   time.Time        `json:"saved"`
}

// key is the same for what k supersedes.
func (k keptRecord) key() string {
	r := k.Receipt
	return string(appendTexts(nil, string(r.Part), r.Load, fmt.Sprintf("%d/%d/%d", r.Version.Load, r.Token.Epoch, statestore.Hour(k.Saved))))
}

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
	r.Part, r.Load = messages.PartID(f(string(r.Part))), f(r.Load)
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

func mapOrder(o orderRecord, f func(string) string) orderRecord {
	o.Load.Name, o.Part = f(o.Load.Name), messages.PartID(f(string(o.Part)))
	o.To = mapPosition(o.To, f)
	return o
}

func mapKept(k keptRecord, f func(string) string) keptRecord {
	k.Receipt = mapReceipt(k.Receipt, f)
	return k
}

func mapPipeline(r pipelineRecord, f func(string) string) pipelineRecord {
	r.Name = f(r.Name)
	return r
}

func mapLoad(l loadRecord, f func(string) string) loadRecord {
	l.Name = f(l.Name)
	return l
}

// utc drops what JSON would not bring back.
func utc(t time.Time) time.Time { return t.Round(0).UTC() }
