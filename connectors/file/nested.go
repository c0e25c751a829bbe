package file

import (
	"fmt"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

func validUTF8(s string) bool { return utf8.ValidString(s) }

// nestedOf writes lists, structs and maps as JSON; a map is a list of its entries,
// because its keys need not be texts.
func nestedOf(dt arrow.NestedType) (jsonFunc, error) {
	switch dt := dt.(type) {
	case *arrow.StructType:
		return structOf(dt)
	case *arrow.MapType, *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType:
		return listOf(dt)
	}
	return nil, fmt.Errorf("type %s has no exact text", dt)
}

func structOf(dt *arrow.StructType) (jsonFunc, error) {
	rows, err := newJSONRows(arrow.NewSchema(dt.Fields(), nil))
	if err != nil {
		return nil, err
	}
	return func(a arrow.Array) boundText {
		s, ok := a.(*array.Struct)
		if !ok {
			panic(fmt.Sprintf("file: an array of %s is a %T", dt, a))
		}
		cols := make([]boundText, s.NumField())
		for i := range cols {
			cols[i] = rows.values[i](s.Field(i))
		}
		return func(dst []byte, row int) ([]byte, error) { return rows.append(dst, cols, row) }
	}, nil
}

func listOf(dt arrow.NestedType) (jsonFunc, error) {
	elem, err := jsonOf(dt.Fields()[0])
	if err != nil {
		return nil, err
	}
	return func(a arrow.Array) boundText {
		l, ok := a.(array.ListLike)
		if !ok {
			panic(fmt.Sprintf("file: an array of %s is a %T", dt, a))
		}
		value := elem(l.ListValues())
		return func(dst []byte, row int) ([]byte, error) {
			from, to := l.ValueOffsets(row)
			dst = append(dst, '[')
			for i := from; i < to; i++ {
				if i > from {
					dst = append(dst, ',')
				}
				var err error
				if dst, err = value(dst, int(i)); err != nil {
					return dst, err
				}
			}
			return append(dst, ']'), nil
		}
	}, nil
}
