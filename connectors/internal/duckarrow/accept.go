package duckarrow

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// Refuses says why DuckDB cannot read a column of type t without changing its
// values, or returns "".
func Refuses(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.Float16Type, *arrow.Decimal256Type, *arrow.MonthIntervalType, *arrow.DayTimeIntervalType,
		*arrow.MonthDayNanoIntervalType, *arrow.DurationType:
		return fmt.Sprintf("DuckDB cannot represent every value of %s", t)
	case *arrow.TimestampType:
		if t.TimeZone != "" && t.Unit == arrow.Nanosecond {
			return "DuckDB's timestamp with time zone has microseconds, and would cut the nanoseconds"
		}
	case arrow.ExtensionType:
		switch t.ExtensionName() {
		case "arrow.uuid", "arrow.json", "arrow.bool8":
			return ""
		}
		return fmt.Sprintf("DuckDB does not know the extension type %s", t.ExtensionName())
	case *arrow.StructType:
		if t.NumFields() == 0 {
			return "DuckDB has no struct without fields"
		}
		return refusesFields(t.Fields())
	case *arrow.DictionaryType:
		return Refuses(t.ValueType)
	case *arrow.RunEndEncodedType:
		return Refuses(t.Encoded())
	case *arrow.SparseUnionType, *arrow.DenseUnionType:
		return "unions are not supported"
	case arrow.NestedType:
		return refusesFields(t.Fields())
	}
	return ""
}

func refusesFields(fields []arrow.Field) string {
	for _, f := range fields {
		if why := Refuses(f.Type); why != "" {
			return why
		}
	}
	return ""
}

// Lossy says why a result of type t cannot be turned into Arrow as it is, or
// returns "". A cast in the query is the way out.
func (t Type) Lossy() string {
	switch t.ID {
	case mapping.TypeUHugeInt, mapping.TypeBigNum, mapping.TypeBit, mapping.TypeTimeTZ, mapping.TypeUnion, mapping.TypeEnum,
		mapping.TypeGeometry, mapping.TypeVariant, mapping.TypeInterval:
		return t.Name + " has no type that every stream carries"
	case mapping.TypeAny, mapping.TypeInvalid, mapping.TypeSQLNull:
		return "the type cannot be determined"
	}
	for _, c := range t.Child {
		if why := c.Lossy(); why != "" {
			return why
		}
	}
	return ""
}
