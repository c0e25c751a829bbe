package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
)

// recordOf makes a batch of one field out of texts, as the builder of its type reads
// them.
func recordOf(t testing.TB, f arrow.Field, values ...string) arrow.RecordBatch {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{f}, nil))
	defer b.Release()
	for _, v := range values {
		if x, ok := b.Field(0).(*array.BinaryBuilder); ok { // its texts are base64
			x.Append([]byte(v))
			continue
		}
		require.NoError(t, b.Field(0).AppendValueFromString(v))
	}
	return b.NewRecordBatch()
}

func fieldOf(dt arrow.DataType, meta ...string) arrow.Field {
	f := arrow.Field{Name: "v", Type: dt, Nullable: true}
	if len(meta) == 2 {
		f.Metadata = arrow.NewMetadata(meta[:1], meta[1:])
	}
	return f
}

// readAs returns the field of a column of type t.
func readAs(t *Type, wantText bool) arrow.Field {
	f, _ := Field(Column{Name: "v", Type: t}, wantText)
	return f
}

var (
	inet     = &Type{OID: 869, Schema: "pg_catalog", Name: "inet", Mod: -1, SQL: "inet", Kind: KindBase}
	otherInt = &Type{OID: 70020, Schema: "other", Name: "mood", Mod: -1, SQL: "other.mood", Kind: KindEnum}
	email    = &Type{OID: 70021, Schema: "public", Name: "email", Mod: -1, SQL: "public.email", Kind: KindDomain, Base: plain("text")}
	pair     = &Type{OID: 70022, Schema: "public", Name: "pair", Mod: -1, SQL: "public.pair", Kind: KindComposite}
)

