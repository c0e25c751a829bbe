package query

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// combination is a query and what makes it one.
type combination struct {
	name string
	Stream
}

var (
	cursorKey = Key{Column: "c", Type: `"pg_catalog"."int4"`}
	textKey   = Key{Column: "a", Type: `"pg_catalog"."text"`}
	numberKey = Key{Column: "b", Type: `"pg_catalog"."numeric"`}
	otherKey  = Key{Column: "x", Type: `"ext"."citext"`, Schema: "ext"}
)

// choice is one way to fill one part of a query.
type choice struct {
	name string
	set  func(*Stream)
}

func cross(base []combination, choices ...choice) []combination {
	var out []combination
	for _, c := range base {
		for _, ch := range choices {
			next := combination{name: strings.TrimSpace(c.name + " " + ch.name), Stream: c.Stream}
			if ch.set != nil {
				ch.set(&next.Stream)
			}
			out = append(out, next)
		}
	}
	return out
}

func orders(keys map[string][]Key) []choice {
	out := []choice{{name: "unordered"}}
	for _, name := range []string{"cursor", "cursor+1", "cursor+2", "cursor+other"} {
		if k, ok := keys[name]; ok {
			out = append(out, choice{name, func(s *Stream) { s.Order = k }})
		}
	}
	return out
}

var (
	projections = []choice{
		{"plain", func(s *Stream) { s.Columns = []Column{{Name: "id"}, {Name: "a"}} }},
		{"text", func(s *Stream) { s.Columns = []Column{{Name: "id"}, {Name: "c", Text: true}} }},
	}
	allOrders = orders(map[string][]Key{
		"cursor": {cursorKey}, "cursor+1": {cursorKey, textKey}, "cursor+2": {cursorKey, textKey, numberKey},
	})
	lowers = []choice{
		{"from-start", nil},
		{"resumed", func(s *Stream) { s.After = []string{"15", "m", "1.5"}[:len(s.Order)] }},
		{"lookback", func(s *Stream) { s.From, s.After, s.Again = new("10"), []string{"15", "m", "1.5"}[:len(s.Order)], true }},
	}
	uppers = []choice{{"unbounded", nil}, {"bounded", func(s *Stream) { s.UpTo = new("20") }}}
	nulls  = []choice{
		{"any", nil},
		{"some", func(s *Stream) { s.Nulls = NullsNone }},
		{"null", func(s *Stream) {
			s.Nulls = NullsOnly
			if len(s.After) > 0 {
				s.After = s.After[1:]
				for i := range s.After {
					s.After[i] = []string{"m", "1.5"}[i]
				}
			}
		}},
	}
	splits = []choice{
		{"whole", nil},
		{"first-blocks", func(s *Stream) { s.Blocks = &Blocks{To: 2} }},
		{"blocks", func(s *Stream) { s.Blocks = &Blocks{From: 2, To: 5} }},
		{"last-blocks", func(s *Stream) { s.Blocks = &Blocks{From: 5} }},
		{"first-range", func(s *Stream) { s.Range = &Range{Key: numberKey, To: new("2"), Nulls: true} }},
		{"range", func(s *Stream) { s.Range = &Range{Key: numberKey, From: new("2"), To: new("4")} }},
		{"last-range", func(s *Stream) { s.Range = &Range{Key: numberKey, From: new("4")} }},
		{"all-range", func(s *Stream) { s.Range = &Range{Key: numberKey, Nulls: true} }},
	}
	filters = []choice{{"", nil}, {"filtered", func(s *Stream) { s.Filter = "id % 2 = 0 -- even" }}}
	limits  = []choice{{"", nil}, {"limited", func(s *Stream) { s.Limit = 3 }}}
)

// combinations are all that make sense together.
func combinations() []combination {
	base := []combination{{Stream: Stream{Schema: "s.1", Table: `t "x"`}}}
	all := cross(cross(cross(cross(base, projections...), splits...), filters...), limits...)
	var out []combination
	for _, o := range allOrders {
		some := cross(all, o)
		if o.set == nil {
			out = append(out, some...)
			continue
		}
		out = append(out, cross(cross(cross(some, lowers...), uppers...), nulls...)...)
	}
	return out
}

