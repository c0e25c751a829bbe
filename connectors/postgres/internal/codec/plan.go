package codec

import (
	"github.com/apache/arrow-go/v18/arrow"
)

const noConversion = "there is no exact conversion"

// planCell chooses how values of f are written as t, or says why they cannot be.
func planCell(f arrow.Field, t *Type) (c *cell, why string) {
	c = &cell{form: t.form(), charsMax: -1, bytesMax: -1}
	c.shape(f.Type)
	switch dt := f.Type.(type) {
	case *arrow.NullType:
		c.op, c.cast = cellNull, c.form == formOther
		return c, ""
	case *arrow.DictionaryType:
		inner, why := planCell(arrow.Field{Name: f.Name, Type: dt.ValueType, Metadata: f.Metadata}, t)
		if why != "" {
			return nil, why
		}
		c.op, c.elem, c.cast, c.lay = cellDict, inner, inner.cast, layoutOther
		return c, ""
	case arrow.ExtensionType:
		return planExtension(f, dt, t)
	case *arrow.StringType, *arrow.LargeStringType, *arrow.StringViewType:
		return c, c.planText(f, t)
	case *arrow.StructType, *arrow.MapType:
		if c.op = cellObject; c.form != formJSONB {
			return nil, noConversion
		}
		return c, jsonRefuses(dt)
	case *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType:
		return c, c.planArray(f, dt.(arrow.ListLikeType).Elem(), t) //nolint:errcheck // all three are
	}
	if !c.planPlain(f.Type, t) {
		return nil, noConversion
	}
	return c, ""
}

func planExtension(f arrow.Field, dt arrow.ExtensionType, t *Type) (*cell, string) {
	storage := arrow.Field{Name: f.Name, Type: dt.StorageType(), Nullable: f.Nullable, Metadata: f.Metadata}
	switch dt.ExtensionName() {
	case "arrow.uuid":
		if t.form() == formUUID {
			return planCell(storage, t)
		}
	case "arrow.json":
		storage.Metadata = arrow.NewMetadata([]string{metaText}, []string{metaTextJSON})
		return planCell(storage, t)
	}
	return nil, noConversion
}

// planPlain is planCell for types that need nothing but themselves.
func (c *cell) planPlain(dt arrow.DataType, t *Type) bool {
	switch dt.ID() {
	case arrow.BOOL:
		c.op = cellBool
		return c.form == formBool
	case arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
		return c.planInteger(t)
	case arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64:
		return c.planFloat()
	case arrow.BINARY, arrow.LARGE_BINARY, arrow.BINARY_VIEW:
		c.op = cellBytes
		return c.form == formBytea
	case arrow.FIXED_SIZE_BINARY:
		c.op = cellFixed
		return c.form == formBytea || c.form == formUUID && c.width == 16
	case arrow.DATE32, arrow.DATE64:
		if c.op = cellDate; dt.ID() == arrow.DATE32 {
			c.op = cellDay
		}
		return c.form == formDate
	case arrow.DECIMAL32, arrow.DECIMAL64, arrow.DECIMAL128, arrow.DECIMAL256:
		return c.planDecimal(dt.(arrow.DecimalType), t) //nolint:errcheck // by its ID
	default:
		return c.planTime(dt, t)
	}
}

func (c *cell) planInteger(t *Type) bool {
	same := map[arrow.Type]form{arrow.INT16: formInt2, arrow.INT32: formInt4, arrow.INT64: formInt8}
	switch c.form {
	case formInt2, formInt4, formInt8:
		if c.op = cellInt; same[c.id] == c.form {
			c.op = map[form]cellOp{formInt2: cellFix2, formInt4: cellFix4, formInt8: cellFix8}[c.form]
		}
		return true
	case formNumeric:
		c.op = cellIntegral
		if c.limit = digitsOf(t); c.limit != nil && c.limit.before >= map[int]int{1: 3, 2: 5, 4: 10, 8: 20}[c.width] {
			c.limit = nil // every value fits
		}
		return true
	case formFloat4, formFloat8:
		c.op = cellFloat
		return true
	default:
		return false
	}
}

func (c *cell) planFloat() bool {
	switch {
	case c.id == arrow.FLOAT32 && c.form == formFloat4:
		c.op = cellFix4
	case c.id == arrow.FLOAT64 && c.form == formFloat8:
		c.op = cellFix8
	case c.id != arrow.FLOAT64 && (c.form == formFloat4 || c.form == formFloat8):
		c.op = cellFloat
	default:
		return false
	}
	return true
}

