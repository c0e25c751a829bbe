package conntest

import (
	"math"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

func TestTypeCasesHaveCanonicalText(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	got := make(map[string][]string)
	for _, c := range TypeCases() {
		rec, err := c.build(mem)
		require.NoError(t, err, c.Name)
		require.NotContains(t, got, c.Name, "a name is used once")
		got[c.Name] = RowTexts(rec)
		require.Len(t, got[c.Name], len(c.Values))
		rec.Release()
	}
	for name, want := range map[string][]string{
		"bool":           {"1|true", "2|false", `3|\N`},
		"uint64":         {"1|0", "2|18446744073709551615", `3|\N`},
		"float64":        {"1|0.1", "2|-1.7976931348623157e+308", "3|5e-324", "4|NaN", "5|Infinity", "6|-Infinity", `7|\N`},
		"binary":         {`1|\x`, `2|\x00ff0a0d2c2227`, `3|\N`},
		"date32":         {"1|1970-01-01", "2|0001-01-01", "3|9999-12-31", "4|1969-12-31", "5|2024-02-29", `6|\N`},
		"timestamp_us":   {"1|2024-02-29T12:34:56.789012", "2|0001-01-01T00:00:00.000001", `3|\N`},
		"timestamptz_us": {"1|2024-02-29T12:34:56.789012Z", "2|1969-12-31T23:59:59.999999Z", `3|\N`},
		"time64_us":      {"1|00:00:00.000001", "2|23:59:59.999999", `3|\N`},
		"decimal128":     {"1|12345678901234567890123456789.123456789", "2|-0.000000001", "3|1.5", "4|0", `5|\N`},
		"uuid":           {"1|00112233-4455-6677-8899-aabbccddeeff", `2|\N`},
		"dictionary":     {"1|red", "2|green", "3|red", `4|\N`},
		"list":           {"1|[1,2,3]", "2|[]", `3|[\N]`, `4|\N`},
		"struct":         {"1|{a:1,b:x}", `2|{a:\N,b:y}`, `3|\N`},
		"map":            {"1|{a:1}", `2|\N`},
	} {
		require.Equal(t, want, got[name], name)
	}
	require.Contains(t, got["text"], `10|a\pb;c`)
	require.Contains(t, got["text"], "7|tab\tline\\nfeed\\r\\n")
	require.Contains(t, got["text"], `8|back\\slash \\N`, "a text that looks like a missing value is not one")
}

func TestTextOfGoValuesAgreesWithArrow(t *testing.T) {
	at := time.Date(2024, 2, 29, 12, 34, 56, 789_000_000, time.FixedZone("X", 3600))
	for _, c := range []struct {
		value any
		want  string
	}{
		{nil, Null},
		{true, "true"},
		{int32(-7), "-7"},
		{uint64(math.MaxUint64), "18446744073709551615"},
		{"a|b", `a\pb`},
		{[]byte{0, 255}, `\x00ff`},
		{float32(0.1), "0.1"},
		{0.1, "0.1"},
		{math.Inf(-1), "-Infinity"},
		{math.NaN(), "NaN"},
		{at, "2024-02-29T12:34:56.789"},
	} {
		require.Equal(t, c.want, Text(c.value))
	}
	require.Equal(t, "2024-02-29T11:34:56.789Z", Instant(at))
	for in, want := range map[string]string{"1.500": "1.5", "10.000": "10", "100": "100", "-0.00": "0", "0.10": "0.1"} {
		require.Equal(t, want, DecimalText(in))
	}
}

func TestBuildRefusesValuesThatDoNotFit(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	schema := arrow.NewSchema([]arrow.Field{{Name: "d", Type: arrow.FixedWidthTypes.Date32, Nullable: true}}, nil)
	for _, rows := range [][][]any{{{"yesterday"}}, {{[]byte("x")}}, {{"2024-01-01", 2}}, {{true}}} {
		_, err := Build(mem, schema, rows)
		require.Error(t, err, "%v", rows)
	}
	rec, err := Build(mem, schema, [][]any{{"2024-01-01"}, {nil}})
	require.NoError(t, err)
	require.Equal(t, []string{"2024-01-01", Null}, RowTexts(rec))
	rec.Release()
}
