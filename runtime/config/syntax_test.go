package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

func TestRefusedStructure(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []refusal
	}{
		"nothing":           {"", []refusal{{"1:1", messages.CodeDocMissing, "", "empty"}}},
		"only a comment":    {"# x\n", []refusal{{"1:1", messages.CodeDocMissing, "", "empty"}}},
		"a list":            {"- a\n", []refusal{{"1:1", messages.CodeDocValue, "", "found a list, expected a mapping with the keys version, pipeline"}}},
		"a word":            {"a\n", []refusal{{"1:1", messages.CodeDocValue, "", `found "a"`}}},
		"second document":   {minimal + "---\n" + minimal, []refusal{{"8:1", messages.CodeDocSyntax, "", "found a second document"}}},
		"broken second one": {minimal + "---\na: [\n", []refusal{{"9:1", messages.CodeDocSyntax, "", "not valid YAML"}}},
		"NUL":               {"version: \"1.0\"\npipeline: a\x00b\n", []refusal{{"2:12", messages.CodeDocSyntax, "", "NUL"}}},
		"not UTF-8":         {"a: \xff\n", []refusal{{"1:4", messages.CodeDocSyntax, "", "not UTF-8"}}},
		"UTF-16":            {"\xff\xfea\x00:\x00", []refusal{{"1:4", messages.CodeDocSyntax, "", "NUL"}}},
		"tab":               {"a:\n\tb: c\n", []refusal{{"2:2", messages.CodeDocSyntax, "", "indent with spaces, not tabs"}}},
		"two colons":        {"a: b: c\n", []refusal{{"1:1", messages.CodeDocSyntax, "", "put quotes around a text that holds"}}},
		"open bracket":      {"a: [b\n", []refusal{{"1:1", messages.CodeDocSyntax, "", "check that brackets and quotes are closed"}}},
		"anchor and alias": {with("state: &x {backend: bbolt}", "resources: *x"), []refusal{
			{"8:8", messages.CodeDocSyntax, "state", "a YAML anchor"},
			{"9:12", messages.CodeDocSyntax, "resources", "a YAML alias"},
		}},
		"unknown alias": {with("state: *x"), []refusal{{"8:8", messages.CodeDocSyntax, "", "a YAML alias"}}},
		"merge key":     {with("state: {<<: {backend: bbolt}}"), []refusal{{"8:9", messages.CodeDocSyntax, "state", "a YAML merge key"}}},
		"tag":           {with("state: {backend: !!str bbolt}"), []refusal{{"8:18", messages.CodeDocSyntax, "state.backend", "a YAML tag"}}},
		"beside the rest": {with("state: &x {}", "extra: 1"), []refusal{
			{"8:8", messages.CodeDocSyntax, "state", "a YAML anchor"},
			{"9:1", messages.CodeDocKey, "extra", "unknown key"},
		}},
	} {
		t.Run(name, func(t *testing.T) { requireRefused(t, c.text, nil, c.want...) })
	}
}

func TestByteOrderMarkAndWindowsLineEndsAreFine(t *testing.T) {
	good(t, "\ufeff"+strings.ReplaceAll(minimal, "\n", "\r\n"), nil)
}

func TestDepthIsBounded(t *testing.T) {
	nested := func(n int) string {
		return with("transforms: [{use: a/b, config: {x: " + strings.Repeat("[", n) + strings.Repeat("]", n) + "}}]")
	}
	good(t, nested(96), nil)
	_, problems := parse(t, nested(97), nil)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].What, "nested deeper than 100 levels")
}

// bombs are small texts that some parser makes much of.
func bombs() map[string]string {
	laughs := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'z'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	return map[string]string{
		"laughs":      laughs,
		"itself":      "a: &a [*a]\n",
		"merges":      "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b, *b]}\n",
		"brackets":    strings.Repeat("[", 1<<20),
		"braces":      strings.Repeat("{a: ", 1<<18),
		"questions":   strings.Repeat("? ", 1<<18),
		"dashes":      strings.Repeat("- ", 1<<18),
		"indentation": strings.Repeat(" ", 1<<20) + "a",
		"commas":      "a: [" + strings.Repeat(",", 4<<20) + "]",
		"lines":       strings.Repeat("\n", 1<<20) + "a",
	}
}

