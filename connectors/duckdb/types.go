package duckdb

import (
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors/internal/duckarrow"
)

// typeKey is the metadata entry that says what a text stands for.
const typeKey = "rapidbyte.type"

// columnType returns the DuckDB type of a column that holds every value of f.
func columnType(f arrow.Field) (string, error) {
	if why := duckarrow.Refuses(f.Type); why != "" {
		return "", fmt.Errorf("column %s of type %s: %s", f.Name, f.Type, why)
	}
	if isTextUUID(f) {
		return "UUID", nil
	}
	t, err := typeOf(f.Type)
	if err != nil {
		return "", fmt.Errorf("column %s: %w", f.Name, err)
	}
	return t, nil
}

var plainTypes = map[arrow.Type]string{
	arrow.NULL: "VARCHAR", arrow.BOOL: "BOOLEAN",
	arrow.INT8: "TINYINT", arrow.INT16: "SMALLINT", arrow.INT32: "INTEGER", arrow.INT64: "BIGINT",
	arrow.UINT8: "UTINYINT", arrow.UINT16: "USMALLINT", arrow.UINT32: "UINTEGER", arrow.UINT64: "UBIGINT",
	arrow.FLOAT32: "FLOAT", arrow.FLOAT64: "DOUBLE",
	arrow.STRING: "VARCHAR", arrow.LARGE_STRING: "VARCHAR", arrow.STRING_VIEW: "VARCHAR",
	arrow.BINARY: "BLOB", arrow.LARGE_BINARY: "BLOB", arrow.BINARY_VIEW: "BLOB", arrow.FIXED_SIZE_BINARY: "BLOB",
	arrow.DATE32: "DATE", arrow.DATE64: "DATE", arrow.TIME32: "TIME",
}

func typeOf(t arrow.DataType) (string, error) {
	if name, ok := plainTypes[t.ID()]; ok {
		return name, nil
	}
	switch t := t.(type) {
	case *arrow.Time64Type:
		if t.Unit == arrow.Nanosecond {
			return "TIME_NS", nil
		}
		return "TIME", nil
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return "TIMESTAMP WITH TIME ZONE", nil
		}
		return map[arrow.TimeUnit]string{
			arrow.Second: "TIMESTAMP_S", arrow.Millisecond: "TIMESTAMP_MS", arrow.Microsecond: "TIMESTAMP", arrow.Nanosecond: "TIMESTAMP_NS",
		}[t.Unit], nil
	case arrow.DecimalType:
		if t.GetPrecision() > 38 || t.GetScale() < 0 || t.GetScale() > t.GetPrecision() {
			return "", fmt.Errorf("DuckDB has no %s", t)
		}
		return fmt.Sprintf("DECIMAL(%d,%d)", t.GetPrecision(), t.GetScale()), nil
	case *arrow.DictionaryType:
		return typeOf(t.ValueType)
	case *arrow.RunEndEncodedType:
		return typeOf(t.Encoded())
	case arrow.ExtensionType:
		if t.ExtensionName() == "arrow.uuid" {
			return "UUID", nil
		}
		if t.ExtensionName() == "arrow.bool8" {
			return "BOOLEAN", nil
		}
		return typeOf(t.StorageType())
	}
	return nestedType(t)
}

func nestedType(t arrow.DataType) (string, error) {
	switch t := t.(type) {
	case *arrow.MapType:
		key, err := typeOf(t.KeyType())
		if err != nil {
			return "", err
		}
		item, err := typeOf(t.ItemType())
		return "MAP(" + key + ", " + item + ")", err
	case *arrow.FixedSizeListType:
		item, err := typeOf(t.Elem())
		return fmt.Sprintf("%s[%d]", item, t.Len()), err
	case arrow.ListLikeType:
		item, err := typeOf(t.Elem())
		return item + "[]", err
	case *arrow.StructType:
		fields := make([]string, t.NumFields())
		for i, f := range t.Fields() {
			name, err := typeOf(f.Type)
			if err != nil {
				return "", err
			}
			fields[i] = duckarrow.Quote(f.Name) + " " + name
		}
		return "STRUCT(" + strings.Join(fields, ", ") + ")", nil
	}
	return "", fmt.Errorf("DuckDB has no type for %s", t)
}

// isTextUUID reports whether a text stands for a UUID.
func isTextUUID(f arrow.Field) bool {
	t, ok := f.Metadata.GetValue(typeKey)
	return ok && t == "uuid" && f.Type.ID() == arrow.STRING
}