// TestConversionsAreExactOrRefused: each value of a column reads back as want from a
// column of the target's type, or is refused for the reason that begins with "!".
func TestConversionsAreExactOrRefused(t *testing.T) {
	uuidText := "00112233-4455-6677-8899-aabbccddeeff"
	for _, c := range []struct {
		from   arrow.Field
		to     *Type
		values string // separated by ";"
		want   string
	}{
		{fieldOf(arrow.PrimitiveTypes.Int64), plain("int2"), "-32768;32767;32768;-32769", "-32768;32767;!range;!range"},
		{fieldOf(arrow.PrimitiveTypes.Int64), plain("int4"), "2147483647;2147483648", "2147483647;!range"},
		{fieldOf(arrow.PrimitiveTypes.Uint64), plain("int8"), "9223372036854775807;9223372036854775808", "9223372036854775807;!range"},
		{fieldOf(arrow.PrimitiveTypes.Uint64), numericOf(20, 0), "18446744073709551615;0", "18446744073709551615;0"},
		{fieldOf(arrow.PrimitiveTypes.Int64), numericOf(5, 2), "999;-999;1000", "999;-999;!more digits than"},
		{fieldOf(arrow.PrimitiveTypes.Int64), plain("numeric"), "-9223372036854775808;10000;0", "-9223372036854775808;10000;0"},
		{fieldOf(arrow.PrimitiveTypes.Int64), plain("float8"), "9007199254740992;9007199254740993;-9223372036854775808;9223372036854775807", "9.007199254740992e+15;!more digits;-9.223372036854776e+18;!more digits"},
		{fieldOf(arrow.PrimitiveTypes.Uint64), plain("float8"), "9223372036854775808;18446744073709551615", "9.223372036854776e+18;!more digits"},
		{fieldOf(arrow.PrimitiveTypes.Int32), plain("float4"), "16777216;16777217", "1.6777216e+07;!more digits"},
		{fieldOf(arrow.PrimitiveTypes.Int8), plain("int8"), "-128;127", "-128;127"},
		{fieldOf(arrow.PrimitiveTypes.Uint8), plain("int2"), "255", "255"},
		{fieldOf(arrow.FixedWidthTypes.Float16), plain("float4"), "1.5;NaN", "1.5;NaN"},
		{fieldOf(arrow.PrimitiveTypes.Float32), plain("float8"), "0.5;NaN", "0.5;NaN"},
		{fieldOf(arrow.BinaryTypes.String), withMod("varchar", 6, "character varying(2)"), "é🚀;abc;a  ", "é🚀;!longer;!longer"},
		{fieldOf(arrow.BinaryTypes.LargeString), withMod("bpchar", 6, "character(2)"), "ab;abc", "ab;!longer"},
		{fieldOf(arrow.BinaryTypes.StringView), plain("text"), "x;a text that is longer than twelve bytes", "x;a text that is longer than twelve bytes"},
		{fieldOf(arrow.BinaryTypes.String), plain("name"), strings.Repeat("n", 63) + ";" + strings.Repeat("n", 64), strings.Repeat("n", 63) + ";!longer"},
		{fieldOf(arrow.BinaryTypes.String), plain("char"), "a;ab;é", "a;!longer;!longer"},
		{fieldOf(arrow.BinaryTypes.String), plain("text"), "a\x00b;" + "12345678\x00;\xff;\xed\xa0\x80;plain", "!NUL;!NUL;!UTF-8;!UTF-8;plain"},
		{fieldOf(&arrow.Decimal128Type{Precision: 10, Scale: 3}), numericOf(5, 2), "999.990;0.001;1000.000;-1.500", "999.99;!more digits behind;!more digits than;-1.5"},
		{fieldOf(&arrow.Decimal32Type{Precision: 9, Scale: 2}), numericOf(38, 9), "-1234567.89", "-1234567.89"},
		{fieldOf(&arrow.Decimal64Type{Precision: 18, Scale: 18}), numericOf(38, 18), "0.999999999999999999", "0.999999999999999999"},
		{fieldOf(&arrow.Decimal256Type{Precision: 76, Scale: 38}), plain("numeric"), "-0.00000000000000000000000000000000000001;12345678901234567890123456789012345678", "-0.00000000000000000000000000000000000001;12345678901234567890123456789012345678.00000000000000000000000000000000000000"},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Nanosecond}), plain("timestamp"), "2024-01-01T00:00:00.000001000;2024-01-01T00:00:00.000001001", "2024-01-01T00:00:00.000001;!smaller parts"},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Second}), plain("timestamp"), "0001-01-01T00:00:00", "0001-01-01T00:00:00"},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}), plain("timestamptz"), "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Microsecond}), withMod("timestamp", 3, "timestamp(3)"), "2024-01-01T00:00:00.001;2024-01-01T00:00:00.0011", "2024-01-01T00:00:00.001;!smaller parts"},
		{fieldOf(arrow.FixedWidthTypes.Time64ns), plain("time"), "00:00:00.000001;00:00:00.000000001", "00:00:00.000001;!smaller parts"},
		{fieldOf(arrow.FixedWidthTypes.Time32s), plain("time"), "23:59:59", "23:59:59.000000"},
		{fieldOf(arrow.FixedWidthTypes.Date64), plain("date"), "1969-12-31", "1969-12-31"},
		{fieldOf(extensions.NewUUIDType()), plain("uuid"), uuidText, uuidText},
		{fieldOf(arrow.BinaryTypes.String, metaText, metaTextUUID), plain("uuid"), strings.ToUpper(uuidText) + ";nonsense;" + strings.Repeat("x", 36), uuidText + ";!UUID;!UUID"},
		{fieldOf(arrow.BinaryTypes.String, metaText, metaTextJSON), plain("json"), `{"a":  1};"\u0000"`, `{"a":  1};"\u0000"`},
		{fieldOf(arrow.BinaryTypes.String, metaText, metaTextJSON), plain("jsonb"), `{"a":1};"\u0000";"\\u0000";"\ud800";"\ud83d\ude80";"\udc00";"\ud800x"`, `{"a":1};!\u0000;"\\u0000";!surrogate;"\ud83d\ude80";!surrogate;!surrogate`},
		{readAs(plain("numeric"), false), numericOf(4, 1), "1.50;100.0;1000.0;1.55;Infinity;NaN", "1.5;100;!more digits than;!more digits behind;!range;!NaN"},
		{readAs(plain("numeric"), false), plain("numeric"), "007.10;-0.0;1e5;.5;5.;;+1;--1;-Infinity", "7.10;0.0;!number;!number;!number;!number;!number;!number;-Infinity"},
		{readAs(mood, false), otherInt, "sad", "sad"},
		{readAs(mood, false), plain("text"), "sad", "sad"},
		{readAs(email, false), email, "a@b", "a@b"},
		{fieldOf(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}), withMod("varchar", 7, "character varying(3)"), "red;green;red", "red;!longer;red"},
	} {
		name := from(c.from) + " to " + c.to.SQL
		f := c.from
		values, want := strings.Split(c.values, ";"), strings.Split(c.want, ";")
		rec := recordOf(t, f, values...)
		e, err := NewEncoder(rec.Schema(), []Target{{Field: 0, Type: c.to}})
		require.NoError(t, err, name)
		require.Equal(t, []bool{false}, e.Casts())
		for i := range values {
			out, next, err := e.Encode(nil, rec, int64(i), int64(i+1), 1<<20)
			if why, refused := strings.CutPrefix(want[i], "!"); refused && want[i] != "!NaN" {
				var bad *ValueError
				require.ErrorAs(t, err, &bad, "%s: %q", name, values[i])
				require.Contains(t, bad.Error(), why, "%s: %q", name, values[i])
				require.EqualValues(t, i+1, bad.Row)
				require.EqualValues(t, i, next)
				require.Empty(t, out)
				continue
			}
			require.NoError(t, err, "%s: %q", name, values[i])
			require.EqualValues(t, i+1, next)
			d := newDecoder(t, []Column{{Name: "v", Type: c.to}}, checked(t), connectors.Limits{})
			recs, err := decodeAll(d, [][]byte{AppendHeader(nil), out, AppendTrailer(nil)})
			if want[i] == "!NaN" {
				require.ErrorContains(t, err, "NaN", name)
				continue
			}
			require.NoError(t, err, name)
			require.Equal(t, want[i], recs[0].Column(0).ValueStr(0), "%s: %q", name, values[i])
			releaseAll(recs)
		}
		rec.Release()
	}
}

