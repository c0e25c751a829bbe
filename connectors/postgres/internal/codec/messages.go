package codec

import (
	"encoding/binary"
	"unicode/utf8"
)

const messageHead = 5 // type and length of a CopyData message

// AppendMessages takes whole CopyData messages, each with its type and length, as they
// lie behind each other in the buffer of a connection. It does what Append does with
// their payloads, and returns how many bytes of messages are done.
//
// ErrFull wants a Take, and another call with messages[done:].
func (d *Decoder) AppendMessages(messages []byte) (done int, err error) {
	for quick := true; done < len(messages); {
		if quick {
			var n int
			n, quick = d.quickly(messages[done:])
			if done += n; done == len(messages) {
				return done, nil
			}
		}
		size := 1 + int(binary.BigEndian.Uint32(messages[done+1:]))
		if err := d.Append(messages[done+messageHead : done+size]); err != nil {
			return done, err
		}
		done += size
	}
	return done, nil
}

// quickly takes messages of one row each, and returns how long they were. It stops in
// front of whatever is not plain: Append knows what to do about it. Texts are looked
// at together; if one of them is bad, no row is taken, and ok is false.
func (d *Decoder) quickly(messages []byte) (at int, ok bool) {
	if !d.begun || d.ended || d.again || len(d.tail) > 0 || d.failed != nil {
		return 0, true
	}
	first, vbytes := d.n, d.vbytes
	for at < len(messages) {
		if d.n == d.cap {
			if int64(d.n) >= d.limits.BatchRows {
				break
			}
			d.grow()
		}
		size := 1 + int(binary.BigEndian.Uint32(messages[at+1:]))
		grown := d.quick(messages[at+messageHead : at+size])
		if grown < 0 {
			d.undo()
			break
		}
		wire := int64(size - messageHead - 2 - 4*len(d.cols))
		all := d.vbytes + int64(grown)
		if max(wire, int64(grown)) > d.limits.RowBytes || d.bound(d.n+1, all) > d.limits.BatchBytes {
			d.undo()
			break
		}
		d.n++
		d.vbytes = all
		at += size
	}
	for _, c := range d.vars {
		if !c.sound(first, d.n) {
			for i := range d.cols {
				d.cols[i].cut(first, d.n)
			}
			d.n, d.vbytes = first, vbytes
			return 0, false
		}
	}
	return at, true
}

// sound reports whether the texts [from, to), which have not been looked at, are UTF-8:
// so they are if they are together, and none begins inside of a character.
func (c *column) sound(from, to int) bool {
	if from == to || c.op != opText && c.op != opJSONB {
		return true
	}
	texts := c.data[c.offset(from):c.used]
	if isASCII(texts) {
		return true
	}
	if !utf8.Valid(texts) {
		return false
	}
	for i := from; i < to; i++ {
		if at := c.offset(i); at < c.used && !utf8.RuneStart(c.data[at]) {
			return false
		}
	}
	return true
}

// quick writes the one row that b holds behind the pending ones, and returns how many
// bytes beside the fixed part that took; less than 0 if something about the row wants a
// closer look. It does not look at the characters of texts.
func (d *Decoder) quick(b []byte) (grown int) {
	if len(b) < 2 || int(int16(binary.BigEndian.Uint16(b))) != len(d.cols) {
		return -1
	}
	n := d.n
	b = b[2:]
	for i := range d.cols {
		c := &d.cols[i]
		if len(b) < 4 {
			return -1
		}
		l := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if l < 0 {
			if l != -1 || c.null(n) != nil {
				return -1
			}
			continue
		}
		if l > len(b) {
			return -1
		}
		v := b[:l]
		b = b[l:]
		switch c.op {
		case opFix8:
			if len(v) != 8 {
				return -1
			}
			binary.LittleEndian.PutUint64(c.fix[8*n:], binary.BigEndian.Uint64(v))
		case opFix4:
			if len(v) != 4 {
				return -1
			}
			binary.LittleEndian.PutUint32(c.fix[4*n:], binary.BigEndian.Uint32(v))
		case opStamp:
			if c.putStamp(n, v) != nil {
				return -1
			}
		case opText, opBytes:
			if len(v) > len(c.data)-c.used && c.reserveData(len(v)) != nil {
				return -1
			}
			c.used += copy(c.data[c.used:], v)
			grown += len(v)
			binary.LittleEndian.PutUint32(c.fix[4*n+4:], uint32(c.used))
		default:
			more := c.quick(n, v)
			if more < 0 {
				return -1
			}
			grown += more
		}
	}
	if len(b) > 0 {
		return -1
	}
	return grown
}

// quick is put as Decoder.quick wants it.
func (c *column) quick(n int, v []byte) (grown int) {
	before := c.used
	switch c.op {
	case opBool:
		if len(v) != 1 || v[0] > 1 {
			return -1
		}
		c.fix[n>>3] |= v[0] << (n & 7)
		return 0
	case opUUID:
		if len(v) != 16 {
			return -1
		}
		to := c.fix[16*n : 16*n+16]
		binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(v))
		binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(v[8:]))
		return 0
	case opDecimal128:
		if c.putDecimal(n, v) != nil {
			return -1
		}
		return 0
	case opJSONB:
		if len(v) == 0 || v[0] != 1 || c.putBytes(n, v[1:]) != nil {
			return -1
		}
	case opList:
		size := c.varBytes()
		if c.put(n, v) != nil {
			return -1
		}
		return int(c.varBytes() - size)
	default:
		if c.put(n, v) != nil {
			return -1
		}
	}
	return c.used - before
}
