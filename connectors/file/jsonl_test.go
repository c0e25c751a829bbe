package file

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

func TestPublicJSONLinesKeepTheirFacts(t *testing.T) {
	got, err := readAll(t, SourceConfig{Path: "testdata/penguins/penguins.jsonl"})
	require.NoError(t, err)
	require.Len(t, got.texts, 344)
	require.Equal(t, "Species:utf8 Island:utf8 Beak Length (mm):float64 Beak Depth (mm):float64 Flipper Length (mm):int64 Body Mass (g):int64 Sex:utf8", got.columns())
	nulls := make([]int, 7)
	for _, row := range got.texts {
		for i, v := range strings.Split(row, "|") {
			if v == `\N` {
				nulls[i]++
			}
		}
	}
	require.Equal(t, []int{0, 0, 2, 2, 2, 2, 10}, nulls)

	got, err = readAll(t, SourceConfig{Path: "testdata/flights/flights-20k.jsonl.gz"})
	require.NoError(t, err)
	require.Len(t, got.texts, 20_000)
	require.True(t, strings.HasPrefix(got.columns(), "date:utf8 "), "a date with slashes stays text: %s", got.columns())

	_, err = readAll(t, SourceConfig{Path: "testdata/penguins/penguins.json"})
	require.ErrorContains(t, err, "this is a JSON array")
	require.EqualValues(t, 1, coded(t, err, messages.CodeRowBroken, connectors.KindData).Place.Row)
}

func TestJSONTypesAreInferredWithoutLosingAnything(t *testing.T) {
	for _, c := range []struct{ values, column, texts string }{
		{`1;-5;9223372036854775807;null`, "int64", `1;-5;9223372036854775807;\N`},
		{`1;2.5`, "float64", "1;2.5"},
		{`9007199254740993;2.5`, "json", "9007199254740993;2.5"},
		{`12345678901234567890`, "json", "12345678901234567890"},
		{`0.1234567890123456789`, "json", "0.1234567890123456789"},
		{`-0;1`, "float64", "-0;1"},
		{`"a";"2024-01-01";null`, "utf8", `a;2024-01-01;\N`},
		{`"a";1`, "json", `"a";1`},
		{`true;false`, "bool", "true;false"},
		{`true;1`, "json", "true;1"},
		{`{"b":[1, 2 ]};[ ]`, "json", `{"b":[1, 2 ]};[ ]`},
		{`{"b":"\u0041"};"x\ty"`, "json", `{"b":"\\u0041"};"x\\ty"`},
		{`"\u0041\n\"\\\/\ud83d\ude80\u00e9é"`, "utf8", `A\n"\\/🚀éé`},
		{`null`, "utf8", `\N`},
		{`"\u0000"`, "utf8", "\x00"},
	} {
		content := ""
		for v := range strings.SplitSeq(c.values, ";") {
			content += ` { "a" : ` + v + "\t} \r\n\n"
		}
		got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.jsonl", content)})
		require.NoError(t, err, c.values)
		as := got.schema.Field(0).Type.String()
		if isJSON(got.schema.Field(0)) {
			as = "json"
		}
		require.Equal(t, c.column, as, c.values)
		require.Equal(t, strings.Split(c.texts, ";"), got.texts, c.values)
	}
}

func TestJSONKeys(t *testing.T) {
	got, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.jsonl", "{\"b\":1}\n{}\n{\"a\":\"x\",\"b\":2}\n{\"\\u0062\":3}\n")})
	require.NoError(t, err)
	require.Equal(t, "b:int64 a:utf8", got.columns(), "in the order in which they are seen")
	require.Equal(t, []string{`1|\N`, `\N|\N`, "2|x", `3|\N`}, got.texts)
}

