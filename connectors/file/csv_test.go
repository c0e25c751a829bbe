package file

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/messages"
)

func TestCSVSpectrumReadsExactly(t *testing.T) {
	names, err := filepath.Glob("testdata/csv-spectrum/csv/*.csv")
	require.NoError(t, err)
	require.Len(t, names, 11)
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".csv")
		content, err := os.ReadFile("testdata/csv-spectrum/json/" + base + ".json")
		require.NoError(t, err)
		var want []map[string]string
		require.NoError(t, json.Unmarshal(content, &want))
		got, err := readAll(t, SourceConfig{Path: name})
		require.NoError(t, err, base)
		var texts []string
		for _, row := range want {
			require.ElementsMatch(t, slices.Collect(maps.Keys(row)), fieldNames(got))
			var values []string
			for _, f := range fieldNames(got) {
				values = append(values, conntest.Text(row[f]))
			}
			texts = append(texts, conntest.Join(values...))
		}
		require.Equal(t, texts, got.texts, base)
	}
}

func fieldNames(r rows) []string {
	var out []string
	for _, f := range r.schema.Fields() {
		out = append(out, f.Name)
	}
	return out
}

func TestPublicCSVFilesKeepTheirFacts(t *testing.T) {
	got, err := readAll(t, SourceConfig{Path: "testdata/places/airports.csv"})
	require.NoError(t, err)
	require.Len(t, got.texts, 3376)
	require.Equal(t, "iata:utf8 name:utf8 city:utf8 state:utf8 country:utf8 latitude:float64 longitude:float64", got.columns())
	require.True(t, strings.HasPrefix(got.texts[0], "00M|Thigpen|Bay Springs|MS|USA|31.95376472|"), got.texts[0])

	got, err = readAll(t, SourceConfig{Path: "testdata/places/zipcodes.csv.gz"})
	require.NoError(t, err)
	require.Len(t, got.texts, 42049)
	zeros := 0
	for _, row := range got.texts {
		if row[0] == '0' {
			zeros++
		}
	}
	require.Equal(t, 3256, zeros)

	got, err = readAll(t, SourceConfig{Path: "testdata/places/unemployment.tsv"})
	require.NoError(t, err)
	require.Len(t, got.texts, 3218)
	require.Equal(t, "id:int64 rate:float64", got.columns())
	require.Equal(t, "1001|0.097", got.texts[0])

	got, err = readAll(t, SourceConfig{Path: "testdata/weather/seattle-weather.csv"})
	require.NoError(t, err)
	require.Len(t, got.texts, 1461)
	require.Equal(t, "date:date32 precipitation:float64 temp_max:float64 temp_min:float64 wind:float64 weather:utf8", got.columns())

	got, err = readAll(t, SourceConfig{Path: "testdata/weather/seattle-weather-hourly-normals.csv.gz"})
	require.NoError(t, err)
	require.Len(t, got.texts, 8759)
	require.True(t, strings.HasPrefix(got.columns(), "date:timestamp[us] "), got.columns())
}

