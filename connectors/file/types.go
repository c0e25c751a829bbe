package file

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// kind is how the values of a CSV or JSON Lines column are read.
type kind uint8

const (
	kindText kind = iota
	kindJSON
	kindBool
	kindInt16
	kindInt32
	kindInt64
	kindFloat32
	kindFloat64
	kindDate
	kindTimestamp
	kindTimestampTZ
	kindDecimal
	kindBinary
)

// columnType is a kind with what a decimal needs.
type columnType struct {
	kind             kind
	precision, scale int32
}

var kindNames = map[string]kind{
	"text": kindText, "string": kindText, "json": kindJSON, "bool": kindBool, "int16": kindInt16, "int32": kindInt32, "int64": kindInt64,
	"float32": kindFloat32, "float64": kindFloat64, "date": kindDate, "timestamp": kindTimestamp, "timestamptz": kindTimestampTZ,
	"binary": kindBinary,
}

// parseType reads a type of the `columns` setting.
func parseType(s string) (columnType, error) {
	if k, ok := kindNames[s]; ok {
		return columnType{kind: k}, nil
	}
	if args, ok := strings.CutPrefix(s, "decimal("); ok {
		p, sc, _ := strings.Cut(strings.TrimSuffix(args, ")"), ",")
		precision, perr := strconv.Atoi(strings.TrimSpace(p))
		scale, serr := strconv.Atoi(strings.TrimSpace(sc))
		if perr == nil && serr == nil && strings.HasSuffix(s, ")") && 1 <= precision && precision <= 38 && 0 <= scale && scale <= precision {
			return columnType{kind: kindDecimal, precision: int32(precision), scale: int32(scale)}, nil
		}
	}
	return columnType{}, fmt.Errorf("found %q, expected int64, int32, int16, float64, float32, bool, text, json, date, timestamp, timestamptz, decimal(p,s) or binary", s)
}

// field returns the Arrow field of a column.
func (t columnType) field(name string) arrow.Field {
	f := arrow.Field{Name: name, Type: t.arrow(), Nullable: true}
	if t.kind == kindJSON {
		f.Metadata = jsonMetadata
	}
	return f
}

func (t columnType) arrow() arrow.DataType {
	switch t.kind {
	case kindText, kindJSON:
		return arrow.BinaryTypes.String
	case kindBool:
		return arrow.FixedWidthTypes.Boolean
	case kindInt16:
		return arrow.PrimitiveTypes.Int16
	case kindInt32:
		return arrow.PrimitiveTypes.Int32
	case kindInt64:
		return arrow.PrimitiveTypes.Int64
	case kindFloat32:
		return arrow.PrimitiveTypes.Float32
	case kindFloat64:
		return arrow.PrimitiveTypes.Float64
	case kindDate:
		return arrow.FixedWidthTypes.Date32
	case kindTimestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond}
	case kindTimestampTZ:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case kindDecimal:
		return &arrow.Decimal128Type{Precision: t.precision, Scale: t.scale}
	case kindBinary:
		return arrow.BinaryTypes.Binary
	}
	panic("file: a column of an unknown kind")
}

// typeOf is the inverse of columnType.field.
func typeOf(f arrow.Field) (columnType, bool) {
	switch dt := f.Type.(type) {
	case *arrow.StringType:
		if isJSON(f) {
			return columnType{kind: kindJSON}, true
		}
		return columnType{kind: kindText}, true
	case *arrow.BooleanType:
		return columnType{kind: kindBool}, true
	case *arrow.Int16Type:
		return columnType{kind: kindInt16}, true
	case *arrow.Int32Type:
		return columnType{kind: kindInt32}, true
	case *arrow.Int64Type:
		return columnType{kind: kindInt64}, true
	case *arrow.Float32Type:
		return columnType{kind: kindFloat32}, true
	case *arrow.Float64Type:
		return columnType{kind: kindFloat64}, true
	case *arrow.Date32Type:
		return columnType{kind: kindDate}, true
	case *arrow.TimestampType:
		if dt.TimeZone == "" {
			return columnType{kind: kindTimestamp}, true
		}
		return columnType{kind: kindTimestampTZ}, true
	case *arrow.Decimal128Type:
		return columnType{kind: kindDecimal, precision: dt.Precision, scale: dt.Scale}, true
	case *arrow.BinaryType:
		return columnType{kind: kindBinary}, true
	}
	return columnType{}, false
}

// width is the bytes of one value of a fixed-width kind, or of an offset, plus
// the value's bit of validity rounded up.
func (t columnType) width() int64 {
	switch t.kind {
	case kindBool:
		return 1
	case kindInt16:
		return 3
	case kindInt32, kindFloat32, kindDate, kindText, kindJSON, kindBinary:
		return 5
	case kindDecimal:
		return 17
	default:
		return 9
	}
}

// extension returns the last extension of a path in lower case, without the one
// of a compression.
func extension(name string) string {
	ext := strings.ToLower(path.Ext(name))
	if compressed[ext] {
		ext = strings.ToLower(path.Ext(name[:len(name)-len(ext)]))
	}
	return ext
}

var compressed = map[string]bool{".gz": true, ".gzip": true, ".zst": true, ".zstd": true}

// baseName is the name of the stream that a file makes: its base name without
// extensions.
func baseName(name string) string {
	base := path.Base(name)
	if ext := path.Ext(base); compressed[strings.ToLower(ext)] {
		base = strings.TrimSuffix(base, ext)
	}
	if bare := strings.TrimSuffix(base, path.Ext(base)); bare != "" {
		return bare
	}
	return base
}

var formatOfName = map[string]string{
	".csv": FormatCSV, ".tsv": FormatCSV, ".tab": FormatCSV,
	".jsonl": FormatJSONL, ".ndjson": FormatJSONL, ".json": FormatJSONL,
	".parquet": FormatParquet, ".pq": FormatParquet,
	".arrow": FormatArrow, ".arrows": FormatArrow, ".ipc": FormatArrow, ".feather": FormatArrow,
}
