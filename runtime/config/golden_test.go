package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

func transcript(failures []messages.Failure) string {
	var b strings.Builder
	for _, f := range failures {
		fmt.Fprintf(&b, "%s:%d:%d %s %s\n    %s\n", filepath.Base(f.Where.File), f.Where.Line, f.Where.Column, f.Code, f.Where.Field, f.What)
		if f.Next != "" {
			fmt.Fprintf(&b, "    -> %s\n", f.Next)
		}
	}
	return b.String()
}

// Every sample of the format parses unchanged, and says position by position what
// this version does not have; the two that are refused name every problem.
func TestGoldenRapidbyteDocuments(t *testing.T) {
	files, err := filepath.Glob("testdata/rapidbyte/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 8)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			doc, err := config.Parse(file, text, catalogue(), env(servers))
			if name == "broken" || name == "sqlite-state" {
				var p config.Problems
				require.ErrorAs(t, err, &p)
				golden(t, name+".golden", transcript(p))
				return
			}
			require.NoError(t, err)
			require.NotContains(t, fmt.Sprintf("%+v %#v", doc, doc), "s3cret-canary")
			golden(t, name+".golden", transcript(doc.Unavailable()))
		})
	}
}