func TestCSVTypesAreInferredWithoutLosingAnything(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"1 -5 9223372036854775807 -9223372036854775808", "int64"},
		{"1 9223372036854775808", "utf8"},
		{"007 8", "utf8"},
		{"0 -1 12", "int64"},
		{"+1", "utf8"},
		{"-0", "float64"},
		{"1 2.5 .5 -1e-3 3.", "float64"},
		{"9007199254740993 0.5", "utf8"},
		{"9007199254740992 0.5", "float64"},
		{"0.12345678901234567 1", "float64"},
		{"0.123456789012345678 1", "utf8"},
		{"1e400", "utf8"},
		{"1e-400", "utf8"},
		{"0x10", "utf8"},
		{"NaN", "utf8"},
		{"Infinity 1.5", "utf8"},
		{"00.5", "utf8"},
		{"1_000", "utf8"},
		{"true false", "bool"},
		{"true TRUE", "utf8"},
		{"true 1", "utf8"},
		{"2024-02-29 1999-12-31", "date32"},
		{"2023-02-29", "utf8"},
		{"2024-13-01", "utf8"},
		{"2024-1-1", "utf8"},
		{"2024-02-29T12:34:56 2024-02-29T12:34:56.123456", "timestamp[us]"},
		{"2024-02-29T12:34", "timestamp[us]"},
		{"2024-02-29T12:34:56.1234567", "utf8"},
		{"2024-02-29T24:00:00", "utf8"},
		{"2024-02-29T12:34:56Z 2024-02-29T12:34:56.5+02:00", "timestamp[us, tz=UTC]"},
		{"2024-02-29T12:34:56Z 2024-02-29T12:34:56", "utf8"},
		{"2024-02-29 2024-02-29T12:34:56", "utf8"},
		{"2001/01/01", "utf8"},
		{"00M 1B1 35A", "utf8"},
		{"- .", "utf8"},
	} {
		content := "a,b\n"
		for v := range strings.FieldsSeq(c.values) {
			content += v + ",x\n" + ",y\n" // an empty field says nothing about the type
		}
		got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.csv", content)})
		require.NoError(t, err, c.values)
		require.Equal(t, "a:"+c.want+" b:utf8", got.columns(), c.values)
		empty := `\N|y`
		if c.want == "utf8" {
			empty = "|y"
		}
		require.Equal(t, empty, got.texts[1], c.values)
		if c.want == "utf8" || c.want == "int64" {
			require.Equal(t, strings.Fields(c.values)[0]+"|x", got.texts[0])
		}
	}
}

func TestZonedTimestampsAreInstants(t *testing.T) {
	got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.csv", "t\n2024-02-29T00:30:00+02:00\n0001-01-01 00:00:00Z\n9999-12-31T23:59:59.999999-0330\n1969-12-31T23:59:59.000001+00\n")})
	require.NoError(t, err)
	require.Equal(t, []string{"2024-02-28T22:30:00Z", "0001-01-01T00:00:00Z", "10000-01-01T03:29:59.999999Z", "1969-12-31T23:59:59.000001Z"}, got.texts)
}

func TestDeclaredColumns(t *testing.T) {
	path := put(t, t.TempDir(), "x.csv", "zip,n,price,f,when,ok,data,small\n00501,007,12.50,1,2024-02-29,T,aGk=,5\n1,,-0.05,NaN,2024-02-29T01:02:03Z,0,,-5\n")
	got, err := readAll(t, SourceConfig{Path: path, Columns: map[string]string{
		"zip": "text", "n": "int64", "price": "decimal(10,2)", "f": "float32", "when": "timestamptz", "ok": "bool", "data": "binary", "small": "int16",
	}})
	require.NoError(t, err)
	require.Equal(t, "zip:utf8 n:int64 price:decimal(10, 2) f:float32 when:timestamp[us, tz=UTC] ok:bool data:binary small:int16", got.columns())
	require.Equal(t, []string{
		`00501|7|12.5|1|2024-02-29T00:00:00Z|true|\x6869|5`, `1|\N|-0.05|NaN|2024-02-29T01:02:03Z|false|\x|-5`,
	}, got.texts)

	for column, as := range map[string]string{"zip": "bool", "price": "decimal(3,2)", "f": "date", "data": "int64", "small": "timestamp"} {
		_, err := readAll(t, SourceConfig{Path: path, Columns: map[string]string{column: as}})
		e := coded(t, err, messages.CodeRowBroken, connectors.KindData)
		require.Equal(t, column, e.Place.Field)
		require.EqualValues(t, 1, e.Place.Row)
		require.Contains(t, e.Next, "columns: {"+column+": text}")
	}
	_, err = readAll(t, SourceConfig{Path: path, Columns: map[string]string{"nosuch": "text"}})
	coded(t, err, messages.CodeSchemaColumn, connectors.KindSchema)
}

