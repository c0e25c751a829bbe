package file

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// checkPages verifies the checksums of a column chunk's pages, where the writer
// has stored any: the Parquet reader ignores them. What it cannot follow it leaves
// to that reader.
func checkPages(r io.ReaderAt, chunk *metadata.ColumnChunkMetaData) error {
	from := chunk.DataPageOffset()
	if chunk.HasDictionaryPage() && chunk.DictionaryPageOffset() > 0 {
		from = min(from, chunk.DictionaryPageOffset())
	}
	b := bufio.NewReaderSize(io.NewSectionReader(r, from, max(0, chunk.TotalCompressedSize())), parquetReadBuffer)
	for page := 1; ; page++ {
		h, err := readPageHeader(b)
		if err != nil || !h.hasCRC || h.size < 0 || h.size > pageBytesMax {
			return nil //nolint:nilerr // not ours to judge: see above
		}
		sum := crc32.NewIEEE()
		if n, err := io.CopyN(sum, b, int64(h.size)); err != nil {
			return fmt.Errorf("page %d ends after %d of %d bytes: %w", page, n, h.size, err)
		}
		if sum.Sum32() != h.crc {
			return fmt.Errorf("the checksum of page %d does not hold", page)
		}
	}
}

// pageHeader is what is needed of a Parquet page header.
type pageHeader struct {
	size   int32 // of the body in the file
	crc    uint32
	hasCRC bool
}

// The types of Thrift's compact protocol.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftStruct = 12

	thriftDepthMax = 16
)

var errThrift = errors.New("malformed page header")

// readPageHeader reads a compact-protocol struct and keeps fields 3 and 4.
func readPageHeader(b *bufio.Reader) (pageHeader, error) {
	var h pageHeader
	id := int64(0)
	for {
		kind, next, err := thriftField(b, id)
		if err != nil || kind == 0 {
			return h, err
		}
		id = next
		if kind == thriftI32 && (id == 3 || id == 4) {
			v, err := binary.ReadVarint(b)
			if err != nil {
				return h, err
			}
			if id == 3 {
				h.size = int32(v) //nolint:gosec // checked by the caller
			} else {
				h.crc, h.hasCRC = uint32(v), true //nolint:gosec // stored as a signed number
			}
			continue
		}
		if err := skipThrift(b, kind, 0); err != nil {
			return h, err
		}
	}
}

// thriftField reads a field header; kind 0 ends the struct.
func thriftField(b *bufio.Reader, last int64) (kind byte, id int64, err error) {
	head, err := b.ReadByte()
	if err != nil || head == 0 {
		return 0, 0, err
	}
	if delta := int64(head >> 4); delta != 0 {
		return head & 15, last + delta, nil
	}
	id, err = binary.ReadVarint(b)
	return head & 15, id, err
}

func skipThrift(b *bufio.Reader, kind byte, depth int) error {
	if depth > thriftDepthMax {
		return errThrift
	}
	switch kind {
	case thriftTrue, thriftFalse:
		return nil
	case thriftByte:
		_, err := b.ReadByte()
		return err
	case thriftI16, thriftI32, thriftI64:
		_, err := binary.ReadVarint(b)
		return err
	case thriftDouble:
		_, err := b.Discard(8)
		return err
	case thriftBinary:
		n, err := binary.ReadUvarint(b)
		if err != nil || n > pageBytesMax {
			return errors.Join(err, errThrift)
		}
		_, err = b.Discard(int(n))
		return err
	case thriftList, thriftSet:
		return skipThriftList(b, depth)
	case thriftStruct:
		id := int64(0)
		for {
			kind, next, err := thriftField(b, id)
			if err != nil || kind == 0 {
				return err
			}
			id = next
			if err := skipThrift(b, kind, depth+1); err != nil {
				return err
			}
		}
	}
	return errThrift // page headers have no maps
}

func skipThriftList(b *bufio.Reader, depth int) error {
	head, err := b.ReadByte()
	if err != nil {
		return err
	}
	n := uint64(head >> 4)
	if n == 15 {
		if n, err = binary.ReadUvarint(b); err != nil {
			return err
		}
	}
	kind := head & 15
	for range min(n, pageBytesMax) {
		one := kind
		if one == thriftTrue || one == thriftFalse {
			one = thriftByte // an element is a byte
		}
		if err := skipThrift(b, one, depth+1); err != nil {
			return err
		}
	}
	return nil
}
