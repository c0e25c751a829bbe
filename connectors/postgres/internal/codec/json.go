package codec

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// jsonRefuses says why values of dt have no exact JSON, or returns "". Numbers,
// decimals too, are JSON numbers of all their digits; dates, times, timestamps and
// UUIDs are texts; a map is an object, so its keys are texts.
func jsonRefuses(dt arrow.DataType) string {
	switch dt := dt.(type) {
	case *arrow.StructType:
		seen := map[string]bool{}
		for _, f := range dt.Fields() {
			if seen[f.Name] {
				return "a JSON object has no two members named " + f.Name
			}
			seen[f.Name] = true
			if why := jsonRefuses(f.Type); why != "" {
				return why
			}
		}
		return ""
	case *arrow.MapType:
		if !isString(dt.KeyType()) {
			return "the keys of a JSON object are texts, not " + dt.KeyType().String()
		}
		return jsonRefuses(dt.ItemType())
	case *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType:
		return jsonRefuses(dt.(arrow.ListLikeType).Elem()) //nolint:errcheck // all three are
	case *arrow.DictionaryType:
		return jsonRefuses(dt.ValueType)
	case arrow.DecimalType:
		return ""
	case arrow.ExtensionType:
		if name := dt.ExtensionName(); name == "arrow.uuid" || name == "arrow.json" {
			return ""
		}
	}
	switch dt.ID() {
	case arrow.NULL, arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64, arrow.STRING, arrow.LARGE_STRING, arrow.STRING_VIEW,
		arrow.DATE32, arrow.DATE64, arrow.TIME32, arrow.TIME64, arrow.TIMESTAMP:
		return ""
	default:
	}
	return "a value of type " + dt.String() + " has no exact JSON"
}

// appendJSON writes value i of a, for which jsonRefuses had nothing to say.
func appendJSON(dst []byte, a arrow.Array, i int) ([]byte, *fault) {
	if a.IsNull(i) {
		return append(dst, "null"...), nil
	}
	switch a := a.(type) {
	case *array.Null:
		return append(dst, "null"...), nil
	case *array.Struct:
		return appendStruct(dst, a, i)
	case *array.Map:
		return appendMap(dst, a, i)
	case array.ListLike:
		return appendList(dst, a, i)
	case *array.Dictionary:
		return appendJSON(dst, a.Dictionary(), a.GetValueIndex(i))
	case array.StringLike:
		return appendJSONText(dst, []byte(a.Value(i)))
	case *array.Float16:
		return appendFloat(dst, float64(a.Value(i).Float32()), 32)
	case *array.Float32:
		return appendFloat(dst, float64(a.Value(i)), 32)
	case *array.Float64:
		return appendFloat(dst, a.Value(i), 64)
	case array.ExtensionArray:
		if a.ExtensionType().ExtensionName() == "arrow.json" {
			return appendRaw(dst, a.Storage(), i)
		}
		return appendJSONText(dst, []byte(a.ValueStr(i)))
	}
	return appendScalar(dst, a, i)
}

func appendScalar(dst []byte, a arrow.Array, i int) ([]byte, *fault) {
	const layout = "2006-01-02T15:04:05.999999999"
	switch a := a.(type) {
	case *array.Date32:
		return appendTime(dst, a.Value(i).ToTime(), time.DateOnly)
	case *array.Date64:
		return appendTime(dst, a.Value(i).ToTime(), time.DateOnly)
	case *array.Time32:
		return appendTime(dst, a.Value(i).ToTime(a.DataType().(*arrow.Time32Type).Unit), "15:04:05.999999999") //nolint:errcheck // of its array
	case *array.Time64:
		return appendTime(dst, a.Value(i).ToTime(a.DataType().(*arrow.Time64Type).Unit), "15:04:05.999999999") //nolint:errcheck // of its array
	case *array.Timestamp:
		t := a.DataType().(*arrow.TimestampType) //nolint:errcheck // of its array
		if t.TimeZone != "" {
			return appendTime(dst, a.Value(i).ToTime(t.Unit).UTC(), layout+"Z")
		}
		return appendTime(dst, a.Value(i).ToTime(t.Unit), layout)
	}
	return append(dst, a.ValueStr(i)...), nil // booleans, whole numbers, decimals
}