func TestNullValues(t *testing.T) {
	path := put(t, t.TempDir(), "x.csv", "a,b,c\nNULL,NULL,\n1,x,\"\"\n2,\"NULL\",-\n")
	got, err := readAll(t, SourceConfig{Path: path, CSV: CSVConfig{NullValues: []string{"NULL", "", "-"}}})
	require.NoError(t, err)
	require.Equal(t, "a:int64 b:utf8 c:utf8", got.columns())
	require.Equal(t, []string{`\N|\N|\N`, `1|x|`, `2|NULL|\N`}, got.texts)
	got, err = readAll(t, SourceConfig{Path: path})
	require.NoError(t, err)
	require.Equal(t, "a:utf8 b:utf8 c:utf8", got.columns())
}

func TestBrokenCSVRowsNameTheirRow(t *testing.T) {
	for name, c := range map[string]struct {
		content, want string
		row           int64
	}{
		"too few fields":        {"a,b,c\n1,2,3\n4,5\n", "2 fields, the header has 3", 2},
		"too many fields":       {"a,b\n1,2\n3,4\n5,6,7\n", "3 fields, the header has 2", 3},
		"text behind a quote":   {"a,b\n\"x\"y,2\n", "behind its closing quote", 1},
		"quote that never ends": {"a,b\n1,2\n\"x,2\n3,4\n", "never closed", 2},
		"not UTF-8":             {"a,b\n1,2\ncaf\xe9,2\n", "not valid UTF-8", 2},
		"half a character":      {"a,b\n\xc3,\xa9\n", "not valid UTF-8", 1},
	} {
		_, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.csv", c.content)})
		require.ErrorContains(t, err, c.want, name)
		e := coded(t, err, messages.CodeRowBroken, connectors.KindData)
		require.Equal(t, c.row, e.Place.Row, name)
		require.Contains(t, e.Place.File, "x.csv")
	}
}

func TestCSVHeaders(t *testing.T) {
	dir := t.TempDir()
	for content, code := range map[string]messages.Code{
		"a,,c\n1,2,3\n": messages.CodeSchemaName, "a,b,a\n1,2,3\n": messages.CodeSchemaName,
		"": messages.CodeSchemaEmpty, "\xef\xbb\xbf": messages.CodeSchemaEmpty, "\n\n": messages.CodeSchemaEmpty,
	} {
		_, err := readAll(t, SourceConfig{Path: put(t, dir, "x.csv", content)})
		coded(t, err, code, connectors.KindSchema)
	}
	for content, want := range map[string][]string{
		"a,b\n":                            nil,
		"a,b":                              nil,
		"\xef\xbb\xbfa,b\r\n1,2\r\n":       {"1|2"},
		"a,b\n1,2\n\n\n":                   {"1|2"},
		"a,b\n1,2\r":                       {"1|2"},
		"\n\na,b\n1,2":                     {"1|2"},
		"\"a\",\"b\"\n\"1\",\"2\"\n":       {"1|2"},
		"\"a\",b\r\n\"x\r\ny\",\"\"\"\"\n": {"x\\r\\ny|\""},
		"a,b\nx\"y,\" z\"\n":               {"x\"y| z"},
	} {
		got, err := readAll(t, SourceConfig{Path: put(t, dir, "x.csv", content)})
		require.NoError(t, err, "%q", content)
		require.Equal(t, want, got.texts, "%q", content)
		require.Equal(t, []string{"a", "b"}, fieldNames(got))
	}
	no := false
	got, err := readAll(t, SourceConfig{Path: put(t, dir, "x.csv", "1;'x;''y'\n2;z\n"), CSV: CSVConfig{Header: &no, Delimiter: ";", Quote: "'"}})
	require.NoError(t, err)
	require.Equal(t, "column_1:int64 column_2:utf8", got.columns())
	require.Equal(t, []string{"1|x;'y", "2|z"}, got.texts)
	got, err = readAll(t, SourceConfig{Path: put(t, dir, "x.csv", "a,b\n\"x,y\"\n"), CSV: CSVConfig{Quote: "none"}})
	require.NoError(t, err)
	require.Equal(t, []string{"\"x|y\""}, got.texts)
}

