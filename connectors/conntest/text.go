package conntest

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Null is the text of a missing value.
const Null = `\N`

// RowText returns row i of rec as canonical text: the values joined by "|", in
// which two connectors that hold the same data agree whatever they call its type.
//
//   - whole numbers and decimals are plain decimals without trailing zeros
//   - floats are the shortest text that reads back, NaN, Infinity, -Infinity
//   - texts are themselves; "\", "|", line feed and carriage return are escaped
//   - binaries are \x and hex digits
//   - dates are 2006-01-02, times of day 15:04:05.999999999
//   - timestamps are 2006-01-02T15:04:05.999999999, with Z if they are instants
//   - durations are those of Go
//   - lists are [a,b], structs {name:a}, maps {k:v}
//   - a missing value is \N; a dictionary or an extension is what it stores, but a
//     UUID is its usual text
func RowText(rec arrow.RecordBatch, i int) string {
	values := make([]string, rec.NumCols())
	for c, col := range rec.Columns() {
		values[c] = ValueText(col, i)
	}
	return Join(values...)
}

// RowTexts returns every row of rec.
func RowTexts(rec arrow.RecordBatch) []string {
	out := make([]string, rec.NumRows())
	for i := range out {
		out[i] = RowText(rec, i)
	}
	return out
}

// Join makes a row of the texts of its values.
func Join(values ...string) string { return strings.Join(values, "|") }

var escaper = strings.NewReplacer(`\`, `\\`, "|", `\p`, "\n", `\n`, "\r", `\r`)

// Text returns the canonical text of a Go value, for destinations that are read
// through database/sql or a parser. A time.Time is a timestamp without zone; use
// Instant for the other kind. What it does not know it prints with %v.
func Text(v any) string {
	switch v := v.(type) {
	case nil:
		return Null
	case string:
		return escaper.Replace(v)
	case []byte:
		return `\x` + hex.EncodeToString(v)
	case float32:
		return floatText(float64(v), 32)
	case float64:
		return floatText(v, 64)
	case time.Time:
		return v.Format(stampLayout)
	}
	return escaper.Replace(fmt.Sprint(v))
}

// Instant returns the canonical text of a point in time.
func Instant(v time.Time) string { return v.UTC().Format(stampLayout) + "Z" }

const (
	stampLayout = "2006-01-02T15:04:05.999999999"
	clockLayout = "15:04:05.999999999"
)

func floatText(v float64, bits int) string {
	switch {
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(v, 'g', -1, bits)
}

// DecimalText drops the zeros behind which nothing follows.
func DecimalText(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}

func scale(a arrow.Array) int32 {
	t, _ := a.DataType().(arrow.DecimalType)
	return t.GetScale()
}

// ValueText returns value i of a as canonical text, see RowText.
func ValueText(a arrow.Array, i int) string {
	if a.IsNull(i) {
		return Null
	}
	switch a := a.(type) {
	case *array.String:
		return Text(a.Value(i))
	case *array.LargeString:
		return Text(a.Value(i))
	case *array.StringView:
		return Text(a.Value(i))
	case *array.Binary:
		return Text(a.Value(i))
	case *array.LargeBinary:
		return Text(a.Value(i))
	case *array.BinaryView:
		return Text(a.Value(i))
	case *array.FixedSizeBinary:
		return Text(a.Value(i))
	case *array.Float16:
		return floatText(float64(a.Value(i).Float32()), 32)
	case *array.Float32:
		return Text(a.Value(i))
	case *array.Float64:
		return Text(a.Value(i))
	case *array.Dictionary:
		return ValueText(a.Dictionary(), a.GetValueIndex(i))
	case array.ExtensionArray:
		if a.ExtensionType().ExtensionName() == "arrow.uuid" {
			return Text(a.ValueStr(i))
		}
		return ValueText(a.Storage(), i)
	case *array.Decimal32:
		return DecimalText(a.Value(i).ToString(scale(a)))
	case *array.Decimal64:
		return DecimalText(a.Value(i).ToString(scale(a)))
	case *array.Decimal128:
		return DecimalText(a.Value(i).ToString(scale(a)))
	case *array.Decimal256:
		return DecimalText(a.Value(i).ToString(scale(a)))
	case array.ListLike: // maps too
		return listText(a, i)
	case *array.Struct:
		return structText(a, i)
	}
	return temporalText(a, i)
}

// temporalText handles what depends on a unit; the rest is the array's own text.
func temporalText(a arrow.Array, i int) string {
	switch a := a.(type) {
	case *array.Date32:
		return a.Value(i).ToTime().Format(time.DateOnly)
	case *array.Date64:
		return a.Value(i).ToTime().Format(time.DateOnly)
	case *array.Timestamp:
		t, _ := a.DataType().(*arrow.TimestampType)
		if t.TimeZone != "" {
			return Instant(a.Value(i).ToTime(t.Unit))
		}
		return a.Value(i).ToTime(t.Unit).Format(stampLayout)
	case *array.Time32:
		t, _ := a.DataType().(*arrow.Time32Type)
		return a.Value(i).ToTime(t.Unit).Format(clockLayout)
	case *array.Time64:
		t, _ := a.DataType().(*arrow.Time64Type)
		return a.Value(i).ToTime(t.Unit).Format(clockLayout)
	case *array.Duration:
		t, _ := a.DataType().(*arrow.DurationType)
		return (time.Duration(a.Value(i)) * t.Unit.Multiplier()).String()
	}
	return escaper.Replace(a.ValueStr(i))
}

func listText(a array.ListLike, i int) string {
	from, to := a.ValueOffsets(i)
	var parts []string
	m, isMap := a.(*array.Map)
	for j := int(from); j < int(to); j++ {
		if isMap {
			parts = append(parts, ValueText(m.Keys(), j)+":"+ValueText(m.Items(), j))
			continue
		}
		parts = append(parts, ValueText(a.ListValues(), j))
	}
	if isMap {
		return "{" + strings.Join(parts, ",") + "}"
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func structText(a *array.Struct, i int) string {
	t, _ := a.DataType().(*arrow.StructType)
	parts := make([]string, a.NumField())
	for f := range parts {
		parts[f] = t.Field(f).Name + ":" + ValueText(a.Field(f), i)
	}
	return "{" + strings.Join(parts, ",") + "}"
}
