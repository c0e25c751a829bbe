package file

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/google/uuid"

	"rapidbyte.io/node/messages"
)

// boundText appends the text of one value that is not null.
type boundText func(dst []byte, row int) ([]byte, error)

// textFunc binds the writer of a type to an array of it: one type switch per
// column and batch.
type textFunc func(arrow.Array) boundText

// values is what all arrays of fixed-width values have.
type values[T any] interface{ Value(int) T }

// bind makes a textFunc of a function over values; Arrow's concrete array of the
// type has them, or the schema lied.
func bind[T any](f func(dst []byte, v T) []byte) textFunc {
	return func(a arrow.Array) boundText {
		vs, ok := a.(values[T])
		return func(dst []byte, row int) ([]byte, error) {
			if !ok {
				return dst, fmt.Errorf("an array of %s is a %T", a.DataType(), a)
			}
			return f(dst, vs.Value(row)), nil
		}
	}
}

func signed[T int8 | int16 | int32 | int64](dst []byte, v T) []byte {
	return strconv.AppendInt(dst, int64(v), 10)
}

func unsigned[T uint8 | uint16 | uint32 | uint64](dst []byte, v T) []byte {
	return strconv.AppendUint(dst, uint64(v), 10)
}

// textOf returns the writer of a type's values; quoted says that they may hold
// any character. Exact: reading the text gives the value back.
func textOf(dt arrow.DataType) (text textFunc, quoted bool, err error) {
	switch dt := dt.(type) {
	case *arrow.NullType:
		return func(arrow.Array) boundText { return func(dst []byte, _ int) ([]byte, error) { return dst, nil } }, false, nil
	case *arrow.BooleanType:
		return bind(strconv.AppendBool), false, nil
	case *arrow.Int8Type:
		return bind(signed[int8]), false, nil
	case *arrow.Int16Type:
		return bind(signed[int16]), false, nil
	case *arrow.Int32Type:
		return bind(signed[int32]), false, nil
	case *arrow.Int64Type:
		return bind(signed[int64]), false, nil
	case *arrow.Uint8Type:
		return bind(unsigned[uint8]), false, nil
	case *arrow.Uint16Type:
		return bind(unsigned[uint16]), false, nil
	case *arrow.Uint32Type:
		return bind(unsigned[uint32]), false, nil
	case *arrow.Uint64Type:
		return bind(unsigned[uint64]), false, nil
	case *arrow.Float16Type, *arrow.Float32Type, *arrow.Float64Type:
		return floatOf(dt), false, nil
	case *arrow.StringType, *arrow.LargeStringType, *arrow.StringViewType:
		return stringText, true, nil
	case *arrow.BinaryType, *arrow.LargeBinaryType, *arrow.BinaryViewType, *arrow.FixedSizeBinaryType:
		// may be empty, which needs quotes to be something else than NULL
		return bind(func(dst []byte, v []byte) []byte { return base64.StdEncoding.AppendEncode(dst, v) }), true, nil
	case *arrow.DictionaryType:
		return dictionaryText(dt)
	case arrow.ExtensionType: // before NestedType, which it implements
		return extensionText(dt)
	case arrow.NestedType:
		f, err := nestedOf(dt)
		return textFunc(f), true, err
	}
	text, err = temporalOf(dt)
	return text, false, err
}

// stringText writes valid UTF-8 only: other readers could not tell what else is.
func stringText(a arrow.Array) boundText {
	s, _ := a.(array.StringLike)
	return func(dst []byte, row int) ([]byte, error) {
		v := s.Value(row)
		if !validUTF8(v) {
			return dst, errors.New("the text is not valid UTF-8")
		}
		return append(dst, v...), nil
	}
}

// temporalOf writes decimals, dates and times, all in ISO 8601.
func temporalOf(dt arrow.DataType) (textFunc, error) {
	switch dt := dt.(type) {
	case arrow.DecimalType:
		return decimalOf(dt)
	case *arrow.Date32Type:
		return bind(func(dst []byte, v arrow.Date32) []byte { return appendDate(dst, int64(v)) }), nil
	case *arrow.Date64Type:
		return bind(func(dst []byte, v arrow.Date64) []byte {
			return appendISO(dst, time.UnixMilli(int64(v)).UTC(), "", int64(v)%86_400_000 == 0)
		}), nil
	case *arrow.TimestampType:
		zone := ""
		if dt.TimeZone != "" {
			zone = "Z"
		}
		unit := dt.Unit
		return bind(func(dst []byte, v arrow.Timestamp) []byte { return appendISO(dst, toTime(int64(v), unit), zone, false) }), nil
	case *arrow.Time32Type:
		unit := dt.Unit
		return bind(func(dst []byte, v arrow.Time32) []byte { return appendClock(dst, int64(v), unit) }), nil
	case *arrow.Time64Type:
		unit := dt.Unit
		return bind(func(dst []byte, v arrow.Time64) []byte { return appendClock(dst, int64(v), unit) }), nil
	case *arrow.DurationType:
		unit := dt.Unit
		return bind(func(dst []byte, v arrow.Duration) []byte { return appendDuration(dst, int64(v), unit) }), nil
	}
	return nil, fmt.Errorf("type %s has no exact text", dt)
}