func TestQueriesAreThoseOfTheTranscript(t *testing.T) {
	base := []combination{{Stream: Stream{Schema: "public", Table: "orders"}}}
	cases := cross(cross(cross(cross(base, projections...), splits...), filters...), limits...)
	ordered := orders(map[string][]Key{
		"cursor": {cursorKey}, "cursor+1": {cursorKey, textKey}, "cursor+2": {cursorKey, textKey, numberKey}, "cursor+other": {cursorKey, otherKey, textKey},
	})[1:]
	cases = append(cases, cross(cross(cross(cross(cross(base, projections[0]), ordered...), lowers...), uppers...), nulls...)...)
	cases = append(cases, cross(cross(cross(cross(cross(cross(cross(cross(base, projections[1]), splits[2]), filters[1]), ordered[1]), lowers[1]), uppers[1]), nulls...), limits[1])...)
	var got strings.Builder
	for _, c := range cases {
		sql, err := Select(c.Stream)
		require.NoError(t, err)
		again, err := Select(c.Stream)
		require.NoError(t, err)
		require.Equal(t, sql, again)
		fmt.Fprintf(&got, "%s\n----\n%s\n\n", c.name, sql)
	}
	path := filepath.Join("testdata", "select.txt")
	if os.Getenv("RB_UPDATE") != "" {
		require.NoError(t, os.WriteFile(path, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

func TestWhatCannotBeWrittenIsRefused(t *testing.T) {
	ok := Stream{Schema: "s", Table: "t", Columns: []Column{{Name: "a"}}}
	_, err := Select(ok)
	require.NoError(t, err)
	for name, spoil := range map[string]func(*Stream){
		"no columns":       func(s *Stream) { s.Columns = nil },
		"NUL in a name":    func(s *Stream) { s.Table = "a\x00b" },
		"NUL in a filter":  func(s *Stream) { s.Filter = "a = '\x00'" },
		"NUL in a literal": func(s *Stream) { s.Order, s.UpTo = []Key{textKey}, new("\x00") },
	} {
		s := ok
		spoil(&s)
		_, err := Select(s)
		require.Error(t, err, name)
	}
}

func TestCopyIsOnLinesOfItsOwn(t *testing.T) {
	require.Equal(t, "COPY (\nSELECT 1 -- x\n) TO STDOUT (FORMAT binary)", Copy("SELECT 1 -- x"))
}

// unquote reads what the server's scanner would.
func unquoteIdent(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	inner := s[1 : len(s)-1]
	if strings.Contains(strings.ReplaceAll(inner, `""`, ""), `"`) {
		return "", false
	}
	return strings.ReplaceAll(inner, `""`, `"`), true
}

func unquoteLiteral(s string) (string, bool) {
	if strings.HasPrefix(s, "$") {
		end := strings.Index(s[1:], "$")
		if end < 0 {
			return "", false
		}
		tag := s[:end+2]
		body := s[len(tag):]
		at := strings.Index(body, tag)
		return body[:max(at, 0)], at >= 0 && at+len(tag) == len(body)
	}
	if strings.Contains(s, `\`) || len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' {
		return "", false
	}
	inner := s[1 : len(s)-1]
	return strings.ReplaceAll(inner, "''", "'"), !strings.Contains(strings.ReplaceAll(inner, "''", ""), "'")
}

// nasty are texts that quoting must survive.
var nasty = []string{
	"", " ", "a", "A", `"`, `""`, "'", "''", `\`, `\'`, `'\`, "$$", "$q0$", `\$q0`, `\$q0$q1`, `\$q0$ $q1$`, "--", "/*", "*/", ";", "\n", "\r\n", "\t", "é", "日本語", "🚀", "\u202eabc",
	"select", "1abc", "a.b", "a$b", `"; DROP TABLE x;--`, `'; DROP TABLE x;--`, `\'; DROP TABLE x;--`, strings.Repeat("x", 63), "U&\"", "E'",
}

func FuzzQuoting(f *testing.F) {
	for _, s := range nasty {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := unquoteIdent(Ident(s))
		require.True(t, ok, "%q", Ident(s))
		require.Equal(t, s, got)
		got, ok = unquoteLiteral(Literal(s))
		require.True(t, ok, "%q", Literal(s))
		require.Equal(t, s, got)
	})
}
