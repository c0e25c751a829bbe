package codec

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"rapidbyte.io/node/connectors"
)

// FrameHeadroom is the number of bytes in front of a frame's rows that are whoever's who
// sends it.
const FrameHeadroom = 16

const (
	frameFirst = 64 << 10 // bytes of which the first frame thinks
	frameMost  = 1 << 20  // bytes up to which a frame grows in one step
)

// Framer cuts the payloads of COPY TO STDOUT (FORMAT binary) into frames of whole rows. It
// looks at counts and lengths of fields, never at values, copies each byte once and
// allocates nothing per row. It is not safe for concurrent use.
type Framer struct {
	fields int
	limits connectors.Limits
	mem    memory.Allocator

	buf  *memory.Buffer // nil: no pending row
	out  []byte         // of buf, as long as it is: headroom, then rows up to used
	used int
	n    int64 // pending rows
	hint int   // bytes that the frame before had, about

	taken  int64  // rows of earlier frames
	tail   []byte // a row that the payloads so far have cut
	need   int    // bytes of tail below which another look is useless
	at     int    // bytes of the payload, or of tail, that are done; while again
	again  bool   // the next payload is the one that was answered with ErrFull
	begun  bool   // the header was seen
	ended  bool   // the trailer was seen
	failed error  // returned until Reset
}

// NewFramer returns a Framer of rows of so many fields. Limits.BatchBytes bounds the rows
// as they are sent.
func NewFramer(fields int, mem memory.Allocator, limits connectors.Limits) *Framer {
	return &Framer{fields: fields, mem: mem, limits: bounded(limits)}
}

// Frame holds whole rows of binary COPY, without header and trailer. Who retains it
// releases it.
type Frame struct {
	*memory.Buffer
	Rows int64
}

// Data returns the rows.
func (f *Frame) Data() []byte { return f.Bytes()[FrameHeadroom:] }

// Message returns the rows with n bytes in front of them, at most FrameHeadroom, which
// the only owner of f may write.
func (f *Frame) Message(n int) []byte { return f.Bytes()[FrameHeadroom-n:] }

// Reset begins another COPY of the same columns. What is pending is dropped.
func (f *Framer) Reset() {
	f.drop()
	f.taken, f.tail, f.need, f.at = 0, f.tail[:0], 0, 0
	f.again, f.begun, f.ended, f.failed = false, false, false, nil
}

// Append takes one CopyData payload, as Decoder.Append does: ErrFull wants a Take and the
// same payload again.
func (f *Framer) Append(payload []byte) error {
	if f.failed != nil {
		return f.failed
	}
	buf, inTail := payload, len(f.tail) > 0
	if inTail {
		if !f.again {
			f.tail = append(f.tail, payload...)
		}
		buf = f.tail
		if len(buf) < f.need {
			return nil
		}
	}
	at := 0
	if f.again {
		at, f.again = min(f.at, len(buf)), false
	}
	if !f.begun {
		n, need, why := copyHeader(buf)
		if why != "" {
			f.failed = f.format(why)
			return f.failed
		}
		f.need, f.begun, at = need, n > 0, n
	}
	if f.begun {
		n, err := f.rows(buf[at:])
		switch at += n; {
		case err == ErrFull: //nolint:errorlint // our own, never wrapped
			f.again, f.at = true, at
			return err
		case err != nil:
			f.failed = err
			return err
		}
	}
	f.keep(buf[at:], inTail)
	return nil
}

// AppendMessages takes whole CopyData messages, as Decoder.AppendMessages does.
func (f *Framer) AppendMessages(messages []byte) (done int, err error) {
	for done < len(messages) {
		size := 1 + int(binary.BigEndian.Uint32(messages[done+1:]))
		payload := messages[done+messageHead : done+size]
		if !f.plain(payload) {
			if err := f.Append(payload); err != nil {
				return done, err
			}
		}
		done += size
	}
	return done, nil
}

// plain takes a payload that is one row, about which nothing else has to be said. It is
// what every payload of a server is, but for the first and the last one.
func (f *Framer) plain(payload []byte) bool {
	if !f.begun || f.ended || f.again || len(f.tail) > 0 || f.failed != nil || f.n == 0 || f.n >= f.limits.BatchRows || len(payload) < 2 ||
		int(int16(binary.BigEndian.Uint16(payload))) != f.fields {
		return false
	}
	if size, why := f.row(payload); size != len(payload) || why != "" || int64(size-2-4*f.fields) > f.limits.RowBytes || int64(f.pending()+size) > f.limits.BatchBytes {
		return false
	}
	f.put(payload, 1)
	return true
}