// extensionText writes what is stored, a UUID in its usual form.
func extensionText(dt arrow.ExtensionType) (text textFunc, quoted bool, err error) {
	if _, ok := dt.(*extensions.UUIDType); ok {
		return bind(func(dst []byte, v uuid.UUID) []byte { return append(dst, v.String()...) }), false, nil
	}
	storage, quoted, err := textOf(dt.StorageType())
	return func(a arrow.Array) boundText { return storage(stored(a)) }, quoted, err
}

func stored(a arrow.Array) arrow.Array {
	if ext, ok := a.(array.ExtensionArray); ok {
		return ext.Storage()
	}
	return a
}

// decimalOf writes all digits; Arrow's own texts go through floating point.
func decimalOf(dt arrow.DecimalType) (textFunc, error) {
	scale := int(dt.GetScale())
	if scale < 0 {
		return nil, fmt.Errorf("type %s has a negative scale", dt)
	}
	switch dt.(type) {
	case *arrow.Decimal32Type:
		return bind(func(dst []byte, v decimal.Decimal32) []byte { return appendPoint(dst, strconv.Itoa(int(v)), scale) }), nil
	case *arrow.Decimal64Type:
		return bind(func(dst []byte, v decimal.Decimal64) []byte {
			return appendPoint(dst, strconv.FormatInt(int64(v), 10), scale)
		}), nil
	case *arrow.Decimal128Type:
		return bind(func(dst []byte, v decimal128.Num) []byte { return appendPoint(dst, v.BigInt().String(), scale) }), nil
	}
	return bind(func(dst []byte, v decimal256.Num) []byte { return appendPoint(dst, v.BigInt().String(), scale) }), nil
}

// appendPoint appends an integer's digits with a point before the last scale ones.
func appendPoint(dst []byte, digits string, scale int) []byte {
	if scale == 0 {
		return append(dst, digits...)
	}
	if digits[0] == '-' {
		dst, digits = append(dst, '-'), digits[1:]
	}
	if missing := scale + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	at := len(digits) - scale
	return append(append(append(dst, digits[:at]...), '.'), digits[at:]...)
}

// floatOf writes the shortest text that reads back as the same number; NaN and
// the infinities by name.
func floatOf(dt arrow.DataType) textFunc {
	return func(a arrow.Array) boundText {
		get, bits := floats(a, dt)
		return func(dst []byte, row int) ([]byte, error) {
			return appendFloat(dst, get(row), bits), nil
		}
	}
}

// appendFloat appends the shortest text that reads back as the same number, and
// never one that reads as an integer: the type survives as well.
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(v, -1):
		return append(dst, "-Infinity"...)
	}
	at, format := len(dst), byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, v, format, -1, bits)
	if format == 'f' && bytes.IndexByte(dst[at:], '.') < 0 {
		dst = append(dst, ".0"...)
	}
	return dst
}

// finiteOf is floatOf for JSON, which has finite numbers only: the others are
// texts, as in the JSON form of protocol buffers.
func finiteOf(dt arrow.DataType) (jsonFunc, error) {
	return func(a arrow.Array) boundText {
		get, bits := floats(a, dt)
		return func(dst []byte, row int) ([]byte, error) {
			v := get(row)
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return append(appendFloat(append(dst, '"'), v, bits), '"'), nil
			}
			return appendFloat(dst, v, bits), nil
		}
	}, nil
}

func floats(a arrow.Array, dt arrow.DataType) (get func(int) float64, bits int) {
	switch a := a.(type) {
	case *array.Float64:
		return a.Value, 64
	case *array.Float32:
		return func(i int) float64 { return float64(a.Value(i)) }, 32
	case *array.Float16:
		return func(i int) float64 { return float64(a.Value(i).Float32()) }, 32
	}
	panic(fmt.Sprintf("file: an array of %s is a %T", dt, a))
}

func dictionaryText(dt *arrow.DictionaryType) (textFunc, bool, error) {
	value, quoted, err := textOf(dt.ValueType)
	if err != nil {
		return nil, false, err
	}
	return func(a arrow.Array) boundText {
		return throughIndex(a, func(d arrow.Array) boundText { return value(d) })
	}, quoted, nil
}

func dictionaryOf(value arrow.Field) (jsonFunc, error) {
	f, err := jsonOf(value)
	if err != nil {
		return nil, err
	}
	return func(a arrow.Array) boundText { return throughIndex(a, f) }, nil
}

