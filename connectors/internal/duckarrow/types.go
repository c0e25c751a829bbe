package duckarrow

import (
	"fmt"
	"strings"

	"github.com/duckdb/duckdb-go/v2/mapping"
)

// Type is a DuckDB type: its name as DuckDB prints it, and its family.
type Type struct {
	Name  string
	Child []Type // of lists, arrays, structs, maps and unions
	ID    mapping.Type
}

func typeOf(t mapping.LogicalType) Type {
	out := Type{ID: mapping.GetTypeId(t)}
	sub := func(c mapping.LogicalType) Type {
		defer mapping.DestroyLogicalType(&c)
		return typeOf(c)
	}
	switch out.ID {
	case mapping.TypeDecimal:
		out.Name = fmt.Sprintf("DECIMAL(%d,%d)", mapping.DecimalWidth(t), mapping.DecimalScale(t))
	case mapping.TypeList:
		out.Child = []Type{sub(mapping.ListTypeChildType(t))}
		out.Name = out.Child[0].Name + "[]"
	case mapping.TypeArray:
		out.Child = []Type{sub(mapping.ArrayTypeChildType(t))}
		out.Name = fmt.Sprintf("%s[%d]", out.Child[0].Name, mapping.ArrayTypeArraySize(t))
	case mapping.TypeMap:
		out.Child = []Type{sub(mapping.MapTypeKeyType(t)), sub(mapping.MapTypeValueType(t))}
		out.Name = "MAP(" + out.Child[0].Name + ", " + out.Child[1].Name + ")"
	case mapping.TypeStruct:
		var fields []string
		for i := range mapping.StructTypeChildCount(t) {
			c := sub(mapping.StructTypeChildType(t, i))
			out.Child = append(out.Child, c)
			fields = append(fields, Quote(mapping.StructTypeChildName(t, i))+" "+c.Name)
		}
		out.Name = "STRUCT(" + strings.Join(fields, ", ") + ")"
	default:
		out.Name = typeNames[out.ID]
		if out.Name == "" {
			out.Name = fmt.Sprintf("type %d", out.ID)
		}
	}
	return out
}

var typeNames = map[mapping.Type]string{
	mapping.TypeBoolean: "BOOLEAN", mapping.TypeTinyInt: "TINYINT", mapping.TypeSmallInt: "SMALLINT",
	mapping.TypeInteger: "INTEGER", mapping.TypeBigInt: "BIGINT", mapping.TypeUTinyInt: "UTINYINT",
	mapping.TypeUSmallInt: "USMALLINT", mapping.TypeUInteger: "UINTEGER", mapping.TypeUBigInt: "UBIGINT",
	mapping.TypeFloat: "FLOAT", mapping.TypeDouble: "DOUBLE", mapping.TypeTimestamp: "TIMESTAMP",
	mapping.TypeDate: "DATE", mapping.TypeTime: "TIME", mapping.TypeInterval: "INTERVAL",
	mapping.TypeHugeInt: "HUGEINT", mapping.TypeUHugeInt: "UHUGEINT", mapping.TypeVarchar: "VARCHAR",
	mapping.TypeBlob: "BLOB", mapping.TypeTimestampS: "TIMESTAMP_S", mapping.TypeTimestampMS: "TIMESTAMP_MS",
	mapping.TypeTimestampNS: "TIMESTAMP_NS", mapping.TypeEnum: "ENUM", mapping.TypeUUID: "UUID",
	mapping.TypeUnion: "UNION", mapping.TypeBit: "BIT", mapping.TypeTimeTZ: "TIME WITH TIME ZONE",
	mapping.TypeTimestampTZ: "TIMESTAMP WITH TIME ZONE", mapping.TypeBigNum: "BIGNUM", mapping.TypeSQLNull: "NULL",
	mapping.TypeTimeNS: "TIME_NS", mapping.TypeGeometry: "GEOMETRY", mapping.TypeVariant: "VARIANT",
}

// Quote returns name as a quoted identifier.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal returns text as a string literal.
func Literal(text string) string { return `'` + strings.ReplaceAll(text, `'`, `''`) + `'` }
