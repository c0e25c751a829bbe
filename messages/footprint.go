package messages

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
)

// sliceBytes returns the bytes of d's buffers that its offset and length refer
// to, children and dictionary included. It counts a slice as the slice, where
// arrow's own SizeInBytes counts the whole parent.
func sliceBytes(d arrow.ArrayData) int64 {
	n, at := int64(d.Len()), int64(d.Offset())
	var sum int64
	bufs := d.Buffers()
	if len(bufs) > 0 && bufs[0] != nil {
		sum += (n + 7) / 8
	}
	children := func(from, to int64) {
		for _, c := range d.Children() {
			sum += rangeBytes(c, from, to)
		}
	}
	switch t := d.DataType().(type) {
	case *arrow.StringType, *arrow.BinaryType:
		from, to := offsets32(bufs[1], at, n)
		sum += 4*(n+1) + to - from
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		from, to := offsets64(bufs[1], at, n)
		sum += 8*(n+1) + to - from
	case *arrow.ListType, *arrow.MapType:
		from, to := offsets32(bufs[1], at, n)
		sum += 4 * (n + 1)
		children(from, to)
	case *arrow.LargeListType:
		from, to := offsets64(bufs[1], at, n)
		sum += 8 * (n + 1)
		children(from, to)
	case *arrow.FixedSizeListType:
		children(at*int64(t.Len()), (at+n)*int64(t.Len()))
	case *arrow.StructType:
		children(at, at+n)
	case *arrow.DictionaryType:
		if w, ok := t.IndexType.(arrow.FixedWidthDataType); ok { // an index is an integer
			sum += n * int64(w.Bytes())
		}
		if d.Dictionary() != nil {
			sum += sliceBytes(d.Dictionary())
		}
	case arrow.ExtensionType:
		return storageBytes(d, t)
	case *arrow.BooleanType:
		sum += (n + 7) / 8
	case arrow.FixedWidthDataType:
		sum += n * int64(t.Bytes())
	default: // views, unions, run-end encoding: an upper bound
		sum += int64(d.SizeInBytes()) //nolint:gosec // below 2^63
	}
	return sum
}

// storageBytes measures an extension array as its storage.
func storageBytes(d arrow.ArrayData, t arrow.ExtensionType) int64 {
	if w, ok := t.StorageType().(arrow.FixedWidthDataType); ok {
		return int64(d.Len())*int64(w.Bytes()) + int64(d.Len()+7)/8
	}
	return int64(d.SizeInBytes()) //nolint:gosec // below 2^63
}

// rangeBytes measures the values [from, to) of a child, in the parent's terms.
func rangeBytes(c arrow.ArrayData, from, to int64) int64 {
	if c.Len() == 0 || to <= from {
		return 0
	}
	whole := sliceBytes(c)
	if int64(c.Len()) == to-from {
		return whole
	}
	return whole * (to - from) / int64(c.Len()) // proportional: nested slices are rare
}

func offsets32(b interface{ Bytes() []byte }, at, n int64) (from, to int64) {
	raw := b.Bytes()
	if int64(len(raw)) < 4*(at+n+1) {
		return 0, 0
	}
	return int64(binary.LittleEndian.Uint32(raw[4*at:])), int64(binary.LittleEndian.Uint32(raw[4*(at+n):]))
}

func offsets64(b interface{ Bytes() []byte }, at, n int64) (from, to int64) {
	raw := b.Bytes()
	if int64(len(raw)) < 8*(at+n+1) {
		return 0, 0
	}
	return int64(binary.LittleEndian.Uint64(raw[8*at:])), int64(binary.LittleEndian.Uint64(raw[8*(at+n):])) //nolint:gosec // below 2^63
}
