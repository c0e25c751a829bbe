package codec

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRawFormatIsThatOfTheColumns(t *testing.T) {
	mood := &Type{Schema: "public", Name: "mood", Mod: -1, SQL: "public.mood", Kind: KindEnum, Labels: []string{"a"}}
	moved := &Type{OID: 70_001, Schema: "other", Name: "mood", Mod: -1, SQL: "other.mood", Kind: KindEnum, Labels: []string{"a", "b"}}
	domain := func(base *Type) *Type {
		return &Type{Schema: "public", Name: "d", Mod: -1, SQL: "public.d", Kind: KindDomain, Base: base}
	}
	of := func(cols ...Column) string {
		f, why := RawFormat(cols, false)
		require.Empty(t, why)
		require.Regexp(t, `^pgcopy-binary/[0-9a-f]{32}$`, f)
		return f
	}
	one := func(x *Type) string { return of(Column{Name: "c", Type: x}) }
	same := [][2]*Type{
		{plain("int4"), {Schema: "pg_catalog", Name: "int4", Mod: -1, SQL: "integer", Kind: KindBase}},
		{mood, moved},
		{domain(plain("text")), domain(plain("text"))},
		{arrayOf(plain("int8")), arrayOf(plain("int8"))},
	}
	for _, p := range same {
		require.Equal(t, one(p[0]), one(p[1]), "%s and %s", p[0].SQL, p[1].SQL)
		require.Empty(t, RawDiffers(p[0], p[1]))
	}
	other := []*Type{
		plain("int4"), plain("int8"), plain("timestamp"), plain("timestamptz"), plain("float8"), plain("text"), plain("varchar"), plain("bytea"), plain("json"), plain("jsonb"),
		withMod("varchar", 14, "character varying(10)"), withMod("bpchar", 14, "character(10)"), plain("numeric"), numericOf(10, 2), numericOf(10, 3),
		withMod("timestamp", 3, "timestamp(3) without time zone"), mood, domain(plain("text")), domain(plain("varchar")), arrayOf(plain("int4")), arrayOf(plain("int8")),
		{Schema: "public", Name: "mood", Mod: -1, SQL: "public.mood", Kind: KindDomain, Base: plain("text")},
	}
	for i, a := range other {
		for _, b := range other[:i] {
			require.NotEqual(t, one(a), one(b), "%s and %s", a.SQL, b.SQL)
			require.Contains(t, RawDiffers(a, b), "is "+b.SQL+" in the table")
		}
	}
	a, b := Column{Name: "a", Type: plain("int4")}, Column{Name: "b", Type: plain("int4")}
	require.NotEqual(t, of(a, b), of(b, a), "the order counts")
	require.NotEqual(t, of(a), of(b), "the name counts")
	require.NotEqual(t, of(a), of(a, b))
	require.Equal(t, of(a), of(Column{Name: "a", Type: plain("int4"), NotNull: true}), "the server checks")
}

func TestWhatTravelsAsTextHasNoRawFormat(t *testing.T) {
	mood := &Type{Schema: "public", Name: "mood", Mod: -1, SQL: "public.mood", Kind: KindEnum}
	for why, types := range map[string][]*Type{
		"travels as text": {
			{Schema: "pg_catalog", Name: "inet", Mod: -1, SQL: "inet", Kind: KindBase},
			{Schema: "public", Name: "citext", Mod: -1, SQL: "public.citext", Kind: KindBase},
			{Schema: "public", Name: "pair", Mod: -1, SQL: "public.pair", Kind: KindComposite},
			{Schema: "pg_catalog", Name: "int4range", Mod: -1, SQL: "int4range", Kind: KindRange},
			{Schema: "pg_catalog", Name: "_inet", Mod: -1, SQL: "inet[]", Kind: KindArray, Elem: &Type{Schema: "pg_catalog", Name: "inet", Mod: -1, SQL: "inet", Kind: KindBase}},
		},
		"numbers in its own way": {arrayOf(mood), {Schema: "public", Name: "d", Mod: -1, SQL: "public.d", Kind: KindDomain, Base: arrayOf(mood)}},
	} {
		for _, x := range types {
			format, says := RawFormat([]Column{{Name: "id", Type: plain("int8")}, {Name: "c", Type: x}}, false)
			require.Empty(t, format)
			require.Contains(t, says, "column c of type "+x.SQL)
			require.Contains(t, says, why)
			require.Contains(t, RawDiffers(x, x), why)
		}
	}
	require.True(t, arrayOf(numericOf(9, 2)).HasNumeric())
	require.False(t, arrayOf(plain("int4")).HasNumeric())
}

// What a newer server may send in an interval is another form, in nothing else.
func TestAnEndlessIntervalHasItsOwnRawFormat(t *testing.T) {
	day := &Type{Schema: "public", Name: "d", Mod: -1, SQL: "public.d", Kind: KindDomain, Base: arrayOf(plain("interval"))}
	for _, x := range []*Type{plain("interval"), arrayOf(plain("interval")), day, plain("timestamptz"), arrayOf(plain("numeric"))} {
		cols := []Column{{Name: "c", Type: x}}
		before, _ := RawFormat(cols, false)
		since, why := RawFormat(cols, true)
		require.Empty(t, why)
		require.Equal(t, x.HasInterval(), before != since, x.SQL)
	}
}