// keep saves what is left of a payload.
func (f *Framer) keep(rest []byte, inTail bool) {
	if !inTail {
		f.tail = append(f.tail, rest...)
		return
	}
	f.tail = f.tail[:copy(f.tail, rest)]
	if len(f.tail) == 0 && cap(f.tail) > tailKeep {
		f.tail = nil
	}
}

// rows takes whole rows and the trailer, and returns how long they were.
func (f *Framer) rows(b []byte) (at int, err error) {
	from, n := 0, int64(0) // what is found and not yet copied
	for at < len(b) {
		if len(b)-at < 2 {
			f.need = 2
			break
		}
		fields := int(int16(binary.BigEndian.Uint16(b[at:])))
		if fields != f.fields || f.ended {
			f.put(b[from:at], n)
			if why := badTrailer(fields, f.fields, f.ended); why != "" {
				return at, f.format(why)
			}
			f.ended = true
			at += 2
			from, n = at, 0
			continue
		}
		if f.n+n >= f.limits.BatchRows {
			err = ErrFull
			break
		}
		size, why := f.row(b[at:])
		if why != "" {
			f.put(b[from:at], n)
			return at, f.format(why)
		}
		if bytes := max(size, f.need) - 2 - 4*f.fields; int64(bytes) > f.limits.RowBytes {
			f.put(b[from:at], n)
			return at, &RowTooLargeError{Row: f.current(), Bytes: int64(bytes), Max: f.limits.RowBytes}
		}
		if size == 0 {
			break
		}
		if f.n+n > 0 && int64(f.pending()+at-from+size) > f.limits.BatchBytes {
			err = ErrFull
			break
		}
		n++
		at += size
	}
	f.put(b[from:at], n)
	return at, err
}

// row measures the row that b begins with. A size of 0 says that it goes on behind b:
// f.need is then how much of it has to be there, at least.
func (f *Framer) row(b []byte) (size int, why string) {
	f.need = 0
	at := 2
	for range f.fields {
		if len(b)-at < 4 {
			f.need = at + 4
			return 0, ""
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:]))) //nolint:gosec // -1 is null
		at += 4
		switch {
		case n < -1:
			return 0, "a field has a negative length"
		case n <= 0:
		case n > len(b)-at:
			f.need = at + n
			return 0, ""
		default:
			at += n
		}
	}
	return at, ""
}

// put appends n whole rows.
func (f *Framer) put(rows []byte, n int64) {
	if n == 0 {
		return
	}
	if want := f.used + len(rows); f.buf == nil || want > len(f.out) {
		f.grow(want)
	}
	f.used += copy(f.out[f.used:], rows)
	f.n += n
}

func (f *Framer) grow(want int) {
	if f.buf == nil {
		f.buf = memory.NewResizableBuffer(f.mem)
		f.used = FrameHeadroom
		want = max(want+FrameHeadroom, f.hint, frameFirst)
	} else {
		// At once up to frameMost: what a buffer grew out of is of no use to the next.
		want = max(want, min(max(2*len(f.out), frameMost), int(f.limits.BatchBytes))+FrameHeadroom)
	}
	f.buf.Reserve(want)
	f.out = f.buf.Buf()
}

func (f *Framer) pending() int { return max(0, f.used-FrameHeadroom) }

func (f *Framer) format(why string) error { return &FormatError{Row: f.current(), Why: why} }

// current is the number of the row at hand.
func (f *Framer) current() int64 {
	if !f.begun {
		return 0
	}
	return f.taken + f.n + 1
}

// Rows returns the number of pending rows.
func (f *Framer) Rows() int64 { return f.n }

// Ended reports whether the trailer was seen: the server has sent everything.
func (f *Framer) Ended() bool { return f.ended }

// Take returns the pending rows, which the caller owns; nil when there are none.
func (f *Framer) Take() *Frame {
	if f.n == 0 {
		return nil
	}
	out := &Frame{Rows: f.n}
	f.taken, f.n = f.taken+f.n, 0
	if len(f.out) > frameFirst && f.used < len(f.out)/2 { // what waits downstream is counted by its rows
		out.Buffer = memory.NewResizableBuffer(f.mem)
		out.Resize(f.used)
		copy(out.Bytes(), f.out[:f.used])
		f.used = FrameHeadroom
		return out
	}
	f.buf.ResizeNoShrink(f.used)
	out.Buffer = f.buf
	f.hint = min(f.used+f.used/16, int(f.limits.BatchBytes)+FrameHeadroom)
	f.buf, f.out, f.used = nil, nil, 0
	return out
}

// Release drops what is pending. Idempotent.
func (f *Framer) Release() {
	f.drop()
	f.tail = nil
	if f.failed == nil {
		f.failed = errReleased
	}
}

func (f *Framer) drop() {
	if f.buf != nil {
		f.buf.Release()
	}
	f.buf, f.out, f.used, f.n = nil, nil, 0, 0
}