func TestPairsWithoutAnExactConversionAreRefused(t *testing.T) {
	list := arrow.ListOf(arrow.PrimitiveTypes.Int64)
	for _, c := range []struct {
		from arrow.Field
		to   *Type
	}{
		{fieldOf(arrow.BinaryTypes.String), plain("int4")},
		{fieldOf(arrow.BinaryTypes.String), plain("numeric")},
		{fieldOf(arrow.BinaryTypes.String), plain("json")},
		{fieldOf(arrow.BinaryTypes.String), plain("uuid")},
		{fieldOf(arrow.BinaryTypes.String), mood},
		{fieldOf(arrow.BinaryTypes.String), email},
		{fieldOf(arrow.BinaryTypes.String), inet},
		{readAs(inet, false), pair},
		{fieldOf(arrow.PrimitiveTypes.Float64), plain("float4")},
		{fieldOf(arrow.PrimitiveTypes.Float64), plain("numeric")},
		{fieldOf(arrow.PrimitiveTypes.Int64), plain("bool")},
		{fieldOf(arrow.PrimitiveTypes.Int64), plain("text")},
		{fieldOf(arrow.FixedWidthTypes.Timestamp_us), plain("timestamp")},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Microsecond}), plain("timestamptz")},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Microsecond}), plain("date")},
		{fieldOf(arrow.FixedWidthTypes.Date32), plain("timestamp")},
		{fieldOf(arrow.FixedWidthTypes.Time64us), plain("interval")},
		{fieldOf(arrow.FixedWidthTypes.MonthDayNanoInterval), withMod("interval", 4<<16|0xffff, "interval year")},
		{fieldOf(&arrow.FixedSizeBinaryType{ByteWidth: 4}), plain("uuid")},
		{fieldOf(extensions.NewUUIDType()), plain("text")},
		{fieldOf(list), plain("jsonb")},
		{fieldOf(list), arrayOf(plain("text"))},
		{fieldOf(arrow.ListOf(list)), arrayOf(plain("int8"))},
		{fieldOf(arrow.MapOf(arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int64)), plain("jsonb")},
		{fieldOf(arrow.StructOf(arrow.Field{Name: "a", Type: arrow.BinaryTypes.Binary})), plain("jsonb")},
		{fieldOf(arrow.RunEndEncodedOf(arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64)), plain("int8")},
	} {
		_, err := NewEncoder(arrow.NewSchema([]arrow.Field{c.from}, nil), []Target{{Type: c.to}})
		var fit *FitError
		require.ErrorAs(t, err, &fit, "%s to %s", from(c.from), c.to.SQL)
		require.Equal(t, "v", fit.Column)
		require.Contains(t, fit.Error(), c.to.SQL)
	}
}