func appendTime(dst []byte, t time.Time, layout string) ([]byte, *fault) {
	dst = append(dst, '"')
	return append(t.AppendFormat(dst, layout), '"'), nil
}

func appendFloat(dst []byte, v float64, size int) ([]byte, *fault) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return dst, faultFinite
	}
	return strconv.AppendFloat(dst, v, 'g', -1, size), nil
}

func appendRaw(dst []byte, a arrow.Array, i int) ([]byte, *fault) {
	s, ok := a.(array.StringLike)
	if !ok {
		return dst, faultJSON
	}
	v := []byte(s.Value(i))
	if f := jsonbFault(v); f != nil {
		return dst, f
	}
	return append(dst, v...), nil
}

func appendStruct(dst []byte, a *array.Struct, i int) (_ []byte, f *fault) {
	t := a.DataType().(*arrow.StructType) //nolint:errcheck // of its array
	dst = append(dst, '{')
	for k := range a.NumField() {
		if k > 0 {
			dst = append(dst, ',')
		}
		if dst, f = appendJSONText(dst, []byte(t.Field(k).Name)); f != nil {
			return dst, f
		}
		dst = append(dst, ':')
		if dst, f = appendJSON(dst, a.Field(k), i); f != nil {
			return dst, f
		}
	}
	return append(dst, '}'), nil
}

func appendMap(dst []byte, a *array.Map, i int) (_ []byte, f *fault) {
	from, to := a.ValueOffsets(i)
	keys, ok := a.Keys().(array.StringLike)
	if !ok {
		return dst, faultJSON
	}
	seen := make(map[string]bool, to-from)
	dst = append(dst, '{')
	for k := int(from); k < int(to); k++ {
		if k > int(from) {
			dst = append(dst, ',')
		}
		key := keys.Value(k)
		if seen[key] || keys.IsNull(k) {
			return dst, faultKeys
		}
		seen[key] = true
		if dst, f = appendJSONText(dst, []byte(key)); f != nil {
			return dst, f
		}
		dst = append(dst, ':')
		if dst, f = appendJSON(dst, a.Items(), k); f != nil {
			return dst, f
		}
	}
	return append(dst, '}'), nil
}

func appendList(dst []byte, a array.ListLike, i int) (_ []byte, f *fault) {
	from, to := a.ValueOffsets(i)
	dst = append(dst, '[')
	for k := int(from); k < int(to); k++ {
		if k > int(from) {
			dst = append(dst, ',')
		}
		if dst, f = appendJSON(dst, a.ListValues(), k); f != nil {
			return dst, f
		}
	}
	return append(dst, ']'), nil
}

// appendJSONText quotes v.
func appendJSONText(dst, v []byte) ([]byte, *fault) {
	if f := textFault(v); f != nil {
		return dst, f
	}
	dst = slices.Grow(dst, len(v)+2)
	dst = append(dst, '"')
	for _, c := range v {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(dst, '"'), nil
}

// textFault says why v is no text of a server.
func textFault(v []byte) *fault {
	if bytes.IndexByte(v, 0) >= 0 {
		return faultNUL
	}
	if !utf8.Valid(v) {
		return faultUTF8
	}
	return nil
}

// jsonbFault says why jsonb refuses a text that json may hold: it stores the
// characters that escapes stand for, and the character 0 and half a surrogate pair
// are none.
func jsonbFault(v []byte) *fault {
	if f := textFault(v); f != nil {
		return f
	}
	if !bytes.Contains(v, []byte(`\u`)) {
		return nil
	}
	high := false // the escape before was the first half of a pair
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' || i+1 == len(v) {
			if high {
				return faultSurrogate
			}
			continue
		}
		i++
		if v[i] != 'u' || i+4 >= len(v) {
			if high {
				return faultSurrogate
			}
			continue
		}
		r, err := strconv.ParseUint(string(v[i+1:i+5]), 16, 32)
		if err != nil {
			return faultJSON
		}
		i += 4
		isLow := r >= 0xdc00 && r < 0xe000
		switch {
		case r == 0:
			return faultEscape
		case high != isLow:
			return faultSurrogate
		}
		high = r >= 0xd800 && r < 0xdc00
	}
	return nil
}