func TestBrokenJSONRowsNameTheirRow(t *testing.T) {
	for content, want := range map[string]string{
		`{"a":1`:                 "not closed",
		`{"a":1}}`:               "more behind the object",
		`{"a":01}`:               "not a JSON number",
		`{"a":1 2}`:              "expected a comma",
		`{"a":1,}`:               "expected a key",
		`{"a" 1}`:                "colon",
		`{"a":1,"a":2}`:          "stands twice",
		`{"a":"\ud800"}`:         "lone surrogate",
		`{"a":"\x"}`:             "invalid escape",
		`{"a":"` + "\x01" + `"}`: "control character",
		`{"a":"` + "\xff" + `"}`: "not valid UTF-8",
		`{"a":[1,}`:              "not valid JSON",
		`{"a":[1 2]}`:            "not valid JSON",
		`nonsense`:               "expected an object",
		`{"a":tru}`:              "expected a value",
		`{"a":1.}`:               "not a JSON number",
		`{"a":"x` + "\n" + `y"}`: "not closed on its line",
	} {
		_, err := readAll(t, SourceConfig{Path: put(t, t.TempDir(), "x.jsonl", "{\"a\":null}\n"+content+"\n")})
		require.ErrorContains(t, err, want, content)
		e := coded(t, err, messages.CodeRowBroken, connectors.KindData)
		require.EqualValues(t, 2, e.Place.Row, content)
	}
}

func TestDeclaredJSONColumns(t *testing.T) {
	path := put(t, t.TempDir(), "x.jsonl", `{"a":"\ud800","d":"2024-02-29","n":"5","p":1.50,"t":12}`+"\n")
	got, err := readAll(t, SourceConfig{Path: path, Columns: map[string]string{
		"a": "json", "d": "date", "n": "int64", "p": "decimal(5,2)", "t": "text", "never": "bool",
	}})
	require.NoError(t, err)
	require.Equal(t, "a:utf8 d:date32 n:int64 p:decimal(5, 2) t:utf8 never:bool", got.columns())
	require.Equal(t, []string{`"\\ud800"|2024-02-29|5|1.5|12|\N`}, got.texts)
}

func TestKeyUnknownAfterTheSampleIsAnError(t *testing.T) {
	var b strings.Builder
	for range 40_000 {
		b.WriteString("{\"a\":1}\n")
	}
	b.WriteString("{\"a\":1,\"late\":2}\n")
	path := put(t, t.TempDir(), "x.jsonl", b.String())
	src, err := NewSource(SourceConfig{Path: path})
	require.NoError(t, err)
	one, err := (&inspector{source: src}).look(t.Context(), match{path: path, rel: "x"})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, one.names)
	schema, _, err := src.streamSchema("s", []inspected{one}, nil)
	require.NoError(t, err)
	encoded, err := encodeSchema(schema)
	require.NoError(t, err)
	sp, err := split{Path: path, Format: FormatJSONL, fingerprint: one.mark, Schema: encoded}.encode()
	require.NoError(t, err)
	got, _, err := readPart(t, src, connectors.Part{Streams: []messages.StreamID{"s"}, Split: sp}, messages.Position{}, wide, checkedMem(t))
	e := coded(t, err, messages.CodeRowBroken, connectors.KindData)
	require.EqualValues(t, 40_001, e.Place.Row)
	require.Equal(t, "late", e.Place.Field)
	require.Len(t, got, 40_000)
}

func FuzzJSONL(f *testing.F) {
	for _, seed := range []string{`{"a":1}`, `{"a":"\u0041","b":[1,{}]}`, "{}\n\n{\"x\":null}", `{"a":-1.5e3}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		path := put(t, t.TempDir(), "x.jsonl", content)
		_, err := readAll(t, SourceConfig{Path: path})
		if err != nil {
			requireTyped(t, err)
			return
		}
		for line := range strings.SplitSeq(content, "\n") {
			if strings.TrimSpace(strings.TrimPrefix(line, "\xef\xbb\xbf")) != "" {
				require.True(t, json.Valid([]byte(strings.TrimPrefix(line, "\xef\xbb\xbf"))), "read, but is no JSON: %q", line)
			}
		}
		require.NoError(t, os.Remove(path))
	})
}