func TestCastsAreSentAsText(t *testing.T) {
	for _, c := range []struct {
		from arrow.Field
		to   *Type
	}{
		{readAs(inet, false), inet},
		{readAs(arrayOf(inet), false), arrayOf(inet)},
		{readAs(pair, false), pair},
		{readAs(plain("int4"), true), plain("int4")},
		{readAs(arrayOf(plain("int4")), true), arrayOf(plain("int4"))},
		{readAs(plain("timestamptz"), true), plain("timestamptz")},
	} {
		e, err := NewEncoder(arrow.NewSchema([]arrow.Field{c.from}, nil), []Target{{Type: c.to}})
		require.NoError(t, err)
		require.Equal(t, []bool{true}, e.Casts(), c.to.SQL)
		require.Equal(t, "text", e.Wire()[0].SQL)
	}
}

func TestConstantsAndParameters(t *testing.T) {
	rec := recordOf(t, fieldOf(arrow.PrimitiveTypes.Int32), "7", "(null)")
	defer rec.Release()
	e, err := NewEncoder(rec.Schema(), []Target{{Field: -1, Type: plain("text"), Constant: []byte("\x00\x00\x00\x03run")}, {Field: 0, Type: plain("int4")}})
	require.NoError(t, err)
	out, next, err := e.Encode([]byte("head"), rec, 0, 2, 1<<20)
	require.NoError(t, err)
	require.EqualValues(t, 2, next)
	require.Equal(t, "head\x00\x02\x00\x00\x00\x03run\x00\x00\x00\x04\x00\x00\x00\x07\x00\x02\x00\x00\x00\x03run\xff\xff\xff\xff", string(out))
	e.OmitFieldCount()
	out, _, err = e.Encode(nil, rec, 0, 1, 1<<20)
	require.NoError(t, err)
	require.Equal(t, "\x00\x00\x00\x03run\x00\x00\x00\x04\x00\x00\x00\x07", string(out))
}

func TestEncodeStopsAtSoft(t *testing.T) {
	rec := recordOf(t, fieldOf(arrow.PrimitiveTypes.Int32), "1", "2", "3", "4", "5")
	defer rec.Release()
	e, err := NewEncoder(rec.Schema(), []Target{{Type: plain("int4")}})
	require.NoError(t, err)
	var steps []int64
	for next := int64(0); next < 5; {
		var out []byte
		out, next, err = e.Encode(nil, rec, next, 5, 15)
		require.NoError(t, err)
		require.LessOrEqual(t, len(out), 20)
		steps = append(steps, next)
	}
	require.Equal(t, []int64{2, 4, 5}, steps)

	other := recordOf(t, fieldOf(arrow.BinaryTypes.String), "x")
	defer other.Release()
	_, _, err = e.Encode(nil, other, 0, 1, 1)
	require.ErrorIs(t, err, errBatch)
}

// TestSlicesAreEncodedAsSlices: a batch may begin anywhere in its buffers.
func TestSlicesAreEncodedAsSlices(t *testing.T) {
	r := seeded(t)
	types := everyType()
	s, _, _ := fieldsOf(columnsOf(types...))
	rec := randomRecord(r, s, types, 40)
	defer rec.Release()
	e, err := NewEncoder(s, sameTargets(types))
	require.NoError(t, err)
	whole, _, err := e.Encode(nil, rec, 0, 40, 1<<30)
	require.NoError(t, err)
	var parts []byte
	for i := int64(0); i < 40; i += 5 {
		slice := rec.NewSlice(i, i+5)
		parts, _, err = e.Encode(parts, slice, 0, 5, 1<<30)
		require.NoError(t, err)
		slice.Release()
	}
	require.True(t, bytes.Equal(whole, parts))
}

