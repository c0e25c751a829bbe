package conntest

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// TypeCase is one column type with values at its edges.
type TypeCase struct {
	Name   string // stable: factories refer to it
	Type   arrow.DataType
	Values []string // as the builder of Type reads them; "(null)" is a missing value
}

// TypeCases lists the Arrow types that a destination must keep exactly or refuse.
func TypeCases() []TypeCase {
	const null = array.NullValueStr
	return []TypeCase{
		{"bool", arrow.FixedWidthTypes.Boolean, []string{"true", "false", null}},
		{"int8", arrow.PrimitiveTypes.Int8, []string{"-128", "127", "0", null}},
		{"int16", arrow.PrimitiveTypes.Int16, []string{"-32768", "32767", null}},
		{"int32", arrow.PrimitiveTypes.Int32, []string{"-2147483648", "2147483647", null}},
		{"int64", arrow.PrimitiveTypes.Int64, []string{"-9223372036854775808", "9223372036854775807", "9007199254740993", null}},
		{"uint8", arrow.PrimitiveTypes.Uint8, []string{"0", "255", null}},
		{"uint16", arrow.PrimitiveTypes.Uint16, []string{"0", "65535", null}},
		{"uint32", arrow.PrimitiveTypes.Uint32, []string{"0", "4294967295", null}},
		{"uint64", arrow.PrimitiveTypes.Uint64, []string{"0", "18446744073709551615", null}},
		{"float32", arrow.PrimitiveTypes.Float32, []string{"1.5", "-0.25", "16777216", null}},
		{"float64", arrow.PrimitiveTypes.Float64, []string{"0.1", "-1.7976931348623157e+308", "5e-324", "NaN", "+Inf", "-Inf", null}},
		{"text", arrow.BinaryTypes.String, []string{"", "plain", "NULL", "null", " space ", "comma, \"quote\" 'single'", "tab\tline\nfeed\r\n", `back\slash \N`, "日本語 é 🚀", "a|b;c", null}},
		{"large_text", arrow.BinaryTypes.LargeString, []string{"", "large", null}},
		{"binary", arrow.BinaryTypes.Binary, []string{"", "AP8KDSwiJw==", null}},
		{"large_binary", arrow.BinaryTypes.LargeBinary, []string{"AP8=", null}},
		{"fixed_binary", &arrow.FixedSizeBinaryType{ByteWidth: 4}, []string{"AP8KDQ==", null}},
		{"date32", arrow.FixedWidthTypes.Date32, []string{"1970-01-01", "0001-01-01", "9999-12-31", "1969-12-31", "2024-02-29", null}},
		{"timestamp_s", &arrow.TimestampType{Unit: arrow.Second}, []string{"1970-01-01T00:00:00", "9999-12-31T23:59:59", "1582-10-15T00:00:00", null}},
		{"timestamp_ms", &arrow.TimestampType{Unit: arrow.Millisecond}, []string{"2024-02-29T12:34:56.789", "1969-12-31T23:59:59.999", null}},
		{"timestamp_us", &arrow.TimestampType{Unit: arrow.Microsecond}, []string{"2024-02-29T12:34:56.789012", "0001-01-01T00:00:00.000001", null}},
		{"timestamp_ns", &arrow.TimestampType{Unit: arrow.Nanosecond}, []string{"2024-02-29T12:34:56.789012345", null}},
		{"timestamptz_us", arrow.FixedWidthTypes.Timestamp_us, []string{"2024-02-29T12:34:56.789012Z", "1969-12-31T23:59:59.999999Z", null}},
		{"time32_s", arrow.FixedWidthTypes.Time32s, []string{"00:00:00", "23:59:59", null}},
		{"time32_ms", arrow.FixedWidthTypes.Time32ms, []string{"12:34:56.789", null}},
		{"time64_us", arrow.FixedWidthTypes.Time64us, []string{"00:00:00.000001", "23:59:59.999999", null}},
		{"time64_ns", arrow.FixedWidthTypes.Time64ns, []string{"12:34:56.789012345", null}},
		{"duration_us", arrow.FixedWidthTypes.Duration_us, []string{"90000000us", "-1us", null}},
		{"decimal128", &arrow.Decimal128Type{Precision: 38, Scale: 9}, []string{"12345678901234567890123456789.123456789", "-0.000000001", "1.5", "0", null}},
		{"decimal256", &arrow.Decimal256Type{Precision: 60, Scale: 20}, []string{"1234567890123456789012345678901234567890.12345678901234567890", "-1", null}},
		{"uuid", extensions.NewUUIDType(), []string{"00112233-4455-6677-8899-aabbccddeeff", null}},
		{"dictionary", &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, []string{"red", "green", "red", null}},
		{"list", arrow.ListOf(arrow.PrimitiveTypes.Int64), []string{"[1,2,3]", "[]", "[null]", null}},
		{"struct", arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, arrow.Field{Name: "b", Type: arrow.BinaryTypes.String, Nullable: true}), []string{`{"a":1,"b":"x"}`, `{"a":null,"b":"y"}`, null}},
		{"map", arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64), []string{`[{"key":"a","value":1}]`, null}},
	}
}

// typeColumn is the name of the column under test.
const typeColumn = "value_col"

// build returns the rows of c: id from 1, and the value. The caller owns them.
func (c TypeCase) build(mem memory.Allocator) (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(mem, c.schema())
	defer b.Release()
	for i, v := range c.Values {
		if err := appendInt(b.Field(0), int64(i+1)); err != nil {
			return nil, err
		}
		if err := b.Field(1).AppendValueFromString(v); err != nil {
			return nil, err
		}
	}
	return b.NewRecordBatch(), nil
}

func (c TypeCase) schema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: typeColumn, Type: c.Type, Nullable: true},
	}, nil)
}