func TestSingleColumnKeepsBlankLinesAsRows(t *testing.T) {
	got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.csv", "n\n1\n\n3\n")})
	require.NoError(t, err)
	require.Equal(t, []string{"1", `\N`, "3"}, got.texts)
}

func TestColumnsOfFilesAreUnited(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "s/1.csv", "a,b\n1,x\n")
	put(t, dir, "s/2.csv", "c,a\n2.5,2\n")
	put(t, dir, "s/3.csv", "")
	put(t, dir, "s/4.jsonl", `{"b":"y","d":true}`)
	got, err := readAll(t, SourceConfig{Path: dir + "/s"})
	require.NoError(t, err)
	require.Equal(t, "a:int64 b:utf8 c:float64 d:bool", got.columns())
	require.Equal(t, []string{`1|x|\N|\N`, `2|\N|2.5|\N`, `\N|y|\N|true`}, got.texts)
}

func TestProjection(t *testing.T) {
	for name, content := range map[string]string{"x.csv": "a,b,c\n1,x,2.5\n2,y,3.5\n", "x.jsonl": "{\"a\":1,\"b\":\"x\",\"c\":2.5}\n{\"a\":2,\"b\":\"y\",\"c\":3.5}\n"} {
		c := SourceConfig{Path: put(t, t.TempDir(), name, content)}
		spec := connectors.StreamSpec{Stream: "s", Columns: []string{"c", "a"}}
		got, err := readStream(t, c, spec, wide, checkedMem(t))
		require.NoError(t, err)
		require.Equal(t, "c:float64 a:int64", got.columns())
		require.Equal(t, []string{"2.5|1", "3.5|2"}, got.texts)
		spec.Columns = []string{"a", "nosuch"}
		_, err = readStream(t, c, spec, wide, checkedMem(t))
		e := coded(t, err, messages.CodeSchemaColumn, connectors.KindSchema)
		require.Equal(t, "nosuch", e.Place.Field)
	}
}

// TestLateValueThatDoesNotFit puts the value behind what is sampled: the rows before
// it come out, then the error.
func TestLateValueThatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("id,v\n")
	for i := range 60_000 {
		fmt.Fprintf(&b, "%d,%d\n", i, i*7)
	}
	b.WriteString("60000,007\n60001,5\n")
	path := put(t, dir, "x.csv", b.String())
	src, err := NewSource(SourceConfig{Path: path})
	require.NoError(t, err)
	head := &inspector{source: src} // no budget: the head of the file only
	one, err := head.look(t.Context(), match{path: path, rel: "x.csv"})
	require.NoError(t, err)
	schema, _, err := src.streamSchema("s", []inspected{one}, nil)
	require.NoError(t, err)
	encoded, err := encodeSchema(schema)
	require.NoError(t, err)
	sp, err := split{Path: path, Format: FormatCSV, fingerprint: one.mark, Schema: encoded, CSV: one.dialect}.encode()
	require.NoError(t, err)
	part := connectors.Part{ID: "s/x", Streams: []messages.StreamID{"s"}, Split: sp}
	got, barriers, err := readPart(t, src, part, messages.Position{}, wide, checkedMem(t))
	e := coded(t, err, messages.CodeRowBroken, connectors.KindData)
	require.EqualValues(t, 60_001, e.Place.Row)
	require.Equal(t, "v", e.Place.Field)
	require.ErrorContains(t, err, `"007" is no int64`)
	require.Len(t, got, 60_000)
	last := barriers[len(barriers)-1].Position
	_, _, err = readPart(t, src, part, last, wide, checkedMem(t))
	require.EqualValues(t, 60_001, coded(t, err, messages.CodeRowBroken, connectors.KindData).Place.Row, "resumed behind the good rows")
}

