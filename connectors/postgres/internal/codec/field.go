package codec

import (
	"encoding/json"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
)

// Keys of a field's metadata.
const (
	MetaType = "postgres.type"       // Type.SQL
	MetaDef  = "postgres.definition" // JSON of the Type
)

// The entry by which all connectors mark a text that holds JSON or a UUID.
const (
	metaText     = "rapidbyte.type"
	metaTextJSON = "json"
	metaTextUUID = "uuid"
)

// Field returns the Arrow field in which column c is read, with its type in the
// metadata. asText says that it travels as text, because that was asked for or
// because no Arrow type holds its values: the query must then select c::text.
func Field(c Column, wantText bool) (f arrow.Field, asText bool) {
	dt := arrowType(c.Type)
	if asText = wantText || dt == nil; asText {
		dt = arrow.BinaryTypes.String
	}
	keys, values := []string{MetaType, MetaDef}, []string{c.Type.SQL, definition(c.Type)}
	if form := c.Type.form(); form == formJSON || form == formJSONB {
		keys, values = append(keys, metaText), append(values, metaTextJSON)
	}
	return arrow.Field{Name: c.Name, Type: dt, Nullable: !c.NotNull, Metadata: arrow.NewMetadata(keys, values)}, asText
}

// definition returns t as JSON.
func definition(t *Type) string {
	b, err := json.Marshal(t)
	if err != nil {
		panic("codec: a type that JSON cannot hold: " + err.Error())
	}
	return string(b)
}

var arrowTypes = map[form]arrow.DataType{
	formBool:        arrow.FixedWidthTypes.Boolean,
	formInt2:        arrow.PrimitiveTypes.Int16,
	formInt4:        arrow.PrimitiveTypes.Int32,
	formInt8:        arrow.PrimitiveTypes.Int64,
	formFloat4:      arrow.PrimitiveTypes.Float32,
	formFloat8:      arrow.PrimitiveTypes.Float64,
	formText:        arrow.BinaryTypes.String,
	formChar:        arrow.BinaryTypes.String,
	formBytea:       arrow.BinaryTypes.Binary,
	formDate:        arrow.FixedWidthTypes.Date32,
	formTime:        arrow.FixedWidthTypes.Time64us,
	formTimestamp:   &arrow.TimestampType{Unit: arrow.Microsecond},
	formTimestampTZ: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
	formInterval:    arrow.FixedWidthTypes.MonthDayNanoInterval,
	formUUID:        extensions.NewUUIDType(),
	formJSON:        arrow.BinaryTypes.String,
	formJSONB:       arrow.BinaryTypes.String,
}

// arrowType returns the Arrow type that holds every value of t but the few that
// are a ValueError, nil for none.
func arrowType(t *Type) arrow.DataType {
	switch f := t.form(); f {
	case formOther:
		return nil
	case formNumeric:
		return numericType(t)
	case formArray:
		return arrow.ListOf(arrowType(t.root().Elem))
	default:
		return arrowTypes[f]
	}
}

// numericType is a decimal where the modifier bounds the digits, and text, exact
// to the trailing zeros, everywhere else.
func numericType(t *Type) arrow.DataType {
	p, s, ok := t.numericMod()
	switch {
	case !ok || p < 1 || s < 0 || s > p || p > 76:
		return arrow.BinaryTypes.String
	case p <= 38:
		return &arrow.Decimal128Type{Precision: p, Scale: s}
	default:
		return &arrow.Decimal256Type{Precision: p, Scale: s}
	}
}

// TypeOf returns the column type in which a destination keeps f. It is that of the
// metadata, as long as the field still has the Arrow type, or text, in which that
// type is read. Otherwise:
//
//	null, utf8, large_utf8, utf8_view          text
//	bool                                       boolean
//	int8, uint8, int16                         smallint
//	uint16, int32                              integer
//	uint32, int64                              bigint
//	uint64                                     numeric(20,0)
//	float16, float32                           real
//	float64                                    double precision
//	binary of any kind, fixed_size_binary      bytea
//	decimal(p,s)                               numeric(p,s); numeric(p-s,0) for s<0, numeric(s,s) for s>p
//	date32, date64                             date
//	time32, time64                             time
//	timestamp                                  timestamp, timestamptz if it has a time zone
//	intervals, duration                        interval
//	arrow.uuid; utf8 marked as UUID            uuid
//	arrow.json; utf8 marked as JSON            json, which keeps the text as it is
//	dictionary                                 as its values
//	list, large_list, fixed_size_list          array of the element, which is no list itself
//	struct, map                                jsonb
//
// Everything else is a *FitError.
func TypeOf(f arrow.Field) (*Type, error) {
	if t := metadataType(f); t != nil {
		return t, nil
	}
	if isString(f.Type) {
		switch mark, _ := f.Metadata.GetValue(metaText); mark {
		case metaTextJSON:
			return plain("json"), nil
		case metaTextUUID:
			return plain("uuid"), nil
		}
	}
	t, why := typeOf(f.Type)
	if why != "" {
		return nil, &FitError{Column: f.Name, From: f.Type.String(), Why: why}
	}
	return t, nil
}

