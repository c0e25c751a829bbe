package bbolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"

	"rapidbyte.io/node/statestore"
)

// This file reads a database as plain bytes, before bbolt sees it. bbolt maps the
// file and follows what stands there: a damaged page number leads it out of the
// map or round in a circle, and some of it runs on goroutines of its own, where a
// fault or an endless recursion ends the process and cannot be recovered. So the
// structure is proven first, with every offset checked. The format is version 2
// of bbolt, in the byte order of the machine.

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeaderBytes  = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementBytes     = 16
	metaBytes        = 64
	bucketBytes      = 16   // root uint64, sequence uint64
	metaWindow       = 4096 // bytes; bbolt refuses a file below it
	pageBytesMin     = 1 << 10
	pageBytesMax     = 64 << 10
	firstPageNumbers = 2 // the two metas
	depthMax         = 64
	noFreelist       = math.MaxUint64 // a setting that this package does not use

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	leafPlain  = 0x00
	leafBucket = 0x01
)

var order = binary.NativeEndian

// meta is the root of one version of the database.
type meta struct {
	pageSize, root, freelist, pages, txid uint64
}

// image is a database under inspection.
type image struct {
	r    io.ReaderAt
	size int64
	meta meta
	seen []bool // by page number: reachable or free, so far
}

func damaged(text string, args ...any) error {
	return fmt.Errorf("%w: %s", statestore.ErrDamaged, fmt.Sprintf(text, args...))
}

// inspect proves that bbolt can open r without faulting: one meta is whole, and
// below it each page is either used exactly once or free, and well-formed. It
// returns ErrDamaged, or ErrForeign when nothing looks like a database of ours.
func inspect(r io.ReaderAt, size int64) error {
	if size == 0 {
		return damaged("the file is empty")
	}
	m, err := newestMeta(r, size)
	if err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return fmt.Errorf("%w: it is another program's database", errUnknown)
	}
	if m.pages < firstPageNumbers+2 || m.pages > uint64(size)/m.pageSize { //nolint:gosec // a size is positive
		return damaged("the file has %d bytes, but should have %d pages of %d bytes", size, m.pages, m.pageSize)
	}
	i := &image{r: r, size: size, meta: m, seen: make([]bool, m.pages)}
	i.seen[0], i.seen[1] = true, true
	if err := i.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	if err := i.freelist(); err != nil {
		return err
	}
	for id, ok := range i.seen {
		if !ok {
			return damaged("page %d is neither used nor free", id)
		}
	}
	return nil
}

// newestMeta finds the meta that bbolt will choose: the higher transaction of
// the whole ones. That one is broken is normal after a crash.
func newestMeta(r io.ReaderAt, size int64) (best meta, err error) {
	var verdict error
	found := false
	look := func(at int64) {
		m, err := readMeta(r, at)
		switch {
		case err == nil && (!found || m.txid > best.txid):
			best, found = m, true
		case err != nil && (verdict == nil || !errors.Is(err, statestore.ErrForeign)):
			verdict = err
		}
	}
	look(0)
	if found {
		look(int64(best.pageSize)) //nolint:gosec // at most 64 KiB
	} else {
		for at := int64(pageBytesMin); at <= pageBytesMax; at *= 2 {
			look(at)
		}
	}
	switch {
	case found && size >= metaWindow:
		return best, nil
	case found:
		return meta{}, damaged("the file has only %d bytes", size)
	}
	return meta{}, verdict
}

// readMeta reads the meta page at an offset. Where none ever was, it returns
// ErrForeign.
func readMeta(r io.ReaderAt, at int64) (meta, error) {
	var b [pageHeaderBytes + metaBytes]byte
	n, err := r.ReadAt(b[:], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return meta{}, fmt.Errorf("read the meta page at %d: %w", at, err)
	}
	p := b[pageHeaderBytes:]
	if order.Uint32(p) != boltMagic {
		return meta{}, fmt.Errorf("%w: it is no database", errUnknown)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(p[:metaBytes-8])
	if n < len(b) || order.Uint64(p[metaBytes-8:]) != sum.Sum64() {
		return meta{}, damaged("the checksum of the meta page at %d does not hold", at)
	}
	if v := order.Uint32(p[4:]); v != boltVersion {
		return meta{}, fmt.Errorf("%w: it is a database of version %d", statestore.ErrForeign, v)
	}
	m := meta{
		pageSize: uint64(order.Uint32(p[8:])), root: order.Uint64(p[16:]),
		freelist: order.Uint64(p[32:]), pages: order.Uint64(p[40:]), txid: order.Uint64(p[48:]),
	}
	if m.pageSize < pageBytesMin || m.pageSize > pageBytesMax || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, damaged("a page size of %d", m.pageSize)
	}
	return m, nil
}

// page reads a page with its overflow and marks it as used.
func (i *image) page(id uint64) (b []byte, flags uint16, err error) {
	if id < firstPageNumbers || id >= i.meta.pages {
		return nil, 0, damaged("a reference to page %d of %d", id, i.meta.pages)
	}
	var head [pageHeaderBytes]byte
	at := int64(id * i.meta.pageSize) //nolint:gosec // below the size of the file
	if _, err := i.r.ReadAt(head[:], at); err != nil {
		return nil, 0, fmt.Errorf("read page %d: %w", id, err)
	}
	n := 1 + uint64(order.Uint32(head[12:]))
	if order.Uint64(head[:]) != id || n > i.meta.pages-id {
		return nil, 0, damaged("page %d is not what stands there", id)
	}
	for p := id; p < id+n; p++ {
		if i.seen[p] {
			return nil, 0, damaged("page %d is used twice", p)
		}
		i.seen[p] = true
	}
	b = make([]byte, n*i.meta.pageSize)
	if _, err := i.r.ReadAt(b, at); err != nil {
		return nil, 0, fmt.Errorf("read page %d: %w", id, err)
	}
	return b, order.Uint16(b[8:]), nil
}

