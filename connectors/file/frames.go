package file

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	frameMark     = 0xffffffff // begins a message since format version 0.15
	frameMetaMax  = 64 << 20
	frameTableMax = 1 << 17 // tables of one message: fields above all
	frameDepthMax = 64
)

// The kinds of messages, and the slots of their tables, as in the Arrow format's
// Message.fbs, Schema.fbs and File.fbs.
const (
	messageSchema     = 1
	messageDictionary = 2
	messageBatch      = 3
	fieldUnion        = 14

	slotHeaderType = 1
	slotHeader     = 2
	slotBodyLength = 3
	slotMessageKV  = 4

	slotSchemaFields = 1
	slotSchemaKV     = 2

	slotFieldKind     = 2
	slotFieldType     = 3
	slotFieldChildren = 5
	slotFieldKV       = 6

	slotDictionaryData = 1

	slotBatchNodes    = 1
	slotBatchBuffers  = 2
	slotBatchVariadic = 4

	slotFooterSchema  = 1
	slotFooterBatches = 3
)

// frames passes an IPC stream on, message by message, after it has checked the
// metadata of each: Arrow's reader allocates what a length in it says, and a
// damaged length can say anything. A panic could be recovered from, memory that
// is not there could not.
type frames struct {
	r       *bufio.Reader
	left    int64 // bytes of the stream; negative: not known
	want    int   // record batches that a footer promises; negative: there is none
	batches int
	ended   bool // the end marker was read, or the promised batches were

	pending []byte // checked, not passed on yet
	body    int64  // bytes to pass on behind them
}

// Read implements io.Reader.
func (f *frames) Read(p []byte) (int, error) {
	for len(f.pending) == 0 && f.body == 0 {
		if f.ended {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	if len(f.pending) > 0 {
		n := copy(p, f.pending)
		f.pending = f.pending[n:]
		return n, nil
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.body)])
	f.body -= int64(n)
	f.took(int64(n))
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the body of a message lacks %d bytes: %w", f.body, io.ErrUnexpectedEOF)
	}
	return n, err
}

func (f *frames) took(n int64) {
	if f.left >= 0 {
		f.left -= n
	}
}

// next reads the head of the next message.
func (f *frames) next() error {
	var head [8]byte
	n, err := io.ReadFull(f.r, head[:4])
	f.took(int64(n))
	if err != nil {
		return f.atEnd(n, err)
	}
	size, used := binary.LittleEndian.Uint32(head[:]), 4
	if size == frameMark {
		if n, err = io.ReadFull(f.r, head[4:]); err != nil {
			return fmt.Errorf("the head of a message: %w", io.ErrUnexpectedEOF)
		}
		f.took(int64(n))
		size, used = binary.LittleEndian.Uint32(head[4:]), 8
	}
	if size == 0 {
		f.ended, f.pending = true, append(f.pending[:0], head[:used]...)
		return f.complete()
	}
	if size > frameMetaMax || (f.left >= 0 && int64(size) > f.left) {
		return fmt.Errorf("a message says that its head has %d bytes", size)
	}
	f.pending = append(append(f.pending[:0], head[:used]...), make([]byte, size)...)
	n, err = io.ReadFull(f.r, f.pending[used:])
	f.took(int64(n))
	if err != nil {
		return fmt.Errorf("the head of a message: %w", io.ErrUnexpectedEOF)
	}
	kind, body, err := checkMessage(f.pending[used:])
	if err != nil {
		return err
	}
	if body < 0 || body > allocationMax || (f.left >= 0 && body > f.left) {
		return fmt.Errorf("a message says that its body has %d bytes", body)
	}
	f.body = body
	if kind == messageBatch {
		f.batches++
	}
	return nil
}

// atEnd judges the end of the bytes between two messages: a stream has an end
// marker, a file a footer that counts its batches.
func (f *frames) atEnd(n int, err error) error {
	if n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("the head of a message: %w", err)
	}
	if f.want < 0 {
		return errors.New("it ends without the end marker of a stream")
	}
	f.ended = true
	return f.complete()
}

func (f *frames) complete() error {
	if f.want >= 0 && f.batches != f.want {
		return fmt.Errorf("it holds %d record batches, its footer counts %d", f.batches, f.want)
	}
	return nil
}

// footer checks the end of an IPC file and returns how many batches it counts
// and how long the stream before it is.
func footer(r *io.SectionReader) (batches int, length int64, err error) {
	const tail = 4 + 6 // its length, and the magic without padding
	size := r.Size()
	b := make([]byte, tail)
	if size < int64(len(magicArrow))+tail {
		return 0, 0, errors.New("it is too short")
	}
	if _, err := r.ReadAt(b, size-tail); err != nil {
		return 0, 0, err
	}
	if string(b[4:]) != string(magicArrow[:6]) {
		return 0, 0, errors.New("it does not end as an arrow file does: the end is missing")
	}
	n := int64(binary.LittleEndian.Uint32(b))
	length = size - tail - n - int64(len(magicArrow))
	if n > frameMetaMax || length < 0 {
		return 0, 0, fmt.Errorf("its footer says that it has %d bytes", n)
	}
	b = make([]byte, n)
	if _, err := r.ReadAt(b, size-tail-n); err != nil {
		return 0, 0, err
	}
	c := flat{b: b}
	root := c.root()
	c.schema(c.table(root, slotFooterSchema))
	_, batches = c.vector(root, slotFooterBatches, 24)
	return batches, length, c.err
}