// metadataType returns the type that f was read from, nil if that is not known or
// if f has become something else since.
func metadataType(f arrow.Field) *Type {
	def, ok := f.Metadata.GetValue(MetaDef)
	if !ok {
		return nil
	}
	t := new(Type)
	if json.Unmarshal([]byte(def), t) != nil || !t.complete() {
		return nil
	}
	if isString(f.Type) {
		return t
	}
	if was := arrowType(t); was == nil || !arrow.TypeEqual(was, f.Type) {
		return nil
	}
	return t
}

// complete reports whether a type out of metadata can be used, and gives the
// server's own types their OIDs.
func (t *Type) complete() bool {
	if t.Name == "" || t.SQL == "" || t.Kind == 0 || t.Kind == KindDomain && t.Base == nil || t.Kind == KindArray && t.Elem == nil {
		return false
	}
	for _, inner := range []*Type{t.Elem, t.Base} {
		if inner != nil && !inner.complete() {
			return false
		}
	}
	for _, a := range t.Attributes {
		if a.Type == nil || !a.Type.complete() {
			return false
		}
	}
	t.OID = t.oid()
	return true
}

func isString(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.STRING, arrow.LARGE_STRING, arrow.STRING_VIEW:
		return true
	default:
		return false
	}
}

var plainNames = map[arrow.Type]string{
	arrow.NULL: "text", arrow.BOOL: "bool",
	arrow.INT8: "int2", arrow.UINT8: "int2", arrow.INT16: "int2", arrow.UINT16: "int4", arrow.INT32: "int4",
	arrow.UINT32: "int8", arrow.INT64: "int8",
	arrow.FLOAT16: "float4", arrow.FLOAT32: "float4", arrow.FLOAT64: "float8",
	arrow.STRING: "text", arrow.LARGE_STRING: "text", arrow.STRING_VIEW: "text",
	arrow.BINARY: "bytea", arrow.LARGE_BINARY: "bytea", arrow.BINARY_VIEW: "bytea", arrow.FIXED_SIZE_BINARY: "bytea",
	arrow.DATE32: "date", arrow.DATE64: "date", arrow.TIME32: "time", arrow.TIME64: "time",
	arrow.INTERVAL_MONTHS: "interval", arrow.INTERVAL_DAY_TIME: "interval", arrow.INTERVAL_MONTH_DAY_NANO: "interval", arrow.DURATION: "interval",
}

// typeOf returns the column type of an Arrow type, or why there is none.
func typeOf(dt arrow.DataType) (t *Type, why string) {
	if name, ok := plainNames[dt.ID()]; ok {
		return plain(name), ""
	}
	switch dt := dt.(type) {
	case *arrow.Uint64Type:
		return numericOf(20, 0), ""
	case *arrow.TimestampType:
		if dt.TimeZone == "" {
			return plain("timestamp"), ""
		}
		return plain("timestamptz"), ""
	case arrow.DecimalType:
		return decimalOf(dt.GetPrecision(), dt.GetScale()), ""
	case *arrow.DictionaryType:
		return typeOf(dt.ValueType)
	case arrow.ExtensionType:
		switch dt.ExtensionName() {
		case "arrow.uuid":
			return plain("uuid"), ""
		case "arrow.json":
			return plain("json"), ""
		}
		return nil, "the extension type " + dt.ExtensionName() + " is not known"
	case *arrow.StructType, *arrow.MapType:
		if why := jsonRefuses(dt); why != "" {
			return nil, why
		}
		return plain("jsonb"), ""
	case *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType:
		return listOf(dt.(arrow.ListLikeType).Elem()) //nolint:errcheck // all three are
	}
	return nil, "there is no such type"
}

func listOf(elem arrow.DataType) (t *Type, why string) {
	inner, why := typeOf(elem)
	if why != "" {
		return nil, why
	}
	if inner.Kind == KindArray {
		return nil, "a list of lists may be ragged, an array may not"
	}
	return arrayOf(inner), ""
}

func decimalOf(p, s int32) *Type {
	if s < 0 {
		p, s = p-s, 0
	}
	p = max(p, s)
	if p > 1000 {
		return plain("numeric")
	}
	return numericOf(p, s)
}

// from names what f holds, for errors.
func from(f arrow.Field) string {
	if sql, ok := f.Metadata.GetValue(MetaType); ok {
		return strings.TrimSpace(f.Type.String() + " (" + sql + ")")
	}
	return f.Type.String()
}