// tree walks the pages of one bucket. All its keys are in [from, to); nil is
// unbounded.
func (i *image) tree(id uint64, from, to []byte, depth int) error {
	if depth > depthMax {
		return damaged("the tree is deeper than %d pages", depthMax)
	}
	p, flags, err := i.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case flagLeaf:
		return i.leaf(p, from, to, depth)
	case flagBranch:
		return i.branch(p, from, to, depth)
	}
	return damaged("page %d has the type %#x", id, flags)
}

func (i *image) branch(p, from, to []byte, depth int) error {
	elements, err := readElements(p, flagBranch)
	if err != nil {
		return err
	}
	if len(elements) == 0 {
		return damaged("a branch without a page below it")
	}
	if err := checkOrder(elements, from, to); err != nil {
		return err
	}
	for n, e := range elements {
		next := to
		if n+1 < len(elements) {
			next = elements[n+1].key
		}
		if err := i.tree(e.child, e.key, next, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (i *image) leaf(p, from, to []byte, depth int) error {
	elements, err := readElements(p, flagLeaf)
	if err != nil {
		return err
	}
	if err := checkOrder(elements, from, to); err != nil {
		return err
	}
	for _, e := range elements {
		switch e.flags {
		case leafPlain:
		case leafBucket:
			if err := i.bucket(e.value, depth); err != nil {
				return err
			}
		default:
			return damaged("key %q has the type %#x", e.key, e.flags)
		}
	}
	return nil
}

// bucket walks a bucket inside a bucket: a tree of its own, or, when small, one
// leaf inside the value.
func (i *image) bucket(value []byte, depth int) error {
	if len(value) < bucketBytes {
		return damaged("a bucket of %d bytes", len(value))
	}
	if root := order.Uint64(value); root != 0 {
		return i.tree(root, nil, nil, depth+1)
	}
	p := value[bucketBytes:]
	if len(p) < pageHeaderBytes || order.Uint16(p[8:]) != flagLeaf {
		return damaged("a bucket that is no page")
	}
	elements, err := readElements(p, flagLeaf)
	if err != nil {
		return err
	}
	for _, e := range elements {
		if e.flags != leafPlain {
			return damaged("key %q of an inline bucket has the type %#x", e.key, e.flags)
		}
	}
	return checkOrder(elements, nil, nil)
}

// freelist reads the list of free pages and marks them.
func (i *image) freelist() error {
	p, flags, err := i.page(i.meta.freelist)
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return damaged("page %d should be the list of free pages, but has the type %#x", i.meta.freelist, flags)
	}
	ids := p[pageHeaderBytes:]
	n := uint64(order.Uint16(p[10:]))
	if n == 0xFFFF { // the count did not fit
		n = order.Uint64(ids)
		ids = ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return damaged("the list of free pages is too long")
	}
	for ; n > 0; n-- {
		id := order.Uint64(ids)
		ids = ids[8:]
		if id < firstPageNumbers || id >= i.meta.pages || i.seen[id] {
			return damaged("page %d is free and used, or does not exist", id)
		}
		i.seen[id] = true
	}
	return nil
}

// element is an entry of a page; its slices borrow the page.
type element struct {
	key, value []byte
	child      uint64 // of a branch
	flags      uint32 // of a leaf
}

// readElements reads the entries of a page. Offsets count from the entry's own
// place in the table.
func readElements(p []byte, kind uint16) ([]element, error) {
	count := uint64(order.Uint16(p[10:]))
	if pageHeaderBytes+count*elementBytes > uint64(len(p)) {
		return nil, damaged("a page of %d bytes with %d entries", len(p), count)
	}
	elements := make([]element, count)
	for n := range elements {
		rest := p[pageHeaderBytes+n*elementBytes:]
		var pos, keyBytes, valueBytes uint64
		e := &elements[n]
		if kind == flagBranch { // pos, ksize uint32, page uint64
			pos, keyBytes = uint64(order.Uint32(rest)), uint64(order.Uint32(rest[4:]))
			e.child = order.Uint64(rest[8:])
		} else { // flags, pos, ksize, vsize uint32
			e.flags = order.Uint32(rest)
			pos, keyBytes = uint64(order.Uint32(rest[4:])), uint64(order.Uint32(rest[8:]))
			valueBytes = uint64(order.Uint32(rest[12:]))
		}
		if pos+keyBytes+valueBytes > uint64(len(rest)) {
			return nil, damaged("an entry that ends outside of its page")
		}
		e.key, e.value = rest[pos:pos+keyBytes], rest[pos+keyBytes:pos+keyBytes+valueBytes]
	}
	return elements, nil
}

// checkOrder proves that keys ascend and lie in [from, to).
func checkOrder(elements []element, from, to []byte) error {
	for n, e := range elements {
		if n > 0 && bytes.Compare(elements[n-1].key, e.key) >= 0 ||
			from != nil && bytes.Compare(e.key, from) < 0 ||
			to != nil && bytes.Compare(e.key, to) >= 0 {
			return damaged("key %q is not in its place", e.key)
		}
	}
	return nil
}
