package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// requireGolden compares got with a file; RB_UPDATE=1 rewrites the file instead.
func requireGolden(t require.TestingT, path, got string) {
	if os.Getenv("RB_UPDATE") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "%s differs; RB_UPDATE=1 rewrites it", path)
}

// normalised replaces what differs from run to run.
func normalised(text, work string) string {
	for _, r := range []struct{ pattern, with string }{
		{regexp.QuoteMeta(work) + `/?`, "$WORK/"},
		{`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, "UUID"},
		{`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`, "RUN"},
		{`"elapsed_ms": \d+`, `"elapsed_ms": 0`},
		{`in \d[\d.]* (ms|s)\b`, "in TIME"},
		{`after \d[\d.]* (ms|s)\b`, "after TIME"},
		{`process \d+`, "process PID"},
		{`\d{4}-\d\d-\d\dT[\d:.]+Z`, "INSTANT"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllLiteralString(text, r.with)
	}
	return text
}

const errorsHead = `# Errors and exit codes

Made from the catalogue in messages/codes.go; ` + "`RB_UPDATE=1 go test ./cmd/rapidbyte-node -run Golden`" + ` rewrites it.

Every error carries a stable code. On a terminal it reads

    ✗ RB-4002 The source is not there
      what    what was attempted
      where   document, stream, file, row or column
      why     the cause, as the failing system said it
      next →  what to do

and with ` + "`--output json`" + ` it is the ` + "`error`" + ` of the envelope: ` + "`code`, `exit_code`, `what`, `where`, `why`, `next`" + `, and
` + "`problems`" + ` when there are several. A code is never given a second meaning.

## Exit codes

The exit code of the process is the class of the first cause.

| exit code | codes | means |
|---|---|---|
`

// errorsPage is docs/ERRORS.md.
func errorsPage() string {
	var b strings.Builder
	b.WriteString(errorsHead)
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", e.code, e.codes, e.means)
	}
	exit := -1
	for _, c := range messages.Codes() {
		if e := c.Code.Exit(); e != exit {
			exit = e
			fmt.Fprintf(&b, "\n## Exit code %d\n", exit)
		}
		fmt.Fprintf(&b, "\n### %s %s\n\n%s\n\n**Next:** %s\n", c.Code, c.Title, c.Means, c.Next)
	}
	return b.String()
}

func TestGoldenErrorsPage(t *testing.T) {
	requireGolden(t, "../../docs/ERRORS.md", errorsPage())
}

func TestEveryCodeHasAnExitCodeOfTheTable(t *testing.T) {
	listed := map[int]bool{}
	for _, e := range exitCodes {
		listed[e.code] = true
	}
	for _, c := range messages.Codes() {
		require.True(t, listed[c.Code.Exit()], "%s has exit code %d", c.Code, c.Code.Exit())
		require.NotEmpty(t, c.Title, c.Code)
		require.NotEmpty(t, c.Means, c.Code)
		require.NotEmpty(t, c.Next, c.Code)
	}
}

// Help is part of the interface: the exit codes are in it.
func TestGoldenHelp(t *testing.T) {
	for _, args := range []string{"--help", "run --help", "check --help", "discover --help", "init --help", "copy --help", "dlq --help", "dlq list --help", "dlq show --help", "dlq export --help", "dlq replay --help", "dlq purge --help", "state --help", "state show --help", "state reset --help", "state rewind --help", "state export --help", "state import --help", "state rebuild --help", "runs --help", "runs list --help", "runs show --help", "schema --help", "completion --help", "version --help", "help exit-codes"} {
		t.Run(args, func(t *testing.T) {
			r := invoke(t, nil, strings.Fields(args)...)
			require.Zero(t, r.code)
			require.Empty(t, r.stderr)
			name := strings.NewReplacer("--", "", " ", "-").Replace(args)
			requireGolden(t, filepath.Join("testdata", "help", name+".txt"), r.stdout)
		})
	}
}