func throughIndex(a arrow.Array, value func(arrow.Array) boundText) boundText {
	d, ok := a.(*array.Dictionary)
	if !ok {
		return value(a)
	}
	get := value(d.Dictionary())
	return func(dst []byte, row int) ([]byte, error) { return get(dst, d.GetValueIndex(row)) }
}

// toTime converts exactly; every int64 of every unit is a time.Time.
func toTime(v int64, unit arrow.TimeUnit) time.Time {
	perSecond := int64(time.Second / unit.Multiplier())
	sec := v / perSecond
	rest := v % perSecond
	if rest < 0 {
		sec, rest = sec-1, rest+perSecond
	}
	return time.Unix(sec, rest*int64(unit.Multiplier())).UTC()
}

func appendDate(dst []byte, days int64) []byte {
	return appendISO(dst, time.Unix(days*86400, 0).UTC(), "", true)
}

// appendISO writes YYYY-MM-DD[THH:MM:SS[.fffffffff]zone]. Years outside 0000 to
// 9999 get a sign, as ISO 8601 wants.
func appendISO(dst []byte, t time.Time, zone string, dateOnly bool) []byte {
	y, mo, d := t.Date()
	switch {
	case y < 0:
		dst, y = append(dst, '-'), -y
	case y > 9999:
		dst = append(dst, '+')
	}
	dst = appendPadded(dst, int64(y), 4)
	dst = appendPadded(append(dst, '-'), int64(mo), 2)
	dst = appendPadded(append(dst, '-'), int64(d), 2)
	if dateOnly {
		return dst
	}
	dst = append(dst, 'T')
	dst = appendTimeOfDay(dst, int64(t.Hour()*3600+t.Minute()*60+t.Second()), int64(t.Nanosecond()))
	return append(dst, zone...)
}

func appendTimeOfDay(dst []byte, sec, nanos int64) []byte {
	dst = appendPadded(dst, sec/3600, 2)
	dst = appendPadded(append(dst, ':'), sec/60%60, 2)
	dst = appendPadded(append(dst, ':'), sec%60, 2)
	return appendFraction(dst, nanos)
}

// appendFraction appends nothing for 0, otherwise as many digits as are needed.
func appendFraction(dst []byte, nanos int64) []byte {
	if nanos == 0 {
		return dst
	}
	dst = appendPadded(append(dst, '.'), nanos, 9)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func appendClock(dst []byte, v int64, unit arrow.TimeUnit) []byte {
	perSecond := int64(time.Second / unit.Multiplier())
	return appendTimeOfDay(dst, v/perSecond, v%perSecond*int64(unit.Multiplier()))
}

// appendDuration writes ISO 8601: PT1.5S.
func appendDuration(dst []byte, v int64, unit arrow.TimeUnit) []byte {
	perSecond := uint64(time.Second / unit.Multiplier())
	u := uint64(v)
	if v < 0 {
		dst, u = append(dst, '-'), -u
	}
	dst = strconv.AppendUint(append(dst, "PT"...), u/perSecond, 10)
	return append(appendFraction(dst, int64(u%perSecond)*int64(unit.Multiplier())), 'S') //nolint:gosec // below a second
}

func appendPadded(dst []byte, v int64, width int) []byte {
	at := len(dst)
	dst = strconv.AppendInt(dst, v, 10)
	for len(dst)-at < width {
		dst = append(dst, 0)
		copy(dst[at+1:], dst[at:])
		dst[at] = '0'
	}
	return dst
}

// checkSchema refuses a schema that format cannot hold exactly.
func checkSchema(format string, s messages.StreamID, schema *arrow.Schema) (err error) {
	defer recovered(&err)
	place := messages.Place{Stream: s}
	if schema.NumFields() == 0 {
		return schemaError("begin the stream", messages.CodeSchemaEmpty, place, errors.New("it has no columns"))
	}
	seen := make(map[string]bool)
	for _, f := range schema.Fields() {
		place.Field = f.Name
		if f.Name == "" || seen[f.Name] || !validUTF8(f.Name) {
			return schemaError("begin the stream", messages.CodeSchemaName, place, fmt.Errorf("column name %q is empty, doubled or not UTF-8", f.Name))
		}
		seen[f.Name] = true
		if err := checkType(format, f); err != nil {
			return schemaError("begin the stream", messages.CodeSchemaType, place, fmt.Errorf("%s cannot hold column %q: %w", format, f.Name, err))
		}
	}
	return nil
}

func checkType(format string, f arrow.Field) (err error) {
	defer recovered(&err)
	switch format {
	case FormatCSV:
		_, _, err = textOf(f.Type)
	case FormatJSONL:
		_, err = jsonOf(f)
	case FormatParquet:
		err = parquetHolds(f)
	}
	return err
}
