package codec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Kind says what sort of type pg_type holds.
type Kind byte

// The kinds.
const (
	KindBase       Kind = 'b'
	KindEnum       Kind = 'e'
	KindDomain     Kind = 'd'
	KindComposite  Kind = 'c'
	KindRange      Kind = 'r'
	KindMultirange Kind = 'm'
	KindArray      Kind = 'A'
	KindOther      Kind = 'p'
)

// MarshalJSON implements json.Marshaler: a kind is its letter.
func (k Kind) MarshalJSON() ([]byte, error) { return json.Marshal(string(rune(k))) }

// UnmarshalJSON implements json.Unmarshaler.
func (k *Kind) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if len(s) != 1 {
		return fmt.Errorf("kind %q is not one letter", s)
	}
	*k = Kind(s[0])
	return nil
}

// Check is a constraint of a domain.
type Check struct {
	Name       string `json:"name"`
	Definition string `json:"definition"` // as pg_get_constraintdef prints it: "CHECK ((VALUE > 0))"
}

// Attribute is a field of a composite type.
type Attribute struct {
	Name string `json:"name"`
	Type *Type  `json:"type"`
}

// Type is a column type with its modifier, as the catalogue has it. It is not
// changed once a Decoder, an Encoder or a Field was made of it.
type Type struct {
	OID    uint32   `json:"-"`                // 0 when it came from metadata or from Arrow, and is none of the server's own
	Schema string   `json:"schema,omitempty"` // of pg_type: "pg_catalog", "public"
	Name   string   `json:"name"`             // typname: "int4", "mood"; of an array its own ("_int4")
	Mod    int32    `json:"mod"`              // atttypmod, -1 none
	SQL    string   `json:"sql"`              // as a statement spells it, qualified unless in pg_catalog: `numeric(10,2)`, `public.mood`
	Kind   Kind     `json:"kind"`
	Elem   *Type    `json:"elem,omitempty"`   // of an array
	Base   *Type    `json:"base,omitempty"`   // of a domain
	Labels []string `json:"labels,omitempty"` // of an enum, in order

	NotNull bool    `json:"not_null,omitempty"` // of a domain
	Default string  `json:"default,omitempty"`  // of a domain, an expression
	Checks  []Check `json:"checks,omitempty"`   // of a domain

	Attributes []Attribute `json:"attributes,omitempty"` // of a composite
}

// Column is a column of a table, view or query.
type Column struct {
	Name    string
	Type    *Type
	NotNull bool
}

// form is the binary form of a type: how its values look on the wire.
type form uint8

const (
	formOther form = iota // travels as text, cast by the server
	formBool
	formInt2
	formInt4
	formInt8
	formFloat4
	formFloat8
	formNumeric
	formText // text, varchar, bpchar, name, enums: the text itself
	formChar // "char": one byte
	formBytea
	formDate
	formTime
	formTimestamp
	formTimestampTZ
	formInterval
	formUUID
	formJSON
	formJSONB
	formArray
)

// builtin is a type that every server has under the same OIDs.
type builtin struct {
	name  string
	sql   string
	oid   uint32
	array uint32
	form  form
}

var builtins = []builtin{
	{"bool", "boolean", 16, 1000, formBool},
	{"bytea", "bytea", 17, 1001, formBytea},
	{"char", `"char"`, 18, 1002, formChar},
	{"name", "name", 19, 1003, formText},
	{"int8", "bigint", 20, 1016, formInt8},
	{"int2", "smallint", 21, 1005, formInt2},
	{"int4", "integer", 23, 1007, formInt4},
	{"text", "text", 25, 1009, formText},
	{"json", "json", 114, 199, formJSON},
	{"float4", "real", 700, 1021, formFloat4},
	{"float8", "double precision", 701, 1022, formFloat8},
	{"bpchar", "character", 1042, 1014, formText},
	{"varchar", "character varying", 1043, 1015, formText},
	{"date", "date", 1082, 1182, formDate},
	{"time", "time without time zone", 1083, 1183, formTime},
	{"timestamp", "timestamp without time zone", 1114, 1115, formTimestamp},
	{"timestamptz", "timestamp with time zone", 1184, 1185, formTimestampTZ},
	{"interval", "interval", 1186, 1187, formInterval},
	{"numeric", "numeric", 1700, 1231, formNumeric},
	{"uuid", "uuid", 2950, 2951, formUUID},
	{"jsonb", "jsonb", 3802, 3807, formJSONB},
}

