package file

import (
	"errors"
	"io"
	"math"
)

const (
	chunkBytes = 1 << 20 // first size of a chunk
	// chunkBytesMax is the largest chunk: cells hold 32-bit offsets.
	chunkBytesMax = math.MaxInt32 - 1
)

// errRowTooLarge says that a row does not fit the largest allowed chunk.
var errRowTooLarge = errors.New("row too large")

// chunk is a window on decompressed bytes that always begins at the start of a
// row. It grows only for a row that is larger than it.
type chunk struct {
	r      io.Reader
	buf    []byte
	start  int   // of what is not consumed
	end    int   // of what was read
	offset int64 // of start in the stream
	max    int64 // bytes of a row
	eof    bool
	ascii  bool // of what is there
}

func newChunk(r io.Reader, rowBytes int64) *chunk {
	if rowBytes <= 0 {
		rowBytes = chunkBytesMax
	}
	return &chunk{r: r, buf: make([]byte, min(chunkBytes, chunkBytesMax)), max: min(rowBytes, chunkBytesMax)}
}

// bytes returns what is there.
func (c *chunk) bytes() []byte { return c.buf[c.start:c.end] }

// low reports that there is little left and more to come: a good time to fill.
func (c *chunk) low() bool { return !c.eof && c.end-c.start < len(c.buf)/2 }

// consume drops n bytes from the front.
func (c *chunk) consume(n int) {
	c.start += n
	c.offset += int64(n)
}

// fill reads more behind what is there, growing when there is no room. It moves
// what is there to the front: slices of bytes() are invalid afterwards. At the end
// it sets eof; an error of the reader is returned as it is.
func (c *chunk) fill() error {
	if c.eof {
		return nil
	}
	if c.start > 0 {
		copy(c.buf, c.buf[c.start:c.end])
		c.start, c.end = 0, c.end-c.start
	}
	if c.end == len(c.buf) {
		if int64(c.end) > c.max {
			return errRowTooLarge
		}
		grown := make([]byte, min(2*int64(len(c.buf)), chunkBytesMax))
		copy(grown, c.buf[:c.end])
		c.buf = grown
	}
	for range 100 {
		n, err := c.r.Read(c.buf[c.end:])
		c.end += n
		c.ascii = isASCII(c.bytes())
		if errors.Is(err, io.EOF) {
			c.eof = true
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return io.ErrNoProgress
}

// isASCII reports whether no byte of b has its high bit set.
func isASCII(b []byte) bool {
	for len(b) >= 8 {
		x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56 // one load
		if x&0x8080808080808080 != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