func TestNestedValuesAreJSON(t *testing.T) {
	dt := arrow.StructOf(
		arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, arrow.Field{Name: `q"`, Type: arrow.BinaryTypes.String, Nullable: true},
		arrow.Field{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Float64), Nullable: true}, arrow.Field{Name: "d", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
		arrow.Field{Name: "t", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true}, arrow.Field{Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.FixedWidthTypes.Boolean), Nullable: true})
	rec := recordOf(t, fieldOf(dt), `{"n":9007199254740991,"q\"":"a\"\n\u0001é","l":[1.5,null],"d":"2024-02-29","t":"2024-02-29T01:02:03.000004Z","m":[{"key":"k","value":true}]}`, `{"n":null,"q\"":null,"l":[],"d":null,"t":null,"m":[]}`,
		`{"l":["NaN"]}`, `{"m":[{"key":"k","value":true},{"key":"k","value":false}]}`)
	defer rec.Release()
	to, err := TypeOf(fieldOf(dt))
	require.NoError(t, err)
	e, err := NewEncoder(rec.Schema(), []Target{{Type: to}})
	require.NoError(t, err)
	for i, want := range []string{
		`{"n":9007199254740991,"q\"":"a\"\u000a\u0001é","l":[1.5,null],"d":"2024-02-29","t":"2024-02-29T01:02:03.000004Z","m":{"k":true}}`,
		`{"n":null,"q\"":null,"l":[],"d":null,"t":null,"m":{}}`,
	} {
		out, _, err := e.Encode(nil, rec, int64(i), int64(i+1), 1<<20)
		require.NoError(t, err)
		require.Equal(t, byte(1), out[6])
		require.Equal(t, want, string(out[7:]))
		require.EqualValues(t, len(out)-6, binary.BigEndian.Uint32(out[2:]))
	}
	for i := 2; i < 4; i++ {
		_, _, err := e.Encode(nil, rec, int64(i), int64(i+1), 1<<20)
		require.ErrorAs(t, err, new(*ValueError))
	}
}

func TestTypesOfArrowTypes(t *testing.T) {
	for _, c := range []struct {
		f    arrow.Field
		want string
	}{
		{fieldOf(arrow.Null), "text"},
		{fieldOf(arrow.FixedWidthTypes.Boolean), "boolean"},
		{fieldOf(arrow.PrimitiveTypes.Int8), "smallint"},
		{fieldOf(arrow.PrimitiveTypes.Uint8), "smallint"},
		{fieldOf(arrow.PrimitiveTypes.Uint16), "integer"},
		{fieldOf(arrow.PrimitiveTypes.Uint32), "bigint"},
		{fieldOf(arrow.PrimitiveTypes.Uint64), "numeric(20,0)"},
		{fieldOf(arrow.FixedWidthTypes.Float16), "real"},
		{fieldOf(arrow.PrimitiveTypes.Float64), "double precision"},
		{fieldOf(&arrow.FixedSizeBinaryType{ByteWidth: 16}), "bytea"},
		{fieldOf(arrow.BinaryTypes.LargeBinary), "bytea"},
		{fieldOf(&arrow.Decimal256Type{Precision: 76, Scale: 20}), "numeric(76,20)"},
		{fieldOf(&arrow.Decimal128Type{Precision: 5, Scale: -2}), "numeric(7,0)"},
		{fieldOf(&arrow.Decimal128Type{Precision: 2, Scale: 5}), "numeric(5,5)"},
		{fieldOf(&arrow.Decimal128Type{Precision: 5, Scale: -1000}), "numeric"},
		{fieldOf(arrow.FixedWidthTypes.Time32ms), "time without time zone"},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Nanosecond}), "timestamp without time zone"},
		{fieldOf(&arrow.TimestampType{Unit: arrow.Second, TimeZone: "Europe/Berlin"}), "timestamp with time zone"},
		{fieldOf(arrow.FixedWidthTypes.Duration_us), "interval"},
		{fieldOf(extensions.NewUUIDType()), "uuid"},
		{fieldOf(arrow.BinaryTypes.String, metaText, metaTextUUID), "uuid"},
		{fieldOf(arrow.BinaryTypes.LargeString, metaText, metaTextJSON), "json"},
		{fieldOf(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.PrimitiveTypes.Int64}), "bigint"},
		{fieldOf(arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)), "real[]"},
		{fieldOf(arrow.LargeListOf(extensions.NewUUIDType())), "uuid[]"},
		{fieldOf(arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int8})), "jsonb"},
		{fieldOf(arrow.ListOf(arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int8}))), "jsonb[]"},
		{fieldOf(arrow.PrimitiveTypes.Int64, MetaDef, definition(plain("int4"))), "bigint"}, // widened by a transform
		{fieldOf(arrow.BinaryTypes.String, MetaDef, "{not json"), "text"},
		{fieldOf(arrow.BinaryTypes.String, MetaDef, `{"name":"x","sql":"x","kind":"A"}`), "text"},
	} {
		got, err := TypeOf(c.f)
		require.NoError(t, err, c.f.Type)
		require.Equal(t, c.want, got.SQL, c.f.Type)
	}
	for _, dt := range []arrow.DataType{
		arrow.ListOf(arrow.ListOf(arrow.PrimitiveTypes.Int8)), arrow.MapOf(arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int8),
		arrow.RunEndEncodedOf(arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64), extensions.NewBool8Type(), arrow.ListViewOf(arrow.PrimitiveTypes.Int8),
	} {
		_, err := TypeOf(fieldOf(dt))
		var fit *FitError
		require.ErrorAs(t, err, &fit, dt)
		require.Empty(t, fit.To)
	}
}