func TestEveryPositionResumesExactly(t *testing.T) {
	var b strings.Builder
	b.WriteString("id,text\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "%d,\"é %d \"\"q\"\"\r\n%s\"\n", i, i, strings.Repeat("x", i%90))
	}
	plain := b.String()
	for name, content := range map[string]string{"x.csv": plain, "x.csv.gz": string(gzipped(t, []byte(plain)))} {
		src, err := NewSource(SourceConfig{Path: put(t, t.TempDir(), name, content)})
		require.NoError(t, err)
		part := planOf(t, src, connectors.StreamSpec{Stream: "s"}, connectors.Recovered{}).Loads[0].Parts[0]
		mem := checkedMem(t)
		all, barriers, err := readPart(t, src, part, messages.Position{}, connectors.Limits{BatchRows: 61, BatchBytes: 4000, RowBytes: 1000}, mem)
		require.NoError(t, err)
		require.Len(t, all, 3000)
		at := 0
		for i, bar := range barriers {
			at += int(bar.Rows)
			if i%5 != 0 {
				continue
			}
			rest, _, err := readPart(t, src, part, bar.Position, wide, mem)
			require.NoError(t, err)
			require.Equal(t, all[at:], append([]string{}, rest...), name)
		}
	}
}

func TestRowsOverTheLimitAreNamed(t *testing.T) {
	long := strings.Repeat("x", 300_000)
	for name, content := range map[string]string{
		"x.csv": "a,b\n1,x\n2," + long + "\n", "x.jsonl": "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"" + long + "\"}\n",
	} {
		c := SourceConfig{Path: put(t, t.TempDir(), name, content)}
		limits := connectors.Limits{BatchRows: 100, BatchBytes: 10_000, RowBytes: 100_000}
		got, err := readStream(t, c, connectors.StreamSpec{Stream: "s"}, limits, checkedMem(t))
		e := coded(t, err, messages.CodeRowTooLarge, connectors.KindData)
		require.EqualValues(t, 2, e.Place.Row)
		require.Equal(t, []string{"1|x"}, got.texts)
		limits.RowBytes = 400_000
		got, err = readStream(t, c, connectors.StreamSpec{Stream: "s"}, limits, checkedMem(t))
		require.NoError(t, err, "a row larger than a batch is a batch of its own")
		require.Len(t, got.texts, 2)
	}
}

func TestTruncatedCompressedFilesAreDamaged(t *testing.T) {
	var b strings.Builder
	b.WriteString("id,v\n")
	for i := range 200_000 {
		fmt.Fprintf(&b, "%d,%x\n", i, i*i)
	}
	zipped := gzipped(t, []byte(b.String()))
	cut := zipped[:len(zipped)-len(zipped)/20]
	_, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.csv.gz", string(cut))})
	coded(t, err, messages.CodeFileDamaged, connectors.KindData)
	require.ErrorContains(t, err, "rows: ")
	require.ErrorContains(t, err, "unexpected EOF")

	// two members are one file, bytes behind them are not part of it
	two := append(gzipped(t, []byte("a,b\n1,2\n")), gzipped(t, []byte("3,4\n"))...)
	got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "noextension", string(two)), Format: FormatCSV})
	require.NoError(t, err)
	require.Equal(t, []string{"1|2", "3|4"}, got.texts)
	_, err = readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.csv", string(append(two, "garbage"...)))})
	coded(t, err, messages.CodeFileDamaged, connectors.KindData)
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"a,b\n1,2\n", "a\n\"x\"\"y\"\n", "a,b\r\n\"\r\n\",\n", "\xef\xbb\xbfa\n1\n\n", "a,b\n1,2024-01-01\n,\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		c := SourceConfig{Path: put(t, t.TempDir(), "x.csv", content)}
		got, err := readAll(t, c)
		if err != nil {
			requireTyped(t, err)
			return
		}
		small := connectors.Limits{BatchRows: 2, BatchBytes: 64, RowBytes: 1 << 20}
		again, err := readStream(t, c, connectors.StreamSpec{Stream: "s"}, small, checkedMem(t))
		require.NoError(t, err)
		require.Equal(t, got.texts, again.texts, "the size of batches changes nothing")
	})
}
