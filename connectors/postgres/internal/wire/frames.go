package wire

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	readBuffer = 512 << 10 // bytes; one read of a busy socket rarely gives more
	bodyMax    = 1 << 30   // bytes of one message; the server itself makes none larger
	headerSize = 5         // type and length
	runMax     = 64 << 10  // bytes of messages that are given on together: they stay in the cache
)

// frames cuts what is read into messages. It owns its buffer; a body is valid
// until the next call.
type frames struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is not yet cut
}

func newFrames(src io.Reader) *frames { return &frames{src: src, buf: make([]byte, readBuffer)} }

// next returns the type and the body of the next message. Its error is a
// *LostError or a *ProtocolError.
func (f *frames) next() (byte, []byte, error) {
	if f.w-f.r < headerSize {
		if err := f.fill(headerSize); err != nil {
			return 0, nil, err
		}
	}
	typ := f.buf[f.r]
	size := int64(binary.BigEndian.Uint32(f.buf[f.r+1:])) + 1 // with the type
	if err := checkSize(typ, size-headerSize); err != nil {
		return typ, nil, err
	}
	if int64(f.w-f.r) < size {
		if err := f.fill(int(size)); err != nil {
			return typ, nil, err
		}
	}
	body := f.buf[f.r+headerSize : f.r+int(size) : f.r+int(size)]
	f.r += int(size)
	return typ, body, nil
}

// run returns the message that next has just returned, whose body is len(body) long, and
// the messages of its type behind it that are whole in the buffer, as they were sent.
// Together they have at most runMax bytes, unless the first alone has more.
func (f *frames) run(typ byte, body int) []byte {
	from := f.r - body - headerSize
	for f.w-f.r >= headerSize && f.buf[f.r] == typ {
		size := int64(binary.BigEndian.Uint32(f.buf[f.r+1:])) + 1
		if size < headerSize || int64(f.r-from)+size > runMax || int64(f.w-f.r) < size {
			break // next has something to say about it, or more to read
		}
		f.r += int(size)
	}
	return f.buf[from:f.r:f.r]
}

// checkSize refuses lengths that no server sends.
func checkSize(typ byte, body int64) error {
	switch {
	case body < 0:
		return &ProtocolError{Type: typ, Why: "its length is smaller than a length"}
	case body > bodyMax:
		return &ProtocolError{Type: typ, Why: "it is longer than 1 GiB"}
	case typ == 'Z' && body != 1, (typ == 'I' || typ == '1' || typ == '2' || typ == 'n' || typ == 'c') && body != 0:
		return &ProtocolError{Type: typ, Why: "its length is not that of its type"}
	}
	return nil
}

// fill reads until size bytes are there, contiguous from f.r.
func (f *frames) fill(size int) error {
	switch {
	case len(f.buf) > readBuffer && max(size, f.w-f.r) <= readBuffer: // a giant has passed
		small := make([]byte, readBuffer)
		f.w = copy(small, f.buf[f.r:f.w])
		f.buf, f.r = small, 0
	case f.r == f.w:
		f.r, f.w = 0, 0
	}
	for empty := 0; f.w-f.r < size; {
		if f.r > 0 && len(f.buf)-f.r < size {
			f.w = copy(f.buf, f.buf[f.r:f.w])
			f.r = 0
		}
		if f.w == len(f.buf) { // full of one message: double, at most to its size
			grown := make([]byte, min(2*len(f.buf), max(size, readBuffer)))
			copy(grown, f.buf[:f.w])
			f.buf = grown
		}
		n, err := f.src.Read(f.buf[f.w:])
		f.w += n
		if n > 0 {
			empty = 0
			continue
		}
		if empty++; err == nil && empty > 100 {
			err = io.ErrNoProgress
		}
		if err != nil {
			if errors.Is(err, io.EOF) && f.w > f.r {
				err = io.ErrUnexpectedEOF // in the middle of a message
			}
			return &LostError{Op: "read", Err: err}
		}
	}
	return nil
}