func TestBombsAreRefusedAtOnce(t *testing.T) {
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			const limit = 100 * time.Millisecond * slack
			best := time.Hour
			for try := 0; try < 50 && best >= limit; try++ { // the machine may be busy; the parser has only to be fast once
				start := time.Now()
				_, err := config.Parse("p.yaml", []byte(text), catalogue(), env(nil))
				best = min(best, time.Since(start))
				require.Error(t, err)
				require.Less(t, len(err.Error()), 1<<20)
			}
			require.Less(t, best, limit)
		})
	}
}

func TestSizeIsBounded(t *testing.T) {
	comment := "# " + strings.Repeat("x", 97) + "\n"
	comment = strings.Repeat("# a, b: [c]\n", (8<<20-len(minimal)-len(comment))/12) + comment
	comment += strings.Repeat("\n", 8<<20-len(minimal)-len(comment))
	require.Len(t, minimal+comment, 8<<20)
	good(t, minimal+comment, nil)
	requireRefused(t, minimal+comment+"\n", nil, refusal{"1:1", messages.CodeDocRead, "", "larger than 8 MiB"})
	_, problems := parse(t, strings.Repeat("a: 1\n", 1<<18)+"b: 1\n", nil)
	require.Len(t, problems, 1)
	require.Equal(t, messages.CodeDocRead, problems[0].Code)
	require.Contains(t, problems[0].What, "expected at most 262144")
}

func TestProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	_, problems := parse(t, with(b.String()), nil)
	require.Len(t, problems, 1001)
	require.Contains(t, problems[1000].What, "more than 1000 problems")
}

func TestProblemsAreAnErrorOfFailures(t *testing.T) {
	_, err := config.Parse("p.yaml", []byte(with("extra: 1", "state: x")), catalogue(), env(nil))
	require.EqualError(t, err, "p.yaml:8:1: RB-2002 extra: unknown key \"extra\", expected version, pipeline, source, transforms, destination, state or resources\n"+
		"p.yaml:9:8: RB-2003 state: found \"x\", expected a mapping with the keys backend, connection or lease_ttl")
	f, ok := errors.AsType[messages.Failure](err)
	require.True(t, ok)
	require.Equal(t, messages.CodeDocKey, f.Code)
}

func TestLoadReadsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	require.NoError(t, os.WriteFile(path, []byte(minimal), 0o600))
	doc, err := config.Load(path, catalogue(), env(nil))
	require.NoError(t, err)
	require.Equal(t, path, doc.Place("pipeline").File)

	for _, missing := range []string{path + "x", filepath.Dir(path)} {
		_, err = config.Load(missing, catalogue(), env(nil))
		var p config.Problems
		require.ErrorAs(t, err, &p)
		require.Len(t, p, 1)
		require.Equal(t, messages.CodeDocRead, p[0].Code)
		require.Equal(t, messages.Place{File: missing}, p[0].Where)
		require.Contains(t, p[0].Error(), "the document cannot be read: ")
	}

	require.NoError(t, os.WriteFile(path, make([]byte, 9<<20), 0o600))
	_, err = config.Load(path, catalogue(), env(nil))
	require.ErrorContains(t, err, "larger than 8 MiB")
}

// FuzzParse: whatever the text, Parse returns a document or problems with a place,
// never both, and never shows the environment.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/rapidbyte/*.yaml")
	require.NoError(f, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	for _, text := range accepted {
		f.Add([]byte(text))
	}
	for name, text := range bombs() {
		if len(text) < 1<<16 {
			f.Add([]byte(text))
		} else {
			f.Add([]byte(text[:64] + name))
		}
	}
	for _, text := range []string{"", "---\n---\n", "a: *b", "a: !!binary x", "{? [a]: b}", "\"${V}\": ${V", "a: |\n  x\n", "%YAML 1.1\n---\na: b\n", server(`host: "${V}", port: "${V}"`)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := config.Parse("p.yaml", text, catalogue(), env(map[string]string{"V": canaryValue, "SRC_PORT": "1", "SRC_HOST": canaryValue}))
		if err == nil {
			require.NotNil(t, doc)
			for _, f := range doc.Unavailable() {
				require.Positive(t, f.Where.Line)
			}
			doc.Specs()
			return
		}
		require.Nil(t, doc)
		var p config.Problems
		require.ErrorAs(t, err, &p)
		require.NotEmpty(t, p)
		for _, f := range p {
			require.Positive(t, f.Where.Line, "%v", f)
			require.Positive(t, f.Where.Column, "%v", f)
			require.NotContains(t, f.Error()+f.Next, canaryValue)
		}
	})
}

// canaryValue is no text that a fuzzer invents.
const canaryValue = "q8Zr-hunter2-canary-w3Tx"