const catalogSchema = "pg_catalog"

func lookup(name string) (builtin, bool) {
	i := slices.IndexFunc(builtins, func(b builtin) bool { return b.name == name })
	if i < 0 {
		return builtin{}, false
	}
	return builtins[i], true
}

// plain returns the server's own type of that name, without a modifier.
func plain(name string) *Type {
	b, ok := lookup(name)
	if !ok {
		panic("codec: no built-in type " + name)
	}
	return &Type{OID: b.oid, Schema: catalogSchema, Name: b.name, Mod: -1, SQL: b.sql, Kind: KindBase}
}

// numericOf returns numeric(precision,scale).
func numericOf(precision, scale int32) *Type {
	t := plain("numeric")
	t.Mod = (precision<<16 | scale&0x7ff) + 4
	t.SQL = fmt.Sprintf("numeric(%d,%d)", precision, scale)
	return t
}

// arrayOf returns the type of arrays of elem.
func arrayOf(elem *Type) *Type {
	t := &Type{Schema: elem.Schema, Name: "_" + elem.Name, Mod: elem.Mod, SQL: elem.SQL + "[]", Kind: KindArray, Elem: elem}
	if b, ok := lookup(elem.Name); ok && elem.Schema == catalogSchema {
		t.OID = b.array
	}
	return t
}

// root returns what a domain stands for, through all its layers.
func (t *Type) root() *Type {
	for t.Kind == KindDomain && t.Base != nil {
		t = t.Base
	}
	return t
}

// form returns the binary form of t's values.
func (t *Type) form() form {
	r := t.root()
	switch r.Kind {
	case KindEnum:
		return formText
	case KindArray:
		if r.Elem == nil {
			return formOther
		}
		if f := r.Elem.form(); f == formOther || f == formArray {
			return formOther
		}
		return formArray
	case KindBase:
		if b, ok := lookup(r.Name); ok && r.Schema == catalogSchema {
			return b.form
		}
	default:
	}
	return formOther
}

// oid returns the OID by which the server knows t; 0 when it is not known here.
func (t *Type) oid() uint32 {
	if t.OID != 0 || t.Schema != catalogSchema {
		return t.OID
	}
	if b, ok := lookup(strings.TrimPrefix(t.Name, "_")); ok {
		if t.Kind == KindArray {
			return b.array
		}
		return b.oid
	}
	return 0
}

// numericMod returns precision and scale of a numeric; ok is false without a
// modifier.
func (t *Type) numericMod() (precision, scale int32, ok bool) {
	r := t.root()
	if r.Mod < 4 {
		return 0, 0, false
	}
	m := r.Mod - 4
	return m >> 16 & 0xffff, (m&0x7ff ^ 1024) - 1024, true // the scale is a signed number of 11 bits
}

// chars returns the declared length of a text in characters, -1 for none.
func (t *Type) chars() int {
	r := t.root()
	if (r.Name == "varchar" || r.Name == "bpchar") && r.Mod >= 4 {
		return int(r.Mod - 4)
	}
	return -1
}

// secondsUnit returns the microseconds of which a time, timestamp or interval is
// a multiple by its modifier: 1 for six digits and without a modifier.
func (t *Type) secondsUnit() int64 {
	r := t.root()
	mod := r.Mod
	if r.form() == formInterval && mod >= 0 {
		mod &= 0xffff
	}
	if mod < 0 || mod >= 6 {
		return 1
	}
	unit := int64(1)
	for range 6 - mod {
		unit *= 10
	}
	return unit
}

// same reports whether a and b are one type to their users. What a user defined is
// known by its name alone: the same enum stands in another schema at the other end.
func same(a, b *Type) bool {
	if a.SQL == b.SQL {
		return true
	}
	if a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case KindEnum, KindDomain, KindComposite:
		return a.Name == b.Name && a.Mod == b.Mod
	case KindBase, KindRange, KindMultirange: // of an extension, wherever that is installed
		return a.Name == b.Name && a.Mod == b.Mod && a.Schema != catalogSchema && b.Schema != catalogSchema
	case KindArray:
		return a.Elem != nil && b.Elem != nil && same(a.Elem, b.Elem)
	default:
		return false
	}
}