// checkMessage checks the metadata of one message.
func checkMessage(b []byte) (kind byte, body int64, err error) {
	c := flat{b: b}
	root := c.root()
	if at := c.slot(root, slotHeaderType, 1); at > 0 {
		kind = b[at]
	}
	if at := c.slot(root, slotBodyLength, 8); at > 0 {
		body = int64(binary.LittleEndian.Uint64(b[at:])) //nolint:gosec // checked by the caller
	}
	header := c.table(root, slotHeader)
	c.tables(root, slotMessageKV, nil)
	switch kind {
	case messageSchema:
		c.schema(header)
	case messageDictionary:
		c.batch(c.table(header, slotDictionaryData))
	case messageBatch:
		c.batch(header)
	default:
		c.fail("a message is of the unknown kind %d", kind)
	}
	return kind, body, c.err
}

// flat walks a flatbuffer and checks every length and offset that the reader will
// follow. Positions are absolute, 0 is none; after an error it does nothing.
type flat struct {
	b    []byte
	seen int
	err  error
}

func (c *flat) fail(format string, args ...any) int {
	if c.err == nil {
		c.err = fmt.Errorf("malformed metadata: "+format, args...)
	}
	return 0
}

// follow reads the offset at a position and returns where it leads.
func (c *flat) follow(at int) int {
	if c.err != nil || at <= 0 || at+4 > len(c.b) {
		return 0
	}
	to := int64(at) + int64(binary.LittleEndian.Uint32(c.b[at:]))
	if to+4 > int64(len(c.b)) {
		return c.fail("an offset leads behind the end")
	}
	return int(to)
}

func (c *flat) root() int {
	if len(c.b) < 8 {
		return c.fail("it is too short")
	}
	to := int64(binary.LittleEndian.Uint32(c.b))
	if to+4 > int64(len(c.b)) {
		return c.fail("an offset leads behind the end")
	}
	return int(to)
}

// slot returns where a field of a table is, 0 if it is absent.
func (c *flat) slot(table, slot, size int) int {
	if c.err != nil || table <= 0 {
		return 0
	}
	if c.seen++; c.seen > 8*frameTableMax {
		return c.fail("it has more than %d tables", frameTableMax)
	}
	vtable := int64(table) - int64(int32(binary.LittleEndian.Uint32(c.b[table:]))) //nolint:gosec // signed on purpose
	if vtable < 0 || vtable+4 > int64(len(c.b)) {
		return c.fail("a table has no description")
	}
	entry := int64(4 + 2*slot)
	if length := int64(binary.LittleEndian.Uint16(c.b[vtable:])); entry+2 > length {
		return 0
	}
	if vtable+entry+2 > int64(len(c.b)) {
		return c.fail("a table's description leads behind the end")
	}
	offset := int(binary.LittleEndian.Uint16(c.b[vtable+entry:]))
	if offset == 0 {
		return 0
	}
	if table+offset+size > len(c.b) {
		return c.fail("a field leads behind the end")
	}
	return table + offset
}

func (c *flat) table(table, slot int) int { return c.follow(c.slot(table, slot, 4)) }

// vector returns where the elements of a vector begin and how many there are.
func (c *flat) vector(table, slot, size int) (at, n int) {
	at = c.follow(c.slot(table, slot, 4))
	if at == 0 {
		return 0, 0
	}
	count := int64(binary.LittleEndian.Uint32(c.b[at:]))
	if count*int64(size) > int64(len(c.b)-at-4) {
		return c.fail("a list of %d elements leads behind the end", count), 0
	}
	return at + 4, int(count)
}

// tables calls each for every table of a vector.
func (c *flat) tables(table, slot int, each func(table int)) int {
	at, n := c.vector(table, slot, 4)
	for i := 0; i < n && c.err == nil; i++ {
		one := c.follow(at + 4*i)
		if one > 0 && each != nil {
			each(one)
		}
	}
	return n
}

func (c *flat) schema(at int) {
	c.tables(at, slotSchemaKV, nil)
	c.tables(at, slotSchemaFields, func(field int) { c.field(field, 0) })
}

func (c *flat) field(at, depth int) {
	if depth > frameDepthMax {
		c.fail("fields are nested more than %d deep", frameDepthMax)
		return
	}
	c.table(at, 0) // its name
	c.tables(at, slotFieldKV, nil)
	if kind := c.slot(at, slotFieldKind, 1); kind > 0 && c.b[kind] == fieldUnion {
		c.vector(c.table(at, slotFieldType), 1, 4) // its type ids
	}
	c.tables(at, slotFieldChildren, func(child int) { c.field(child, depth+1) })
}

// batch checks the counts of a record batch: views say how many buffers they have.
func (c *flat) batch(at int) {
	c.vector(at, slotBatchNodes, 16)
	_, buffers := c.vector(at, slotBatchBuffers, 16)
	counts, n := c.vector(at, slotBatchVariadic, 8)
	for i := range n {
		if v := binary.LittleEndian.Uint64(c.b[counts+8*i:]); v > uint64(buffers) { //nolint:gosec // a length
			c.fail("a column has %d buffers of %d", v, buffers)
		}
	}
}