func (c *cell) planDecimal(dt arrow.DecimalType, t *Type) bool {
	if c.form != formNumeric {
		return false
	}
	c.op, c.scale = cellDecimal, int(dt.GetScale())
	c.limit = digitsOf(t)
	if c.limit != nil && c.limit.behind >= c.scale && c.limit.before >= int(dt.GetPrecision())-c.scale {
		c.limit = nil // every value fits
	}
	return true
}

// planTime chooses for what is counted in parts of seconds.
func (c *cell) planTime(dt arrow.DataType, t *Type) bool {
	c.op, c.unit = cellTime, t.secondsUnit()
	var unit arrow.TimeUnit
	switch dt := dt.(type) {
	case *arrow.Time32Type:
		unit = dt.Unit
	case *arrow.Time64Type:
		if unit = dt.Unit; unit == arrow.Microsecond && c.unit == 1 {
			c.op = cellClock
		}
	case *arrow.TimestampType:
		unit, c.shift = dt.Unit, -epochMicros
		if want := formTimestampTZ; c.form != want && (dt.TimeZone != "" || c.form != formTimestamp) || c.form == want && dt.TimeZone == "" {
			return false
		}
		if unit == arrow.Microsecond && c.unit == 1 {
			c.op = cellStamp
		}
	case *arrow.DurationType:
		unit = dt.Unit
		c.op = cellInterval
	case *arrow.MonthIntervalType, *arrow.DayTimeIntervalType, *arrow.MonthDayNanoIntervalType:
		c.op = cellInterval
	default:
		return false
	}
	c.mul, c.div = 1, 1
	switch unit {
	case arrow.Second:
		c.mul = 1e6
	case arrow.Millisecond:
		c.mul = 1e3
	case arrow.Microsecond:
	case arrow.Nanosecond:
		c.div = 1e3
	}
	switch dt.ID() {
	case arrow.TIME32, arrow.TIME64:
		return c.form == formTime
	case arrow.TIMESTAMP:
		return true
	default:
		return c.form == formInterval && wholeInterval(t)
	}
}

// wholeInterval reports whether t keeps all fields of an interval: one declared as
// `interval year to month` drops the rest.
func wholeInterval(t *Type) bool {
	const all = 0x7fff
	mod := t.root().Mod
	return mod < 0 || mod>>16&all == all
}

// planText is planCell for texts. A text goes into a type other than text only if it
// is known to be its text: by the metadata of the column that it was read from, or by
// its mark.
func (c *cell) planText(f arrow.Field, t *Type) (why string) {
	was := metadataType(f)
	mark, _ := f.Metadata.GetValue(metaText)
	isSame := was != nil && same(was, t)
	of := func(forms ...form) bool {
		for _, x := range forms {
			if was != nil && was.form() == x {
				return true
			}
		}
		return false
	}
	c.op, c.check = cellBytes, true
	switch {
	case c.form == formText && t.root().Kind != KindEnum && (t.Kind != KindDomain || isSame):
		if c.charsMax = t.chars(); t.root().Name == "name" {
			c.bytesMax = nameMax
		}
	case c.form == formText && isSame:
	case c.form == formChar:
		c.op = cellChar
	case c.form == formJSON && (mark == metaTextJSON || of(formJSON, formJSONB)):
	case c.form == formJSONB && (mark == metaTextJSON || of(formJSON, formJSONB)):
		c.op = cellJSONB
	case c.form == formUUID && (mark == metaTextUUID || of(formUUID)):
		c.op = cellUUID
	case c.form == formNumeric && of(formNumeric):
		c.op, c.limit = cellNumeric, digitsOf(t)
	case isSame:
		c.cast = true
	default:
		return "a text goes into this type only from a column of the same type"
	}
	return ""
}

func (c *cell) planArray(f arrow.Field, elem arrow.DataType, t *Type) (why string) {
	if c.form != formArray {
		return noConversion
	}
	of := t.root().Elem
	inner := arrow.Field{Name: f.Name, Type: elem}
	if was := metadataType(f); was != nil && was.root().Elem != nil {
		e := was.root().Elem
		inner.Metadata = arrow.NewMetadata([]string{MetaType, MetaDef}, []string{e.SQL, definition(e)})
		if x := e.form(); x == formJSON || x == formJSONB {
			inner.Metadata = arrow.NewMetadata([]string{MetaType, MetaDef, metaText}, []string{e.SQL, definition(e), metaTextJSON})
		}
	}
	c.op, c.oid, c.lay = cellArray, of.oid(), layoutOther
	if c.oid == 0 {
		return "the server's number of the type " + of.SQL + " is not known"
	}
	if c.elem, why = planCell(inner, of); why != "" {
		return "elements: " + why
	}
	if c.elem.cast || c.elem.op == cellArray {
		return "elements: " + noConversion
	}
	return ""
}
