package codec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/conntest"
)

// typeTable has one entry a type: the Arrow type that it is read as, and SQL values at
// its edges. Every one goes to Arrow and back.
var typeTable = []struct {
	sql, arrow string
	values     []string
}{
	{"boolean", "bool", []string{"true", "false"}},
	{"smallint", "int16", []string{"-32768", "32767", "0"}},
	{"integer", "int32", []string{"-2147483648", "2147483647"}},
	{"bigint", "int64", []string{"-9223372036854775808", "9223372036854775807"}},
	{"real", "float32", []string{"'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1.1", "3.4028235e38", "1e-45"}},
	{"double precision", "float64", []string{"'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "0.1", "1.7976931348623157e308", "5e-324"}},
	{"numeric", "utf8", []string{"0", "0.000", "1.5000", "-0.00000000000000000001", "'NaN'", "'Infinity'", "'-Infinity'", "('1' || repeat('0', 131071))::numeric", "('-0.' || repeat('0', 16382) || '7')::numeric", "repeat('123456789', 120)::numeric", "12345678.87654321", "10000", "99990000.00009999"}},
	{"numeric(5,2)", "decimal(5, 2)", []string{"999.99", "-999.99", "0", "0.01", "100"}},
	{"numeric(38,0)", "decimal(38, 0)", []string{"99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "1"}},
	{"numeric(38,38)", "decimal(38, 38)", []string{"0.99999999999999999999999999999999999999", "-0.00000000000000000000000000000000000001"}},
	{"numeric(18,0)", "decimal(18, 0)", []string{"999999999999999999", "-10000"}},
	{"numeric(39,7)", "decimal256(39, 7)", []string{"99999999999999999999999999999999.9999999", "-1"}},
	{"numeric(76,75)", "decimal256(76, 75)", []string{"9." + strings.Repeat("9", 75), "-0." + strings.Repeat("0", 74) + "1"}},
	{"numeric(77,0)", "utf8", []string{strings.Repeat("9", 77)}},
	{"numeric(1000,990)", "utf8", []string{"0." + strings.Repeat("9", 990), "1.10"}},
	{"numeric(3,-2)", "utf8", []string{"99900", "-100", "0"}},
	{"numeric(2,5)", "utf8", []string{"0.00099", "-0.00001"}},
	{"text", "utf8", []string{"''", "'NULL'", `'\N'`, `E'tab\tline\n'`, "'日本語 🚀'", "repeat('x', 100000)"}},
	{"character varying(3)", "utf8", []string{"'abc'", "'é🚀ü'", "''", "'  '"}},
	{"character varying", "utf8", []string{"'abc'"}},
	{"character(5)", "utf8", []string{"'ab'", "'é'", "'     '", "'abcde'"}},
	{"name", "utf8", []string{"'pg_class'", "''", "repeat('n', 63)"}},
	{`"char"`, "utf8", []string{"'a'", "''", "' '"}},
	{"bytea", "binary", []string{`'\x'`, `'\x00ff0a0d'`, "repeat('ab', 50000)::bytea"}},
	{"date", "date32", []string{"'4713-01-01 BC'", "'5874897-12-31'", "'1970-01-01'", "'1999-12-31'", "'0001-12-31 BC'"}},
	{"time", "time64[us]", []string{"'00:00'", "'23:59:59.999999'"}},
	{"time(3)", "time64[us]", []string{"'12:34:56.789'"}},
	{"timestamp", "timestamp[us]", []string{"'4713-01-01 00:00 BC'", "'294246-12-31 23:59:59.999999'", "'1970-01-01'", "'2024-02-29 12:34:56.789012'"}},
	{"timestamp(0)", "timestamp[us]", []string{"'2024-02-29 12:34:56'"}},
	{"timestamptz", "timestamp[us, tz=UTC]", []string{"'4713-01-01 00:00 BC'", "'294246-12-31 23:59:59.999999Z'", "'2024-03-31 02:30:00 Europe/Berlin'"}},
	{"interval", "month_day_nano_interval", []string{"'1 month -3 days 04:05:06.789'", "'0'", "'178000000 years'", "'-2147483648 months'", "'2562047 hours 47 minutes'", "'-0.000001 seconds'"}},
	{"interval(0)", "month_day_nano_interval", []string{"'1 day 3 seconds'"}},
	{"uuid", "extension<arrow.uuid>", []string{"'00112233-4455-6677-8899-aabbccddeeff'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"}},
	{"json", "utf8", []string{`'{"b": 1,  "a":[null], "b":2}'`, "'null'", `'"\u0000"'`, `'"\ud83d"'`, `(repeat('[', 5000) || repeat(']', 5000))::json`}},
	{"jsonb", "utf8", []string{`'{"b": 1.50, "a":[null]}'`, "'null'", `'"\u00e9\ud83d\ude80\\u0000"'`, `'1e400'`}},
	{"public.mood", "utf8", []string{"'sad'", "'so so'", "'😀'"}},
	{"public.age", "int32", []string{"0", "150"}},
	{"public.email", "utf8", []string{"'a@b'"}},
	{"public.moods", "utf8", []string{"'glad'"}},
	{"public.price", "decimal(10, 2)", []string{"1.50"}},
	{"public.pair", "utf8", []string{`ROW(1, 'a "b", c')`, "ROW(NULL, '')"}},
	{"int4range", "utf8", []string{"'[1,5)'", "'empty'", "'(,)'"}},
	{"int4multirange", "utf8", []string{"'{[1,5),[7,9)}'"}},
	{"bit(3)", "utf8", []string{"'101'"}},
	{"bit varying", "utf8", []string{"'10101'", "''"}},
	{"inet", "utf8", []string{"'192.168.0.1/24'", "'::1'"}},
	{"macaddr", "utf8", []string{"'08:00:2b:01:02:03'"}},
	{"money", "utf8", []string{"'1234.56'", "'-92233720368547758.08'"}},
	{"xml", "utf8", []string{"'<a>b &amp; c</a>'"}},
	{"tsvector", "utf8", []string{"'a fat cat'"}},
	{"timetz", "utf8", []string{"'12:34:56+02'", "'24:00:00-15:59'"}},
	{"oid", "utf8", []string{"4294967295"}},
	{"point", "utf8", []string{"'(1.5,-2)'"}},
	{"regclass", "utf8", []string{"'pg_class'"}},
	{"jsonpath", "utf8", []string{"'$.a[*]'"}},
	{"boolean[]", "list<item: bool, nullable>", []string{"'{t,f,NULL}'", "'{}'"}},
	{"integer[]", "list<item: int32, nullable>", []string{"'{1,NULL,-3}'", "'{}'", "'{NULL}'"}},
	{"text[]", "list<item: utf8, nullable>", []string{`'{"a,b","NULL",NULL,""}'`}},
	{"character varying(3)[]", "list<item: utf8, nullable>", []string{"'{abc,é}'"}},
	{"character(3)[]", "list<item: utf8, nullable>", []string{"'{a,abc}'"}},
	{"numeric(5,2)[]", "list<item: decimal(5, 2), nullable>", []string{"'{1.50,NULL}'"}},
	{"numeric[]", "list<item: utf8, nullable>", []string{"'{1.50,NaN,NULL}'"}},
	{"bytea[]", "list<item: binary, nullable>", []string{`ARRAY['\x00'::bytea, NULL]`}},
	{"timestamptz[]", "list<item: timestamp[us, tz=UTC], nullable>", []string{"'{2024-01-01}'"}},
	{"uuid[]", "list<item: extension<arrow.uuid>, nullable>", []string{"'{00112233-4455-6677-8899-aabbccddeeff,NULL}'"}},
	{"jsonb[]", "list<item: utf8, nullable>", []string{`ARRAY['{"a": 1}'::jsonb, NULL]`}},
	{"json[]", "list<item: utf8, nullable>", []string{`ARRAY['{"a":  1}'::json]`}},
	{"interval[]", "list<item: month_day_nano_interval, nullable>", []string{"'{1 day}'"}},
	{"public.mood[]", "list<item: utf8, nullable>", []string{"'{sad,NULL,😀}'"}},
	{"public.age[]", "list<item: int32, nullable>", []string{"'{1,NULL}'"}},
	{"inet[]", "utf8", []string{"'{10.0.0.1,NULL}'", "'{{1.1.1.1},{2.2.2.2}}'"}},
	{"public.pair[]", "utf8", []string{`ARRAY[ROW(1, 'a,"b"')::public.pair]`}},
	{"oid[]", "utf8", []string{"'{1,2}'"}},
}

const typesSchema = `
	CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad', '😀');
	CREATE DOMAIN age AS integer CHECK (VALUE >= 0);
	CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
	CREATE DOMAIN moods AS mood;
	CREATE DOMAIN money_ AS numeric(10,2);
	CREATE DOMAIN price AS money_ CHECK (VALUE > 0);
	CREATE TYPE pair AS (a integer, b text);`

func TestPGTypesGoToArrowAndBack(t *testing.T) {
	db := newDatabase(t, "")
	db.exec(typesSchema)
	for i, c := range typeTable {
		t.Run(c.sql, func(t *testing.T) {
			db := &database{t: t, s: db.s, name: db.name, conn: db.conn}
			from, to := fmt.Sprintf("t%d", i), fmt.Sprintf("u%d", i)
			fill := "CREATE TABLE " + from + " (id integer NOT NULL, v " + c.sql + "); CREATE TABLE " + to + " (LIKE " + from + ");"
			for k, v := range append(c.values, "NULL") {
				fill += fmt.Sprintf("INSERT INTO %s SELECT %d, (%s)::%s;", from, k, v, c.sql)
			}
			db.exec(fill)
			s, types, recs, err := db.read(from)
			defer releaseAll(recs)
			require.NoError(t, err)
			require.Equal(t, c.arrow, s.Field(1).Type.String())
			require.Equal(t, arrow.PrimitiveTypes.Int32, s.Field(0).Type)
			require.False(t, s.Field(0).Nullable)

			kept, err := TypeOf(s.Field(1))
			require.NoError(t, err)
			require.Equal(t, types[1].SQL, kept.SQL)
			require.Equal(t, definition(types[1]), definition(kept))

			require.NoError(t, db.write(to, s, recs))
			require.Equal(t, "0", db.rows(fmt.Sprintf("SELECT count(*) FROM (SELECT a::text FROM %s a EXCEPT ALL SELECT b::text FROM %s b) x", from, to))[0][0])
			require.Equal(t, "0", db.rows(fmt.Sprintf("SELECT count(*) FROM (SELECT b::text FROM %s b EXCEPT ALL SELECT a::text FROM %s a) x", to, from))[0][0])
		})
	}
}

func TestPGValuesWithoutAPlaceAreRefused(t *testing.T) {
	db := newDatabase(t, "")
	for i, c := range []struct{ sql, value, why string }{
		{"date", "'infinity'", "infinity"},
		{"date", "'-infinity'", "minus infinity"},
		{"timestamp", "'infinity'", "infinity"},
		{"timestamptz", "'-infinity'", "minus infinity"},
		{"timestamp", "'294247-01-10 04:00:54.775808'", "out of range"},
		{"timestamptz", "'294276-12-31 23:59:59.999999Z'", "out of range"},
		{"time", "'24:00:00'", "24:00"},
		{"interval", "'2562048 hours'", "out of range"},
		{"numeric(5,2)", "'NaN'", "NaN"},
		{"integer[]", "'{{1,2},{3,4}}'", "more than one dimension"},
		{"integer[]", "'[2:3]={1,2}'", "index 1"},
		{"date[]", "'{2024-01-01,infinity}'", "infinity"},
		{"numeric(5,2)[]", "'{1.5,NaN}'", "NaN"},
	} {
		table := fmt.Sprintf("t%d", i)
		db.exec(fmt.Sprintf("CREATE TABLE %s (v %s); INSERT INTO %s VALUES (NULL), (%s), (NULL)", table, c.sql, table, c.value))
		_, _, recs, err := db.read(table)
		var bad *ValueError
		require.ErrorAs(t, err, &bad, c.sql)
		require.Contains(t, bad.Why, c.why, c.sql)
		require.Equal(t, "v", bad.Column)
		require.EqualValues(t, 2, bad.Row)
		require.Len(t, recs, 1, "the row before the bad one is there")
		require.EqualValues(t, 1, recs[0].NumRows())
		releaseAll(recs)
	}
}

func TestPGInvalidTextIsRefused(t *testing.T) {
	s := newDatabase(t, "").s
	db := newDatabase(t, s.DatabaseLike(t, "template0", "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"))
	db.exec(`CREATE TABLE x (v text); INSERT INTO x VALUES ('fine'), (E'caf\xe9'); CREATE TABLE y (v varchar(9)[]); INSERT INTO y VALUES (ARRAY[E'\xff'])`)
	for _, table := range []string{"x", "y"} {
		_, _, recs, err := db.read(table)
		var bad *ValueError
		require.ErrorAs(t, err, &bad)
		require.Contains(t, bad.Why, "UTF-8")
		releaseAll(recs)
	}
}

// TestPGArrowTypesAreKept writes what other sources make into new columns and reads it
// back.
func TestPGArrowTypesAreKept(t *testing.T) {
	shows := map[string][]string{
		"duration_us": {"0m 0d 90.000s", "0m 0d -0.000001s", conntest.Null},
		"struct":      {`{"a": 1, "b": "x"}`, `{"a": null, "b": "y"}`, conntest.Null},
		"map":         {`{"a": 1}`, conntest.Null},
	}
	db := newDatabase(t, "")
	for _, c := range conntest.TypeCases() {
		f := fieldOf(c.Type)
		to, err := TypeOf(f)
		require.NoError(t, err)
		if strings.HasSuffix(c.Name, "_ns") {
			continue // finer than the server's microseconds
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{f}, nil))
		var want []string
		for _, v := range c.Values {
			require.NoError(t, b.Field(0).AppendValueFromString(v))
		}
		rec := b.NewRecordBatch()
		for i := range c.Values {
			want = append(want, conntest.ValueText(rec.Column(0), i))
		}
		db.exec("CREATE TABLE x_" + c.Name + " (v " + to.SQL + ")")
		require.NoError(t, db.write("x_"+c.Name, rec.Schema(), []arrow.RecordBatch{rec}), c.Name)
		_, _, recs, err := db.read("x_" + c.Name)
		require.NoError(t, err, c.Name)
		var got []string
		for _, r := range recs {
			for i := range int(r.NumRows()) {
				if v, ok := r.Column(0).(*array.MonthDayNanoInterval); ok && v.IsValid(i) {
					x := v.Value(i)
					got = append(got, fmt.Sprintf("%dm %dd %ss", x.Months, x.Days, strings.TrimSuffix(fmt.Sprintf("%.6f", float64(x.Nanoseconds)/1e9), "000")))
					continue
				}
				got = append(got, conntest.ValueText(r.Column(0), i))
			}
		}
		if text, ok := shows[c.Name]; ok {
			want = text
		}
		require.Equal(t, want, got, c.Name)
		releaseAll(recs)
		rec.Release()
		b.Release()
	}
}

// TestPGNumericTextIsTheServers compares what Arrow shows with what the server shows.
func TestPGNumericTextIsTheServers(t *testing.T) {
	r := seeded(t)
	db := newDatabase(t, "")
	var values []string
	for range 1000 {
		values = append(values, "('"+randomNumber(r)+"')")
	}
	db.exec("CREATE TABLE n (v numeric); INSERT INTO n VALUES " + strings.Join(values, ","))
	_, _, recs, err := db.read("n")
	defer releaseAll(recs)
	require.NoError(t, err)
	want := db.rows("SELECT v::text FROM n")
	at := 0
	for _, rec := range recs {
		for i := range int(rec.NumRows()) {
			require.Equal(t, want[at][0], rec.Column(0).(*array.String).Value(i))
			at++
		}
	}
	require.Len(t, want, at)
}