// TestNewColumnsTakeEveryTypeCase: what TypeOf says has an encoder.
func TestNewColumnsTakeEveryTypeCase(t *testing.T) {
	for _, c := range conntest.TypeCases() {
		f := fieldOf(c.Type)
		to, err := TypeOf(f)
		require.NoError(t, err, c.Name)
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{f}, nil))
		for _, v := range c.Values {
			require.NoError(t, b.Field(0).AppendValueFromString(v))
		}
		rec := b.NewRecordBatch()
		e, err := NewEncoder(rec.Schema(), []Target{{Type: to}})
		require.NoError(t, err, c.Name)
		_, _, err = e.Encode(nil, rec, 0, rec.NumRows(), 1<<20)
		var bad *ValueError
		if strings.HasSuffix(c.Name, "_ns") {
			require.ErrorAs(t, err, &bad, c.Name)
			require.True(t, bad.Finer, c.Name)
		} else {
			require.NoError(t, err, c.Name)
		}
		rec.Release()
		b.Release()
	}
}

func TestServerLimitsAreKept(t *testing.T) {
	for _, c := range []struct {
		dt arrow.DataType
		v  int64
		ok bool
	}{
		{&arrow.TimestampType{Unit: arrow.Microsecond}, stampMin, true},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, stampMin - 1, false},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, math.MaxInt64, true},
		{&arrow.TimestampType{Unit: arrow.Second}, math.MaxInt64 / 1000, false},
		{&arrow.TimestampType{Unit: arrow.Millisecond}, math.MinInt64 / 10000, false},
		{arrow.FixedWidthTypes.Date32, dateMin + epochDays, true},
		{arrow.FixedWidthTypes.Date32, dateMin + epochDays - 1, false},
		{arrow.FixedWidthTypes.Date32, dateEnd + epochDays - 1, true},
		{arrow.FixedWidthTypes.Date32, dateEnd + epochDays, false},
		{arrow.FixedWidthTypes.Date64, 1, false},
		{arrow.FixedWidthTypes.Time64us, dayMicros - 1, true},
		{arrow.FixedWidthTypes.Time64us, dayMicros, false},
		{arrow.FixedWidthTypes.Time64us, -1, false},
		{arrow.FixedWidthTypes.Duration_s, math.MaxInt64 / 1000, false},
		{arrow.FixedWidthTypes.Duration_ns, 1001, false},
	} {
		var raw []byte
		if c.dt.ID() == arrow.DATE32 {
			raw = binary.LittleEndian.AppendUint32(nil, uint32(int32(c.v)))
		} else {
			raw = binary.LittleEndian.AppendUint64(nil, uint64(c.v))
		}
		data := array.NewData(c.dt, 1, []*memory.Buffer{nil, memory.NewBufferBytes(raw)}, nil, 0, 0)
		a := array.MakeFromData(data)
		s := arrow.NewSchema([]arrow.Field{fieldOf(c.dt)}, nil)
		rec := array.NewRecordBatch(s, []arrow.Array{a}, 1)
		to, err := TypeOf(s.Field(0))
		require.NoError(t, err)
		e, err := NewEncoder(s, []Target{{Type: to}})
		require.NoError(t, err)
		_, _, err = e.Encode(nil, rec, 0, 1, 1<<20)
		if c.ok {
			require.NoError(t, err, "%s %d", c.dt, c.v)
		} else {
			require.ErrorAs(t, err, new(*ValueError), "%s %d", c.dt, c.v)
		}
	}
}
